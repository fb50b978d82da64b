"""Detector loss, and the weighted total of all loss terms (docs/model.md, Losses; paper Sec. C.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fdta.boxes import cxcywh_to_xyxy, giou
from fdta.data.targets import Targets
from fdta.loss.matching import Matching
from fdta.loss.settings import LossSettings

if TYPE_CHECKING:
    from fdta.model.detector import DetectorOutput


def detection_loss(
    output: DetectorOutput,
    targets: Sequence[Targets],
    matchings: Sequence[Matching],
    settings: LossSettings,
    boxes_total: float,
) -> dict[str, Tensor]:
    """Unweighted loss terms of every decoder layer.

    Args:
        output: of B frames.
        targets: B frames.
        matchings: one a decoder layer, the last layer's last (`fdta.loss.matching.match`).
        settings: focal parameters.
        boxes_total: what the sums over the batch are divided by: its number of boxes, at least 1.

    Returns:
        Scalars ``classification`` (sigmoid focal loss), ``l1`` and ``giou`` of the last layer, and ``classification_0``
        and so on of the auxiliary layers, counted from the first.
    """
    truth = torch.cat([frame.boxes_cxcywh for frame in targets])
    terms = {}
    for suffix, layer, matching in zip(
        layer_suffixes(len(output.auxiliary)), (*output.auxiliary, output), matchings, strict=True
    ):
        wanted = torch.zeros_like(layer.logits)
        wanted[matching.frames, matching.queries, 0] = 1
        predicted, matched = layer.boxes_cxcywh[matching.frames, matching.queries], truth[matching.targets]
        overlap = giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(matched))
        focal = _sigmoid_focal_loss(layer.logits, wanted, settings.focal_alpha, settings.focal_gamma)
        terms[f"classification{suffix}"] = focal.sum() / boxes_total
        terms[f"l1{suffix}"] = (predicted - matched).abs().sum() / boxes_total
        terms[f"giou{suffix}"] = (1 - overlap).sum() / boxes_total
    return terms


def layer_suffixes(auxiliary: int) -> list[str]:
    """What the names of loss terms end in, by layer: ``_0`` and so on for `auxiliary` layers, nothing for the last."""
    return [*(f"_{layer}" for layer in range(auxiliary)), ""]


def total(terms: Mapping[str, Tensor], settings: LossSettings) -> Tensor:
    """Sum of the loss terms, each times the weight that `settings` has under its name without the layer's suffix."""
    return torch.stack([getattr(settings, name.partition("_")[0]) * term for name, term in terms.items()]).sum()


def _sigmoid_focal_loss(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) per logit; `wanted` is 1 or 0, which weigh `alpha` and 1 - `alpha`."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    return balance * (1 - (-cross_entropy).exp()) ** gamma * cross_entropy
