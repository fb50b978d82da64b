"""Average precision of detections, to watch a detector's training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fdta.boxes import cxcywh_to_xyxy, pairwise_iou


def average_precision(
    scores: Sequence[torch.Tensor],
    boxes_cxcywh: Sequence[torch.Tensor],
    truth_cxcywh: Sequence[torch.Tensor],
    overlap: float = 0.5,
) -> float:
    """Average precision in per cent at one IoU threshold, area under the interpolated precision-recall curve.

    Args:
        scores: per frame (n,).
        boxes_cxcywh: per frame (n, 4), with those scores.
        truth_cxcywh: per frame (m, 4).
        overlap: IoU from which a detection finds an object; each object is found once, by the best score.
    """
    objects = sum(len(truth) for truth in truth_cxcywh)
    hits, ranks = [], []
    for score, boxes, truth in zip(scores, boxes_cxcywh, truth_cxcywh, strict=True):
        order = score.argsort(descending=True)
        ious = pairwise_iou(cxcywh_to_xyxy(boxes[order]), cxcywh_to_xyxy(truth)).numpy()
        hits.append(_found(ious, overlap))
        ranks.append(score[order].numpy())
    if not objects or not hits:
        return 0.0
    hit = np.concatenate(hits)[np.argsort(-np.concatenate(ranks), kind="stable")]
    found = hit.cumsum()
    precision = found / np.arange(1, len(hit) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(100 * (best_from_here * hit).sum() / objects)


def _found(ious: np.ndarray, overlap: float) -> np.ndarray:
    """(n,) bool: which of n detections, best first, finds an object that none before it found."""
    free = np.ones(ious.shape[1], dtype=bool)
    found = np.zeros(len(ious), dtype=bool)
    for index, row in enumerate(ious):
        open_ious = np.where(free, row, 0.0)
        if len(open_ious) and open_ious.max() >= overlap:
            found[index] = True
            free[open_ious.argmax()] = False
    return found
