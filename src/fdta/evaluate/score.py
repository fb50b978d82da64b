"""Tracking scores: TrackEval's own metric classes on our reading of the files."""

from __future__ import annotations

import configparser
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fdta.boxes import pairwise_iou, xywh_to_xyxy
from fdta.data.motchallenge import MOST_FRAMES, Boxes, check_file, plain_number, read_boxes
from fdta.errors import InputError
from fdta.evaluate.preprocessing import DISTRACTORS, preprocessing_of, scored_boxes
from fdta.evaluate.settings import Preprocessing

MOST_PAIRS, MOST_IDENTITIES = 7_000_000, 10_000
"""Of identities and tracks of one sequence. Either way scoring takes at most about 1.7 GB, nearly all of it TrackEval's
arrays: 200 bytes a pair in HOTA, and 16 bytes for each pair of both together in Identity."""
_LOG = logging.getLogger(__name__)
COMBINED = "combined"
"""Name of the entry over all sequences; the others have the names of their sequences."""
PERCENTAGES = {
    "HOTA": ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA"),
    "CLEAR": ("MOTA", "MOTP"),
    "Identity": ("IDF1", "IDR", "IDP"),
}
COUNTS = {
    "CLEAR": ("IDSW", "CLR_TP", "CLR_FP", "CLR_FN", "Frag", "MT", "PT", "ML"),
    "Identity": ("IDTP", "IDFP", "IDFN"),
    "Count": ("Dets", "GT_Dets", "IDs", "GT_IDs"),
}


def score(
    ground_truth: Path,
    tracks: Path,
    sequences: list[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> dict[str, dict[str, float]]:
    """Scores of `tracks` per sequence, and over all of them as the entry `COMBINED`.

    The HOTA family is averaged over its 19 thresholds; CLEAR and Identity match at an IoU of 0.5. The rows that count
    are those of `fdta.evaluate.preprocessing.scored_boxes`. "Combined" is TrackEval's: counts are summed and ratios
    taken over the sums, so it is no mean over sequences.

    Args:
        ground_truth: folder of SEQUENCE/gt/gt.txt and, where it exists, SEQUENCE/seqinfo.ini; without the latter a
            sequence ends with its last ground-truth frame.
        tracks: folder of SEQUENCE.txt.
        sequences: names of the sequences to score; None: every one with ground truth.
        preprocessing: the benchmark whose preprocessing comes first; None: the one that each sequence is named after.

    Returns:
        For each sequence in the order of their names, then for `COMBINED`: `PERCENTAGES` in per cent (MOTA may be
        negative) and `COUNTS`, under TrackEval's names.

    Raises:
        InputError: a folder or file is missing, a line is malformed, a frame lies outside the sequence, one frame has
            an identity twice, or a sequence is called `COMBINED`.
    """
    from trackeval import metrics

    ground_truth, tracks = Path(ground_truth), Path(tracks)
    for folder, what in ((ground_truth, "ground truth"), (tracks, "tracks")):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; it should hold the {what}")
    names = sorted(sequences) if sequences is not None else _sequences(ground_truth, tracks)
    if not names:
        raise InputError(f"{ground_truth}: no sequence to score; expected SEQUENCE/gt/gt.txt")
    if COMBINED in names:
        raise InputError(
            f"{ground_truth / COMBINED}: a sequence cannot be called {COMBINED}, as the scores of all are; rename it"
        )
    quiet = {"PRINT_CONFIG": False}
    judges = {
        "HOTA": metrics.HOTA(),
        "CLEAR": metrics.CLEAR(quiet),
        "Identity": metrics.Identity(quiet),
        "Count": metrics.Count(),
    }
    results: dict[str, dict[str, Any]] = {metric: {} for metric in judges}
    for name in names:
        gt_file, track_file = ground_truth / name / "gt" / "gt.txt", tracks / f"{name}.txt"
        truth, found = _read(gt_file, track_file)
        if not (truth.scores.astype(int) != 0).any():
            _LOG.warning("%s: no box that counts, so every track of this sequence counts as false", gt_file)
        chosen = preprocessing or preprocessing_of(name)
        if preprocessing is None and chosen == "none":
            _warn_of_distractors(truth, gt_file)
        try:
            data = _sequence_data(*scored_boxes(truth, found, chosen))
        except InputError as error:
            raise InputError(f"{gt_file}: {error}") from None
        for metric, judge in judges.items():
            results[metric][name] = judge.eval_sequence(data)
    scores = {name: _summary({metric: results[metric][name] for metric in judges}) for name in names}
    scores[COMBINED] = _summary({metric: judge.combine_sequences(results[metric]) for metric, judge in judges.items()})
    return scores


def paired_difference(
    scores_a: Mapping[str, Mapping[str, float]], scores_b: Mapping[str, Mapping[str, float]], metric: str
) -> tuple[float, float]:
    """Mean over sequences of `metric` in `scores_b` minus `scores_a`, and the standard error of that mean.

    Every sequence counts alike, so the mean is not the difference of the combined scores, in which long and crowded
    sequences count for more. The standard error speaks of the choice of sequences, not of the training's randomness.

    Args:
        scores_a, scores_b: results of `score` on the same sequences.
        metric: name of a score.

    Raises:
        InputError: the sequences differ, or there are fewer than two.
    """
    names = sorted(set(scores_a) - {COMBINED})
    if names != sorted(set(scores_b) - {COMBINED}):
        different = ", ".join(sorted(set(scores_a) ^ set(scores_b)))
        raise InputError(f"scores of different sequences cannot be paired: {different} stand in one of the two only")
    if len(names) < 2:
        raise InputError(f"{len(names)} sequence is too few for a standard error; score at least two")
    differences = np.array([scores_b[name][metric] - scores_a[name][metric] for name in names])
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(names)))


