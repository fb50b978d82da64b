"""Speed and outputs compared with the published code: the same weights and inputs, in one process, by turns.

``python benchmarks/published.py infer --reference FOLDER`` and ``... train --reference FOLDER`` (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from reference import Reference
from torch import Tensor, nn
from tqdm import tqdm

from fdta.cli.bench import MEDIAN, check, choose_drawn, print_table, where, write
from fdta.data.clips import ClipBatch
from fdta.data.identities import assign_identities
from fdta.device import choose_device
from fdta.errors import InputError
from fdta.evaluate.speed import settings_of_size
from fdta.evaluate.timing import device_clock, drawn_model, forget_peak, peak, require_one, summary
from fdta.experiment.settings import Settings
from fdta.machine import machine
from fdta.model.fdta import FDTA
from fdta.model.inference import PRECISIONS, optimized, precision
from fdta.track.tracker import OnlineTracker
from fdta.train.speed import drawn_clip, training_step

logger = logging.getLogger("fdta")


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
    require_one(repeats)
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
            compared(calls, repeats, device_clock(device))
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
        "detector": detected | {"differences": {name: difference(*pair) for name, pair in pairs.items()}},
        "association": identified | {"differences": {"logits": difference(*logits)}},
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }


def compare_training(
    settings: Settings,
    size: tuple[int, int],
    objects: int,
    device: torch.device,
    reference: Path,
    repeats: int,
) -> dict[str, Any]:
    """Time a training step of both on one clip of random frames, by turns.

    Args:
        settings: of the model; the clip has `history` frames, of which `training.gradient_frames` have a gradient.
        size: height and width of a frame.
        objects: in every frame.
        device: where to compute.
        reference: a checkout of the published code.
        repeats: steps of each that are measured, after one that is not.

    Returns:
        JSON-able: milliseconds per step of both (median, smallest, largest), their peak memory, each in a process of
        its own, and ratios published / ours.
    """
    require_one(repeats)
    steps = [one_step(settings, size, objects, device, which) for which in (None, reference)]
    measured, busy = by_turns(steps, repeats, device_clock(device))
    del steps
    threads = torch.get_num_threads()
    alone = settings, size, objects, device, threads
    ours, theirs = (in_a_process(peak_of_a_step, *alone, which) for which in (None, reference))
    return {
        "size": list(size),
        "objects": objects,
        "frames": settings.history,
        "gradient_frames": settings.training.gradient_frames,
        "ours": summary(measured[0]) | {"peak_mebibytes": ours},
        "published": summary(measured[1]) | {"peak_mebibytes": theirs},
        "ratio": ratios(measured, busy) | {"memory": theirs / ours},
        "machine": machine(),
        "threads": threads,
    }


def one_step(
    settings: Settings, size: tuple[int, int], objects: int, device: torch.device, reference: Path | None
) -> Callable[[], None]:
    """A function that takes a step on a drawn clip: of ours, or of the published trainer in the folder `reference`."""
    # With the settings of the paper, which the published model has.
    paper = replace(settings, history=Settings().history)
    model = drawn_model(paper, device).train()
    batch = drawn_clip(settings.history, size, objects, device)
    if reference is None:
        return training_step(model, batch, settings)
    return published_step(Reference(reference, model), batch, objects, settings)


def peak_of_a_step(
    settings: Settings,
    size: tuple[int, int],
    objects: int,
    device: torch.device,
    threads: int,
    reference: Path | None,
) -> float:
    """Mebibytes of the second step, when the optimizer's state is there.

    In a process that does nothing else, it is what the step needs.
    """
    torch.set_num_threads(threads)
    step = one_step(settings, size, objects, device, reference)
    step()
    forget_peak(device)
    step()
    return peak(device)


def in_a_process(call: Callable[..., float], *arguments: object) -> float:
    """What `call` gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *arguments).result()


def published_step(reference: Reference, batch: ClipBatch, objects: int, settings: Settings) -> Callable[[], None]:
    """A function that takes a step of the published trainer on `batch`."""
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


