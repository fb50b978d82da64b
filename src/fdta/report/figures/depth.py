"""Depth as the Spatial Adapter predicts it (paper Fig. 5 and 10), and how object queries attend to it (Fig. 11)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fdta.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from fdta.data.images import resized_size, to_network
from fdta.data.motchallenge import Sequence, read_split
from fdta.depth.bins import bin_index
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FULL, model_path
from fdta.experiment.settings import Settings
from fdta.model.detector import DetectorOutput
from fdta.model.fdta import FDTA
from fdta.names import Run
from fdta.report.figures.attention import attention_weights
from fdta.report.figures.style import (
    INK,
    MAP,
    Drawing,
    listed,
    new_figure,
    nothing_to_show,
    row_label,
    say_in,
    show_image,
)
from fdta.track.weights import load_tracker

ROWS = 3
"""Rows of a figure: of each data set as many sequences as fit, at least one."""
MEASURED = 40
"""Frames of a data set over which depths are compared."""
QUERIES = 3
"""The nearest, middle and farthest."""


def depth(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Frame, depth predicted by the Spatial Adapter of `full`, and pseudo depth (paper Fig. 5 and 10).

    A data set whose models are published checkpoints has no pseudo depth: its frames are of the test split.
    """
    title = "Predicted and pseudo depth"
    each = max(1, ROWS // len(datasets))
    shown: list[tuple[str, _Depth]] = []
    told, beyond = [], []
    for dataset in datasets:
        model, settings = _load(params, root, dataset)
        if model.detector.spatial_adapter is None:
            continue
        sequences = read_split(root / "data" / dataset / _depth_split(params, dataset))
        if params.dataset(dataset).weights:
            shown += [(dataset, _predicted_depth(model, settings, sequence)) for sequence in sequences[:each]]
            continue
        shown += [(dataset, _depth_pair(model, settings, sequence)) for sequence in sequences[:each]]
        step = -(-len(sequences) // MEASURED)
        pairs = [_depth_pair(model, settings, sequence) for sequence in sequences[::step]]
        inside = np.concatenate([pair.in_range.ravel() for pair in pairs])
        predicted = np.concatenate([pair.predicted.ravel() for pair in pairs])[inside]
        taught = np.concatenate([pair.pseudo_cells.ravel() for pair in pairs])[inside]
        outside = 100 * (1 - inside.mean())
        if outside >= 1:
            beyond.append(f"`{dataset}` {outside:.0f} %")
        if len(taught):
            error, constant = np.abs(predicted - taught).mean(), np.abs(taught - np.median(taught)).mean()
            told.append(f"`{dataset}` {error:.1f} ({constant:.1f}; {len(pairs)} frames)")
    if not shown:
        return nothing_to_show(title, f"`{FULL}` has no Spatial Adapter in these settings")
    pseudo = any(found.pseudo is not None for _, found in shown)
    titles = ("frame", "predicted by SA", *(["pseudo depth (teacher)"] if pseudo else []))
    figure, axes = new_figure((1.72 if pseudo else 2.6) * len(shown) + 0.3, len(shown), len(titles))
    for row, (dataset, found) in enumerate(shown):
        row_label(axes[row, 0], dataset)
        show_image(axes[row, 0], found.image, found.image.shape)
        for panel, values in zip(axes[row, 1:], (found.predicted, found.pseudo), strict=False):
            if values is None:
                say_in(panel, "none: not trained here")
            else:
                drawn = show_image(panel, values, found.image.shape, cmap=MAP, vmin=0, vmax=255)
        axes[row, 0].set_xlabel(found.place, fontsize=8, labelpad=3)
    for panel, name in zip(axes[0], titles, strict=True):
        panel.set_title(name)
    bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.5, aspect=30, pad=0.015)
    bar.set_label("inverse depth: nearer is brighter")
    places = listed(sorted({f"`{_depth_split(params, dataset)}`" for dataset in datasets}))
    caption = "The depth that the Spatial Adapter of full predicts, one value for 8 x 8 pixels of its input"
    if pseudo:
        caption += (
            ", beside the pseudo depth that it learned from (paper Fig. 5 and 10); frames of the split"
            f" {places}, on which full was not trained. Look for objects that stand out as brightly as in"
            " the teacher's map. Mean absolute error, of 255, and in brackets that of the best constant depth:"
            f" {'; '.join(told) or 'no depth in range'}."
        )
    else:
        caption += (
            f" (paper Fig. 5 and 10); frames of the split {places}. Look for objects that stand out brightly. Pseudo"
            " depth, which it learned from, is needed in training only and is not made for a published checkpoint."
        )
    if beyond:
        caption += (
            " Not counted are cells whose pseudo depth is 0, without measurable disparity, such as sky"
            f" ({', '.join(beyond)} of the cells): by the published discretization they lie outside the range and share"
            " the last bin, which stands for the nearest depth, so that SA is taught to paint them bright."
        )
    maps = "its predicted depth and its pseudo depth" if pseudo else "and its predicted depth"
    alt = f"Rows of a frame, {maps}, for {listed(list(datasets))}."
    return Drawing(figure, title if pseudo else "Predicted depth", caption, alt)


def depth_attention(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Where chosen object queries of `full` look in the depth features, last decoder layer (paper Fig. 11)."""
    title = "Depth attention"
    attended = {dataset: _attended(params, root, dataset) for dataset in datasets}
    if all(found is None for found in attended.values()):
        return nothing_to_show(title, f"`{FULL}` does not attend to depth in these settings")
    figure, axes = new_figure(1.22 * len(datasets) + 0.3, len(datasets), 2 + QUERIES)
    peaks = [found.attention.max() * found.depth.size for found in attended.values() if found and len(found.depths)]
    highest = max(peaks, default=1.0)
    told, drawn = [], None
    for row, (dataset, found) in enumerate(attended.items()):
        row_label(axes[row, 0], dataset)
        if found is None:
            for panel in axes[row]:
                say_in(panel, "no attention to depth")
            continue
        shape = found.image.shape
        show_image(axes[row, 0], found.image, shape)
        show_image(axes[row, 1], found.depth, shape, cmap=MAP, vmin=0, vmax=255)
        axes[row, 0].set_xlabel(found.place, fontsize=7.5, labelpad=3)
        for column, panel in enumerate(axes[row, 2:]):
            if column >= len(found.depths):
                say_in(panel, "no further object")
                continue
            # Of the mean over the frame, so that 1 is attention without preference.
            weights = found.attention[column] * found.depth.size
            drawn = show_image(panel, weights, shape, cmap="inferno", vmin=0, vmax=highest)
            for index, box in enumerate(found.boxes_xyxy):
                left, top, right, bottom = box
                line = (
                    {"color": "white", "lw": 1.6} if index == found.shown[column] else {"color": "#9fd8ff", "lw": 0.7}
                )
                panel.plot([left, right, right, left, left], [top, top, bottom, bottom, top], **line)
            x, y, _, _ = xyxy_to_cxcywh(found.boxes_xyxy[found.shown[column]])
            panel.plot(x, y, "o", ms=5, color="white", mec=INK, mew=0.9)
            panel.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
            panel.set_xlabel(f"query at depth {found.depths[column]:.0f}", fontsize=7.5, labelpad=3)
        if len(found.depths):
            told.append(f"`{dataset}` {100 * found.inside:.0f} % (boxes cover {100 * found.covered:.0f} %)")
    for panel, name in zip(axes[0], ("frame", "predicted depth", "nearest", "middle", "farthest"), strict=True):
        panel.set_title(name)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.8, aspect=30, pad=0.012)
        bar.set_label("attention, of its mean")
    numbers = f" Share of the attention that falls into the boxes of the objects: {'; '.join(told)}." if told else ""
    caption = (
        "Attention of object queries to the depth features in the last decoder layer of full, mean over the heads"
        " (paper Fig. 11), for the nearest, middle and farthest of a frame's detections. White box and dot: the object"
        " of the query; thin boxes: the others; bright: where it looks, 1 being attention without preference. The paper"
        f" finds it on objects of similar depth rather than on the background.{numbers}"
    )
    return Drawing(figure, title, caption, f"Heat maps of attention over frames of {listed(list(datasets))}.{numbers}")


@dataclass(frozen=True)
class _Depth:
    """Depth of a frame, 0..255."""

    place: str
    image: np.ndarray
    """(H, W, 3)."""
    predicted: np.ndarray
    """(h, w) at stride 8."""
    pseudo: np.ndarray | None
    """(H, W); None where there is none."""


@dataclass(frozen=True)
class _DepthPair(_Depth):
    """Predicted and pseudo depth of a frame."""

    pseudo_cells: np.ndarray
    """(h, w), as the depth loss has it."""
    in_range: np.ndarray
    """(h, w) bool, whether a cell's pseudo depth has a bin of its own."""


@dataclass(frozen=True)
class _Attended:
    """Depth attention in one frame."""

    place: str
    image: np.ndarray
    """(H, W, 3)."""
    depth: np.ndarray
    """(h, w)."""
    boxes_xyxy: np.ndarray
    """(n, 4) of the detections, in pixels."""
    shown: np.ndarray
    """(m,) indices of the queries that are shown, m at most `QUERIES`."""
    depths: np.ndarray
    """(m,) predicted at the centers of their boxes."""
    attention: np.ndarray
    """(m, h, w), each of sum 1."""
    inside: float
    """Share of the attention of all detections that falls into boxes of detections."""
    covered: float
    """Share of the frame that these boxes cover."""


def _load(params: Experiment, root: Path, dataset: str) -> tuple[FDTA, Settings]:
    run = Run(dataset, FULL, params.benchmark.seeds[0])
    model, settings, _ = load_tracker(model_path(root, run), torch.device("cpu"))
    return model, replace(settings, tracker=params.settings(dataset, FULL).tracker)


@torch.inference_mode()
def _detect(model: FDTA, settings: Settings, sequence: Sequence, frame: int) -> DetectorOutput:
    tracker = settings.tracker
    size = resized_size(sequence.width, sequence.height, tracker.short_side, tracker.long_side)
    return model.detector(to_network([sequence.image(frame)], size, torch.device("cpu")))


def _expected_depth(output: DetectorOutput) -> Tensor:
    """(h, w), of the first image."""
    assert output.depth is not None
    return output.depth[0]


def _depth_split(params: Experiment, dataset: str) -> str:
    """The split whose depth is shown."""
    data = params.dataset(dataset)
    return data.test_split if data.weights else data.validation_split


def _predicted_depth(model: FDTA, settings: Settings, sequence: Sequence) -> _Depth:
    """Of the middle frame."""
    frame = sequence.frames // 2 + 1
    predicted = _expected_depth(_detect(model, settings, sequence, frame))
    return _Depth(f"{sequence.name}, frame {frame}", sequence.image(frame), predicted.numpy(), None)


def _depth_pair(model: FDTA, settings: Settings, sequence: Sequence) -> _DepthPair:
    """Of the middle frame."""
    frame = sequence.frames // 2 + 1
    predicted = _expected_depth(_detect(model, settings, sequence, frame))
    pseudo = sequence.depth(frame)
    cells = torch.from_numpy(pseudo).float()[None, None]
    cells = torch.nn.functional.interpolate(cells, size=predicted.shape, mode="bilinear", align_corners=False)[0, 0]
    return _DepthPair(
        place=f"{sequence.name}, frame {frame}",
        image=sequence.image(frame),
        predicted=predicted.numpy(),
        pseudo=pseudo,
        pseudo_cells=cells.numpy(),
        in_range=(bin_index(cells, settings.spatial) < settings.spatial.bins).numpy(),
    )


def _attended(params: Experiment, root: Path, dataset: str) -> _Attended | None:
    """Of the middle frame of the first test sequence; None where the model does not attend to depth."""
    model, settings = _load(params, root, dataset)
    if settings.spatial.placement == "none" or not settings.spatial.enabled:
        return None
    sequence = read_split(root / "data" / dataset / params.dataset(dataset).test_split)[0]
    frame = sequence.frames // 2 + 1
    last: Any = model.detector.decoder[-1]
    with attention_weights([last.depth_attention]) as weights:
        output = _detect(model, settings, sequence, frame)
    depth = _expected_depth(output).numpy()
    height, width = depth.shape
    chosen = np.flatnonzero(output.logits[0].sigmoid().amax(-1).numpy() > settings.tracker.detection_threshold)
    attention = weights[0][0].numpy()[chosen].reshape(-1, height, width)
    boxes_xyxy = cxcywh_to_xyxy(output.boxes_cxcywh[0].double().numpy()[chosen])
    cells = (xyxy_to_cxcywh(boxes_xyxy)[:, :2].clip(0, 1 - 1e-6) * (width, height)).astype(int)
    depths = depth[cells[:, 1], cells[:, 0]]
    objects = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in boxes_xyxy * (width, height, width, height):
        objects[round(top) : round(bottom), round(left) : round(right)] = True
    by_depth = np.argsort(-depths, kind="stable")
    places = np.linspace(0, len(chosen) - 1, min(QUERIES, len(chosen))).round().astype(int)
    shown = by_depth[places]
    return _Attended(
        place=f"{sequence.name}, frame {frame}",
        image=sequence.image(frame),
        depth=depth,
        boxes_xyxy=boxes_xyxy * ([sequence.width, sequence.height] * 2),
        shown=shown,
        depths=depths[shown],
        attention=attention[shown],
        inside=float(attention[:, objects].sum(axis=1).mean()) if len(chosen) else 0.0,
        covered=float(objects.mean()),
    )
