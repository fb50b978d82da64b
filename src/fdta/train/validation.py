"""Scores of a model while it trains."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from fdta.boxes import xywh_to_cxcywh
from fdta.data.motchallenge import read_split, write_boxes
from fdta.errors import InputError
from fdta.evaluate.detection import average_precision
from fdta.evaluate.score import COMBINED, score
from fdta.experiment.settings import Settings
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.track.sequence import read_images, track_sequence


def detector_validation(
    detector: DeformableDetector, settings: Settings, folder: Path, device: torch.device
) -> Callable[[], dict[str, float]]:
    """AP50 on the first sequences of `folder`, every fourth frame."""

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        scores, boxes, truth = [], [], []
        for sequence in read_split(folder)[: settings.detector_training.validate_sequences]:
            rows = sequence.ground_truth()
            scale = torch.tensor([sequence.width, sequence.height] * 2, dtype=torch.float32)
            for frames in np.array_split(np.arange(1, sequence.frames + 1, 4), -(-sequence.frames // 32)):
                images = read_images(sequence, frames, settings.validation).to(device)
                output = detector(images, torch.zeros_like(images[:, 0], dtype=torch.bool))
                scores += list(output.logits.sigmoid().amax(-1).cpu())
                boxes += list(output.boxes_cxcywh.cpu())
                for frame in frames:
                    box = torch.from_numpy(rows.boxes_xywh[rows.frames == frame]).float()
                    truth.append(xywh_to_cxcywh(box) / scale)
        return {"AP50": average_precision(scores, boxes, truth)}

    return validate


def tracker_validation(
    model: FDTA, settings: Settings, folder: Path, device: torch.device
) -> Callable[[], dict[str, float]]:
    """Tracking scores on the first sequences of `folder`.

    Raises:
        InputError: the training validates, and TrackEval is not installed.
    """
    if settings.training.validate_every and find_spec("trackeval") is None:
        raise InputError(
            "training.validate_every: validation needs TrackEval; give pip install trackeval, or set it to 0"
        )

    def validate() -> dict[str, float]:
        sequences = read_split(folder)[: settings.training.validate_sequences]
        with tempfile.TemporaryDirectory() as temporary:
            for sequence in sequences:
                tracks, _ = track_sequence(model, sequence, replace(settings, tracker=settings.validation), device)
                write_boxes(Path(temporary) / f"{sequence.name}.txt", tracks)
            combined = score(folder, Path(temporary), [sequence.name for sequence in sequences])[COMBINED]
        return {name: combined[name] for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")}

    return validate
