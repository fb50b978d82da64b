from __future__ import annotations

import math

import torch
from helpers.tiny_settings import tiny_settings

from fdta.evaluate.timing import drawn_model
from fdta.train.optimizer import build_optimizer, clip_gradients
from fdta.train.speed import drawn_clip
from fdta.train.tracker import TrackerObjective

CPU = torch.device("cpu")
STEPS = 30


def losses(precision: str) -> list[float]:
    """Total losses of a training on one clip."""
    settings = tiny_settings(training={"gradient_frames": 1, "no_gradient_chunk": 2, "precision": precision})
    torch.manual_seed(0)
    model = drawn_model(settings, CPU).train()
    objective, optimizer = TrackerObjective(model, settings), build_optimizer(model, settings.training)
    batch, found = drawn_clip(settings.history, (64, 96), 2, CPU), []
    for _ in range(STEPS):
        total, _terms = objective(batch, settings.identity.first_epoch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        clip_gradients(model, settings.training)
        optimizer.step()
        found.append(total.item())
    return found


def test_bfloat16_trains_close_to_float32() -> None:
    """A training on the rendered benchmark differs by 5 % (docs/benchmarks.md)."""
    full, half = losses("float32"), losses("bfloat16")
    assert all(map(math.isfinite, half)) and full != half
    assert full[-1] < 0.95 * full[0] and half[-1] < 0.95 * half[0]
    differences = [abs(a - b) / a for a, b in zip(full, half, strict=True)]
    assert sum(differences) / STEPS < 0.05, differences
