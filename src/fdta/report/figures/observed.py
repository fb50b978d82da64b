"""What a run tracked, read from its files: boxes, identities and embeddings, with the ground truth behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from fdta.boxes import xywh_to_xyxy
from fdta.data.motchallenge import Boxes, Sequence, read_boxes
from fdta.errors import InputError
from fdta.evaluate.matches import Matches, match_tracks
from fdta.names import Run
from fdta.track.detections import read_detections

ROUNDING = 0.1
"""Pixels by which a track file may differ from the detection that it was written from."""


@dataclass(frozen=True)
class ObservedTracks:
    """Tracked objects of a sequence, with their ground truth; arrays of equal length n, sorted by (frame, track)."""

    tracks: Boxes
    matches: Matches
    embeddings: np.ndarray
    """(n, d) float32."""

    def rows(self, frame: int) -> np.ndarray:
        """Indices of the rows of `frame`."""
        return np.flatnonzero(self.tracks.frames == frame)


def read_tracks(root: Path, run: Run, sequence: Sequence) -> tuple[Boxes, Matches]:
    """Tracks of `run` in `sequence` of a split, and what they follow."""
    split = sequence.folder.parent.name
    tracks = read_boxes(root / "tracks" / str(run) / split / f"{sequence.name}.txt", sequence.frames)
    return tracks, match_tracks(sequence.ground_truth(), tracks)


def read_tracked(root: Path, run: Run, sequence: Sequence) -> ObservedTracks:
    """The same with the embeddings of the detections that were tracked.

    Raises:
        InputError: a file is missing or malformed, or the detections are not those of the tracks.
    """
    tracks, matches = read_tracks(root, run, sequence)
    path = root / "detections" / str(run) / sequence.folder.parent.name / f"{sequence.name}.npz"
    detections = read_detections(path)
    embeddings = np.zeros((len(tracks.frames), detections.embeddings.shape[1]), dtype=np.float32)
    boxes_xyxy = xywh_to_xyxy(tracks.boxes_xywh)
    for frame in np.unique(tracks.frames):
        rows, found = np.flatnonzero(tracks.frames == frame), np.flatnonzero(detections.frames == frame)
        distances = cdist(boxes_xyxy[rows], detections.boxes_xyxy[found], "chebyshev")
        if not len(found) or (distances.min(axis=1) > ROUNDING).any():
            raise InputError(f"{path}: frame {frame} has not the detections of the tracks; track {run} again")
        embeddings[rows] = detections.embeddings[found[distances.argmin(axis=1)]]
    return ObservedTracks(tracks, matches, embeddings)


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarity (n, n) of embeddings (n, d)."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=1e-12)
    return units @ units.T
