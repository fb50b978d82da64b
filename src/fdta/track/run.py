"""Folders of sequences through the tracker, to files."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from fdta.data.motchallenge import Boxes, Sequence, read_split, write_boxes
from fdta.errors import InputError
from fdta.model.inference import optimized
from fdta.track.detect import BATCH
from fdta.track.detections import Detections, joined, write_detections
from fdta.track.pipeline import Tracker
from fdta.track.reading import sequence_images
from fdta.track.weights import load_tracker

if TYPE_CHECKING:
    from fdta.experiment.jobs import TrackJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A share of the sequences of a split: the `number`-th, from 1, of `count` that are about as large."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Part of the form ``2/8``.

        Raises:
            InputError: it has another form, or the number is none of 1..count.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise InputError(f"--part {text}: give NUMBER/COUNT, from 1/COUNT to COUNT/COUNT")
        return cls(int(number), int(count))


def track_run(
    job: TrackJob, root: Path, tracks: Path, detections: Path, device: torch.device, part: Part | None = None
) -> None:
    """Track a split with a run, to ``tracks/SEQUENCE.txt`` and ``detections/SEQUENCE.npz``.

    Sequences whose files are there are skipped, so that a killed step resumes with the next sequence and several
    processes, also on several machines, can share the sequences: each tracks its `part`.

    Raises:
        InputError: the model, the split or an image cannot be read.
    """
    model, settings, _ = load_tracker(root / "models" / job.run / "model.pt", device)
    folder = root / "data" / job.run.partition("/")[0] / job.split
    tracker = Tracker(optimized(model, torch.float32), replace(settings, tracker=job.tracker))
    track_split(tracker, folder, tracks, detections, part, resume=True)


def track_split(
    tracker: Tracker,
    folder: Path,
    tracks_folder: Path,
    detections_folder: Path,
    part: Part | None = None,
    resume: bool = False,
) -> None:
    """Track every sequence of a split, to ``tracks_folder/SEQUENCE.txt`` and ``detections_folder/SEQUENCE.npz``.

    Args:
        tracker: any; it is reset for each sequence.
        folder: data/DATASET/SPLIT.
        tracks_folder: where the tracks go, in MOTChallenge form.
        detections_folder: where the detections go, as `write_detections` writes them.
        part: the share of the sequences to track; None: all.
        resume: skip sequences whose files are there.

    Raises:
        InputError: the split or an image of it cannot be read.
    """
    part = part or Part(1, 1)
    # None: only on a terminal.
    sequences = tqdm(read_split(folder)[part.number - 1 :: part.count], unit="sequence", disable=None)
    for sequence in sequences:
        sequences.set_postfix_str(sequence.name)
        tracks_path = tracks_folder / f"{sequence.name}.txt"
        detections_path = detections_folder / f"{sequence.name}.npz"
        if resume and tracks_path.is_file() and detections_path.is_file():
            logger.info("%s: tracked before", sequence.name)
            continue
        tracks, detections = track_sequence(tracker, sequence)
        write_detections(detections_path, detections)
        write_boxes(tracks_path, tracks)
        if sequences.disable:
            identities = len(np.unique(tracks.identities))
            logger.info("%s: %d frames, %d tracks", sequence.name, sequence.frames, identities)


def track_sequence(tracker: Tracker, sequence: Sequence, batch: int = BATCH) -> tuple[Boxes, Detections]:
    """Tracks and detections of `sequence`, in pixels of its images; (0, 0) is their top left corner.

    Args:
        tracker: any; it is reset before the first image.
        sequence: what to track.
        batch: images that go through the detector at once. Results do not depend on it (but for rounding).

    Raises:
        InputError: an image cannot be read.
    """
    tracker.reset()
    tracks: list[Boxes] = []
    detections: list[Detections] = []
    with closing(sequence_images(sequence)) as images, closing(tracker.track(images, batch, record=True)) as tracked:
        for frame, (_, found, recorded) in enumerate(tracked, start=1):
            tracks.append(found.to_boxes(frame))
            detections += [] if recorded is None else [recorded]
    return joined(tracks), joined(detections)