def _sequences(ground_truth: Path, tracks: Path) -> list[str]:
    folders = [path for path in sorted(ground_truth.iterdir()) if path.is_dir() and not path.name.startswith(".")]

    def is_sequence(path: Path) -> bool:
        parts = (path / "seqinfo.ini", path / "img1", path / "gt", tracks / f"{path.name}.txt")
        return any(part.exists() for part in parts)

    without = [path for path in folders if is_sequence(path) and not (path / "gt/gt.txt").is_file()]
    if without:
        raise InputError(
            f"{without[0] / 'gt/gt.txt'}: no such file; {len(without)} of {len(folders)} sequences have no ground "
            f"truth, add it or take them out"
        )
    names = [path.name for path in folders if (path / "gt/gt.txt").is_file()]
    unknown = sorted(path.name for path in tracks.glob("*.txt") if path.stem not in names)
    if unknown:
        _LOG.warning("%s: without ground truth in %s, not scored: %s", tracks, ground_truth, ", ".join(unknown[:9]))
    return names


def _read(gt_file: Path, track_file: Path) -> tuple[Boxes, Boxes]:
    folder = gt_file.parents[1]
    for path, what in ((gt_file, "ground truth"), (track_file, "tracks")):
        if not path.is_file():
            raise InputError(f"{path}: no such file; sequence {folder.name} has no {what}, add the file")
    frames = _length(folder / "seqinfo.ini")
    truth = read_boxes(gt_file, frames)
    return truth, read_boxes(track_file, frames or int(truth.frames.max(initial=1)))


def _warn_of_distractors(truth: Boxes, gt_file: Path) -> None:
    """Print a line if rows that do not count look like the distractors of MOT17, whose tracks are taken away there."""
    rows = int((np.isin(truth.classes, DISTRACTORS["MOT17"]) & (truth.scores.astype(int) == 0)).sum())
    if rows:
        _LOG.warning(
            "%s: %d rows look like MOTChallenge's distractors (7th column 0, class 2, 7, 8 or 12); without its "
            "preprocessing (--preprocessing MOT17) tracks on them count as false",
            gt_file,
            rows,
        )


def _sequence_data(truth: Boxes, found: Boxes) -> dict[str, Any]:
    """What TrackEval's metrics take of one sequence: identities counted from 0, and IoU per frame."""
    # Frames without a box on either side change no metric.
    numbers = np.union1d(truth.frames, found.frames)
    truth_ids, truth_boxes, truth_identities = _by_frame(truth, numbers)
    found_ids, found_boxes, found_identities = _by_frame(found, numbers)
    if truth_identities * found_identities > MOST_PAIRS or truth_identities + found_identities > MOST_IDENTITIES:
        raise InputError(
            f"{truth_identities} identities and {found_identities} tracks are too many, as TrackEval keeps all pairs "
            f"in memory; at most {MOST_PAIRS} pairs and {MOST_IDENTITIES} of both; score parts of it"
        )
    return {
        "gt_ids": truth_ids,
        "tracker_ids": found_ids,
        "similarity_scores": [pairwise_iou(a, b) for a, b in zip(truth_boxes, found_boxes, strict=True)],
        "num_gt_dets": sum(map(len, truth_ids)),
        "num_tracker_dets": sum(map(len, found_ids)),
        "num_gt_ids": truth_identities,
        "num_tracker_ids": found_identities,
        "num_timesteps": len(numbers),
    }


def _length(seqinfo: Path) -> int | None:
    """Frames of the sequence, or None without a seqinfo.ini, which needs nothing else for this."""
    if not os.path.lexists(seqinfo):
        return None
    check_file(seqinfo, "replace it")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(seqinfo.read_text(encoding="utf-8-sig"))
        frames = int(plain_number(parser.get("Sequence", "seqLength")))
    except (configparser.Error, ValueError):
        raise InputError(
            f"{seqinfo}: seqLength in the section [Sequence] is missing, given twice or no whole number; correct it"
        ) from None
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"{seqinfo}: seqLength is {frames}, outside 1..{MOST_FRAMES}; correct it")
    return frames


def _by_frame(boxes: Boxes, numbers: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Identity indices and boxes (n, 4), ``xyxy``, of each of the frames `numbers`, and the number of identities."""
    identities, indices = np.unique(boxes.identities, return_inverse=True)
    starts = np.searchsorted(boxes.frames, numbers[1:])
    return np.split(indices, starts), np.split(xywh_to_xyxy(boxes.boxes_xywh), starts), len(identities)


def _summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    percentages = {name: 100 * float(np.mean(results[m][name])) for m, names in PERCENTAGES.items() for name in names}
    counts = {name: int(results[m][name]) for m, names in COUNTS.items() for name in names}
    return percentages | counts
