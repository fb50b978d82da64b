"""Speed here: of tracking by component (paper Table 8), of a training step, and beside the published code."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NoReturn, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fdta.data.clips import ClipBatch
from fdta.data.identities import assign_identities
from fdta.data.images import resized_size, to_network
from fdta.data.targets import Targets
from fdta.errors import InputError
from fdta.evaluate.reference import Reference
from fdta.experiment.settings import Settings
from fdta.machine import machine
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.graphs import Graphed
from fdta.track.detect import graphed_detector, objects_of
from fdta.track.source import open_source, read_ahead
from fdta.track.tracker import IDScores, OnlineTracker, Tracks
from fdta.train.optimizer import build_optimizer, clip_gradients
from fdta.train.tracker import TrackerObjective

FRAMES = 100
"""Most frames of a pass, unless told."""
WARM_UP = 5
"""Frames before the first pass, not measured."""

logger = logging.getLogger(__name__)


class Frames(Protocol):
    """What is measured on: a `fdta.data.motchallenge.Sequence`, or `DrawnFrames`."""

    name: str
    width: int
    height: int
    frames: int

    def image(self, frame: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of `frame`, counted from 1."""
        ...


@dataclass(frozen=True)
class DrawnFrames:
    """JPEG files of random blots, for machines without data."""

    folder: Path
    width: int
    height: int
    frames: int
    name: str = "drawn"

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        for frame in range(1, self.frames + 1):
            coarse = random.integers(0, 256, (self.height // 16 + 1, self.width // 16 + 1, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(self.path(frame)), image)

    def path(self, frame: int) -> Path:
        """File of `frame`."""
        return self.folder / f"{frame:06d}.jpg"

    def image(self, frame: int) -> np.ndarray:
        """See `Frames`."""
        return cv2.imread(str(self.path(frame)), cv2.IMREAD_COLOR_RGB)


@torch.no_grad()
def drawn_model(settings: Settings, device: torch.device) -> FDTA:
    """A model with random weights, always the same.

    It is as fast as a trained one: no weights are left at 0, so that queries sample at different places, as trained
    ones do, and every output depends on the image.
    """
    torch.manual_seed(0)
    model = FDTA(settings)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return model.to(device).eval()


@torch.inference_mode()
def measure_inference(
    model: FDTA,
    sequence: Frames,
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
    _at_least_one(repeats)
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
        _forget_peak(device)
        passes = [pass_over(frames) for _ in range(repeats)]
    passes.sort(key=lambda measured: measured[0]["total"])
    milliseconds, apart, tracked = passes[repeats // 2]
    as_tracked = {}
    if device.type == "cuda":
        as_tracked = {"as_tracked": _as_tracked(model, sequence, settings, device, size, frames, objects, repeats)}
    return {
        "milliseconds": milliseconds,
        "spread": {name: _spread([measured[0][name] for measured in passes]) for name in milliseconds},
        "passes": [measured["total"] for measured, _, _ in passes],
        "apart": apart,
        **as_tracked,
        "sequence": sequence.name,
        "frames": frames,
        "objects": tracked,
        "image": list(size),
        "peak_mebibytes": _peak(device),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def _fill_history(tracker: OnlineTracker, found: tuple[Tensor, Tensor, Tensor], settings: Settings) -> None:
    for _ in range(settings.history):
        tracker.update(*found)


def _pass(
    model: FDTA,
    tracker: OnlineTracker,
    sequence: Frames,
    device: torch.device,
    size: tuple[int, int],
    frames: int,
    wanted: int | None,
    bar: tqdm[NoReturn],
) -> tuple[dict[str, float], dict[str, float], float]:
    """Milliseconds a frame by component, those told apart, and objects a frame, of one pass over `frames` frames."""
    clock = _clock(device)
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

    def timed(*arguments: Tensor) -> Tensor:
        start = clock()
        result = call(*arguments)
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
    sequence: Frames,
    settings: Settings,
    device: torch.device,
    size: tuple[int, int],
    frames: int,
    wanted: int | None,
    repeats: int,
) -> dict[str, Any]:
    """Milliseconds a frame over `repeats` passes of one tracker, after another pass."""
    clock, passes = _clock(device), []
    detect, tracker = graphed_detector(model.detector), OnlineTracker.from_model(model, settings)
    for _ in range(repeats + 1):
        seconds = 0.0
        for frame in range(1, frames + 1):
            image = sequence.image(frame)
            start = clock()
            _track(image, size, detect, tracker, device, wanted)
            seconds += clock() - start
        passes.append(1000 * seconds / frames)
    return _summary(passes[1:])


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
    _at_least_one(repeats)
    clock, passes = _clock(device), []
    detect, tracker = graphed_detector(model.detector), OnlineTracker.from_model(model, settings)
    short, long = settings.tracker.short_side, settings.tracker.long_side
    seen = tracked = 0
    size = 0, 0
    with tqdm(unit="frame", disable=None) as bar:
        for number in range(repeats + 1):
            source, seen, tracked = open_source(video), 0, 0
            start = clock()
            with closing(source.images), closing(read_ahead(source.images, device)) as images:
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
                _forget_peak(device)
    return _summary(passes[1:]) | {
        "frames": seen,
        "objects": tracked / seen,
        "image": list(size),
        "peak_mebibytes": _peak(device),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def compare_inference(
    ours: FDTA, reference: Reference, size: tuple[int, int], history: int, objects: int, repeats: int
) -> dict[str, Any]:
    """Time detector and association of both on one random image, by turns.

    Args:
        ours: for inference, with the same weights as `reference`.
        reference: the published code.
        size: height and width of the image in the network.
        history: `Settings.history`; history - 1 frames are remembered.
        objects: in the frame, and in each frame of the history.
        repeats: turns that are measured.

    Returns:
        JSON-able: for detector and association the milliseconds of both (median, smallest, largest), their ratio
        (published / ours, of the medians and the smallest) and the largest difference of an output, in its standard
        deviations.
    """
    _at_least_one(repeats)
    device = reference.device
    random = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=random).to(device)
    width, frames = ours.detector.level_embedding.shape[1], history - 1
    embeddings, current = (
        torch.randn(*shape, width, generator=random).to(device) for shape in ((frames, objects), (objects,))
    )
    missing = torch.zeros(frames, objects, dtype=torch.bool, device=device)
    labels, times = torch.arange(objects, device=device), torch.arange(frames, device=device)
    arguments = embeddings, missing, labels, times, current
    ours_scores = OnlineTracker.scores_of(ours)
    with torch.inference_mode():
        detected, identified = (
            _compared(calls, repeats, _clock(device))
            for calls in (
                (lambda: ours.detector(images), lambda: reference.detect(images)),
                (lambda: ours_scores(*arguments), lambda: reference.id_logits(*arguments)),
            )
        )
        mine, theirs = ours.detector(images), reference.detect(images)
        pairs = {
            "logits": (mine.logits, theirs["pred_logits"]),
            "boxes": (mine.boxes_cxcywh, theirs["pred_boxes"]),
            "embeddings": (mine.embeddings, theirs["outputs"]),
            "depth": (mine.depth, theirs["weighted_depth"]),
        }
        logits = ours_scores(*arguments), reference.id_logits(*arguments)
    return {
        "size": list(size),
        "objects": objects,
        "history": history,
        "detector": detected | {"differences": {name: _difference(*pair) for name, pair in pairs.items()}},
        "association": identified | {"differences": {"logits": _difference(*logits)}},
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class TrainingSteps:
    """A training step on one clip of random frames: loss, gradients, clipping and optimizer."""

    settings: Settings
    """Of the model; `training.gradient_frames` frames have a gradient."""
    frames: int
    """Of the clip, at most `history`."""
    size: tuple[int, int]
    """Height and width of a frame."""
    objects: int
    """In every frame."""
    device: torch.device
    """Where to compute."""

    def both(self, reference: Path | None) -> list[Callable[[], None]]:
        """Our step, and that of the published code with the same weights, if `reference` is a checkout of it."""
        model = drawn_model(self.settings, self.device).train()
        settings = replace(self.settings, history=self.frames)
        batch = _drawn_clip(self.frames, self.size, self.objects, self.device)
        steps = [_our_step(model, batch, settings)]
        if reference is not None:
            steps.append(_their_step(Reference(reference, model), batch, self.objects, settings))
        return steps

    def peak(self, reference: Path | None, threads: int) -> float:
        """Mebibytes of the second step, when the optimizer's state is there, of ours or else of `reference`'s code.

        In a process that does nothing else, it is what the step needs.
        """
        torch.set_num_threads(threads)
        step = self.both(reference)[-1]
        step()
        _forget_peak(self.device)
        step()
        return _peak(self.device)


def measure_training(steps: TrainingSteps, repeats: int, reference: Path | None = None) -> dict[str, Any]:
    """Time a training step.

    Args:
        steps: what is measured.
        repeats: steps that are measured, after one that is not.
        reference: a checkout of the published code, which then takes steps by turns.

    Returns:
        JSON-able: milliseconds a step (median, smallest, largest) and peak memory, of both where there are two, with
        ratios published / ours. Memory is then measured in a process each.
    """
    _at_least_one(repeats)
    taken = steps.both(reference)
    _forget_peak(steps.device)
    measured, busy = _by_turns(taken, repeats, _clock(steps.device))
    result = {
        "size": list(steps.size),
        "objects": steps.objects,
        "frames": steps.frames,
        "gradient_frames": steps.settings.training.gradient_frames,
    }
    threads = torch.get_num_threads()
    if reference is None:
        result["ours"] = _summary(measured[0]) | {"peak_mebibytes": _peak(steps.device)}
    else:
        del taken
        ours, theirs = (_alone(steps.peak, which, threads) for which in (None, reference))
        result["ours"] = _summary(measured[0]) | {"peak_mebibytes": ours}
        result["published"] = _summary(measured[1]) | {"peak_mebibytes": theirs}
        result["ratio"] = _ratios(measured, busy) | {"memory": theirs / ours}
    return result | {"machine": machine(), "threads": threads}


def _alone(call: Callable[..., float], *arguments: object) -> float:
    """What `call` gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *arguments).result()


def _our_step(model: FDTA, batch: ClipBatch, settings: Settings) -> Callable[[], None]:
    objective, optimizer = TrackerObjective(model, settings), build_optimizer(model, settings.training)

    def step() -> None:
        total, _ = objective(batch, epoch=settings.identity.first_epoch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        clip_gradients(model, settings.training.clip_norm)
        optimizer.step()

    return step


def _their_step(reference: Reference, batch: ClipBatch, objects: int, settings: Settings) -> Callable[[], None]:
    model, criterion = reference.model.train(), reference.criterion
    parameters = [p for p in [*model.parameters(), *criterion.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.training.learning_rate)
    detector = [p for name, p in model.named_parameters() if name.startswith("detr.")]
    others = [p for name, p in model.named_parameters() if not name.startswith("detr.")]
    present = torch.ones(settings.history, objects, dtype=torch.bool)
    random = torch.Generator().manual_seed(0)

    def step() -> None:
        groups = assign_identities(present, settings.clip, settings.association.labels, random)
        loss = reference.loss(batch, groups, settings.training.gradient_frames, settings.association.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in (detector, others):
            nn.utils.clip_grad_norm_(part, settings.training.clip_norm)
        optimizer.step()

    return step


def _drawn_clip(frames: int, size: tuple[int, int], objects: int, device: torch.device) -> ClipBatch:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(frames, 3, *size, generator=random)
    depth = torch.randint(0, 256, (frames, *size), generator=random).to(torch.uint8)
    boxes = torch.rand(frames, objects, 4, generator=random) * 0.4 + torch.tensor([0.3, 0.3, 0.1, 0.1])
    targets = [Targets(box, torch.arange(objects)) for box in boxes]
    return ClipBatch(images, torch.zeros(frames, *size, dtype=torch.bool), depth, targets, 1).to(device)


def settings_of_size(settings: Settings, size: tuple[int, int]) -> Settings:
    """`settings` whose tracker takes frames of `size` (height, width) as they are."""
    return replace(settings, tracker=replace(settings.tracker, short_side=min(size), long_side=max(size)))


@contextmanager
def drawn_frames(size: tuple[int, int], frames: int) -> Iterator[DrawnFrames]:
    """Drawn frames of `size` (height, width), gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield DrawnFrames(Path(folder), size[1], size[0], frames)


def _by_turns(
    calls: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds and the processor's seconds of each call, by turns to meet the same load; the first turn is to warm
    up."""
    measured: list[list[float]] = [[] for _ in calls]
    busy: list[list[float]] = [[] for _ in calls]
    with tqdm(total=(repeats + 1) * len(calls), unit="call", disable=None) as bar:
        for turn in range(repeats + 1):
            for call, spans, work in zip(calls, measured, busy, strict=True):
                start, began = clock(), process_time()
                call()
                if turn:
                    spans.append(1000 * (clock() - start))
                    work.append(process_time() - began)
                bar.update()
            if bar.disable and turn:
                logger.info("turn %d of %d: %s ms", turn, repeats, ", ".join(f"{spans[-1]:.4g}" for spans in measured))
    return measured, busy


def _compared(calls: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of our and the published call, and their ratios."""
    measured, busy = _by_turns(calls, repeats, clock)
    ours, published = map(_summary, measured)
    return {"ours": ours, "published": published, "ratio": _ratios(measured, busy)}


def _ratios(measured: list[list[float]], busy: list[list[float]]) -> dict[str, float]:
    """Published / ours; `processor` is of the processor's time in this process, which others disturb less."""
    (ours, published), (our_work, their_work) = measured, busy
    return {
        "median": statistics.median(published) / statistics.median(ours),
        "smallest": min(published) / min(ours),
        "processor": statistics.median(their_work) / statistics.median(our_work),
    }


def _summary(milliseconds: list[float]) -> dict[str, Any]:
    return {"milliseconds": statistics.median(milliseconds), "spread": _spread(milliseconds)}


def _spread(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def _difference(mine: Tensor, theirs: Tensor) -> float:
    return float((mine.float() - theirs.float()).abs().max() / theirs.float().std())


def _at_least_one(repeats: int) -> None:
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: measure at least once")


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds, after the device has done what it was given."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    return clock


def _forget_peak(device: torch.device) -> None:
    """Let `_peak` count from here: on CUDA, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def _peak(device: torch.device) -> float:
    """Most mebibytes of the device's (on a CPU: the process's) memory in use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


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
