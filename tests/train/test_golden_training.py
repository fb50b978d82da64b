"""Whole optimizer steps against the published trainer's: losses, gradients, learning rates and parameters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import golden_training
from helpers.golden_training import GoldenTraining, expected_losses
from helpers.golden_weights import golden_files, load_golden

from fdta.model.fdta import FDTA
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor
from fdta.train.settings import TrainingSettings

TRAININGS = [
    (file, key.removesuffix("_losses"))
    for file in golden_files("training_steps*")
    for key in load_golden(file)
    if key.endswith("_losses")
]


@pytest.fixture
def numbers(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def furthest(ours: object, golden: np.ndarray) -> float:
    """Largest difference, relative to the largest number of the column."""
    difference = np.abs(np.asarray(ours) - golden).max(axis=0)
    return float((difference / np.maximum(np.abs(golden).max(axis=0), 1e-12)).max())


def distance(ours: list[dict[str, float]], golden: list[dict[str, float]]) -> float:
    """Largest difference of a loss, relative to it."""
    for found, wanted in zip(ours, golden, strict=True):
        assert {name for name, value in wanted.items() if value} == set(found)
    pairs = [(found[name], wanted[name]) for found, wanted in zip(ours, golden, strict=True) for name in found]
    return max(abs(found - wanted) / abs(wanted) for found, wanted in pairs)


@pytest.mark.parametrize("numbers", [torch.float64], indirect=True)
@pytest.mark.parametrize(("file", "name"), TRAININGS)
def test_every_step_in_float64(file: str, name: str, numbers: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    training = GoldenTraining(file, name, numbers)
    done = training.run(monkeypatch)
    assert distance(done.losses, expected_losses(training)) < 1e-9
    for what, ours in (
        ("gradient_norms", done.gradient_norms),
        ("clipped_gradient_norms", done.clipped_norms),
        ("change_norms", done.change_norms),
        ("parameter_samples", done.samples),
    ):
        assert furthest(ours, training.golden[f"{name}_{what}"]) < 1e-9, what


@pytest.mark.parametrize("numbers", [torch.float32], indirect=True)
@pytest.mark.parametrize(("file", "name"), TRAININGS)
def test_the_first_steps_in_float32(
    file: str, name: str, numbers: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = GoldenTraining(file, name, numbers)
    done = training.run(monkeypatch, steps=4)
    expected = expected_losses(training)[: len(done.losses)]
    assert distance(done.losses[:3], expected[:3]) < 1e-5
    # By then the rounding of single gradients has grown; 1.07e-5 on a processor with AVX2 alone.
    assert distance(done.losses, expected) < 2e-5


@pytest.mark.parametrize(("file", "name"), TRAININGS)
def test_learning_rates(file: str, name: str) -> None:
    training = GoldenTraining(file, name, torch.float32)
    settings = training.settings.training
    rates = {group["lr"] for group in build_optimizer(training.model, settings).param_groups}
    steps = training.case["batches_per_epoch"] // settings.accumulate
    for step, golden in enumerate(training.golden[f"{name}_learning_rates"]):
        factor = rate_factor(step, steps, settings)
        np.testing.assert_allclose(sorted(rate * factor for rate in rates), sorted(set(golden.tolist())), rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "clipped"),
    [({"depth_smoothing": 0.0}, False), ({"association_matching": "last"}, False), ({}, True)],
    ids=["depth without smoothing", "matching of the last layer", "Identity Adapter clipped"],
)
@pytest.mark.parametrize("numbers", [torch.float64], indirect=True)
def test_each_departure_is_seen(
    loss: dict, clipped: bool, numbers: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that could not fail would not see these either."""
    file, name = TRAININGS[0]
    training = GoldenTraining(file, name, numbers, loss=loss)
    if clipped:
        adapter = list(training.model.identity_adapter.parameters())

        def clip_all(model: FDTA, settings: TrainingSettings) -> None:
            clip_gradients(model, settings)
            torch.nn.utils.clip_grad_norm_(adapter, settings.clip_norm)

        monkeypatch.setattr(golden_training, "clip_gradients", clip_all)
    done = training.run(monkeypatch, steps=4)
    changes = furthest(done.change_norms, training.golden[f"{name}_change_norms"][:4])
    assert max(changes, distance(done.losses, expected_losses(training)[:4])) > 1e-6
