"""Milliseconds a frame that the parts of the online tracker take (paper Table 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import nn

from fdta.data.images import resize, resized_size, to_network
from fdta.data.motchallenge import Sequence
from fdta.errors import InputError
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.params import Settings
from fdta.report.measured import machine
from fdta.track.tracker import OnlineTracker

FRAMES = 100
"""Most frames of a pass; enough for the history to be full most of the time."""
WARM_UP = 5
"""Frames before the first pass, not measured."""


def measure_inference(
    model: FDTA, sequence: Sequence, settings: Settings, device: torch.device, repeats: int = 3
) -> dict[str, Any]:
    """Time the online tracker frame by frame (one image at a time) on the first frames of `sequence`.

    The components are the rows of Table 8: `detr`, the detector without the next; `sa`, the Spatial Adapter and the
    decoder's attention to depth; `ta`, the Temporal Adapter; `id-prediction`, trajectory features, ID decoder and
    assignment; `other`, resizing, normalizing and moving the image, and fetching scores and boxes. Images are read
    before the clock starts, because tracking reads them ahead. A GPU is waited for at every component's boundaries, so
    that `total` is a little above what tracking takes.

    Args:
        model: on `device`; put into evaluation mode.
        sequence: at most `FRAMES` frames of it are used.
        settings: of the model.
        device: of the model.
        repeats: passes over the frames, each with a new tracker.

    Returns:
        JSON-able: milliseconds, those a frame of each component and their sum `total`, of the pass with the median
        total; passes, the totals of all; sequence, frames, and objects (mean number tracked a frame); image, the width
        and height in the network; machine and threads.

    Raises:
        InputError: `repeats` is below 1, or an image cannot be read.
    """
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; measure at least one pass")
    model.eval()
    size = resized_size(sequence.width, sequence.height, settings.tracker.short_side, settings.tracker.long_side)
    frames = min(sequence.frames, FRAMES)
    _pass(model, sequence, settings, device, size, min(frames, WARM_UP))
    passes = [_pass(model, sequence, settings, device, size, frames) for _ in range(repeats)]
    passes.sort(key=lambda measured: measured[0]["total"])
    milliseconds, objects = passes[(repeats - 1) // 2]
    return {
        "milliseconds": milliseconds,
        "passes": [measured["total"] for measured, _ in passes],
        "sequence": sequence.name,
        "frames": frames,
        "objects": objects,
        "image": list(size),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


@torch.inference_mode()
def _pass(
    model: FDTA, sequence: Sequence, settings: Settings, device: torch.device, size: tuple[int, int], frames: int
) -> tuple[dict[str, float], float]:
    """Milliseconds a frame by component, and objects a frame, of one pass over the first `frames` frames."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    tracker = OnlineTracker.from_model(model, settings)
    detecting = tracking = total = 0.0
    objects = 0
    temporal = [] if model.temporal_adapter is None else [model.temporal_adapter]
    with _timed(_spatial(model.detector), clock) as spatial_spans, _timed(temporal, clock) as temporal_spans:
        for frame in range(1, frames + 1):
            image = sequence.image(frame)
            start = clock()
            images = to_tensor(resize(image, *size))[None].to(device)
            padding = torch.zeros_like(images[:, 0], dtype=torch.bool)
            ready = clock()
            output = model.detector(images, padding)
            detected = clock()
            scores, boxes_cxcywh = output.logits[0].sigmoid().amax(dim=-1).cpu(), output.boxes_cxcywh[0].cpu()
            fetched = clock()
            tracks = tracker.update(scores, boxes_cxcywh, output.embeddings[0])
            end = clock()
            detecting += detected - ready
            tracking += end - fetched
            total += end - start
            objects += len(tracks.identities)
    sa, ta = sum(spatial_spans), sum(temporal_spans)
    seconds = {
        "detr": detecting - sa,
        "sa": sa,
        "ta": ta,
        "id-prediction": tracking - ta,
        "other": total - detecting - tracking,
        "total": total,
    }
    return {name: 1000 * value / frames for name, value in seconds.items()}, objects / frames


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
