"""Teachers: where the pseudo depth that supervises the Spatial Adapter comes from (paper Sec. 3.2)."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from fdta.data.motchallenge import Sequence, read_split
from fdta.data.render import read_true_depth
from fdta.errors import InputError
from fdta.files import whole_folder


def make_depth(folder: Path, teacher: str) -> dict[str, dict[str, float]]:
    """Write ``SEQUENCE/depth/%08d.png`` for every sequence of `folder`; seconds and bytes a sequence.

    The maps are 8-bit inverse depth divided by the sequence's maximum, larger is nearer (MODEL.md, Video Depth
    Anything).

    Raises:
        InputError: `folder` is no split, or the teacher cannot be had.
    """
    if teacher != "rendered":
        raise InputError(f"teacher {teacher!r}: only rendered data sets bring their depth; put 8-bit maps in depth/")
    costs = {}
    for sequence in read_split(folder):
        began = time.monotonic()
        _write_depth(sequence, read_true_depth(sequence.folder))
        size = sum(path.stat().st_size for path in (sequence.folder / "depth").iterdir())
        costs[sequence.name] = {"seconds": round(time.monotonic() - began, 3), "bytes": size}
    return costs


def _write_depth(sequence: Sequence, inverse_depth: np.ndarray) -> None:
    """Write (frames, H, W) inverse depth as 8-bit maps."""
    scaled = np.round(inverse_depth.astype(np.float32) / inverse_depth.max() * 255).astype(np.uint8)
    with whole_folder(sequence.folder / "depth") as temporary:
        for index, image in enumerate(scaled):
            cv2.imwrite(str(temporary / f"{index + 1:08d}.png"), image)
