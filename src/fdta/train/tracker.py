"""Training of a variant on top of its data set's detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fdta.data.clips import ClipBatch, ClipDataset
from fdta.data.identities import IGNORED, assign_identities, target_labels
from fdta.errors import InputError
from fdta.loss.association import association_loss
from fdta.loss.contrastive import identity_loss, match_quality
from fdta.loss.depth import depth_loss
from fdta.loss.detection import detection_loss, total
from fdta.model import checkpoint
from fdta.model.detector import DEPTH_PARTS, DeformableDetector, DetectorOutput, LayerOutput
from fdta.model.fdta import FDTA
from fdta.model.inference import PRECISIONS, optimized_detector
from fdta.train.loop import fit, save_result
from fdta.train.objectives import autocast, boxes_total, full, in_full, matched

if TYPE_CHECKING:
    from fdta.experiment.jobs import TrainJob
    from fdta.experiment.settings import Settings

Validation = Callable[[], dict[str, float]]


class TrackerObjective:
    """Loss of the whole model.

    Where several processes train, the mean of their losses, and so of their gradients, is the loss of one process with
    all their clips as one batch: sums are divided by what the processes count together, and the random numbers of a
    clip are its own (`ClipBatch.seeds`). It holds for clips of one size, the others are padded differently, and without
    dropout.
    """

    def __init__(self, model: FDTA, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: ClipBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms; epochs count from 0."""
        settings = self.settings
        generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
        output = detect(self.model, batch, settings, generators)
        matchings = matched(output, batch, settings)
        boxes = boxes_total(batch)
        terms = detection_loss(output, batch.targets, matchings, settings.loss, boxes)
        if output.depth_logits is not None and batch.depth is not None:
            terms["depth"] = depth_loss(
                output.depth_logits, batch.depth, batch.padding, batch.targets, settings.spatial, settings.loss, boxes
            )
        identities = torch.cat([target.identities for target in batch.targets])
        if settings.identity.enabled and epoch >= settings.identity.first_epoch:
            last = matchings[-1]
            truth = torch.cat([target.boxes_cxcywh for target in batch.targets])[last.targets]
            predicted = output.boxes_cxcywh[last.frames, last.queries]
            identity = identity_loss(
                output.embeddings[last.frames, last.queries],
                identities[last.targets],
                match_quality(predicted, truth, settings.identity.quality),
                last.frames,
                settings.history,
                self.model.identity_adapter,
                settings.identity,
            )
            terms["identity"] = identity / batch.clips
        chosen = matchings[-1 if settings.loss.association_matching == "last" else -2]
        embeddings = output.embeddings[chosen.frames, chosen.queries]
        terms["association"] = self._association(
            embeddings, identities[chosen.targets], chosen.frames, batch, generators
        )
        return total(terms, settings.loss), terms

    def _association(
        self,
        embeddings: Tensor,
        identities: Tensor,
        frames: Tensor,
        batch: ClipBatch,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Loss of the ID decoder on embeddings (n, d) of matched objects, whose frames (n,) count through all clips."""
        features, present = by_trajectory(embeddings, identities, frames, batch.clips, self.settings.history)
        labels = self.settings.association.labels
        widest = present.shape[-1]
        drawn = [
            assign_identities(clip[:, clip.any(dim=0)], self.settings.clip, labels, generator).padded(widest, labels)
            for clip, generator in zip(present.cpu(), generators, strict=True)
        ]
        device = embeddings.device
        label = torch.stack([groups.labels for groups in drawn]).to(device)
        history_missing = torch.stack([groups.missing_history for groups in drawn]).to(device)
        current_missing = torch.stack([groups.missing_current for groups in drawn]).to(device)
        source = torch.stack([groups.source for groups in drawn]).to(device)
        wanted = torch.stack([target_labels(groups, labels) for groups in drawn]).to(device)
        wanted[:, :, 0] = IGNORED

        current = features[:, None].expand(-1, label.shape[1], -1, -1, -1)
        history = current.gather(3, source[..., None].expand(*source.shape, features.shape[-1]))
        times = torch.arange(self.settings.history, device=device)[:, None].expand(source.shape)
        with autocast(batch, self.settings.training):
            logits = self.model.id_logits(
                history,
                history_missing,
                label[:, :, None].expand(source.shape),
                times,
                current,
                current_missing,
                times,
            )
        return association_loss(full(logits), wanted)


def train_tracker(
    job: TrainJob,
    root: Path,
    folder: Path,
    origin: str,
    device: torch.device,
    workers: int,
    validation: Callable[[FDTA], Validation],
) -> None:
    """Train a run, to ``folder/{model.pt, history.jsonl}``. It starts from the detector `job.start`.

    Args:
        job: what to train.
        root: the project's folder.
        folder: where to write; a state of the same `origin` in it is resumed.
        origin: digest of the job and the content of its inputs.
        device: where to compute.
        workers: processes that read clips.
        validation: makes the function that scores the model while it trains.

    Raises:
        InputError: data or detector cannot be read, or the detector does not fit the settings; see also `fit`.
    """
    settings = job.settings
    if job.start is None:
        raise InputError(f"{job.run}: a variant starts from a detector; train it first")
    torch.manual_seed(job.seed)
    model = FDTA(settings)
    start = root / job.start
    checkpoint.fill(model.detector, checkpoint.load(start, model=dict)["model"], start, new=DEPTH_PARTS)
    model.to(device)
    clips = ClipDataset(
        root / "data" / job.dataset,
        settings.training_splits,
        settings,
        length=settings.history,
        with_depth=settings.spatial.enabled,
        with_attributes=False,
        clips_per_epoch=settings.training.clips_per_epoch,
        seed=job.seed,
    )
    fit(
        model,
        TrackerObjective(model, settings),
        clips,
        settings.training,
        folder=folder,
        origin=origin,
        seed=job.seed,
        device=device,
        workers=workers,
        validate=validation(model),
    )
    save_result(folder, model, settings, job.run)


def by_trajectory(
    embeddings: Tensor, identities: Tensor, frames: Tensor, clips: int, length: int
) -> tuple[Tensor, Tensor]:
    """Matched embeddings laid out by clip, frame and identity.

    Args:
        embeddings: (n, d).
        identities: (n,) long; no two clips share one.
        frames: (n,) long, counted through all clips.
        clips: B.
        length: T, frames a clip.

    Returns:
        (B, T, N, d), zero where absent, and (B, T, N) bool, True where present; N is the most identities of a clip.
    """
    unique, column = torch.unique(identities, return_inverse=True)
    clip = frames // length
    clip_of = torch.zeros(len(unique), dtype=torch.long, device=clip.device).scatter_(0, column, clip)
    counts = torch.bincount(clip_of, minlength=clips)
    # Identities are numbered clip by clip, so that a clip's columns are consecutive.
    column = column - (counts.cumsum(0) - counts)[clip]
    place = (clip, frames % length, column)
    shape = (clips, length, max(1, int(counts.max())))
    features = embeddings.new_zeros(*shape, embeddings.shape[-1]).index_put(place, embeddings)
    present = torch.zeros(shape, dtype=torch.bool, device=clip.device).index_put(
        place, torch.ones_like(clip, dtype=torch.bool)
    )
    return features, present


def detect(model: FDTA, batch: ClipBatch, settings: Settings, generators: Sequence[torch.Generator]) -> DetectorOutput:
    """Detector output of all frames; gradients flow through `gradient_frames` random ones of each clip only."""
    length = settings.history
    drawn = [torch.randperm(length, generator=generator) for generator in generators]
    chosen = torch.cat([clip * length + order[: settings.training.gradient_frames] for clip, order in enumerate(drawn)])
    rest = torch.tensor(sorted(set(range(batch.clips * length)) - set(chosen.tolist())), dtype=torch.long)
    # Before what is recorded for the gradient fills the memory.
    others = _without_gradient(model.detector, batch, rest, settings)
    with autocast(batch, settings.training):
        outputs = [model.detector(batch.images[chosen], batch.padding[chosen]), *others]
    return in_full(_in_order(outputs, torch.cat([chosen, rest]).argsort()))


@torch.no_grad()
def _without_gradient(
    detector: DeformableDetector, batch: ClipBatch, frames: Tensor, settings: Settings
) -> list[DetectorOutput]:
    """Output of `frames` (n,), chunk by chunk."""
    if not len(frames):
        return []
    precision = settings.training.no_gradient_precision or settings.training.precision
    if precision != "float32" or settings.backbone.norm == "frozen-batch":
        detector = optimized_detector(detector, PRECISIONS[precision])
    parts = frames.split(settings.training.no_gradient_chunk)
    return [detector(batch.images[part], batch.padding[part]) for part in parts]


def _in_order(outputs: Sequence[DetectorOutput], order: Tensor) -> DetectorOutput:
    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts)[order.to(parts[0].device)]

    def optional(parts: list[Tensor | None]) -> Tensor | None:
        return None if parts[0] is None else joined([part for part in parts if part is not None])

    layers = zip(*(output.auxiliary for output in outputs), strict=True)
    return DetectorOutput(
        logits=joined([output.logits for output in outputs]),
        boxes_cxcywh=joined([output.boxes_cxcywh for output in outputs]),
        embeddings=joined([output.embeddings for output in outputs]),
        auxiliary=[
            LayerOutput(
                joined([layer.logits for layer in parts]),
                joined([layer.boxes_cxcywh for layer in parts]),
                joined([layer.embeddings for layer in parts]),
            )
            for parts in layers
        ],
        depth_logits=optional([output.depth_logits for output in outputs]),
        depth=optional([output.depth for output in outputs]),
    )
