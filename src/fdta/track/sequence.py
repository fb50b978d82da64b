"""Whole sequences through detector and online tracker, to files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fdta.boxes import cxcywh_to_xyxy, xyxy_to_xywh
from fdta.data.images import resized_size, to_network
from fdta.data.motchallenge import Boxes, Sequence, read_split, write_boxes
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model.detector import DeformableDetector, LayerOutput
from fdta.model.fdta import FDTA
from fdta.model.graphs import Graphed
from fdta.track.detections import Detections, write_detections
from fdta.track.settings import TrackerSettings
from fdta.track.tracker import OnlineTracker

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")


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


def track_split(
    model: FDTA,
    folder: Path,
    tracks_folder: Path,
    detections_folder: Path,
    settings: Settings,
    device: torch.device,
    part: Part | None = None,
    resume: bool = False,
) -> None:
    """Track every sequence of a split, to ``tracks_folder/SEQUENCE.txt`` and ``detections_folder/SEQUENCE.npz``.

    Args:
        model: on `device`; put into evaluation mode.
        folder: data/DATASET/SPLIT.
        tracks_folder: where the tracks go, in MOTChallenge form.
        detections_folder: where the detections go, as `write_detections` writes them.
        settings: of the model.
        device: of the model.
        part: the share of the sequences to track; None: all.
        resume: skip sequences whose files are there.

    Raises:
        InputError: the split or an image of it cannot be read.
    """
    part = part or Part(1, 1)
    detect = watching(model.detector)
    sequences = tqdm(
        read_split(folder)[part.number - 1 :: part.count], unit="sequence", disable=None
    )  # None: only on a terminal
    for sequence in sequences:
        sequences.set_postfix_str(sequence.name)
        tracks_path = tracks_folder / f"{sequence.name}.txt"
        detections_path = detections_folder / f"{sequence.name}.npz"
        if resume and tracks_path.is_file() and detections_path.is_file():
            logger.info("%s: tracked before", sequence.name)
            continue
        tracks, detections = track_sequence(model, sequence, settings, device, detect=detect)
        write_detections(detections_path, detections)
        write_boxes(tracks_path, tracks)
        if sequences.disable:
            identities = len(np.unique(tracks.identities))
            logger.info("%s: %d frames, %d tracks", sequence.name, sequence.frames, identities)


@torch.inference_mode()
def track_sequence(
    model: FDTA,
    sequence: Sequence,
    settings: Settings,
    device: torch.device,
    chunk: int = 8,
    detect: Graphed | None = None,
) -> tuple[Boxes, Detections]:
    """Tracks and detections of `sequence`, in pixels of its images; (0, 0) is their top left corner.

    Images are in memory for at most two chunks at a time, whatever the length of the sequence.

    Args:
        model: on `device`; put into evaluation mode.
        sequence: what to track.
        settings: of the model.
        device: of the model.
        chunk: frames that go through the detector at once. Results do not depend on it (but for rounding).
        detect: `watching` of the model's detector, from the sequence before; None: a new one.

    Raises:
        InputError: an image cannot be read.
    """
    model.eval()
    detect = detect or watching(model.detector)
    tracker = OnlineTracker.from_model(model, settings)
    scale = np.array([sequence.width, sequence.height] * 2)
    tracks: list[tuple[np.ndarray, ...]] = []
    detections: list[tuple[np.ndarray, ...]] = []
    for frames, images in _chunks(sequence, settings, device, chunk):
        found_objects = detect(images)
        # Whole, because a GPU would be waited for to choose.
        scores, boxes_cxcywh, embeddings = (tensor.cpu() for tensor in found_objects)
        recorded = scores > settings.tracker.record_threshold
        detections.append(
            (
                frames[recorded.nonzero()[:, 0]],
                cxcywh_to_xyxy(boxes_cxcywh[recorded].double().numpy()) * scale,
                scores[recorded].numpy(),
                embeddings[recorded].half().numpy(),
            )
        )
        for frame, *detected in zip(frames, *found_objects, strict=True):
            found = tracker.update(*detected)
            boxes_xywh = xyxy_to_xywh(cxcywh_to_xyxy(found.boxes_cxcywh.astype(np.float64)) * scale)
            order = np.argsort(found.identities)
            tracks.append((np.full(len(order), frame), found.identities[order], boxes_xywh[order], found.scores[order]))
    frame, boxes_xyxy, score, embedding = map(np.concatenate, zip(*detections, strict=True))
    found_detections = Detections(frame.astype(np.int32), boxes_xyxy.astype(np.float32), score, embedding)
    frame, identity, boxes_xywh, score = map(np.concatenate, zip(*tracks, strict=True))
    return Boxes(frame, identity, boxes_xywh, score.astype(np.float64)), found_detections


def objects(output: LayerOutput) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, Q), boxes (B, Q, 4) and embeddings (B, Q, d) of a detector's output, where it is."""
    return output.logits.float().sigmoid().amax(dim=-1), output.boxes_cxcywh.float(), output.embeddings


def watching(detector: DeformableDetector) -> Graphed:
    """Images (B, 3, H, W) -> `objects` that `detector` finds in them."""
    return Graphed(lambda images: objects(detector(images)), "detector", lambda: detector.constants())


def read_images(
    sequence: Sequence, frames: np.ndarray, settings: TrackerSettings, device: torch.device = CPU
) -> Tensor:
    """Frames (n,) of `sequence`, counted from 1, as the detector reads them: (n, 3, H, W) on `device`.

    Raises:
        InputError: an image cannot be read.
    """
    size = resized_size(sequence.width, sequence.height, settings.short_side, settings.long_side)
    with ThreadPoolExecutor(torch.get_num_threads()) as decoders:
        images = list(decoders.map(sequence.image, frames.tolist()))
    return to_network(images, size, device)


def _chunks(
    sequence: Sequence, settings: Settings, device: torch.device, chunk: int
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Frame numbers (n,) and images (n, 3, H, W) of at most `chunk` frames; a thread reads one chunk ahead."""

    def read(frames: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return frames, read_images(sequence, frames, settings.tracker, device)

    every = np.arange(1, sequence.frames + 1)
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(read, every[:chunk])
        for first in range(chunk, sequence.frames, chunk):
            ready, ahead = ahead, reader.submit(read, every[first : first + chunk])
            yield ready.result()
        yield ahead.result()
