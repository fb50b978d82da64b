"""Speed and memory of a training step on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from fdta.data.clips import ClipBatch
from fdta.data.targets import Targets
from fdta.evaluate.timing import device_clock, drawn_model, forget_peak, peak, require_one, summary
from fdta.experiment.settings import Settings
from fdta.machine import machine
from fdta.model.fdta import FDTA
from fdta.train.optimizer import build_optimizer, clip_gradients
from fdta.train.tracker import TrackerObjective

logger = logging.getLogger(__name__)


def measure_training(
    settings: Settings, frames: int, size: tuple[int, int], objects: int, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Time a training step on one clip of random frames: loss, gradients, clipping and optimizer.

    Args:
        settings: of the model; `training.gradient_frames` frames have a gradient.
        frames: of the clip, at most `history`.
        size: height and width of a frame.
        objects: in every frame.
        device: where to compute.
        repeats: steps that are measured, after one that is not.

    Returns:
        JSON-able: milliseconds per step (median, smallest, largest) and peak memory.
    """
    require_one(repeats)
    model = drawn_model(settings, device).train()
    step = training_step(model, drawn_clip(frames, size, objects, device), replace(settings, history=frames))
    forget_peak(device)
    clock, milliseconds = device_clock(device), []
    with tqdm(total=repeats + 1, unit="step", disable=None) as bar:
        for number in range(repeats + 1):
            start = clock()
            step()
            if number:
                milliseconds.append(1000 * (clock() - start))
            bar.update()
            if bar.disable and number:
                logger.info("step %d of %d: %.4g ms", number, repeats, milliseconds[-1])
    return {
        "size": list(size),
        "objects": objects,
        "frames": frames,
        "gradient_frames": settings.training.gradient_frames,
        "ours": summary(milliseconds) | {"peak_mebibytes": peak(device)},
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def training_step(model: FDTA, batch: ClipBatch, settings: Settings) -> Callable[[], None]:
    """A function that takes a step of the optimizer on `batch`."""
    objective, optimizer = TrackerObjective(model, settings), build_optimizer(model, settings.training)

    def step() -> None:
        total, _ = objective(batch, epoch=settings.identity.first_epoch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        clip_gradients(model, settings.training)
        optimizer.step()

    return step


def drawn_clip(frames: int, size: tuple[int, int], objects: int, device: torch.device) -> ClipBatch:
    """A clip of random frames of `size` (height, width), all with the same `objects`; always the same."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(frames, 3, *size, generator=random)
    depth = torch.randint(0, 256, (frames, *size), generator=random).to(torch.uint8)
    boxes = torch.rand(frames, objects, 4, generator=random) * 0.4 + torch.tensor([0.3, 0.3, 0.1, 0.1])
    targets = [Targets(box, torch.arange(objects)) for box in boxes]
    return ClipBatch(images, torch.zeros(frames, *size, dtype=torch.bool), depth, targets, (0,)).to(device)
