"""What the detector found in a sequence, as a file: input of the baselines and of the similarity statistic."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from fdta.data.motchallenge import Boxes
from fdta.errors import InputError
from fdta.files import whole_file

Rows = TypeVar("Rows", "Detections", Boxes)


@dataclass(frozen=True)
class Detections:
    """What the detector found in a sequence above `TrackerSettings.record_threshold`, frame by frame."""

    frames: np.ndarray
    """(n,) int32, from 1, rising."""
    boxes_xyxy: np.ndarray
    """(n, 4) float32, pixels of the original image."""
    scores: np.ndarray
    """(n,) float32, 0..1."""
    embeddings: np.ndarray
    """(n, d) float16, of the last decoder layer, before the adapters of the association."""

    def above(self, threshold: float) -> Detections:
        """Those with a score above `threshold`."""
        keep = self.scores > threshold
        return Detections(self.frames[keep], self.boxes_xyxy[keep], self.scores[keep], self.embeddings[keep])


def joined(parts: Sequence[Rows]) -> Rows:
    """`parts`, of one or more frames each, as one."""
    return type(parts[0])(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


def write_detections(path: Path, detections: Detections) -> None:
    """Write `detections` to `path`, SEQUENCE.npz, whole or not at all; the arrays bear the names of the fields."""
    with whole_file(path) as temporary:
        np.savez(temporary, **vars(detections))


def read_detections(path: Path) -> Detections:
    """Detections that `write_detections` wrote.

    Raises:
        InputError: the file is missing or is no such file.
    """
    try:
        with np.load(path) as arrays:
            detections = Detections(**{field.name: arrays[field.name] for field in fields(Detections)})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; track the sequence with the run first") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no file of detections ({error}); track the sequence again") from None
    if len({len(array) for array in vars(detections).values()}) != 1 or (np.diff(detections.frames) < 0).any():
        raise InputError(f"{path}: arrays of unequal length or frames out of order; track the sequence again")
    return detections
