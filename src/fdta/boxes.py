"""Box formats and overlaps, of torch tensors and of NumPy arrays alike.

The last axis holds one box, in any unit: (center x, center y, width, height) is ``cxcywh``, (left, top, width, height)
is ``xywh``, and (left, top, right, bottom) is ``xyxy``. The results are of the kind that was given. Overlaps of tensors
are differentiable. A pair without any area has IoU 0.

Torch is not imported here: commands that read and score files only start faster without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Numbers = TypeVar("Numbers", np.ndarray, "Tensor")

SMALLEST_AREA = 1e-9
"""Lower bound of the areas that are divided by: far below one pixel of a normalized image."""


def cxcywh_to_xyxy(boxes_cxcywh: Numbers) -> Numbers:
    """Boxes (..., 4) in the other format."""
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return _joined(center - half, center + half)


def xyxy_to_cxcywh(boxes_xyxy: Numbers) -> Numbers:
    """Boxes (..., 4) in the other format."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return _joined((low + high) / 2, high - low)


def xywh_to_xyxy(boxes_xywh: Numbers) -> Numbers:
    """Boxes (..., 4) in the other format."""
    corner, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return _joined(corner, corner + size)


def xyxy_to_xywh(boxes_xyxy: Numbers) -> Numbers:
    """Boxes (..., 4) in the other format."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return _joined(low, high - low)


def xywh_to_cxcywh(boxes_xywh: Numbers) -> Numbers:
    """Boxes (..., 4) in the other format."""
    corner, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return _joined(corner + size / 2, size)


def iou(a_xyxy: Numbers, b_xyxy: Numbers) -> Numbers:
    """Intersection over union, in 0..1, of boxes (..., 4) with boxes of a shape that broadcasts: (...)."""
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    return intersection / union.clip(min=SMALLEST_AREA)


def giou(a_xyxy: Numbers, b_xyxy: Numbers) -> Numbers:
    """Generalized IoU, in -1..1, of boxes (..., 4) with boxes of a shape that broadcasts: (...).

    IoU less the share of the smallest enclosing box that neither covers (Rezatofighi et al., CVPR 2019).
    """
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    library = _library(a_xyxy)
    hull = _area(library.minimum(a_xyxy[..., :2], b_xyxy[..., :2]), library.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]))
    return intersection / union.clip(min=SMALLEST_AREA) - (hull - union) / hull.clip(min=SMALLEST_AREA)


def pairwise_iou(a_xyxy: Numbers, b_xyxy: Numbers) -> Numbers:
    """`iou` of each of (..., N, 4) with each of (..., M, 4): (..., N, M)."""
    return iou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def pairwise_giou(a_xyxy: Numbers, b_xyxy: Numbers) -> Numbers:
    """`giou` of each of (..., N, 4) with each of (..., M, 4): (..., N, M)."""
    return giou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def _library(boxes: Numbers) -> Any:
    """NumPy or torch, whose `minimum`, `maximum` and `concatenate` are called alike."""
    if isinstance(boxes, np.ndarray):
        return np
    import torch

    return torch


def _joined(first: Numbers, last: Numbers) -> Numbers:
    return _library(first).concatenate((first, last), -1)


def _area(low: Numbers, high: Numbers) -> Numbers:
    sides = (high - low).clip(min=0)
    return sides[..., 0] * sides[..., 1]


def _intersection_and_union(a_xyxy: Numbers, b_xyxy: Numbers) -> tuple[Numbers, Numbers]:
    library = _library(a_xyxy)
    low = library.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = library.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    intersection = _area(low, high)
    areas = _area(a_xyxy[..., :2], a_xyxy[..., 2:]) + _area(b_xyxy[..., :2], b_xyxy[..., 2:])
    return intersection, areas - intersection
