"""Teachers: where the pseudo depth that supervises the Spatial Adapter comes from (paper Sec. 3.2, D.1)."""

from __future__ import annotations

import functools
import hashlib
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from tqdm import tqdm

from fdta.data.motchallenge import Sequence, read_split, write_image
from fdta.data.rendered import read_true_depth
from fdta.depth.sliding_window import INPUT_SIZE, video_depth
from fdta.depth.video_depth_anything import Size, VideoDepthAnything, check_weights, load_video_depth_anything
from fdta.errors import InputError
from fdta.files import whole_folder, write_json
from fdta.settings import read_json

_RECORD = "teacher.json"
"""File among the maps that tells who made them, and in how many seconds. Maps without it are the user's own."""
_LARGEST = float(np.finfo(np.float16).max)
"""Depth beyond it does not come from published weights."""


def make_depth(
    folder: Path,
    teacher: str,
    size: Size = "large",
    weights: Path | None = None,
    device: torch.device | None = None,
    input_size: int = INPUT_SIZE,
    job: str = "",
) -> dict[str, dict[str, float | None]]:
    """Write ``DATASET/depth/SPLIT/SEQUENCE/%08d.png`` for every sequence of `folder`; seconds and bytes a sequence.

    The maps are 8-bit inverse depth divided by the sequence's maximum, larger is nearer (docs/model.md, Pseudo depth
    and depth bins). Those of Video Depth Anything have the frame's sides divided by the largest whole number that
    leaves no less than the network sees: half of them for 1920 x 1080 and the published input size. With it, a
    sequence that has the maps of these weights is left alone, so that a killed run goes on where it was; so is one that
    has maps from elsewhere, whose seconds are null.

    Args:
        folder: a split.
        teacher: "rendered" (data sets that bring their depth) or "video-depth-anything".
        size: of Video Depth Anything.
        weights: its checkpoint; not needed where every sequence has maps from elsewhere.
        device: where to compute, by default the CPU.
        input_size: short side of the input of Video Depth Anything in pixels.
        job: key of the job that makes them; maps of another job are made again.

    Raises:
        InputError: `folder` is no split, there are no weights, or they do not fit; a sequence has maps from elsewhere
            for some of its frames only.
    """
    if teacher == "rendered":
        return {sequence.name: _from_truth(sequence) for sequence in read_split(folder)}
    estimator = _Estimator(size, weights, device or torch.device("cpu"), input_size, job)
    sequences = tqdm(read_split(folder), unit="sequence", disable=None)  # None: only on a terminal
    return {sequence.name: estimator.costs(sequence) for sequence in sequences}


def _from_truth(sequence: Sequence) -> dict[str, float | None]:
    began = time.monotonic()
    depth = read_true_depth(sequence.folder)
    with whole_folder(sequence.made_depth_folder) as temporary:
        _write_maps(temporary, depth, depth.max())
    return _costs(sequence, time.monotonic() - began)


class _Estimator:
    """Video Depth Anything, loaded when the first sequence needs it."""

    def __init__(self, size: Size, weights: Path | None, device: torch.device, input_size: int, job: str) -> None:
        self._size = size
        self._input_size, self._job = input_size, job
        self._weights = weights
        self._device = device

    def costs(self, sequence: Sequence) -> dict[str, float | None]:
        """Seconds and bytes of the maps of `sequence`, which are made unless they are there."""
        folder = sequence.depth_folder
        record = _read_record(folder / _RECORD)
        missing = [frame for frame in range(1, sequence.frames + 1) if not (folder / f"{frame:08d}.png").is_file()]
        if record is None and folder.is_dir():
            if missing:
                raise InputError(
                    f"{folder / f'{missing[0]:08d}.png'}: no such file, though {folder} has maps; complete the folder, "
                    f"or remove it to have all of it made"
                )
            return _costs(sequence, None)
        if record is None or missing or record.get("made_by") != self._signature:
            began = time.monotonic()
            self._make(sequence, folder, began)
            record = _read_record(folder / _RECORD)
        return _costs(sequence, record.get("seconds") if record else None)

    @functools.cached_property
    def _signature(self) -> dict[str, str | int]:
        """What tells these maps from those of other weights and input sizes."""
        with check_weights(self._weights, self._size).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "teacher": "video-depth-anything",
            "size": self._size,
            "sha256": digest,
            "input_size": self._input_size,
            "job": self._job,
        }

    @functools.cached_property
    def _network(self) -> VideoDepthAnything:
        return load_video_depth_anything(self._weights, self._size, self._device)

    def _make(self, sequence: Sequence, folder: Path, began: float) -> None:
        depth = video_depth(
            self._network, lambda index: sequence.image(index + 1), sequence.frames, self._device, self._input_size
        )
        # The maximum is known only at the end. Until then the depth lies in a file without a name, which goes with the
        # process; half precision is finer than 8 bits.
        width, height = map_size(sequence.width, sequence.height, self._input_size)
        with tempfile.TemporaryFile(dir=sequence.folder) as file, whole_folder(folder) as temporary:
            maximum = 0.0
            for full in depth:
                image = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
                maximum = max(maximum, float(image.max()))
                if not (np.isfinite(image).all() and maximum <= _LARGEST):
                    raise InputError(f"{self._weights}: gives infinite depth for {sequence.folder}; get the file anew")
                file.write(image.astype(np.float16).tobytes())
            file.seek(0)
            _write_maps(temporary, _frames_of(file, (height, width)), maximum)
            seconds = round(time.monotonic() - began, 3)
            write_json(temporary / _RECORD, {"made_by": self._signature, "seconds": seconds})


def map_size(width: int, height: int, input_size: int = INPUT_SIZE) -> tuple[int, int]:
    """Width and height of the maps of frames of `width` x `height` pixels: see `make_depth`."""
    both = math.gcd(width, height)
    times = max((n for n in range(1, both + 1) if both % n == 0 and min(width, height) >= n * input_size), default=1)
    return width // times, height // times


def _frames_of(file: BinaryIO, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    while data := file.read(2 * shape[0] * shape[1]):
        yield np.frombuffer(data, np.float16).reshape(shape)


def _write_maps(folder: Path, depth: Iterable[np.ndarray], maximum: float) -> None:
    """Write (H, W) inverse depth of each frame as 8-bit map, `maximum` as 255."""
    for frame, image in enumerate(depth, start=1):
        scaled = np.round(image.astype(np.float32) / np.float32(maximum or 1) * 255)
        write_image(folder / f"{frame:08d}.png", scaled.astype(np.uint8))


def _read_record(path: Path) -> dict[str, Any] | None:
    return read_json(dict[str, Any], path)


def _costs(sequence: Sequence, seconds: float | None) -> dict[str, float | None]:
    size = sum(path.stat().st_size for path in sequence.depth_folder.glob("*.png"))
    return {"seconds": None if seconds is None else round(seconds, 3), "bytes": size}
