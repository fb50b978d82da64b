"""Which clips each step and process reads, and reading them ahead."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import cv2
import torch
from torch.utils.data import DataLoader

from fdta.data.clips import ClipBatch, ClipDataset, ClipSampler, collate
from fdta.errors import InputError
from fdta.train.interruption import STOPPING

Clip = tuple[int, int, int, tuple[int, ...]]
"""Arguments of `ClipDataset.clip`."""


@dataclass(frozen=True)
class Plan:
    """Deals the clips of an epoch to steps, batches and processes.

    A step has `accumulate` batches a process, a batch `batch` clips; an epoch's last may have fewer. The processes'
    batches together are the one of a single process with a `batch` of their number times as much. Where clips are left
    that cannot be dealt out evenly, as many as are missing are taken from the start of the epoch once more.
    """

    sampler: ClipSampler
    batch: int
    accumulate: int
    rank: int = 0
    world_size: int = 1

    @property
    def batches_per_epoch(self) -> int:
        """Batches of each process."""
        return math.ceil(self.sampler.clips / (self.batch * self.world_size))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer."""
        return math.ceil(self.batches_per_epoch / self.accumulate)

    def batches_of_step(self, step: int) -> int:
        """Batches of each process in step `step` of an epoch, from 0."""
        return min(self.accumulate, self.batches_per_epoch - step * self.accumulate)

    def epoch(self, epoch: int) -> list[list[Clip]]:
        """This process's batches, in order."""
        clips = [(epoch, position, *clip) for position, clip in enumerate(self.sampler.epoch(epoch))]
        own = []
        for first in range(0, len(clips), self.batch * self.world_size):
            batch = clips[first : first + self.batch * self.world_size]
            dealt = [*batch, *itertools.islice(itertools.cycle(clips), -len(batch) % self.world_size)]
            size = len(dealt) // self.world_size
            own.append(dealt[self.rank * size : (self.rank + 1) * size])
        return own


def load_batches(
    dataset: ClipDataset, plan: Plan, epochs: range, done: int, workers: int, device: torch.device
) -> Generator[ClipBatch, None, None]:
    """Batches of all `epochs` after the first `done` steps of the first of them.

    The workers stay and read ahead also where an epoch ends, and while the training validates. Closing it ends them.

    Raises:
        InputError: a file of the data set cannot be read.
    """
    batches = DataLoader(
        _Clips(dataset),
        batch_sampler=_Upcoming(plan, epochs, done),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_settle,
        pin_memory=device.type == "cuda",
    )
    try:
        yield from batches
    except InputError as error:
        # From a worker it comes with the traceback; its own line is the last.
        raise InputError(
            str(error).strip().splitlines()[-1].partition(f"{InputError.__name__}: ")[2] or error
        ) from None


class _Clips(torch.utils.data.Dataset[ClipBatch]):
    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, clip: Clip) -> ClipBatch:
        return self.dataset.clip(*clip)


@dataclass
class _Upcoming:
    plan: Plan
    epochs: range
    done: int

    def __iter__(self) -> Iterator[list[Clip]]:
        for epoch in self.epochs:
            first = self.done * self.plan.accumulate if epoch == self.epochs.start else 0
            yield from self.plan.epoch(epoch)[first:]


def _settle(worker: int) -> None:
    """Leave signals to the training, and the other processors to the other workers."""
    cv2.setNumThreads(1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
