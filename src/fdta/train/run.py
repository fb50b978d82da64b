"""One training from params.yaml to a checkpoint: of a data set's detector, or of a variant on top of it."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fdta.data.clips import ClipDataset
from fdta.data.motchallenge import read_split, write_boxes
from fdta.distributed import rank
from fdta.errors import InputError
from fdta.evaluate.detection import average_precision
from fdta.evaluate.score import COMBINED, score
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.loss.attributes import AttributeHeads
from fdta.model import checkpoint
from fdta.model.detector import DEPTH_PARTS, DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.published import load_detector
from fdta.names import DETECTOR, Run
from fdta.settings import to_plain
from fdta.synthetic.bodies import ATTRIBUTES
from fdta.track.sequence import read_images, track_sequence
from fdta.train.loop import finish, fit
from fdta.train.objectives import DetectorObjective, TrackerObjective

_logger = logging.getLogger(__name__)


def train_detector(
    params: Experiment, dataset: str, root: Path, device: torch.device, workers: int, again: bool = False
) -> None:
    """Train the detector of `dataset` alone, to ``models/DATASET/{detector.pt, detector-history.jsonl}``.

    It starts from the data set's `detector_start`, ours or published, and learns appearance attributes where
    `loss.attributes` is above 0. A finished detector of the same origin is left alone, unless with `again`.

    Raises:
        InputError: data or start cannot be read; see also `fit`.
    """
    settings, data = params.settings(dataset, DETECTOR), params.dataset(dataset)
    folder = root / "models" / dataset
    torch.manual_seed(0)
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    if data.detector_start is not None:
        start = root / data.detector_start
        if data.detector_start in params.benchmark.datasets:
            start = root / "models" / data.detector_start / "detector.pt"
        checkpoint.fill(detector, load_detector(start, data.detector_class), start)
    model = nn.ModuleDict({"detector": detector})
    with_attributes = settings.loss.attributes > 0
    if with_attributes:
        model["attribute_heads"] = AttributeHeads(settings.detector.width, ATTRIBUTES, settings.detector.decoder_layers)
    model.to(device)
    clips = ClipDataset(
        root / "data" / dataset,
        settings.training_splits,
        settings,
        length=1,
        with_depth=False,
        with_attributes=with_attributes,
        clips_per_epoch=settings.detector_training.clips_per_epoch,
        seed=0,
    )
    origin = _origin(settings, detector, clips, 0)
    if not again and _is_finished(folder / "detector.pt", origin):
        return
    fit(
        model,
        DetectorObjective(model, settings),
        clips,
        settings.detector_training,
        folder=folder,
        name="detector-",
        origin=origin,
        seed=0,
        device=device,
        workers=workers,
        validate=_detector_validation(detector, settings, root / "data" / dataset / data.validation_split, device),
        again=again,
    )
    _save(folder, "detector-", "detector.pt", detector, settings, f"{dataset}/{DETECTOR}", origin)


def train_tracker(
    params: Experiment, run: Run, root: Path, device: torch.device, workers: int, again: bool = False
) -> None:
    """Train one run, to ``models/RUN/{model.pt, history.jsonl}``. It starts from the data set's detector.

    A finished run of the same origin is left alone, unless with `again`.

    Raises:
        InputError: data or detector cannot be read, or the detector does not fit the settings; see also `fit`.
    """
    settings, data = params.settings(run.dataset, run.variant), params.dataset(run.dataset)
    folder = root / "models" / str(run)
    torch.manual_seed(run.seed)
    model = FDTA(settings)
    start = root / "models" / run.dataset / "detector.pt"
    checkpoint.fill(model.detector, checkpoint.load(start)["model"], start, new=DEPTH_PARTS)
    model.to(device)
    clips = ClipDataset(
        root / "data" / run.dataset,
        settings.training_splits,
        settings,
        length=settings.history,
        with_depth=settings.spatial.enabled,
        with_attributes=False,
        clips_per_epoch=settings.training.clips_per_epoch,
        seed=run.seed,
    )
    origin = _origin(settings, model, clips, run.seed)
    if not again and _is_finished(folder / "model.pt", origin):
        return
    fit(
        model,
        TrackerObjective(model, settings),
        clips,
        settings.training,
        folder=folder,
        name="",
        origin=origin,
        seed=run.seed,
        device=device,
        workers=workers,
        validate=_tracker_validation(model, settings, root / "data" / run.dataset / data.validation_split, device),
        again=again,
    )
    _save(folder, "", "model.pt", model, settings, str(run), origin)


def _origin(settings: Settings, model: nn.Module, clips: ClipDataset, seed: int) -> str:
    """What a training is made of: its settings, data, starting weights and seed."""
    digest = hashlib.sha256(json.dumps([to_plain(settings), clips.digest(), seed]).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_finished(path: Path, origin: str) -> bool:
    """Whether `path` holds the result of the training of this origin."""
    if not path.is_file() or checkpoint.load(path).get("origin") != origin:
        return False
    if rank() == 0:
        _logger.info("%s: finished already, with these settings, data and start; --again trains it anew", path)
    return True


def _save(folder: Path, name: str, file: str, model: nn.Module, settings: Settings, run: str, origin: str) -> None:
    if rank() > 0:
        return
    try:
        checkpoint.save_model(folder / file, model, settings, run, origin)
    except OSError as error:
        raise InputError(
            f"{folder / file}: cannot be written ({error.strerror}); the state of the training is kept: free some room "
            f"and give the same command again"
        ) from None
    finish(folder, name)


def _detector_validation(
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
                    truth.append(torch.cat([box[:, :2] + box[:, 2:] / 2, box[:, 2:]], 1) / scale)
        return {"AP50": average_precision(scores, boxes, truth)}

    return validate


def _tracker_validation(
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
