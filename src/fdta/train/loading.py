"""Speed of reading training data here: clips a second, and milliseconds a frame by part."""

from __future__ import annotations

import cProfile
import itertools
import math
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch

from fdta.data import augmentation
from fdta.data.clips import ClipDataset
from fdta.data.motchallenge import Boxes, Sequence, write_boxes, write_image, write_seqinfo
from fdta.depth.teacher import map_size
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.machine import cores, machine
from fdta.train.batches import Plan, load_batches

PARTS = {
    "image": Sequence.image,
    "depth": Sequence.depth,
    "flip": augmentation.flip,
    "resize": augmentation.resize_frame,
    "crop": augmentation.crop,
    "jitter": augmentation.jitter,
}


def measure_loading(
    folder: Path, settings: Settings, device: torch.device, workers: int, clips: int, step: float | None = None
) -> dict[str, Any]:
    """Time the reading of clips as training reads them: decoded, augmented, as batches of bytes.

    Args:
        folder: of the data set; its `Settings.training_splits` are read.
        settings: of the training.
        device: where batches would go, and are normalized.
        workers: processes that read; besides, the reading of the training process itself is measured.
        clips: how many are read one by one, and how many each worker reads.
        step: seconds of a training step, to tell how many workers feed it.

    Returns:
        JSON-able: milliseconds a frame of each of `PARTS`, of the `rest` and their sum `total`, on one thread of this
        process (`image` and `depth` are reading and decoding), means over clips; apart, those of normalizing on the
        device; a clip's frames, the median of its milliseconds, the smallest and the largest; clips a second by number
        of workers after their start, 0 being the training process; for `step`, the workers that keep up; machine and
        threads.

    Raises:
        InputError: a number is out of its range, or the data cannot be read.
    """
    if not 1 <= workers <= cores():
        raise InputError(f"--workers {workers}: from 1 to {cores()}, the cores here")
    if clips < 4:
        raise InputError(f"--clips {clips}: from 4, because the first ones are read ahead")
    if step is not None and not 1e-6 <= step < math.inf:
        raise InputError(f"--step {step:g}: give the seconds of a training step, above 0")
    with_depth = settings.spatial.enabled
    dataset = ClipDataset(
        folder, settings.training_splits, settings, settings.history, with_depth, False, clips * workers, 0
    )
    with _one_thread():
        parts, normalizing = _one_by_one(dataset, clips, device)
        rates = {number: _clips_a_second(dataset, number, clips, device) for number in (0, workers)}
    total = [settings.history * measured["total"] for measured in parts]
    result = {
        "milliseconds": {name: statistics.fmean(measured[name] for measured in parts) for name in parts[0]},
        "apart": {"normalize": statistics.fmean(normalizing)},
        "clip": {"frames": settings.history, "milliseconds": statistics.median(total)}
        | {"spread": [min(total), max(total)]},
        "clips_a_second": {str(number): rate for number, rate in rates.items()},
        "data": folder.name,
        "image": [dataset.sequences[0].width, dataset.sequences[0].height],
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }
    if step is not None:
        batch, by_one = settings.training.batch, rates[workers] / workers
        needed = math.ceil(batch / (step * by_one))
        result["step"] = {"seconds": step, "clips": batch, "workers": needed, "cores": cores()}
    return result


def _one_by_one(dataset: ClipDataset, clips: int, device: torch.device) -> tuple[list[dict[str, float]], list[float]]:
    """Milliseconds a frame by part, and those of normalizing, of each clip; one more before them does not count."""
    drawn = list(enumerate(dataset.sampler.epoch(0)))
    names: dict[Any, str] = {function.__code__: name for name, function in PARTS.items()}
    parts, normalizing = [], []
    for position, (sequence, frames) in itertools.islice(itertools.cycle(drawn), clips + 1):
        profile = cProfile.Profile()
        start = perf_counter()
        batch = profile.runcall(dataset.clip, 0, position, sequence, frames)
        end = perf_counter()
        batch.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        normalizing.append(1000 * (perf_counter() - end) / len(frames))
        measured = dict.fromkeys(PARTS, 0.0)
        for entry in profile.getstats():
            if entry.code in names:
                measured[names[entry.code]] = 1000 * entry.totaltime / len(frames)
        total = 1000 * (end - start) / len(frames)
        parts.append(measured | {"rest": total - sum(measured.values()), "total": total})
    return parts[1:], normalizing[1:]


def _clips_a_second(dataset: ClipDataset, workers: int, clips: int, device: torch.device) -> float:
    processes = max(workers, 1)
    with closing(load_batches(dataset, Plan(dataset.sampler, 1, 1), range(1), 0, workers, device)) as batches:
        # Each worker reads two batches ahead; these were begun before anybody asked.
        for _ in itertools.islice(batches, 2 * processes):
            pass
        start = perf_counter()
        read = sum(clip.clips for clip in itertools.islice(batches, (clips - 2) * processes))
        return read / (perf_counter() - start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV computes in one thread meanwhile, as it does in workers."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def drawn_data(settings: Settings, size: tuple[int, int], objects: int) -> Iterator[Path]:
    """Folder of a data set with one sequence of drawn frames of `size` (height, width), gone afterwards.

    The frames are JPEGs of random blots with grain, about as large as photographs of the size; depth maps are as
    `fdta depth` makes them.
    """
    height, width = size
    frames = 2 * settings.history * settings.clip.intervals[0]
    random = np.random.default_rng(0)
    grain = random.integers(-10, 11, (height + frames, width, 3), dtype=np.int16)
    with tempfile.TemporaryDirectory() as temporary:
        for split in settings.training_splits:
            folder = Path(temporary) / "drawn" / split / "drawn"
            for name in ("img1", "depth", "gt"):
                (folder / name).mkdir(parents=True)
            for frame in range(1, frames + 1):
                coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
                blots = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
                image = np.clip(blots + grain[frame : frame + height], 0, 255).astype(np.uint8)
                write_image(folder / "img1" / f"{frame:08d}.jpg", image, 90)
                depth = cv2.resize(coarse[..., 0], map_size(width, height), interpolation=cv2.INTER_CUBIC)
                write_image(folder / "depth" / f"{frame:08d}.png", depth)
            write_seqinfo(Sequence("drawn", folder, frames, width, height, 20.0))
            corner = random.uniform(0, 0.7, (frames * objects, 2)) * [width, height]
            boxes = np.concatenate([corner, np.tile([0.2 * width, 0.2 * height], (len(corner), 1))], axis=1)
            numbers, identities = np.repeat(np.arange(1, frames + 1), objects), np.tile(np.arange(objects), frames)
            ones = np.ones(len(boxes))
            write_boxes(folder / "gt" / "gt.txt", Boxes(numbers, identities, boxes, ones, ones.astype(np.int64)))
        yield Path(temporary) / "drawn"
