"""From images to detections: the first half of tracking, and by itself what Fig. 1 compares the trained runs with."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fdta.boxes import cxcywh_to_xyxy
from fdta.data.images import resized_size, to_network
from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector, LayerOutput
from fdta.model.graphs import Graphed
from fdta.names import DETECTOR
from fdta.settings import read_settings
from fdta.track.detections import Detections, joined, write_detections
from fdta.track.reading import read_ahead, sequence_images
from fdta.track.settings import TrackerSettings

if TYPE_CHECKING:
    from fdta.experiment.jobs import DetectJob

BATCH = 8
"""Images of a sequence that go through the detector at once."""

logger = logging.getLogger(__name__)


class Objects(NamedTuple):
    """What a detector finds in B images, where the detector is."""

    scores: Tensor
    """(B, Q), 0..1."""
    boxes_cxcywh: Tensor
    """(B, Q, 4), 0..1 of the image."""
    embeddings: Tensor
    """(B, Q, d)."""


def objects_of(output: LayerOutput) -> Objects:
    """The objects of a detector's output."""
    return Objects(output.logits.float().sigmoid().amax(dim=-1), output.boxes_cxcywh.float(), output.embeddings)


def graphed_detector(detector: DeformableDetector) -> Graphed:
    """Images (B, 3, H, W) -> `Objects` that `detector` finds in them; on CUDA, a graph for sizes that come again."""
    return Graphed(lambda images: objects_of(detector(images)), "detector", lambda: detector.constants())


class ImageDetector:
    """A detector of images as they are read: it resizes and normalizes them, a batch at a time."""

    def __init__(
        self, detect: Callable[[Tensor], Objects], settings: TrackerSettings, device: torch.device | str
    ) -> None:
        """Sizes and the record threshold are those of `settings`; `detect` takes images of `to_network` on `device`."""
        self.device = torch.device(device)
        self._detect = detect
        self._settings = settings

    @classmethod
    def from_model(cls, detector: DeformableDetector, settings: TrackerSettings) -> ImageDetector:
        """Of `detector`, which is in evaluation mode, on its device."""
        return cls(graphed_detector(detector), settings, next(detector.parameters()).device)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> Objects:
        """Objects of `images`, (H, W, 3) uint8 RGB, all of one size. The next call may overwrite them."""
        height, width = images[0].shape[:2]
        size = resized_size(width, height, self._settings.short_side, self._settings.long_side)
        return self._detect(to_network(images, size, self.device))

    def batches(
        self, images: Iterator[np.ndarray], batch: int
    ) -> Generator[tuple[int, list[np.ndarray], Objects], None, None]:
        """Up to `batch` of `images` at a time: the number of the first, from 1, the images and their objects.

        Another thread reads `batch` images ahead. Closing the generator waits for that thread, but does not close
        `images`.
        """
        with closing(read_ahead(images, self.device, batch)) as ahead:
            for first in itertools.count(1, batch):
                taken = list(itertools.islice(ahead, batch))
                if not taken:
                    break
                yield first, taken, self(taken)

    @torch.inference_mode()
    def recorded(self, objects: Objects, shape: tuple[int, ...], first: int) -> list[Detections]:
        """The `objects` above the record threshold, by frame, from number `first`; images have `shape` (H, W, 3)."""
        scale = np.array(shape[1::-1] * 2)
        # Everything is copied, because choosing on a GPU would wait for it.
        per_frame = zip(*(tensor.cpu() for tensor in objects), strict=True)
        found = []
        for frame, (scores, boxes_cxcywh, embeddings) in enumerate(per_frame, first):
            kept = scores > self._settings.record_threshold
            boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh[kept].double().numpy()) * scale
            frames = np.full(len(boxes_xyxy), frame, dtype=np.int32)
            score, embedding = scores[kept].numpy(), embeddings[kept].half().numpy()
            found.append(Detections(frames, boxes_xyxy.astype(np.float32), score, embedding))
        return found


def detect_split(job: DetectJob, root: Path, folder: Path, device: torch.device) -> None:
    """Detect the objects of every sequence of a split with the data set's detector, to ``folder/SEQUENCE.npz``.

    Raises:
        InputError: no such detector or split, or an image cannot be read.
    """
    path = root / job.model
    state = checkpoint.load_model(path)
    if not state["run"].endswith(f"/{DETECTOR}"):
        raise InputError(f"{path}: not a detector; train one with `fdta train {job.dataset}/{DETECTOR}`")
    settings = replace(read_settings(Settings, state["settings"], "settings", path), tracker=job.tracker)
    model = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    checkpoint.fill(model, state["model"], path)
    detector = ImageDetector.from_model(model.to(device).eval(), job.tracker)
    sequences = tqdm(read_split(root / "data" / job.dataset / job.split), unit="sequence", disable=None)
    for sequence in sequences:
        with closing(sequence_images(sequence)) as images, closing(detector.batches(images, BATCH)) as batches:
            found = [detector.recorded(objects, taken[0].shape, first) for first, taken, objects in batches]
        detections = joined(list(itertools.chain(*found)))
        write_detections(folder / f"{sequence.name}.npz", detections)
        if sequences.disable:
            logger.info("%s: %d frames, %d detections", sequence.name, sequence.frames, len(detections.frames))
