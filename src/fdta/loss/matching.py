"""Hungarian matching of predictions and ground truth, frame by frame (docs/model.md, Losses)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fdta.boxes import cxcywh_to_xyxy, pairwise_giou
from fdta.data.targets import Targets
from fdta.loss.settings import LossSettings


@dataclass(frozen=True)
class Matching:
    """Pairs of a prediction and an object of the same frame, for all frames of a batch together: three (n,) long.

    In a frame, each object has one query and no query has two objects; if objects outnumber queries, some have none.
    """

    frames: Tensor
    """Index of the frame in the batch, ascending."""
    queries: Tensor
    """Index of the query: ``logits[frames, queries]`` are the matched predictions."""
    targets: Tensor
    """Index of the object among those of *all* frames one after the other: into ``torch.cat([t.x for t in targets])``,
    which hence pairs up with ``logits[frames, queries]`` without a loop over frames."""


@torch.no_grad()
def match(
    logits: Sequence[Tensor], boxes_cxcywh: Sequence[Tensor], targets: Sequence[Targets], settings: LossSettings
) -> list[Matching]:
    """Match the predictions of each decoder layer to the ground truth at the least total cost per frame.

    The cost of a pair is the change of the focal loss if the query is an object instead of none, plus L1 distance,
    minus generalized IoU, with the weights of the losses. All layers' costs go to the CPU at once, and the pairs back.

    Args:
        logits: (B, Q, C) of each layer.
        boxes_cxcywh: (B, Q, 4) in 0..1 of each layer, see `Targets`.
        targets: B frames.
        settings: weights and focal parameters.

    Raises:
        FloatingPointError: a cost is not finite.
    """
    counts = [len(frame.boxes_cxcywh) for frame in targets]
    truth = pad_sequence([frame.boxes_cxcywh for frame in targets], batch_first=True)
    costs = torch.stack([_costs(*layer, truth, settings) for layer in zip(logits, boxes_cxcywh, strict=True)])
    matched = [_least(layer, counts) for layer in costs.cpu().double().numpy()]
    index = torch.from_numpy(np.concatenate(matched, axis=1)).to(truth.device)
    return [Matching(*layer) for layer in index.split([layer.shape[1] for layer in matched], 1)]


def _costs(logits: Tensor, boxes_cxcywh: Tensor, truth: Tensor, settings: LossSettings) -> Tensor:
    """(B, Q, n) of queries and objects `truth` (B, n, 4)."""
    alpha, gamma = settings.focal_alpha, settings.focal_gamma
    log_object, log_none = F.logsigmoid(logits[..., :1]), F.logsigmoid(-logits[..., :1])
    as_object = -alpha * log_none.exp() ** gamma * log_object
    as_none = -(1 - alpha) * log_object.exp() ** gamma * log_none
    overlap = pairwise_giou(cxcywh_to_xyxy(boxes_cxcywh), cxcywh_to_xyxy(truth))
    distance = torch.cdist(boxes_cxcywh, truth, p=1)
    return settings.classification * (as_object - as_none) + settings.l1 * distance - settings.giou * overlap


def _least(costs: np.ndarray, counts: list[int]) -> np.ndarray:
    """Frames, queries and objects (3, n) of least `costs` (B, Q, ...); columns after a frame's own are padding."""
    by_frame = [frame[:, :n] for frame, n in zip(costs, counts, strict=True)]
    broken = [number for number, frame in enumerate(by_frame) if not np.isfinite(frame).all()]
    if broken:
        raise FloatingPointError(f"matching costs are not finite in frames {broken} of the batch: the model diverged")
    pairs = [linear_sum_assignment(frame) for frame in by_frame]
    offsets = np.cumsum([0, *counts[:-1]])
    return np.stack(
        [
            np.repeat(np.arange(len(pairs)), [len(queries) for queries, _ in pairs]),
            np.concatenate([queries for queries, _ in pairs]),
            np.concatenate([objects + offset for (_, objects), offset in zip(pairs, offsets, strict=True)]),
        ]
    )
