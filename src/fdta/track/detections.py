"""What the detector found in a sequence, as a file: input of the baselines and of the similarity statistic."""

from __future__ import annotations

import zipfile
import zlib
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
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        what = " ".join(str(error).split())
        raise InputError(f"{path}: no file of detections ({what}); track the sequence again") from None
    shapes = [array.shape for array in vars(detections).values()]
    kinds = "".join(array.dtype.kind for array in vars(detections).values())
    rows = shapes[0][:1]
    if shapes[:3] != [rows, (*rows, 4), rows] or shapes[3][:1] != rows or len(shapes[3]) != 2 or kinds != "ifff":
        raise InputError(f"{path}: its arrays are not as tracking writes them; track the sequence again")
    if not all(np.isfinite(array).all() for array in vars(detections).values()):
        raise InputError(f"{path}: holds nan or inf; track the sequence again")
    if (np.diff(detections.frames) < 0).any():
        raise InputError(f"{path}: frames out of order; track the sequence again")
    return detections
