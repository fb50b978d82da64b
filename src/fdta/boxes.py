"""Box formats and overlaps in torch.

The last axis of a tensor holds one box: (center x, center y, width, height) is ``cxcywh``, (left, top, right, bottom)
is ``xyxy``; any unit. Overlaps are differentiable, and a pair without any area has IoU 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_AREA = 1e-9
"""Lower bound of the areas that are divided by: far below one pixel of a normalized image."""


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Boxes (..., 4) in the other format."""
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union, in 0..1, of boxes (..., 4) with boxes of a shape that broadcasts: (...)."""
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    return intersection / union.clamp(min=SMALLEST_AREA)


def giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalized IoU, in -1..1, of boxes (..., 4) with boxes of a shape that broadcasts: (...).

    IoU less the share of the smallest enclosing box that neither covers (Rezatofighi et al., CVPR 2019).
    """
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    hull = _area(torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2]), torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]))
    return intersection / union.clamp(min=SMALLEST_AREA) - (hull - union) / hull.clamp(min=SMALLEST_AREA)


def pairwise_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """`iou` of each of (..., N, 4) with each of (..., M, 4): (..., N, M)."""
    return iou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def pairwise_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """`giou` of each of (..., N, 4) with each of (..., M, 4): (..., N, M)."""
    return giou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height


def _intersection_and_union(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    intersection = _area(low, high)
    areas = _area(a_xyxy[..., :2], a_xyxy[..., 2:]) + _area(b_xyxy[..., :2], b_xyxy[..., 2:])
    return intersection, areas - intersection
