"""How an object queries its own history: attention weights of the Temporal Adapter (paper Fig. 12)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fdta.data.motchallenge import Sequence, read_boxes, read_split
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FULL, model_path
from fdta.model.fdta import FDTA
from fdta.names import Run
from fdta.report.figures.attention import attention_weights
from fdta.report.figures.observed import read_tracked
from fdta.report.figures.style import MAP, Drawing, listed, new_figure, nothing_to_show, row_label, say_in
from fdta.track.weights import load_tracker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

TRAJECTORIES = 4
"""Windows of a data set that are shown, each of another sequence."""
HATCH: dict[str, Any] = {"facecolor": "#d9d9d9", "edgecolor": "#8a8a8a", "hatch": "////", "linewidth": 0}


@dataclass(frozen=True)
class _Window:
    """Frames of a track, from one in which it was seen to another."""

    sequence: Sequence
    track: int
    first: int
    """Frame, from 1."""
    missing: np.ndarray
    """(T,) bool."""


def interactions(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Attention weights over the history of single tracks that were lost for some frames, in the last layer."""
    title = "Temporal interaction weights"
    figure, axes = new_figure(2.25 * len(datasets) + 0.5, len(datasets), TRAJECTORIES)
    drawn, longest, past = None, 0, []
    for row, dataset in enumerate(datasets):
        run = Run(dataset, FULL, params.benchmark.seeds[0])
        model, settings, _ = load_tracker(model_path(root, run), torch.device("cpu"))
        if model.temporal_adapter is None:
            return nothing_to_show(title, f"`{FULL}` has no Temporal Adapter in these settings")
        split = root / "data" / dataset / params.dataset(dataset).test_split
        # As many frames as the tracker remembers.
        windows = _windows(root, run, split, settings.history - 1)
        row_label(axes[row, 0], f"{dataset}\nquery frame")
        for column, panel in enumerate(axes[row]):
            if column >= len(windows):
                say_in(panel, "no further track that is long enough")
                continue
            window = windows[column]
            weights = _weights(model, root, run, window)
            drawn = _matrix(panel, weights, window)
            longest = max(longest, int(window.missing.sum()))
            present = np.flatnonzero(~window.missing)[1:]
            past.append(np.mean([weights[t, :t].sum() for t in present]))
    if drawn is None:
        return nothing_to_show(title, f"no track of `{FULL}` is as long as the history")
    for panel in axes[-1]:
        if panel.images:
            panel.set_xlabel("key frame")
    bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.6, aspect=30, pad=0.015)
    bar.set_label("attention weight")
    told = f"missing for up to {longest} frames" if longest else "none of which was ever lost, so that none is hatched"
    caption = (
        "Attention weights of the Temporal Adapter of full, last layer, mean over the heads (paper Fig. 12):"
        f" {len(past)} tracks of the test split, {told}. A row is a frame that asks, a column a frame of the same"
        " track that it looks at. Hatched: frames in which the object was missing, hidden from all others; white: the"
        f" future. On average {100 * np.mean(past):.0f} % of the weight goes to earlier frames, the rest to the frame"
        " itself."
    )
    alt = f"Lower-triangular matrices of attention weights, for tracks of {listed(list(datasets))}; {told}."
    return Drawing(figure, title, caption, alt)


def _windows(root: Path, run: Run, split: Path, length: int) -> list[_Window]:
    """Windows of `length` frames with the most missing ones, at most one a sequence, the first of equals."""
    best = []
    for sequence in read_split(split):
        boxes = read_boxes(root / "tracks" / str(run) / split.name / f"{sequence.name}.txt", sequence.frames)
        found = None
        for track in np.unique(boxes.identities):
            seen = np.zeros(sequence.frames + 1, dtype=bool)
            seen[boxes.frames[boxes.identities == track]] = True
            for first in np.flatnonzero(seen[: len(seen) - length + 1]):
                missing = ~seen[first : first + length]
                # At least half of the frames are there, and the last is, so that something is asked.
                complete = not missing[-1] and missing.sum() <= length // 2
                if complete and (found is None or missing.sum() > found.missing.sum()):
                    found = _Window(sequence, int(track), int(first), missing)
        if found is not None:
            best.append(found)
    return sorted(best, key=lambda window: -window.missing.sum())[:TRAJECTORIES]


def _weights(model: FDTA, root: Path, run: Run, window: _Window) -> np.ndarray:
    """(T, T) weights of query frames (rows) over key frames."""
    tracked = read_tracked(root, run, window.sequence)
    frames = tracked.tracks.frames - window.first
    rows = np.flatnonzero((tracked.tracks.identities == window.track) & (frames >= 0) & (frames < len(window.missing)))
    features = torch.zeros(len(window.missing), 1, tracked.embeddings.shape[1])
    features[frames[rows], 0] = torch.from_numpy(tracked.embeddings[rows])
    missing, times = torch.from_numpy(window.missing)[:, None], torch.arange(len(window.missing))
    adapter: Any = model.temporal_adapter
    with attention_weights([adapter.layers[-1].attention]) as weights:
        adapter(features, missing, times)
    return weights[0][0].numpy()


def _matrix(panel: Axes, weights: np.ndarray, window: _Window) -> AxesImage:
    """Draw `weights`; what is hidden stays blank or is hatched."""
    length = len(weights)
    hidden = np.triu(np.ones((length, length), dtype=bool), 1) | window.missing[None] | window.missing[:, None]
    drawn = panel.imshow(np.ma.masked_array(weights, hidden), cmap=MAP, vmin=0, vmax=1, interpolation="nearest")
    for frame in np.flatnonzero(window.missing).tolist():
        panel.axvspan(frame - 0.5, frame + 0.5, **HATCH)
        panel.axhspan(frame - 0.5, frame + 0.5, **HATCH)
    # The future of frames that are there: white, over the hatching too.
    for frame in range(length - 1):
        panel.broken_barh([(frame + 0.5, length - 1 - frame)], (frame - 0.5, 1), facecolor="white", linewidth=0)
    ticks = np.arange(0, length, max(1, length // 4))
    panel.set(xticks=ticks, yticks=ticks, xlim=(-0.5, length - 0.5), ylim=(length - 0.5, -0.5))
    panel.set_xticklabels(window.first + ticks)
    panel.set_yticklabels(window.first + ticks)
    panel.tick_params(length=2)
    panel.set_title(f"{window.sequence.name}\ntrack {window.track}", fontsize=8)
    return drawn
