"""From a batch to its loss: for the detector alone, and for the whole model (MODEL.md, Training)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fdta.data.clips import ClipBatch
from fdta.data.identities import IGNORED, assign_identities, target_labels
from fdta.loss.association import association_loss
from fdta.loss.attributes import AttributeHeads, attribute_loss
from fdta.loss.contrastive import identity_loss, match_quality
from fdta.loss.depth import depth_loss
from fdta.loss.detection import detection_loss, total
from fdta.loss.matching import Matching, match
from fdta.model.detector import DetectorOutput, LayerOutput
from fdta.model.fdta import FDTA
from fdta.params import Settings


class DetectorObjective:
    """Loss of the detector alone, with attribute pre-training where `settings.loss.attributes` is above 0.

    `model` holds the detector as `detector`, and the attributes' heads as `attribute_heads` where they are trained.
    """

    def __init__(self, model: nn.ModuleDict, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: ClipBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms."""
        output = self.model["detector"](batch.images, batch.padding)
        matchings = match_layers(output, batch, self.settings)
        terms = detection_loss(output, batch.targets, matchings, self.settings.loss, boxes_total(batch))
        if "attribute_heads" in self.model:
            heads = self.model["attribute_heads"]
            assert isinstance(heads, AttributeHeads)
            terms |= attribute_loss(heads, output, batch.targets, matchings)
        return total(terms, self.settings.loss), terms


class TrackerObjective:
    """Loss of the whole model."""

    def __init__(self, model: FDTA, settings: Settings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: ClipBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms."""
        settings = self.settings
        output = detect(self.model, batch, settings)
        matchings = match_layers(output, batch, settings)
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
            terms["identity"] = identity_loss(
                output.embeddings[last.frames, last.queries],
                identities[last.targets],
                match_quality(predicted, truth, settings.identity.quality),
                last.frames,
                settings.history,
                self.model.identity_adapter,
                settings.identity,
            )
        chosen = matchings[-1 if settings.loss.association_matching == "last" else -2]
        matched = output.embeddings[chosen.frames, chosen.queries]
        terms["association"] = self._association(matched, identities[chosen.targets], chosen.frames, batch.clips)
        return total(terms, settings.loss), terms

    def _association(self, matched: Tensor, identities: Tensor, frames: Tensor, clips: int) -> Tensor:
        """Loss of the ID decoder on matched embeddings (n, d), whose frames (n,) count through all clips."""
        features, present = by_trajectory(matched, identities, frames, clips, self.settings.history)
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        labels = self.settings.association.labels
        drawn = [assign_identities(clip, self.settings.clip, labels, generator) for clip in present.cpu()]
        device = matched.device
        label = torch.stack([groups.labels for groups in drawn]).to(device)
        history_missing = torch.stack([groups.missing_history for groups in drawn]).to(device)
        current_missing = torch.stack([groups.missing_current for groups in drawn]).to(device)
        source = torch.stack([groups.source for groups in drawn]).to(device)
        wanted = torch.stack([target_labels(groups, labels) for groups in drawn]).to(device)
        wanted[:, :, 0] = IGNORED

        current = features[:, None].expand(-1, label.shape[1], -1, -1, -1)
        history = current.gather(3, source[..., None].expand(*source.shape, features.shape[-1]))
        times = torch.arange(self.settings.history, device=device)[:, None].expand(source.shape)
        logits = self.model.id_logits(
            history,
            history_missing,
            label[:, :, None].expand(source.shape),
            times,
            current,
            current_missing,
            times,
        )
        return association_loss(logits, wanted)


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


def detect(model: FDTA, batch: ClipBatch, settings: Settings) -> DetectorOutput:
    """Detector output of all frames; gradients flow through `gradient_frames` random ones of each clip only."""
    length = settings.history
    chosen = torch.cat(
        [clip * length + torch.randperm(length)[: settings.training.gradient_frames] for clip in range(batch.clips)]
    )
    rest = torch.tensor(sorted(set(range(batch.clips * length)) - set(chosen.tolist())), dtype=torch.long)
    # Before what is recorded for the gradient fills the memory.
    with torch.no_grad():
        others = [
            model.detector(batch.images[part], batch.padding[part])
            for part in rest.split(settings.training.no_gradient_chunk)
            if len(part)
        ]
    outputs = [model.detector(batch.images[chosen], batch.padding[chosen]), *others]
    return _in_order(outputs, torch.cat([chosen, rest]).argsort())


def match_layers(output: DetectorOutput, batch: ClipBatch, settings: Settings) -> list[Matching]:
    """Matching of each decoder layer, the last layer's last."""
    layers: list[LayerOutput] = [*output.auxiliary, output]
    return [match(layer.logits, layer.boxes_cxcywh, batch.targets, settings.loss) for layer in layers]


def boxes_total(batch: ClipBatch) -> float:
    """Number of ground-truth boxes in the batch, at least 1."""
    return float(max(1, sum(len(target.boxes_cxcywh) for target in batch.targets)))


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
