"""What measurements of speed share: clock, memory, and drawn frames and models for machines without data."""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from fdta.data.motchallenge import Sequence, write_image, write_seqinfo
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA


@torch.no_grad()
def drawn_model(settings: Settings, device: torch.device) -> FDTA:
    """A model with random weights, always the same.

    It is as fast as a trained one: no weights are left at 0, so that queries sample at different places, as trained
    ones do, and every output depends on the image.
    """
    torch.manual_seed(0)
    model = FDTA(settings)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return model.to(device).eval()


@contextmanager
def drawn_frames(size: tuple[int, int], frames: int) -> Iterator[Sequence]:
    """A sequence of `frames` JPEG files of random blots, of `size` (height, width), gone afterwards."""
    height, width = size
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        sequence = Sequence("drawn", Path(temporary), frames, width, height, 20.0, image_extension=".jpg")
        images = sequence.folder / sequence.image_folder
        images.mkdir()
        write_seqinfo(sequence)
        for frame in range(1, frames + 1):
            coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            write_image(images / f"{frame:08d}.jpg", image)
        yield sequence


def summary(milliseconds: list[float]) -> dict[str, Any]:
    """Median, and `spread`, JSON-able."""
    return {"milliseconds": statistics.median(milliseconds), "spread": spread(milliseconds)}


def spread(values: list[float]) -> list[float]:
    """Smallest and largest."""
    return [min(values), max(values)]


def require_one(repeats: int) -> None:
    """Raise InputError unless something is measured."""
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: measure at least once")


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds, after the device has done what it was given."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    return clock


def forget_peak(device: torch.device) -> None:
    """Let `peak` count from here: on CUDA, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def peak(device: torch.device) -> float:
    """Most mebibytes of the device's (on a CPU: the process's) memory in use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