def by_turns(
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


def compared(calls: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of our and the published call, and their ratios."""
    measured, busy = by_turns(calls, repeats, clock)
    ours, published = map(summary, measured)
    return {"ours": ours, "published": published, "ratio": ratios(measured, busy)}


def ratios(measured: list[list[float]], busy: list[list[float]]) -> dict[str, float]:
    """Published / ours; `processor` is of the processor's time in this process, which others disturb less."""
    (ours, published), (our_work, their_work) = measured, busy
    return {
        "median": statistics.median(published) / statistics.median(ours),
        "smallest": min(published) / min(ours),
        "processor": statistics.median(their_work) / statistics.median(our_work),
    }


def difference(mine: Tensor, theirs: Tensor) -> float:
    """The largest, in standard deviations of `theirs`."""
    return float((mine.float() - theirs.float()).abs().max() / theirs.float().std())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2: bad input, in one line)."""
    parser = argparse.ArgumentParser(prog="benchmarks/published.py", description="Compare with the published code.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    infer = actions.add_parser("infer", help="detector and association on one image")
    train = actions.add_parser("train", help="a training step on one clip")
    for action in (infer, train):
        action.add_argument("--reference", type=Path, required=True, metavar="FOLDER", help="the published code")
        action.add_argument("--size", type=int, nargs=2, default=(800, 1422), metavar=("H", "W"), help="of a frame")
        action.add_argument("--objects", type=int, default=50, metavar="N", help="in a frame")
        action.add_argument("--repeats", type=int, default=3, metavar="N", help="turns that are measured")
        action.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        action.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of torch")
        action.add_argument("--dtype", choices=tuple(PRECISIONS), default="float32", help="numbers of our networks")
        action.add_argument("--output", type=Path, metavar="FILE", help="JSON to write")
    train.add_argument("--frames", type=int, default=30, metavar="T", help="of the clip")
    train.add_argument("--no-gradient-dtype", choices=tuple(PRECISIONS), help="on frames without gradient; as --dtype")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Settings()
    try:
        check(options)
        choose_drawn(options, min(settings.association.labels, settings.detector.queries))
        (_infer if options.action == "infer" else _train)(options)
    except InputError as error:
        print(f"fdta: {error}", file=sys.stderr)
        return 2
    return 0


def _infer(options: argparse.Namespace) -> None:
    device = choose_device(options.device, options.threads)
    dtype, size = precision(options.dtype, device), tuple(options.size)
    settings = settings_of_size(Settings(), size)
    model = drawn_model(settings, device)
    reference = Reference(options.reference, model)
    given = size, settings.history, options.objects, options.repeats
    measured = compare_inference(optimized(model, dtype), reference, *given)
    measured |= {"dtype": options.dtype, "device": str(device)}
    write(measured, options.output)
    print(
        f"one image of {size[1]} x {size[0]}, {options.objects} objects, {settings.history - 1} remembered frames, "
        f"{where(measured)}"
    )
    for part, name in (("detector", "detector"), ("association", "adapter and ID decoder")):
        found = measured[part]
        codes = (("this code", found["ours"]), ("published code", found["published"]))
        rows = {code: (of["milliseconds"], *of["spread"]) for code, of in codes}
        print_table(f"{name}, milliseconds", MEDIAN, rows)
        print_ratios(found["ratio"])
        differences = ", ".join(f"{output} {value:.2g}" for output, value in found["differences"].items())
        print(f"largest differences, in standard deviations: {differences}\n")


def _train(options: argparse.Namespace) -> None:
    device = choose_device(options.device, options.threads)
    settings, size = Settings(), tuple(options.size)
    training = settings.training
    if not training.gradient_frames < options.frames <= settings.history:
        raise InputError(
            f"--frames {options.frames}: from {training.gradient_frames + 1}, because {training.gradient_frames} have "
            f"a gradient, to {settings.history}, the settings' history"
        )
    alone = options.no_gradient_dtype or options.dtype
    for name in (options.dtype, alone):
        precision(name, device)
    training = replace(training, precision=options.dtype, no_gradient_precision=alone)
    settings = replace(settings, training=training, history=options.frames)
    measured = compare_training(settings, size, options.objects, device, options.reference, options.repeats)
    measured |= {"dtype": options.dtype, "no_gradient_dtype": alone, "device": str(device)}
    write(measured, options.output)
    print(
        f"a step on one clip of {options.frames} frames of {size[1]} x {size[0]}, {training.gradient_frames} of them "
        f"with gradient, {options.objects} objects; {where(measured)}; without gradient {alone}"
    )
    codes = (("this code", measured["ours"]), ("published code", measured["published"]))
    rows = {name: (of["milliseconds"], *of["spread"], of["peak_mebibytes"]) for name, of in codes}
    print_table("milliseconds a step", MEDIAN | {"peak memory (MiB)": "mebibytes"}, rows)
    print_ratios(measured["ratio"])


def print_ratios(ratio: dict[str, float]) -> None:
    """Print the ratios published / ours."""
    names = {
        "median": "by the medians",
        "smallest": "by the smallest",
        "processor": "by the processor's time",
        "memory": "peak memory",
    }
    print("published / this: " + ", ".join(f"{ratio[key]:.3g} {name}" for key, name in names.items() if key in ratio))


if __name__ == "__main__":
    sys.exit(main())
