"""Speed of tracking on this machine: by component (paper Table 8), and from file to tracks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fdta.data.images import resized_size, to_network
from fdta.data.motchallenge import Sequence
from fdta.evaluate.timing import device_clock, forget_peak, peak, require_one, spread, summary
from fdta.experiment.settings import Settings
from fdta.machine import machine
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.graphs import Graphed
from fdta.track.detect import graphed_detector, objects_of
from fdta.track.reading import read_ahead
from fdta.track.source import open_source
from fdta.track.tracker import IDScores, OnlineTracker, Tracks

FRAMES = 100
"""Most frames of a pass, unless told."""
WARM_UP = 5
"""Frames before the first pass, not measured."""

logger = logging.getLogger(__name__)


@torch.inference_mode()
def measure_inference(
    model: FDTA,
    sequence: Sequence,
    settings: Settings,
    device: torch.device,
    repeats: int = 3,
    objects: int | None = None,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """Time the online tracker frame by frame (one image at a time) on the first frames of `sequence`.

    The history is full from the start: of the objects of the first frame, which the tracker is shown as often as that
    takes.

    The components are the rows of Table 8: `detr`, the detector without the next; `sa`, the Spatial Adapter and the
    decoder's attention to depth; `ta`, the Temporal Adapter; `id-prediction`, trajectory features, ID decoder, the
    transfer of what they say and assignment; `other`, resizing, normalizing and moving the image, and scores of the
    detector's logits. Reading images is not in the total, because tracking reads them ahead. A GPU is waited for at
    every component's boundaries, and there are no CUDA graphs, which know no components: `total` is above what tracking
    takes, and `as_tracked` tells that.

    Args:
        model: on `device`; put into evaluation mode.
        sequence: its first frames are used.
        settings: of the model.
        device: of the model.
        repeats: passes over the frames, by one tracker.
        objects: how many of the detector's queries count as objects whatever their scores; None: as the scores say.
        frames: most frames of a pass.

    Returns:
        JSON-able: milliseconds, those a frame of each component and their sum `total`, of the pass with the median
        total (the slower of two); spread, smallest and largest of each over the passes; passes, the totals of all;
        apart, milliseconds a frame of reading (`decode`, not in the total), of `preprocessing`, a part of `other`, and
        of the tracker without its networks (`bookkeeping`, a part of `id-prediction`); on CUDA as_tracked,
        milliseconds a frame without reading, from CUDA graphs where they can be captured (median over the passes, and
        spread); sequence, frames, and objects (mean number tracked a frame); image, the width and height in the
        network; peak_mebibytes; machine and threads.

    Raises:
        InputError: `repeats` is below 1, or an image cannot be read.
    """
    require_one(repeats)
    model.eval()
    size = resized_size(sequence.width, sequence.height, settings.tracker.short_side, settings.tracker.long_side)
    frames = min(sequence.frames, frames)
    tracker = OnlineTracker.from_model(model, settings, graphs=False)
    images = to_network([sequence.image(1)], size, device)
    _fill_history(tracker, _wanted(objects_of(model.detector(images)), objects), settings)
    with tqdm(total=WARM_UP + repeats * frames, unit="frame", disable=None) as bar:

        def pass_over(frames: int) -> tuple[dict[str, float], dict[str, float], float]:
            measured = _pass(model, tracker, sequence, device, size, frames, objects, bar)
            if bar.disable:
                logger.info("%d frames: %.4g ms a frame", frames, measured[0]["total"])
            return measured

        pass_over(min(frames, WARM_UP))
        forget_peak(device)
        passes = [pass_over(frames) for _ in range(repeats)]
    passes.sort(key=lambda measured: measured[0]["total"])
    milliseconds, apart, tracked = passes[repeats // 2]
    as_tracked = {}
    if device.type == "cuda":
        as_tracked = {"as_tracked": _as_tracked(model, sequence, settings, device, size, frames, objects, repeats)}
    return {
        "milliseconds": milliseconds,
        "spread": {name: spread([measured[0][name] for measured in passes]) for name in milliseconds},
        "passes": [measured["total"] for measured, _, _ in passes],
        "apart": apart,
        **as_tracked,
        "sequence": sequence.name,
        "frames": frames,
        "objects": tracked,
        "image": list(size),
        "peak_mebibytes": peak(device),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def _fill_history(tracker: OnlineTracker, found: tuple[Tensor, Tensor, Tensor], settings: Settings) -> None:
    for _ in range(settings.history):
        tracker.update(*found)


def _pass(
    model: FDTA,
    tracker: OnlineTracker,
    sequence: Sequence,
    device: torch.device,
    size: tuple[int, int],
    frames: int,
    wanted: int | None,
    bar: tqdm[NoReturn],
) -> tuple[dict[str, float], dict[str, float], float]:
    """Milliseconds a frame by component, those told apart, and objects a frame, of one pass over `frames` frames."""
    clock = device_clock(device)
    scoring: list[float] = []
    id_scores = tracker.id_scores
    tracker.id_scores = _spanned(id_scores, clock, scoring)
    decoding = preparing = detecting = tracking = total = 0.0
    objects = 0
    temporal = [] if model.temporal_adapter is None else [model.temporal_adapter]
    with _timed(_spatial(model.detector), clock) as spatial_spans, _timed(temporal, clock) as temporal_spans:
        for frame in range(1, frames + 1):
            before = clock()
            image = sequence.image(frame)
            start = clock()
            images = to_network([image], size, device)
            ready = clock()
            output = model.detector(images)
            detected = clock()
            found = _wanted(objects_of(output), wanted)
            given = clock()
            tracks = tracker.update(*found)
            end = clock()
            decoding += start - before
            preparing += ready - start
            detecting += detected - ready
            tracking += end - given
            total += end - start
            objects += len(tracks.identities)
            bar.update()
    tracker.id_scores = id_scores
    sa, ta = sum(spatial_spans), sum(temporal_spans)
    seconds = {
        "detr": detecting - sa,
        "sa": sa,
        "ta": ta,
        "id-prediction": tracking - ta,
        "other": total - detecting - tracking,
        "total": total,
    }
    told_apart = {"decode": decoding, "preprocessing": preparing, "bookkeeping": tracking - sum(scoring)}
    apart = {name: 1000 * value / frames for name, value in told_apart.items()}
    return {name: 1000 * value / frames for name, value in seconds.items()}, apart, objects / frames


def _spanned(call: IDScores, clock: Callable[[], float], spans: list[float]) -> IDScores:
    """`call`, which adds its seconds to `spans`."""

    def timed(*arguments: Any, **named: Any) -> Tensor:
        start = clock()
        result = call(*arguments, **named)
        spans.append(clock() - start)
        return result

    return timed


def _wanted(found: tuple[Tensor, Tensor, Tensor], wanted: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (Q,), boxes and embeddings of one image; the first `wanted` queries are objects, if a number is given."""
    (scores,), (boxes_cxcywh,), (embeddings,) = found
    if wanted is not None:
        scores = (torch.arange(len(scores), device=scores.device) < wanted).float()
    return scores, boxes_cxcywh, embeddings


