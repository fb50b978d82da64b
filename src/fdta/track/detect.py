"""Detections and embeddings of a detector that does not track yet: what Fig. 1 sets beside the trained runs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fdta.data.motchallenge import Sequence, read_split
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.files import digest, write_json
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.names import DETECTOR, Run
from fdta.track.detections import Detections, write_detections
from fdta.track.sequence import corners, read_images

CHUNK = 8
"""Frames that go through the detector at once."""

logger = logging.getLogger(__name__)


def detect_split(params: Experiment, dataset: str, split: str, root: Path, device: torch.device) -> Path:
    """Detect the objects of every sequence of a split with ``models/DATASET/detector.pt``.

    They go to ``detections/DATASET/detector/seed-0/SPLIT/SEQUENCE.npz``; ``summary.json`` beside them is written last.

    Returns:
        The folder.

    Raises:
        InputError: no such detector or split, or an image cannot be read.
    """
    path = root / "models" / dataset / "detector.pt"
    settings = params.settings(dataset, DETECTOR)
    state = checkpoint.load(path)
    if state.get("run") != f"{dataset}/{DETECTOR}":
        raise InputError(f"{path}: not the detector of {dataset}; train it with `fdta train {dataset}/{DETECTOR}`")
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    checkpoint.fill(detector, state["model"], path)
    detector.to(device).eval()
    folder = root / "detections" / str(Run(dataset, DETECTOR)) / split
    sequences = tqdm(read_split(root / "data" / dataset / split), unit="sequence", disable=None)
    for sequence in sequences:
        found = detect_sequence(detector, sequence, settings, device)
        write_detections(folder / f"{sequence.name}.npz", found)
        if sequences.disable:
            logger.info("%s: %d frames, %d detections", sequence.name, sequence.frames, len(found.frames))
    summary = {"run": f"{dataset}/{DETECTOR}", "sequences": len(sequences), "detections": digest(folder, "*.npz")}
    write_json(folder / "summary.json", summary)
    return folder


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
                (corners(output.boxes_cxcywh[kept].cpu().numpy()) * scale).astype(np.float32),
                scores[kept].cpu().numpy(),
                output.embeddings[kept].half().cpu().numpy(),
            )
        )
    return Detections(*map(np.concatenate, zip(*found, strict=True)))
