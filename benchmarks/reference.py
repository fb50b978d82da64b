"""The published code beside ours: the same weights and inputs, in one process, to compare speed and outputs.

A checkout of it is imported, with torchvision and einops as it needs them. What it imports besides and these
measurements do not need (logging, data sets, the launcher) is replaced by empty modules. Its deformable attention is
the plain PyTorch form that it comes with, because its CUDA extension is compiled by hand and most machines lack it.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
import yaml
from torch import Tensor

from fdta.data.clips import ClipBatch
from fdta.data.identities import IdentityGroups, target_labels
from fdta.errors import InputError
from fdta.model.fdta import FDTA
from fdta.model.weights import to_published

_EMPTY = (
    "accelerate",
    "accelerate.state",
    "torch.utils.tensorboard",
    "runtime_option",
    "configs.util",
    "log.logger",
    "log.log",
    "data",
    "data.naive_sampler",
    "data.util",
    "submit_and_evaluate",
    "MultiScaleDeformableAttention",
)
_CRITERION = "track_embed."


class Reference:
    """The published model and losses with the weights of ours."""

    def __init__(self, folder: Path, model: FDTA) -> None:
        """Import the code and copy the weights.

        Args:
            folder: a checkout of the published code.
            model: with the paper's settings; its weights are copied, to its device.

        Raises:
            InputError: there is no such code, or a package that it needs is missing, or the settings are not its.
        """
        self.device = next(model.parameters()).device
        configuration = folder / "configs" / "dancetrack.yaml"
        if not configuration.is_file():
            raise InputError(f"{configuration}: no such file; give the folder of a checkout of the published code")
        try:
            self._import(folder)
        except ImportError as error:
            raise InputError(f"{folder}: {error}; pip install torchvision einops") from None
        config = yaml.safe_load(configuration.read_text())
        config |= {"DEVICE": str(self.device), "LR": float(config["LR"]), "DEPTH_MIN": float(config["DEPTH_MIN"])}
        self.model, self.criterion = self._build(config)
        weights = to_published(model.state_dict())
        try:
            self.model.load_state_dict({k: v for k, v in weights.items() if not k.startswith(_CRITERION)})
            self.criterion.load_state_dict({k: v for k, v in weights.items() if k.startswith(_CRITERION)})
        except RuntimeError:
            raise InputError(f"{folder}: its DanceTrack model is another; measure with the paper's settings") from None
        self.model.to(self.device).eval()
        self.criterion.to(self.device)
        self.criterion_frames = config["DETR_CRITERION_BATCH_LEN"]
        self.no_gradient_frames = 4 * config["DETR_NUM_CHECKPOINT_FRAMES"]

    def _import(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        for name in _EMPTY:
            sys.modules[name] = MagicMock(__name__=name, __path__=[], __spec__=None)
        alone = types.SimpleNamespace(
            distributed_type="NO", process_index=0, is_main_process=False, num_processes=1, device=self.device
        )
        sys.modules["accelerate"].PartialState = lambda: alone
        sys.modules["accelerate"].DistributedType = types.SimpleNamespace(NO="NO")
        # Shapes of compiled operators of torchvision, which builds for another torch do not have, and nobody needs.
        sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
        function = importlib.import_module("models.ops.functions.ms_deform_attn_func")

        class Plain:
            @staticmethod
            def apply(
                value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, step: int
            ) -> Tensor:
                return function.ms_deform_attn_core_pytorch(value, shapes.tolist(), locations, weights)

        importlib.import_module("models.ops.modules.ms_deform_attn").MSDeformAttnFunction = Plain
        self._build: Callable[..., Any] = importlib.import_module("models.fdta").build
        self._nested: Callable[..., Any] = importlib.import_module("utils.nested_tensor").NestedTensor
        # Two places ask for CUDA whatever the device.
        for name in ("models.deformable_detr.deformable_detr", "models.Spatial_Adapter.ddn_loss.ddn_loss"):
            importlib.import_module(name).torch = _OnDevice(self.device)
        self._train = importlib.import_module("train")
        self._id_criterion = importlib.import_module("models.fdta.id_criterion").IDCriterion(1.0, use_focal_loss=False)

    def detect(self, images: Tensor, depth: Tensor | None = None) -> dict[str, Any]:
        """The published detector's outputs of images (B, 3, H, W) without padding; depth (B, H, W) is passed on."""
        padding = torch.zeros_like(images[:, 0], dtype=torch.bool)
        maps = None if depth is None else self._nested(depth[:, None].float(), padding)
        with warnings.catch_warnings(action="ignore"):
            return self.model(frames=self._nested(images, padding), depthmaps=maps, part="detr")

    def id_logits(self, features: Tensor, missing: Tensor, labels: Tensor, times: Tensor, current: Tensor) -> Tensor:
        """As `fdta.track.tracker.IDScores`."""
        frames, objects = missing.shape
        now = torch.full((1, len(current)), frames, device=current.device)
        information = {
            "trajectory_features": features,
            "trajectory_masks": missing,
            "trajectory_id_labels": labels.expand(frames, objects),
            "trajectory_times": times[:, None].expand(frames, objects),
            "unknown_features": current[None],
            "unknown_masks": torch.zeros_like(now, dtype=torch.bool),
            "unknown_times": now,
        }
        return self._identify({name: value[None, None] for name, value in information.items()})[0][0, 0, 0]

    def _identify(self, information: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        with warnings.catch_warnings(action="ignore"):
            for part in ("trajectory_embedding", "trajectory_modeling"):
                information = self.model(seq_info=information, part=part)
            return self.model(seq_info=information, part="id_decoder")

    def loss(self, batch: ClipBatch, groups: IdentityGroups, gradient_frames: int, labels: int) -> Tensor:
        """Total loss of one clip as the published trainer computes it; identities are those of the columns of `groups`.

        Args:
            batch: one clip with depth, without padding, every identity in every frame.
            groups: its label assignments.
            gradient_frames: frames with gradient, the first of a random order.
            labels: K.
        """
        frames = len(batch.images)
        order = torch.randperm(frames, device=self.device)
        chosen, rest = order[:gradient_frames], order[gradient_frames:]
        outputs = None
        with torch.no_grad():
            for part in rest.split(self.no_gradient_frames):
                found = self.detect(batch.images[part], batch.depth[part])
                outputs = self._train.tensor_dict_cat(outputs, found)
        trained = self.detect(batch.images[chosen], batch.depth[chosen])
        outputs = self._train.tensor_dict_cat(trained, outputs)
        outputs = self._train.tensor_dict_index_select(outputs, order.argsort())
        truth = [
            {"boxes": t.boxes_cxcywh, "labels": torch.zeros_like(t.identities), "id": t.identities}
            for t in batch.targets
        ]
        with warnings.catch_warnings(action="ignore"):
            terms, matched = self.criterion(outputs=outputs, targets=truth, batch_len=self.criterion_frames, epoch=1)
        weights = self.criterion.weight_dict
        loss = sum(term * weights[name] for name, term in terms.items() if name in weights)
        information = self._train.prepare_for_fdta(outputs, [self._annotations(groups, labels)], matched)
        return loss + self._id_criterion(*self._identify(information))

    def _annotations(self, groups: IdentityGroups, labels: int) -> list[dict[str, Tensor]]:
        """Label assignments frame by frame, as the published data set gives them."""
        wanted = target_labels(groups, labels).clamp(min=0)
        shape = groups.source.shape
        columns = {
            "trajectory_id_labels": groups.labels[:, None].expand(shape),
            "trajectory_ann_idxs": groups.source,
            "trajectory_id_masks": groups.missing_history,
            "unknown_id_labels": wanted,
            "unknown_ann_idxs": torch.arange(shape[2]).expand(shape),
            "unknown_id_masks": groups.missing_current,
        }
        columns["trajectory_times"] = columns["unknown_times"] = torch.arange(shape[1])[:, None].expand(shape)
        return [
            {name: value[:, frame : frame + 1].to(self.device) for name, value in columns.items()}
            for frame in range(shape[1])
        ]


class _OnDevice:
    """The module torch, whose "cuda" is `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.cuda = types.SimpleNamespace(current_device=lambda: device)

    def tensor(self, *arguments: Any, device: Any = None, **named: Any) -> Tensor:
        return torch.tensor(*arguments, device=self._device if device == "cuda" else device, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