def _track(
    image: np.ndarray,
    size: tuple[int, int],
    detect: Graphed,
    tracker: OnlineTracker,
    device: torch.device,
    wanted: int | None,
) -> Tracks:
    return tracker.update(*_wanted(detect(to_network([image], size, device)), wanted))


@torch.inference_mode()
def _as_tracked(
    model: FDTA,
    sequence: Sequence,
    settings: Settings,
    device: torch.device,
    size: tuple[int, int],
    frames: int,
    wanted: int | None,
    repeats: int,
) -> dict[str, Any]:
    """Milliseconds a frame over `repeats` passes of one tracker, after another pass."""
    clock, passes = device_clock(device), []
    detect, tracker = graphed_detector(model.detector), OnlineTracker.from_model(model, settings)
    for _ in range(repeats + 1):
        seconds = 0.0
        for frame in range(1, frames + 1):
            image = sequence.image(frame)
            start = clock()
            _track(image, size, detect, tracker, device, wanted)
            seconds += clock() - start
        passes.append(1000 * seconds / frames)
    return summary(passes[1:])


@torch.inference_mode()
def measure_pipeline(
    model: FDTA,
    settings: Settings,
    device: torch.device,
    video: str,
    repeats: int,
    objects: int | None = None,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """Time tracking from file to tracks, images read ahead: milliseconds a frame.

    Arguments are as of `measure_inference`, with whatever `fdta.track.source.open_source` takes as `video`; median and
    spread are over `repeats` passes of one tracker with a full history, after another pass, in which CUDA graphs are
    captured.

    Raises:
        InputError: `repeats` is below 1, or there is no such video.
    """
    require_one(repeats)
    clock, passes = device_clock(device), []
    detect, tracker = graphed_detector(model.detector), OnlineTracker.from_model(model, settings)
    short, long = settings.tracker.short_side, settings.tracker.long_side
    seen = tracked = 0
    size = 0, 0
    with tqdm(unit="frame", disable=None) as bar:
        for number in range(repeats + 1):
            source, seen, tracked = open_source(video), 0, 0
            start = clock()
            read = (frame.image for frame in source.frames)
            with closing(source.frames), closing(read_ahead(read, device)) as images:
                for image in itertools.islice(images, frames):
                    size = resized_size(image.shape[1], image.shape[0], short, long)
                    if not (number or seen):
                        found = _wanted(detect(to_network([image], size, device)), objects)
                        _fill_history(tracker, found, settings)
                    tracked += len(_track(image, size, detect, tracker, device, objects).identities)
                    seen += 1
                    bar.update()
            passes.append(1000 * (clock() - start) / seen)
            if bar.disable:
                logger.info("%d frames: %.4g ms a frame", seen, passes[-1])
            if not number:
                forget_peak(device)
    return summary(passes[1:]) | {
        "frames": seen,
        "objects": tracked / seen,
        "image": list(size),
        "peak_mebibytes": peak(device),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def settings_of_size(settings: Settings, size: tuple[int, int]) -> Settings:
    """`settings` whose tracker takes frames of `size` (height, width) as they are."""
    return replace(settings, tracker=replace(settings.tracker, short_side=min(size), long_side=max(size)))


def _spatial(detector: DeformableDetector) -> list[nn.Module]:
    """What the Spatial Adapter adds to the detector."""
    if detector.spatial_adapter is None:
        return []
    attention = [
        module
        for layer in detector.decoder
        for name, module in layer.named_children()
        if name in ("depth_attention", "depth_norm")
    ]
    return [detector.spatial_adapter, *attention]


@contextmanager
def _timed(modules: Iterable[nn.Module], clock: Callable[[], float]) -> Iterator[list[float]]:
    """A list to which every call of one of `modules` adds its seconds."""
    spans: list[float] = []
    starts: list[float] = []
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(lambda *_: starts.append(clock())))
        handles.append(module.register_forward_hook(lambda *_: spans.append(clock() - starts.pop())))
    try:
        yield spans
    finally:
        for handle in handles:
            handle.remove()
