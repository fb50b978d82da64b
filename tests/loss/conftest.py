from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from golden_weights import GOLDEN, names_and_shapes, seeded_state_dict
from torch import Tensor

from fdta.loss.matching import Matching, Targets, match
from fdta.model.detector import DetectorOutput, LayerOutput
from fdta.model.identity_adapter import IdentityAdapter
from fdta.params import LossSettings

torch.set_num_threads(1)


@dataclass
class GoldenLosses:
    """Six frames of scripted outputs, and what the published criterion made of them."""

    arrays: dict[str, np.ndarray]
    output: DetectorOutput
    targets: list[Targets]
    settings: LossSettings
    matchings: list[Matching]
    losses: dict[str, float]
    identity_adapter: IdentityAdapter
    boxes_total: int = 30

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])


@pytest.fixture(scope="session")
def golden() -> GoldenLosses:
    with np.load(GOLDEN / "losses.npz") as file:
        arrays = dict(file)
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype.kind in "fi" and a.ndim}
    no_embeddings = torch.empty(6, 300, 0)
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
    settings = LossSettings(depth=1.0, foreground_weight=6.0)
    matchings = [match(x.logits, x.boxes_cxcywh, targets, settings) for x in (*auxiliary, output)]
    adapter = IdentityAdapter(256)
    weights = seeded_state_dict(names_and_shapes("dancetrack", "criterion"), int(arrays["seed"]))
    adapter.load_state_dict({name.removeprefix("track_embed."): x for name, x in weights.items()})
    return GoldenLosses(arrays, output, targets, settings, matchings, json.loads(str(arrays["losses"])), adapter)


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
    matchings = [match(x.logits, x.boxes_cxcywh, targets, LossSettings()) for x in (*output.auxiliary, output)]
    return output, targets, matchings
