"""Detections and embeddings of a detector that does not track yet: what Fig. 1 sets beside the trained runs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from fdta.boxes import cxcywh_to_xyxy
from fdta.data.motchallenge import Sequence, read_split
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.names import DETECTOR
from fdta.settings import read_settings
from fdta.track.detections import Detections, write_detections
from fdta.track.sequence import read_images

if TYPE_CHECKING:
    from fdta.experiment.jobs import DetectJob

CHUNK = 8
"""Frames that go through the detector at once."""

logger = logging.getLogger(__name__)


def detect_split(job: DetectJob, root: Path, folder: Path, device: torch.device) -> None:
    """Detect the objects of every sequence of a split with the data set's detector, to ``folder/SEQUENCE.npz``.

    Raises:
        InputError: no such detector or split, or an image cannot be read.
    """
    path = root / job.model
    state = checkpoint.load(path)
    if not str(state.get("run")).endswith(f"/{DETECTOR}"):
        raise InputError(f"{path}: not a detector; train one with `fdta train {job.dataset}/{DETECTOR}`")
    settings = replace(read_settings(Settings, state["settings"], "settings", path), tracker=job.tracker)
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    checkpoint.fill(detector, state["model"], path)
    detector.to(device).eval()
    sequences = tqdm(read_split(root / "data" / job.dataset / job.split), unit="sequence", disable=None)
    for sequence in sequences:
        found = detect_sequence(detector, sequence, settings, device)
        write_detections(folder / f"{sequence.name}.npz", found)
        if sequences.disable:
            logger.info("%s: %d frames, %d detections", sequence.name, sequence.frames, len(found.frames))


@torch.inference_mode()
def detect_sequence(
    detector: DeformableDetector, sequence: Sequence, settings: Settings, device: torch.device
) -> Detections:
    """Detections of `sequence` above the record threshold.

    Args:
        detector: on `device`, in evaluation mode.
        sequence: what to look at.
        settings: of the detector; sizes and threshold are those of its tracker.
        device: of the detector.

    Raises:
        InputError: an image cannot be read.
    """
    scale = np.array([sequence.width, sequence.height] * 2)
    found = []
    every = np.arange(1, sequence.frames + 1)
    for frames in np.array_split(every, -(-len(every) // CHUNK)):
        images = read_images(sequence, frames, settings.tracker).to(device)
        output = detector(images, torch.zeros_like(images[:, 0], dtype=torch.bool))
        scores = output.logits.sigmoid().amax(dim=-1)
        kept = scores > settings.tracker.record_threshold
        found.append(
            (
                frames[kept.nonzero()[:, 0].cpu()].astype(np.int32),
                (cxcywh_to_xyxy(output.boxes_cxcywh[kept].cpu().double().numpy()) * scale).astype(np.float32),
                scores[kept].cpu().numpy(),
                output.embeddings[kept].half().cpu().numpy(),
            )
        )
    return Detections(*map(np.concatenate, zip(*found, strict=True)))
