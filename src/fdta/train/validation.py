"""Scores of a model while it trains."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from fdta.boxes import xywh_to_cxcywh
from fdta.data.motchallenge import read_split, write_boxes
from fdta.errors import InputError
from fdta.evaluate.detection import average_precision
from fdta.evaluate.score import COMBINED, score
from fdta.experiment.settings import Settings
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.track.detect import BATCH, ImageDetector
from fdta.track.pipeline import Tracker
from fdta.track.reading import sequence_images
from fdta.track.run import track_sequence

EVERY = 4
"""A detector is validated on every so many frames."""


def detector_validation(
    detector: DeformableDetector, settings: Settings, folder: Path
) -> Callable[[], dict[str, float]]:
    """AP50 on the first sequences of `folder`, every fourth frame."""

    def validate() -> dict[str, float]:
        scores, boxes, truth = [], [], []
        find = ImageDetector.from_model(detector, settings.validation)
        for sequence in read_split(folder)[: settings.detector_training.validate_sequences]:
            rows = sequence.ground_truth()
            scale = torch.tensor([sequence.width, sequence.height] * 2, dtype=torch.float32)
            with closing(sequence_images(sequence, EVERY)) as images, closing(find.batches(images, BATCH)) as batches:
                for _, _, objects in batches:
                    scores += list(objects.scores.cpu())
                    boxes += list(objects.boxes_cxcywh.cpu())
            for frame in range(1, sequence.frames + 1, EVERY):
                box = torch.from_numpy(rows.boxes_xywh[rows.frames == frame]).float()
                truth.append(xywh_to_cxcywh(box) / scale)
        return {"AP50": average_precision(scores, boxes, truth)}

    return validate


def tracker_validation(model: FDTA, settings: Settings, folder: Path) -> Callable[[], dict[str, float]]:
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
        tracker = Tracker(model, replace(settings, tracker=settings.validation))
        with tempfile.TemporaryDirectory() as temporary:
            for sequence in sequences:
                tracks, _ = track_sequence(tracker, sequence)
                write_boxes(Path(temporary) / f"{sequence.name}.txt", tracks)
            combined = score(folder, Path(temporary), [sequence.name for sequence in sequences])[COMBINED]
        return {name: combined[name] for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")}

    return validate
