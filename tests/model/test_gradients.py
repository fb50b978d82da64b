"""Gradients of the training's total loss against finite differences in float64, with the weights of golden numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.golden_weights import fill_seeded, load_golden, published_settings
from torch import Tensor

from fdta.data.clips import ClipBatch
from fdta.data.targets import Targets
from fdta.model.fdta import FDTA
from fdta.train import objectives, tracker
from fdta.train.tracker import TrackerObjective

FRAMES, OBJECTS, HEIGHT, WIDTH = 3, 2, 48, 64
CHANGE = 1e-6
"""Of the loss, about, by which its slope is measured: small enough to leave kinks (ReLU, bilinear samples) alone."""
DETECTOR_PARAMETERS = [
    "detector.backbone.stages.1.0.branch.0.weight",
    "detector.projections.3.0.weight",
    "detector.encoder.0.attention.sampling_offsets.weight",
    "detector.queries",
    "detector.decoder.0.self_attention.in_proj_weight",
    "detector.decoder.2.visual_attention.attention_weights.weight",
    "detector.decoder.5.depth_attention.in_proj_weight",
    "detector.spatial_adapter.extractor.0.weight",
    "detector.spatial_adapter.position.table",
]
ASSOCIATION_PARAMETERS = [
    "identity_adapter.layers.0.weight",
    "temporal_adapter.layers.0.attention.in_proj_weight",
    "trajectory_features.feedforward1.linear1.weight",
    "id_decoder.label_embedding.weight",
    "id_decoder.time_bias",
    "id_decoder.layers.1.self_attention.in_proj_weight",
    "id_decoder.layers.5.cross_attention.in_proj_weight",
    "id_decoder.classifier.weight",
]


class Constants:
    """Functions whose results count as constants of the loss: those of the first evaluation, given again later.

    Gradients do not pass `Tensor.detach`, the matching and its quality; finite differences must not either.
    """

    def __init__(self) -> None:
        self._calls: Counter[Callable[..., Any]] = Counter()

    def rewind(self) -> None:
        """Before every evaluation."""
        self._calls.clear()

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose n-th call in any evaluation gives what it gave at first."""
        results: list[Any] = []

        def constant(*arguments: Any) -> Any:
            call = self._calls[function]
            self._calls[function] += 1
            if call == len(results):
                results.append(function(*arguments))
            return results[call]

        return constant


@pytest.fixture(scope="module")
def loss() -> tuple[FDTA, Callable[[bool], Tensor]]:
    """Seeded model in float64 with gradients, and its total loss on three small random frames of two objects.

    The loss may take the detector's output as it was at first, which saves most of the time.
    """
    golden = load_golden("detr_single")
    configuration, seed = str(golden["config"]), int(golden["seed"])
    settings = published_settings(configuration)
    model = FDTA(settings)
    fill_seeded(model, configuration, seed)
    # Without dropout.
    model.double().eval()
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    batch = ClipBatch(
        images=torch.randn(FRAMES, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64),
        padding=torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool),
        depth=random(FRAMES, HEIGHT, WIDTH) * 255,
        targets=[Targets(random(OBJECTS, 4) * 0.3 + 0.3, torch.arange(OBJECTS), None) for _ in range(FRAMES)],
        seeds=(0,),
    )
    objective = TrackerObjective(
        model,
        dataclasses.replace(
            settings,
            history=FRAMES,
            training=dataclasses.replace(settings.training, gradient_frames=FRAMES),
            clip=dataclasses.replace(settings.clip, groups=2, occlusion=0.0),
            # So that the pairs count, whatever the boxes of random weights.
            identity=dataclasses.replace(settings.identity, threshold=-1.0, quality="iou"),
        ),
    )
    constants = Constants()
    detach, match, quality, detected = (
        constants.of(function)
        for function in (torch.Tensor.detach, objectives.match, tracker.match_quality, model.detector.forward)
    )

    def evaluate(detector_too: bool) -> Tensor:
        torch.manual_seed(0)
        constants.rewind()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "detach", detach)
            patch.setattr(objectives, "match", match)
            patch.setattr(tracker, "match_quality", quality)
            if not detector_too:
                patch.setattr(model.detector, "forward", detected)
            total, terms = objective(batch, epoch=1)
        assert {"classification_4", "l1", "giou", "depth", "identity", "association"} <= set(terms)
        assert all(term > 0 for term in terms.values())
        return total

    evaluate(detector_too=False).backward()
    return model, torch.no_grad()(evaluate)


@pytest.mark.parametrize("name", DETECTOR_PARAMETERS + ASSOCIATION_PARAMETERS)
def test_gradient_equals_finite_difference(loss: tuple[FDTA, Callable[[bool], Tensor]], name: str) -> None:
    model, evaluate = loss
    parameter = model.get_parameter(name)
    gradient = parameter.grad.flatten()
    entry = gradient.abs().argmax()
    values = parameter.data.view(-1)
    original = values[entry].item()
    step = CHANGE / max(gradient[entry].abs().item(), 0.1)
    totals = []
    for sign in (1, -1):
        values[entry] = original + sign * step
        totals.append(evaluate(name in DETECTOR_PARAMETERS).item())
    values[entry] = original
    difference = (totals[0] - totals[1]) / (2 * step)
    assert gradient[entry].item() == pytest.approx(difference, rel=1e-5)
    assert abs(difference) > 1e-5
