from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers.golden_weights import fill_seeded, load_golden, published_settings
from torch import Tensor

from fdta.loss.contrastive import identity_loss, match_quality
from fdta.loss.depth import depth_loss
from fdta.loss.matching import Matching, Targets, match
from fdta.loss.settings import LossSettings
from fdta.model.detector import DetectorOutput, LayerOutput
from fdta.model.identity_adapter import IdentityAdapter
from fdta.model.settings import IdentitySettings, SpatialSettings

torch.set_num_threads(1)


FOREGROUND_WEIGHT = {"dancetrack": 6.0, "sportsmot": 7.0, "bft": 10.0}
"""Of the published configurations (docs/model.md, Where paper and published code differ)."""


def match_layers(layers: Sequence[LayerOutput], targets: Sequence[Targets], settings: LossSettings) -> list[Matching]:
    return match([x.logits for x in layers], [x.boxes_cxcywh for x in layers], targets, settings)


@dataclass
class GoldenLosses:
    """Scripted outputs for some frames, and what the published criterion made of them."""

    arrays: dict[str, np.ndarray]
    output: DetectorOutput
    targets: list[Targets]
    spatial: SpatialSettings
    identity: IdentitySettings
    settings: LossSettings
    matchings: list[Matching]
    losses: dict[str, float]
    identity_adapter: IdentityAdapter
    device: torch.device

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name]).to(self.device)

    @property
    def boxes_total(self) -> int:
        return self.arrays["gt_ids"].size

    @property
    def depth_loss(self) -> Tensor:
        depth = self["depth_maps"][:, 0]
        padding = torch.zeros_like(depth, dtype=torch.bool)
        logits = self.output.depth_logits
        return depth_loss(logits, depth, padding, self.targets, self.spatial, self.settings, self.boxes_total)

    @property
    def identity_loss(self) -> Tensor:
        matching = self.matchings[-1]
        return identity_loss(
            self.output.embeddings[matching.frames, matching.queries],
            self["gt_ids"].flatten()[matching.targets],
            self.matched_quality,
            matching.frames,
            len(self.targets),
            self.identity_adapter,
            self.identity,
        )

    @property
    def matched_quality(self) -> Tensor:
        matching = self.matchings[-1]
        predicted = self.output.boxes_cxcywh[matching.frames, matching.queries]
        return match_quality(predicted, self["gt_boxes"].flatten(0, 1)[matching.targets], self.identity.quality)


@pytest.fixture(scope="session")
def golden(device: torch.device) -> GoldenLosses:
    arrays = load_golden("losses")
    tensors = {name: torch.from_numpy(a).to(device) for name, a in arrays.items() if a.dtype.kind in "fi" and a.ndim}
    configuration = str(arrays["config"])
    no_embeddings = torch.empty(*tensors["pred_logits"].shape[:2], 0, device=device)
    auxiliary = [
        LayerOutput(logits, boxes, no_embeddings)
        for logits, boxes in zip(tensors["aux_logits"], tensors["aux_boxes"], strict=True)
    ]
    output = DetectorOutput(
        tensors["pred_logits"], tensors["pred_boxes"], tensors["embeddings"], auxiliary, tensors["depth_logits"], None
    )
    targets = [
        Targets(boxes, identities) for boxes, identities in zip(tensors["gt_boxes"], tensors["gt_ids"], strict=True)
    ]
    settings = LossSettings(foreground_weight=FOREGROUND_WEIGHT[configuration])
    matchings = match_layers((*auxiliary, output), targets, settings)
    adapter = IdentityAdapter(tensors["embeddings"].shape[-1])
    fill_seeded(adapter, configuration, int(arrays["seed"]), "identity_adapter.")
    return GoldenLosses(
        arrays,
        output,
        targets,
        published_settings(configuration).spatial,
        IdentitySettings(chunk=len(targets)),
        settings,
        matchings,
        json.loads(str(arrays["losses"])),
        adapter.to(device),
        device,
    )


@pytest.fixture
def scene() -> tuple[DetectorOutput, list[Targets], list[Matching]]:
    """Small random output of two decoder layers for four frames, the second without objects, in float64."""
    generator = torch.Generator().manual_seed(0)

    def layer(*more: object) -> LayerOutput | DetectorOutput:
        logits = torch.randn(4, 7, 1, generator=generator, dtype=torch.float64)
        boxes = torch.rand(4, 7, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2
        embeddings = torch.randn(4, 7, 5, generator=generator, dtype=torch.float64)
        return (DetectorOutput if more else LayerOutput)(logits, boxes, embeddings, *more)

    output = layer([layer()], None, None)
    targets = [
        Targets(
            torch.rand(n, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2,
            torch.arange(n),
            torch.randint(-1, 3, (n, 2), generator=generator),
        )
        for n in (3, 0, 1, 2)
    ]
    matchings = match_layers((*output.auxiliary, output), targets, LossSettings())
    return output, targets, matchings
