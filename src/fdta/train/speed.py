"""Speed and memory of a training step on this machine."""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
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


PARTS = ("loss", "gradients", "optimizer")
"""Of a training step: the networks, matching and losses; the backward pass; clipping and the optimizer."""


def measure_training(
    settings: Settings,
    frames: int,
    size: tuple[int, int],
    objects: int,
    device: torch.device,
    repeats: int,
    clips: int = 1,
) -> dict[str, Any]:
    """Time a training step on clips of random frames: loss, gradients, clipping and optimizer.

    Args:
        settings: of the model; `training.gradient_frames` frames have a gradient.
        frames: of the clip, at most `history`.
        size: height and width of a frame.
        objects: in every frame.
        device: where to compute.
        repeats: steps that are measured, after one that is not.
        clips: in the batch.

    Returns:
        JSON-able: milliseconds per step (median, smallest, largest) and peak memory; the median milliseconds of each
        of its `PARTS`.
    """
    require_one(repeats)
    model = drawn_model(settings, device).train()
    clip = drawn_clip(frames, size, objects, device, clips)
    steps = training_step_parts(model, clip, replace(settings, history=frames))
    forget_peak(device)
    clock = device_clock(device)
    measured: list[list[float]] = []
    with tqdm(total=repeats + 1, unit="step", disable=None) as bar:
        for number in range(repeats + 1):
            times = [clock()]
            for part in steps:
                part()
                times.append(clock())
            bar.update()
            if not number:
                continue
            measured.append([1000 * (end - start) for start, end in itertools.pairwise(times)])
            if bar.disable:
                logger.info("step %d of %d: %.4g ms", number, repeats, sum(measured[-1]))
    return {
        "size": list(size),
        "objects": objects,
        "frames": frames,
        "clips": clips,
        "gradient_frames": settings.training.gradient_frames,
        "ours": summary([sum(parts) for parts in measured]) | {"peak_mebibytes": peak(device)},
        "parts": {name: statistics.median(spans) for name, *spans in zip(PARTS, *measured, strict=True)},
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def training_step(model: FDTA, batch: ClipBatch, settings: Settings) -> Callable[[], None]:
    """A function that takes a step of the optimizer on `batch`."""
    parts = training_step_parts(model, batch, settings)

    def step() -> None:
        for part in parts:
            part()

    return step


def training_step_parts(model: FDTA, batch: ClipBatch, settings: Settings) -> list[Callable[[], None]]:
    """Functions that together, one after another, take a step of the optimizer on `batch`: the `PARTS`."""
    objective, optimizer = TrackerObjective(model, settings), build_optimizer(model, settings.training)
    losses: list[Tensor] = []

    def loss() -> None:
        losses[:] = [objective(batch, epoch=settings.identity.first_epoch)[0]]

    def gradients() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses.pop().backward()

    def update() -> None:
        clip_gradients(model, settings.training)
        optimizer.step()

    return [loss, gradients, update]


def drawn_clip(frames: int, size: tuple[int, int], objects: int, device: torch.device, clips: int = 1) -> ClipBatch:
    """Clips of random frames of `size` (height, width), each with `objects` of its own; always the same."""
    random = torch.Generator().manual_seed(0)
    total = clips * frames
    images = torch.randn(total, 3, *size, generator=random)
    depth = torch.randint(0, 256, (total, *size), generator=random).to(torch.uint8)
    boxes = torch.rand(total, objects, 4, generator=random) * 0.4 + torch.tensor([0.3, 0.3, 0.1, 0.1])
    targets = [Targets(box, torch.arange(objects) + i // frames * objects) for i, box in enumerate(boxes)]
    padding = torch.zeros(total, *size, dtype=torch.bool)
    return ClipBatch(images, padding, depth, targets, tuple(range(clips))).to(device)
