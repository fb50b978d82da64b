"""The published trainer's optimizer steps, rebuilt from a seed (tests/golden/README.md, Training steps)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fdta.boxes import xyxy_to_cxcywh
from fdta.data.clips import ClipBatch
from fdta.data.identities import IdentityGroups
from fdta.data.images import IMAGE_MEAN, IMAGE_STD
from fdta.data.targets import Targets
from fdta.experiment.params import PRESETS
from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA
from fdta.model.published import settings_of
from fdta.model.weights import from_published
from fdta.settings import expand, read_settings, read_yaml, to_plain
from fdta.train import tracker
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor
from fdta.train.tracker import TrackerObjective
from helpers.golden_weights import load_golden, seeded_state_dict

LOSSES = {
    "loss": "total",
    "id_loss": "association",
    "loss_contrastive": "identity",
    "loss_depth_map": "depth",
    "loss_ce": "classification",
    "loss_bbox": "l1",
    "loss_giou": "giou",
}
"""Published name -> ours, without the suffix of the decoder layer."""


@dataclass
class Steps:
    """What a training did: numbers by column of the golden file, a row a batch or a step."""

    losses: list[dict[str, float]] = field(default_factory=list)
    gradient_norms: list[list[float]] = field(default_factory=list)
    clipped_norms: list[list[float]] = field(default_factory=list)
    change_norms: list[list[float]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)


def image(seed: int, kind: int, number: int, frames: int, hw: tuple[int, int], channels: int) -> np.ndarray:
    """(T, H, W, channels) uint8 of clip `number`."""
    rng = np.random.default_rng([seed, kind, number])
    rows, columns = hw[0] // 16 + 1, hw[1] // 16 + 1
    still = rng.integers(0, 256, (1, rows, columns, channels))
    lattice = 3 * still + rng.integers(0, 256, (frames, rows, columns, channels))
    y, x = np.arange(hw[0])[:, None], np.arange(hw[1])[None]
    b, a = (x % 16)[..., None], (y % 16)[..., None]
    row, column = y // 16, x // 16
    upper = lattice[:, row, column] * (16 - b) + lattice[:, row, column + 1] * b
    lower = lattice[:, row + 1, column] * (16 - b) + lattice[:, row + 1, column + 1] * b
    return ((upper * (16 - a) + lower * a) // 1024).astype(np.uint8)


class GoldenTraining:
    """One training of a golden file, on our model, with the settings of the published trainer.

    Args:
        file: its name, without ".npz".
        name: of the training in it.
        dtype: the numbers to compute with, torch's default while this is used.
    """

    def __init__(self, file: str, name: str, dtype: torch.dtype, **changes: Any) -> None:
        self.golden, self.name, self.dtype = load_golden(file), name, dtype
        self.case = json.loads(str(self.golden["case"]))
        self.training = next(each for each in self.case["trainings"] if each["name"] == name)
        self.seed = int(self.golden["seed"])
        listed = [(each, tuple(shape)) for each, shape in json.loads(str(self.golden["names_and_shapes"]))]
        self.published = seeded_state_dict(listed, self.seed)
        for each, tensor in self.published.items():
            if each.endswith("sampling_offsets.weight"):
                tensor *= np.float32(0.1)
        self.settings = self._settings(changes)
        self.model = FDTA(self.settings)
        filled = from_published(self.published)
        absent, unexpected = self.model.load_state_dict(filled, strict=False)
        assert not unexpected and [each for each in absent if not each.endswith("bin_values")] == []
        self.model.to(dtype).train()

    def _settings(self, changes: dict[str, Any]) -> Settings:
        case, training = self.case, self.training
        shapes = {name: torch.empty(value.shape, device="meta") for name, value in self.published.items()}
        plain = to_plain(settings_of(from_published(shapes), "golden"))
        plain["history"] = case["frames"]
        plain["detector"] |= {"queries": case["queries"], "dropout": 0.0}
        plain["spatial"] |= {"dropout": 0.0}
        plain["temporal"] |= {"dropout": 0.0}
        plain["association"] |= {"labels": case["labels"]}
        preset = read_yaml(PRESETS)["published"]["settings"]
        plain["loss"] = expand(preset, "preset", PRESETS)["loss"] | {"foreground_weight": case["foreground_weight"]}
        plain["clip"] = {"groups": case["groups"]}
        plain["training"] = {
            "learning_rate": training["learning_rate"],
            "epochs": training["epochs"],
            "milestones": training["milestones"],
            "warmup_epochs": training["warmup_epochs"],
            "accumulate": training["accumulate"],
            "gradient_frames": case["gradient_frames"],
        }
        for key, values in changes.items():
            plain[key] |= values
        return read_settings(Settings, plain, "", "golden")

    def clip(self, number: int) -> ClipBatch:
        """Clip `number` in the numbers' type."""
        case, golden = self.case, self.golden
        frames, hw = case["frames"], tuple(case["hw"])
        pixels = torch.from_numpy(image(self.seed, 1, number, frames, hw, 3)).to(self.dtype).permute(0, 3, 1, 2)
        mean, deviation = (torch.tensor(values, dtype=self.dtype)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
        depth = torch.from_numpy(image(self.seed, 2, number, frames, hw, 1)[..., 0])
        boxes, present = golden["boxes_xyxy"][number].astype(np.float64), golden["present"][number]
        targets = [
            Targets(
                torch.from_numpy(xyxy_to_cxcywh(boxes[t, present[t]])).to(self.dtype),
                torch.from_numpy(np.flatnonzero(present[t])),
            )
            for t in range(frames)
        ]
        return ClipBatch(
            (pixels / 255 - mean) / deviation, torch.zeros(frames, *hw, dtype=torch.bool), depth, targets, (0,)
        )

    def groups(self, number: int) -> IdentityGroups:
        """The ID draws of clip `number`, of its objects that have any box."""
        seen = np.flatnonzero(self.golden["present"][number].any(axis=0))
        place = np.full(self.case["objects"], -1)
        place[seen] = np.arange(len(seen))

        def drawn(what: str) -> Tensor:
            return torch.from_numpy(self.golden[f"{self.name}_{what}"][number][..., seen])

        return IdentityGroups(
            drawn("trajectory_id_labels")[:, 0].long(),
            drawn("trajectory_id_masks"),
            drawn("unknown_id_masks"),
            torch.from_numpy(place)[drawn("switch_source").long()],
        )

    def run(self, monkeypatch: pytest.MonkeyPatch, steps: int | None = None) -> Steps:
        """Train for `steps` steps, by default all."""
        objective = TrackerObjective(self.model, self.settings)
        optimizer = build_optimizer(self.model, self.settings.training)
        rates = [group["lr"] for group in optimizer.param_groups]
        accumulate, batches = self.training["accumulate"], self.case["batches_per_epoch"]
        steps_per_epoch = batches // accumulate
        probes = self._probes()
        start = [probe().detach().clone() for probe in probes]
        done = Steps()
        monkeypatch.setattr(tracker, "optimized_detector", lambda detector, precision: detector)
        for step in range(steps or steps_per_epoch * self.training["epochs"]):
            factor = rate_factor(step, steps_per_epoch, self.settings.training)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
            for part in range(accumulate):
                number = step * accumulate + part
                order = torch.from_numpy(self.golden["frame_order"][number].astype(np.int64))
                with monkeypatch.context() as scripted:
                    scripted.setattr(torch, "randperm", lambda *_, order=order, **__: order)
                    scripted.setattr(tracker, "assign_identities", lambda *_, number=number: self.groups(number))
                    total, terms = objective(self.clip(number), number // batches)
                (total / accumulate).backward()
                done.losses.append({"total": total.item(), **{name: term.item() for name, term in terms.items()}})
            done.gradient_norms.append(self._norms())
            clip_gradients(self.model, self.settings.training)
            gradients = [probe().grad for probe in probes]
            done.clipped_norms.append([0.0 if grad is None else float(grad.norm()) for grad in gradients])
            optimizer.step()
            now = [probe().detach() for probe in probes]
            done.change_norms.append([float((new - old).norm()) for new, old in zip(now, start, strict=True)])
            done.samples.append(np.stack([self._sample(number, value) for number, value in enumerate(now)]))
        return done

    def _sample(self, probe: int, parameter: Tensor) -> np.ndarray:
        """Eight entries of a parameter, in the published layout."""
        published = self.published[json.loads(str(self.golden["probes"]))[probe]]
        if parameter.shape != published.shape:  # We keep the table of label embeddings row by row.
            parameter = parameter.T
        flat = parameter.double().flatten().numpy()
        return flat[np.round(np.linspace(0, flat.size - 1, 8)).astype(int)]

    def _norms(self) -> list[float]:
        """Of the gradients of the detector, the rest, and the identity MLP."""
        parts: dict[str, list[Tensor]] = {"detector": [], "rest": [], "identity_adapter": []}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                top = name.split(".")[0]
                parts[top if top in parts else "rest"].append(parameter.grad.norm())
        return [float(torch.stack(norms).norm()) if norms else 0.0 for norms in parts.values()]

    def _probes(self) -> list[Any]:
        """A function for each probe that gives our parameter."""
        names = json.loads(str(self.golden["probes"]))
        own = dict(self.model.named_parameters())
        found = []
        for name in names:
            (ours,) = from_published({name: self.published[name]})
            found.append(lambda ours=ours: own[ours])
        return found


def expected_losses(training: GoldenTraining) -> list[dict[str, float]]:
    """The golden losses of each batch under our names."""
    names = json.loads(str(training.golden[f"{training.name}_loss_names"]))
    rows = []
    for row in training.golden[f"{training.name}_losses"]:
        found = {}
        for name, value in zip(names, row, strict=True):
            base, _, layer = name.rpartition("_") if name[-1].isdigit() else (name, "", "")
            if base in LOSSES:
                found[LOSSES[base] + (f"_{layer}" if layer else "")] = float(value)
        rows.append(found)
    return rows
