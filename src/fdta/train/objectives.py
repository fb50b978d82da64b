"""From a batch to its loss: for the detector alone, and for the whole model (docs/model.md, Training)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.data.clips import ClipBatch
from fdta.data.identities import IGNORED, assign_identities, target_labels
from fdta.distributed import gather, rank, share, world_size
from fdta.experiment.settings import Settings
from fdta.loss.association import association_loss
from fdta.loss.attributes import AttributeHeads, attribute_loss
from fdta.loss.contrastive import identity_loss, match_quality
from fdta.loss.depth import depth_loss
from fdta.loss.detection import detection_loss, total
from fdta.loss.matching import Matching, match
from fdta.model.detector import DeformableDetector, DetectorOutput, LayerOutput
from fdta.model.fdta import FDTA
from fdta.model.inference import PRECISIONS, optimized_detector
from fdta.train.settings import TrainingSettings


class DetectorObjective:
    """Loss of the detector alone, with attribute pre-training where `settings.loss.attributes` is above 0.

    `model` holds the detector as `detector`, and the attributes' heads as `attribute_heads` where they are trained. On
    several processes, see `TrackerObjective`.
    """

    def __init__(self, model: nn.ModuleDict, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(
        self, batch: ClipBatch, epoch: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
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


class TrackerObjective:
    """Loss of the whole model.

    Where several processes train, the mean of their losses, and so of their gradients, is the loss of one process with
    all their clips as one batch: sums are divided by what the processes count together, and each draws the random
    numbers of all clips and uses those of its own. It holds for clips of one size, the others are padded differently,
    and without dropout.
    """

    def __init__(self, model: FDTA, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(
        self, batch: ClipBatch, epoch: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms.

        Args:
            batch: as many clips as the other processes have.
            epoch: from 0.
            generator: on the CPU, in the same state in all processes; None: torch's own.
        """
        settings = self.settings
        output = detect(self.model, batch, settings, generator)
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
            embeddings, identities[chosen.targets], chosen.frames, batch, generator
        )
        return total(terms, settings.loss), terms

    def _association(
        self,
        embeddings: Tensor,
        identities: Tensor,
        frames: Tensor,
        batch: ClipBatch,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Loss of the ID decoder on embeddings (n, d) of matched objects, whose frames (n,) count through all clips."""
        features, present = by_trajectory(embeddings, identities, frames, batch.clips, self.settings.history)
        everywhere = gather(present.cpu())
        widest = max(clips.shape[-1] for clips in everywhere)
        features = F.pad(features, (0, 0, 0, widest - features.shape[2]))
        seeded = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        labels = self.settings.association.labels
        drawn = [
            assign_identities(F.pad(clip, (0, widest - clip.shape[-1])), self.settings.clip, labels, seeded)
            for clips in everywhere
            for clip in clips
        ][_own(batch)]
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


def detect(
    model: FDTA, batch: ClipBatch, settings: Settings, generator: torch.Generator | None = None
) -> DetectorOutput:
    """Detector output of all frames; gradients flow through `gradient_frames` random ones of each clip only."""
    length = settings.history
    drawn = [torch.randperm(length, generator=generator) for _ in range(world_size() * batch.clips)][_own(batch)]
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


def autocast(batch: ClipBatch, settings: TrainingSettings) -> contextlib.AbstractContextManager[None]:
    """The block in which the networks compute in the precision of `settings`."""
    if settings.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(batch.images.device.type, getattr(torch, settings.precision))


def full(x: Tensor) -> Tensor:
    """`x` in float32, if it has half of that."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def in_full(output: DetectorOutput) -> DetectorOutput:
    """`output` as the losses read it, in `full`."""
    return DetectorOutput(
        full(output.logits),
        full(output.boxes_cxcywh),
        full(output.embeddings),
        [LayerOutput(full(x.logits), full(x.boxes_cxcywh), full(x.embeddings)) for x in output.auxiliary],
        None if output.depth_logits is None else full(output.depth_logits),
        None if output.depth is None else full(output.depth),
    )


def _own(batch: ClipBatch) -> slice:
    """The clips of this process among those of all."""
    return slice(rank() * batch.clips, (rank() + 1) * batch.clips)


def matched(output: DetectorOutput, batch: ClipBatch, settings: Settings) -> list[Matching]:
    """Matching of each decoder layer, the last layer's last."""
    layers: list[LayerOutput] = [*output.auxiliary, output]
    logits, boxes_cxcywh = [layer.logits for layer in layers], [layer.boxes_cxcywh for layer in layers]
    return match(logits, boxes_cxcywh, batch.targets, settings.loss)


def boxes_total(batch: ClipBatch) -> float:
    """Number of ground-truth boxes in the batch, averaged over the processes, whose sum is taken as at least 1."""
    boxes = sum(len(target.boxes_cxcywh) for target in batch.targets)
    return share(torch.tensor(float(boxes), dtype=torch.float64, device=batch.images.device)).item()


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
