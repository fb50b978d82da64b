"""Training of a data set's detector alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fdta.data.clips import ClipBatch, ClipDataset
from fdta.data.rendered import ATTRIBUTES
from fdta.loss.attributes import AttributeHeads, attribute_loss
from fdta.loss.detection import detection_loss, total
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.model.published import load_detector
from fdta.train.loop import fit, save_result
from fdta.train.objectives import autocast, boxes_total, in_full, matched

if TYPE_CHECKING:
    from fdta.experiment.jobs import DetectorJob
    from fdta.experiment.settings import Settings

Validation = Callable[[], dict[str, float]]


class DetectorObjective:
    """Loss of the detector alone, with attribute pre-training if `settings.loss.attributes` is above 0.

    `model` holds the detector as `detector`, and the heads of the attributes, if they are trained, as
    `attribute_heads`. On several processes, see `fdta.train.tracker.TrackerObjective`.
    """

    def __init__(self, model: nn.ModuleDict, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: ClipBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms."""
        with autocast(batch, self.settings.detector_training):
            output = self.model["detector"](batch.images, batch.padding)
        output = in_full(output)
        matchings = matched(output, batch, self.settings)
        terms = detection_loss(output, batch.targets, matchings, self.settings.loss, boxes_total(batch))
        if "attribute_heads" in self.model:
            heads = self.model["attribute_heads"]
            assert isinstance(heads, AttributeHeads)
            terms |= attribute_loss(heads, output, batch.targets, matchings)
        return total(terms, self.settings.loss), terms


def train_detector(
    job: DetectorJob,
    root: Path,
    folder: Path,
    origin: str,
    device: torch.device,
    workers: int,
    validation: Callable[[DeformableDetector], Validation],
) -> None:
    """Train a detector, to ``folder/{model.pt, history.jsonl}``.

    It starts from `job.start`, ours or published, and learns appearance attributes if `loss.attributes` is above 0.

    Args:
        job: what to train.
        root: the project's folder.
        folder: where to write; a state of the same `origin` in it is resumed.
        origin: digest of the job and the content of its inputs.
        device: where to compute.
        workers: processes that read clips.
        validation: makes the function that scores the detector while it trains.

    Raises:
        InputError: data or start cannot be read; see also `fit`.
    """
    settings = job.settings
    torch.manual_seed(job.seed)
    detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
    if job.start is not None:
        start = root / job.start
        checkpoint.fill(detector, load_detector(start, job.start_class), start)
    model = nn.ModuleDict({"detector": detector})
    with_attributes = settings.loss.attributes > 0
    if with_attributes:
        model["attribute_heads"] = AttributeHeads(settings.detector.width, ATTRIBUTES, settings.detector.decoder_layers)
    model.to(device)
    clips = ClipDataset(
        root / "data" / job.dataset,
        settings.training_splits,
        settings,
        length=1,
        with_depth=False,
        with_attributes=with_attributes,
        clips_per_epoch=settings.detector_training.clips_per_epoch,
        seed=job.seed,
    )
    fit(
        model,
        DetectorObjective(model, settings),
        clips,
        settings.detector_training,
        folder=folder,
        origin=origin,
        seed=job.seed,
        device=device,
        workers=workers,
        validate=validation(detector),
    )
    save_result(folder, detector, settings, f"{job.dataset}/detector")
