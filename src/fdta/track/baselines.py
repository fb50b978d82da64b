"""Tracking by detection on the detections of one of our runs: SORT, ByteTrack, OC-SORT and BoT-SORT.

The trackers are those of the package `trackers`. All four report the detection's box, not the filtered one, and none
looks at appearance: this is BoT-SORT without its re-identification network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fdta.boxes import xyxy_to_xywh
from fdta.data.motchallenge import Boxes, Sequence, read_split, write_boxes
from fdta.errors import InputError
from fdta.track.detections import Detections, read_detections


@dataclass(frozen=True)
class Baseline:
    """One method with its published default settings."""

    tracker: str
    """Class in the package `trackers`."""
    lowest_score: float
    """Only detections with a score above it are shown to the tracker."""
    arguments: dict[str, Any]
    needs_images: bool = False


# The published evaluations keep lost tracks for 30 frames whatever the video's rate; at 30 frames a second the
# package counts in frames too. Scores are compared with the published thresholds, made for YOLOX.
LOST_TRACKS = {"lost_track_buffer": 30, "frame_rate": 30.0}
METHODS = {
    # The edition that ByteTrack and DanceTrack compare with (ByteTrack, yolox/sort_tracker/sort.py and --track_thresh):
    # detections above 0.6, max_age 30 (1 in SORT's first edition), min_hits 3, IoU 0.3.
    "sort": Baseline(
        tracker="SORTTracker",
        lowest_score=0.6,
        arguments={
            "track_activation_threshold": 0.6,
            "minimum_consecutive_frames": 3,
            "minimum_iou_threshold": 0.3,
        },
    ),
    # ByteTrack, tools/track.py: track_thresh 0.6, new tracks 0.1 above it, low detections from 0.1, match_thresh 0.9
    # as a cost. The package has one IoU threshold for both associations (second one as published: 0.5).
    "bytetrack": Baseline(
        tracker="ByteTrackTracker",
        lowest_score=0.1,
        arguments={
            "high_conf_det_threshold": 0.6,
            "track_activation_threshold": 0.7,
            "minimum_consecutive_frames": 2,
            "minimum_iou_threshold": 0.1,
        },
    ),
    # OC-SORT, utils/args.py: track_thresh 0.6, min_hits 3, iou_thresh 0.3, inertia 0.2, deltat 3.
    "oc-sort": Baseline(
        tracker="OCSORTTracker",
        lowest_score=0.6,
        arguments={
            "high_conf_det_threshold": 0.6,
            "minimum_consecutive_frames": 3,
            "minimum_iou_threshold": 0.3,
            "direction_consistency_weight": 0.2,
            "delta_t": 3,
        },
    ),
    # BoT-SORT, tools/track.py: track_high_thresh 0.6, track_low_thresh 0.1, new_track_thresh 0.7, match_thresh 0.8 as a
    # cost; in the second and the unconfirmed association costs of 0.5 and 0.7. Camera motion by sparse optical flow.
    "bot-sort": Baseline(
        tracker="BoTSORTTracker",
        lowest_score=0.1,
        arguments={
            "high_conf_det_threshold": 0.6,
            "track_activation_threshold": 0.7,
            "minimum_consecutive_frames": 2,
            "minimum_iou_threshold_first_assoc": 0.2,
            "minimum_iou_threshold_second_assoc": 0.5,
            "minimum_iou_threshold_unconfirmed_assoc": 0.3,
            "cmc_method": "sparseOptFlow",
            "cmc_downscale": 2,
        },
        needs_images=True,
    ),
}


def track_baseline(method: str, split: Path, detections: Path, output: Path) -> None:
    """Track every sequence of a split with one of `METHODS` and write SEQUENCE.txt, identities counted from 1.

    Only confirmed tracks are written, each from the frame on in which the method confirms it.

    Args:
        method: key of `METHODS`.
        split: folder of sequences, data/DATASET/SPLIT.
        detections: folder of SEQUENCE.npz (`fdta.track.detections`).
        output: folder to write.

    Raises:
        InputError: unknown method, or a sequence or its detections cannot be read.
    """
    if method not in METHODS:
        raise InputError(f"baseline {method!r} is unknown; there are {', '.join(METHODS)}")
    for sequence in read_split(split):
        found = read_detections(Path(detections) / f"{sequence.name}.npz")
        write_boxes(output / f"{sequence.name}.txt", _track(METHODS[method], sequence, found))


def _track(baseline: Baseline, sequence: Sequence, detections: Detections) -> Boxes:
    import supervision
    import trackers

    tracker = getattr(trackers, baseline.tracker)(**LOST_TRACKS, **baseline.arguments)
    detections = detections.above(baseline.lowest_score)
    rows = []
    for frame in range(1, sequence.frames + 1):
        here = detections.frames == frame
        boxes_xyxy, scores = detections.boxes_xyxy[here].astype(np.float64), detections.scores[here]
        # The package wants BGR.
        image = np.ascontiguousarray(sequence.image(frame)[..., ::-1]) if baseline.needs_images else None
        found = tracker.update(supervision.Detections(xyxy=boxes_xyxy, confidence=scores), image)
        found = found[found.tracker_id >= 0]
        found = found[np.argsort(found.tracker_id)]
        frames, identities = np.full(len(found), frame), found.tracker_id + 1
        rows.append((frames, identities, xyxy_to_xywh(found.xyxy), found.confidence, np.ones_like(frames)))
    return Boxes(*map(np.concatenate, zip(*rows, strict=True)))
