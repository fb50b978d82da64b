from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fdta.model.settings import TemporalSettings
from fdta.model.temporal_adapter import TemporalAdapter

WIDTH = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def adapter(missing: str = "mask") -> TemporalAdapter:
    return TemporalAdapter(WIDTH, TemporalSettings(missing=missing, layers=2, heads=4, feedforward=32)).eval()


def clip(frames: int = 6, objects: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    missing = torch.zeros(2, frames, objects, dtype=torch.bool)
    return torch.randn(2, frames, objects, WIDTH), missing, torch.arange(frames)


@pytest.mark.parametrize("missing_treatment", ["mask", "zero-vector"])
def test_future_frames_have_no_influence(missing_treatment: str) -> None:
    features, missing, times = clip()
    missing[:, 1, 0] = True
    model = adapter(missing_treatment)
    changed = features.clone()
    changed[:, 4:] += 1
    before, after = model(features, missing, times), model(changed, missing, times)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(-1).min() > 1e-3

    features.requires_grad_()
    model(features, missing, times)[:, 3].square().sum().backward()
    assert torch.equal(features.grad[:, 4:], torch.zeros_like(features[:, 4:]))
    assert features.grad[:, :4].abs().amax(-1)[:, [0, 2, 3]].min() > 0


def test_missing_frames_of_the_future_have_no_influence() -> None:
    features, missing, times = clip()
    later = missing.clone()
    later[:, 4:] = True
    model = adapter()
    assert torch.equal(model(features, missing, times)[:, :4], model(features, later, times)[:, :4])


def test_masked_frames_are_as_if_they_were_not_there() -> None:
    features, missing, times = clip()
    missing[:, [1, 4]] = True
    kept = [0, 2, 3, 5]
    alone = features[:, kept], missing[:, kept], times[kept]
    hidden = adapter()
    assert torch.allclose(hidden(features, missing, times)[:, kept], hidden(*alone), atol=1e-6)
    shown = adapter("zero-vector")
    difference = shown(features, missing, times)[:, kept] - shown(*alone)
    assert torch.allclose(difference[:, 0], torch.zeros(()), atol=1e-6)
    assert difference[:, 1:].abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("missing_treatment", ["mask", "zero-vector"])
def test_values_at_missing_frames_are_ignored(missing_treatment: str) -> None:
    features, missing, times = clip()
    missing[0, :3, 1] = True
    model = adapter(missing_treatment)
    garbage = features.masked_fill(missing[..., None], torch.nan)
    assert torch.equal(model(features, missing, times), model(garbage, missing, times))


def test_trajectory_that_is_never_present_is_finite() -> None:
    features, missing, times = clip()
    missing[:, :, 1] = True
    assert adapter()(features, missing, times).isfinite().all()


def test_trajectories_are_independent_of_each_other_and_of_their_order() -> None:
    features, missing, times = clip()
    missing[:, 2, 0] = True
    model = adapter()
    order = [2, 0, 1]
    whole = model(features, missing, times)
    assert torch.allclose(model(features[:, :, order], missing[:, :, order], times), whole[:, :, order], atol=1e-6)
    assert torch.allclose(model(features[:, :, :1], missing[:, :, :1], times), whole[:, :, :1], atol=1e-6)


def test_times_of_frames_and_of_tokens_mean_the_same() -> None:
    features, missing, _ = clip()
    times = torch.tensor([0, 1, 3, 4, 7, 8])
    model = adapter()
    whole = model(features, missing, times)
    assert torch.equal(model(features, missing, times[:, None].expand(6, 3)), whole)
    assert torch.equal(model(features, missing, times[:, None].expand(2, 6, 3)), whole)
    assert not torch.allclose(model(features, missing, torch.arange(6)), whole, atol=1e-3)


def test_no_trajectories() -> None:
    features, missing, times = clip(objects=0)
    assert adapter()(features, missing, times).shape == (2, 6, 0, WIDTH)
