"""Quality-aware contrastive loss of the Identity Adapter (paper Sec. 3.4, eq. 5-8; docs/model.md, Identity Adapter)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fdta.boxes import cxcywh_to_xyxy, giou, iou
from fdta.model.settings import IdentitySettings


@torch.no_grad()
def match_quality(predicted_cxcywh: Tensor, truth_cxcywh: Tensor, kind: Literal["giou", "iou"]) -> Tensor:
    """How well matched predictions fit, by IoU (the paper) or generalized IoU (the published code).

    Args:
        predicted_cxcywh: (n, 4).
        truth_cxcywh: (n, 4), the objects matched to them.
        kind: the measure.

    Returns:
        (n,) in -1..1, without gradient.
    """
    measure = {"giou": giou, "iou": iou}[kind]
    return measure(cxcywh_to_xyxy(predicted_cxcywh), cxcywh_to_xyxy(truth_cxcywh))


def identity_loss(
    embeddings: Tensor,
    identities: Tensor,
    qualities: Tensor,
    frames: Tensor,
    clip_length: int,
    extractor: Callable[[Tensor], Tensor] | None,
    settings: IdentitySettings,
) -> Tensor:
    """InfoNCE between the matched predictions of each chunk of frames; the chunks' losses are added: a scalar.

    Every two samples of one identity in a chunk are a positive pair. It competes with all samples of other identities
    in the chunk, but not with its own other positives. Without any positive pair the loss is 0 with a gradient of 0, as
    published. Where no chunk has two samples it is 0 without a gradient, so that weight decay does not act either.

    Args:
        embeddings: (n, d) object embeddings of matched predictions.
        identities: (n,) long.
        qualities: (n,) from `match_quality`.
        frames: (n,) long, frame of each sample in the batch, whose clips follow one another.
        clip_length: frames of a clip; chunks start anew in each.
        extractor: the feature extractor (n, d) -> (n, d'); None contrasts the embeddings themselves.
        settings: filter, chunk and temperature.
    """
    if settings.quality_filter:
        kept = qualities >= settings.threshold
        embeddings, identities, qualities, frames = (x[kept] for x in (embeddings, identities, qualities, frames))
    else:
        qualities = torch.ones_like(qualities)
    chunks_per_clip = -(-clip_length // settings.chunk)
    chunks = frames // clip_length * chunks_per_clip + frames % clip_length // settings.chunk
    if len(chunks.unique()) == len(chunks):
        return embeddings.new_zeros(())
    features = F.normalize(embeddings if extractor is None else extractor(embeddings), dim=-1)
    similarities = features @ features.T / settings.temperature

    same_chunk = chunks[:, None] == chunks
    same_identity = identities[:, None] == identities
    negative = same_chunk & ~same_identity
    positive = (same_chunk & same_identity).fill_diagonal_(False)
    # -log(e^s / (e^s + sum of e^negatives)) = softplus(log sum of e^negatives - s). The fill is finite because the
    # gradient of logsumexp is undefined for a row of infinities only.
    negatives = similarities.masked_fill(~negative, torch.finfo(similarities.dtype).min).logsumexp(dim=1)
    losses = F.softplus(negatives[:, None] - similarities)
    # Thresholds of 0 and less admit qualities that have no harmonic mean; they weigh next to nothing.
    qualities = qualities.clamp(min=torch.finfo(qualities.dtype).eps)
    weights = positive * (2 / (1 / qualities[:, None] + 1 / qualities))

    partners = positive.sum(dim=1)
    per_anchor = (weights * losses).sum(dim=1) / partners.clamp(min=1)
    anchors_of_chunk = (same_chunk & (partners > 0)).sum(dim=1)
    return settings.temperature * (per_anchor / anchors_of_chunk.clamp(min=1)).sum()
