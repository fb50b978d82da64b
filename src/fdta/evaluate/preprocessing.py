"""What MOTChallenge takes away before it counts: tracks of distractors, and ground truth that does not count."""

from __future__ import annotations

import re

import numpy as np
from scipy.optimize import linear_sum_assignment

from fdta.boxes import pairwise_iou, xywh_to_xyxy
from fdta.data.motchallenge import Boxes
from fdta.errors import InputError
from fdta.evaluate.settings import Preprocessing

PEDESTRIAN = 1
DISTRACTORS = {
    "MOT16": (2, 7, 8, 12),
    "MOT17": (2, 7, 8, 12),
    "MOT20": (2, 6, 7, 8, 12),
}
"""Benchmark -> classes (8th column) that a tracker may track or not: persons on vehicles, static persons, distractors,
reflections, and vehicles in MOT20."""
CLASSES = range(1, 14)
THRESHOLD = 0.5 - np.finfo(float).eps


def preprocessing_of(sequence: str) -> Preprocessing:
    """The preprocessing of the benchmark that `sequence` is named after: "MOT17-02-FRCNN" is of MOT17."""
    found = re.match(r"(MOT16|MOT17|MOT20)-\d", sequence)
    return found[1] if found else "none"  # type: ignore[return-value]


def scored_boxes(truth: Boxes, found: Boxes, preprocessing: Preprocessing) -> tuple[Boxes, Boxes]:
    """Ground truth and tracks of one sequence that are counted, as TrackEval's MotChallenge2DBox has it.

    Without preprocessing rows of the truth whose 7th column is 0 are left out; classes are not looked at. With it every
    frame's tracks are first matched with all of its truth at an IoU of 0.5, and those that match a distractor are taken
    away; then pedestrians are kept of the truth, whose 7th column is not 0.

    Raises:
        InputError: a class is none of the benchmark's.
    """
    counts = truth.scores.astype(int) != 0
    if preprocessing == "none":
        return truth.select(counts), found
    unknown = sorted(set(truth.classes.tolist()) - set(CLASSES))
    if unknown:
        raise InputError(
            f"class {unknown[0]} (8th column) is none of {preprocessing}'s, 1 to 13; correct it, or choose another "
            f"preprocessing"
        )
    distractor = np.isin(truth.classes, DISTRACTORS[preprocessing])
    kept = np.ones(len(found.frames), dtype=bool)
    for frame in np.unique(truth.frames[distractor]):
        objects, rows = np.flatnonzero(truth.frames == frame), np.flatnonzero(found.frames == frame)
        overlap = pairwise_iou(xywh_to_xyxy(truth.boxes_xywh[objects]), xywh_to_xyxy(found.boxes_xywh[rows]))
        overlap[overlap < THRESHOLD] = 0
        matched, by = linear_sum_assignment(overlap, maximize=True)
        kept[rows[by[(overlap[matched, by] > 0) & distractor[objects[matched]]]]] = False
    return truth.select(counts & (truth.classes == PEDESTRIAN)), found.select(kept)
