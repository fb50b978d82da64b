"""Which object a track follows in each frame, and where it errs: the matching of CLEAR MOT, as TrackEval does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from fdta.boxes import pairwise_iou, xywh_to_xyxy
from fdta.data.motchallenge import Boxes

THRESHOLD = 0.5
"""Smallest IoU of a match."""
NONE = -1
"""Where a track or object has no partner."""


@dataclass(frozen=True)
class Matches:
    """What stands behind each row of a track file."""

    identities: np.ndarray
    """(n,) int64 ground-truth identity that the row is matched with, `NONE` where it is with none."""
    previous: np.ndarray
    """(n,) int64: in rows with an identity switch the track that this object was matched with last; else `NONE`."""

    @property
    def switched(self) -> np.ndarray:
        """(n,) bool, True at every identity switch (TrackEval's IDSW)."""
        return self.previous != NONE


def match_tracks(truth: Boxes, found: Boxes) -> Matches:
    """Match `found` with `truth` frame by frame: IoU of at least `THRESHOLD`, a pair of the frame before goes first.

    Rows of the truth whose 7th column is 0 are left out, as `fdta.evaluate.score.score` does.
    """
    identities, previous = (np.full(len(found.frames), NONE) for _ in range(2))
    last: dict[int, int] = {}
    pairs: dict[int, int] = {}
    counted = truth.scores.astype(int) != 0
    for frame in np.unique(truth.frames[counted]):
        objects = np.flatnonzero(counted & (truth.frames == frame))
        rows = np.flatnonzero(found.frames == frame)
        if not len(rows):
            # As TrackEval: a frame without tracks leaves the pairs of the frame before it in force.
            continue
        overlap = pairwise_iou(xywh_to_xyxy(truth.boxes_xywh[objects]), xywh_to_xyxy(found.boxes_xywh[rows]))
        kept = np.array([[pairs.get(int(o)) == t for t in found.identities[rows]] for o in truth.identities[objects]])
        allowed = overlap >= THRESHOLD - np.finfo(float).eps
        value = np.where(allowed, overlap + 1000 * kept, 0)
        pairs = {}
        for i, j in zip(*linear_sum_assignment(value, maximize=True), strict=True):
            if not allowed[i, j]:
                continue
            row, identity, track = rows[j], int(truth.identities[objects[i]]), int(found.identities[rows[j]])
            identities[row] = identity
            if last.get(identity, track) != track:
                previous[row] = last[identity]
            last[identity] = pairs[identity] = track
    return Matches(identities, previous)
