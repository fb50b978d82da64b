"""How alike the embeddings of different objects in one frame are (paper Fig. 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fdta.errors import InputError
from fdta.track.detections import read_detections

HIGH = 0.9
"""The paper counts the similarities above it ("over 80 % ... exceeding 0.9")."""
BINS = 40
"""Bins of the histogram over -1..1; 0.05 wide, so that `HIGH` is an edge."""


def measure_similarity(detections: Path, threshold: float) -> dict[str, Any]:
    """Distribution of the cosine similarity between objects of the same frame.

    Each detection above `threshold` is taken for one object, as the tracker takes it; every unordered pair of a frame
    counts once.

    Args:
        detections: folder of SEQUENCE.npz (`fdta.track.detections`).
        threshold: score above which a detection is an object (`TrackerSettings.detection_threshold`).

    Returns:
        JSON-able: threshold; pairs; mean and share_above_0.9, both None where there is no pair; histogram with
        edges (`BINS` + 1) and counts (`BINS`).

    Raises:
        InputError: no such folder, no file in it, or one that holds no detections.
    """
    files = sorted(Path(detections).glob("*.npz"))
    if not files:
        raise InputError(f"{detections}: no detections (SEQUENCE.npz) here; track the split first")
    edges = np.linspace(-1, 1, BINS + 1).round(10)
    counts, total, high = np.zeros(BINS, dtype=np.int64), 0.0, 0
    for file in files:
        objects = read_detections(file).above(threshold)
        cosines = _cosines(objects.frames, objects.embeddings.astype(np.float32))
        counts += np.histogram(cosines, edges)[0]
        total += float(cosines.sum(dtype=np.float64))
        high += int((cosines > HIGH).sum())
    pairs = int(counts.sum())
    return {
        "threshold": threshold,
        "pairs": pairs,
        "mean": total / pairs if pairs else None,
        f"share_above_{HIGH}": high / pairs if pairs else None,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _cosines(frames: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarity, in -1..1, of all pairs of embeddings (n,d) with the same of the rising `frames` (n,)."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=1e-12)
    cosines = [np.empty(0, dtype=np.float32)]
    crowd = int(np.unique(frames, return_counts=True)[1].max(initial=0))
    # Rows of a frame are neighbours, so its pairs are 1, 2, ... rows apart.
    for distance in range(1, crowd):
        first = np.flatnonzero(frames[distance:] == frames[:-distance])
        cosines.append(np.einsum("nd,nd->n", units[first], units[first + distance]))
    return np.concatenate(cosines).clip(-1, 1)
