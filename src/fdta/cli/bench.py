"""``fdta bench``: speed on this machine."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from fdta.cli import PRECISIONS, add_action, add_compute, add_params, add_precision
from fdta.errors import InputError

DRAWN_FRAMES = 40
"""Frames of a pass where none are given: enough for a full history."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    infer = add_action(actions, "infer", "measure milliseconds a frame by component of the online tracker (Table 8)")
    infer.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="folder of sequences, for example data/dance/test; the first is used. Without one: drawn frames, and the "
        "paper's model with random weights",
    )
    infer.add_argument("--weights", metavar="RUN", help="run (dance/full/seed-0) or checkpoint file (model.pt)")
    infer.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
    train = add_action(actions, "train", "measure milliseconds and memory of a training step on a clip of drawn frames")
    train.add_argument("--frames", type=int, metavar="T", help="of the clip; the settings' history if not given")
    pipeline = add_action(actions, "pipeline", "measure milliseconds a frame from image file to tracks")
    _add_load(add_action(actions, "load", "measure clips a second and milliseconds a frame of reading training data"))
    for action in (infer, train, pipeline):
        action.add_argument("--output", type=Path, metavar="FILE", help="JSON to write")
        action.add_argument("--repeats", type=int, default=3, metavar="N", help="passes, turns or steps")
        action.add_argument(
            "--size", type=int, nargs=2, default=(800, 1422), metavar=("H", "W"), help="of drawn frames"
        )
        action.add_argument("--objects", type=int, default=50, metavar="N", help="in a drawn frame")
        add_compute(action)
    for action in (infer, train):
        action.add_argument(
            "--reference", type=Path, metavar="FOLDER", help="checkout of the published code, to compare with"
        )
        add_params(action)
    for action in (infer, pipeline):
        add_precision(action)
    train.add_argument("--dtype", choices=PRECISIONS, help="numbers of the networks; the settings' if not given")
    train.add_argument(
        "--no-gradient-dtype", choices=PRECISIONS, help="of the detector on frames without gradient; else as --dtype"
    )
    train.add_argument("--run", metavar="RUN", help="take the settings of this run, not the paper's for DanceTrack")
    infer.set_defaults(call=_infer)
    train.set_defaults(call=_train)
    pipeline.set_defaults(call=_pipeline)


def _add_load(load: argparse.ArgumentParser) -> None:
    load.add_argument(
        "--run",
        metavar="RUN",
        help="data and settings of this run (dance/full/seed-0); without one: drawn frames, and the paper's settings",
    )
    load.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/")
    load.add_argument("--output", type=Path, metavar="FILE", help="JSON to write")
    load.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read")
    load.add_argument("--clips", type=int, default=6, metavar="N", help="that each process reads")
    load.add_argument("--step", type=float, metavar="SECONDS", help="of a training step: tell how many workers feed it")
    load.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("H", "W"), help="of drawn frames")
    load.add_argument("--objects", type=int, default=20, metavar="N", help="in a drawn frame")
    add_compute(load)
    add_params(load)
    load.set_defaults(call=_load)


def _load(options: argparse.Namespace) -> None:
    from contextlib import nullcontext

    from fdta.device import choose_device
    from fdta.evaluate.loading import drawn_data, measure_loading
    from fdta.params import Params, Run, Settings

    device = choose_device(options.device, options.threads)
    if options.run is None:
        settings = Settings()
        _check_drawn(options, settings)
        data = drawn_data(settings, tuple(options.size), options.objects)
    else:
        run = Run.parse(options.run)
        settings = Params(options.params, options.benchmark).settings(run.dataset, run.variant)
        data = nullcontext(options.root / "data" / run.dataset)
    with data as folder:
        measured = measure_loading(folder, settings, device, options.workers, options.clips, options.step)
    _tell(measured | {"device": str(device)}, options.output)


def _infer(options: argparse.Namespace) -> None:
    from fdta.data.motchallenge import read_split
    from fdta.device import choose_device
    from fdta.evaluate.reference import Reference
    from fdta.evaluate.speed import (
        compare_inference,
        drawn_frames,
        drawn_model,
        measure_inference,
        settings_of_size,
    )
    from fdta.model.inference import optimized, precision
    from fdta.params import Settings
    from fdta.track.run import load_run

    device = choose_device(options.device, options.threads)
    dtype = precision(options.dtype, device)
    if (options.folder is None) != (options.weights is None):
        raise InputError("give both a folder of sequences and --weights, or neither for drawn frames")
    if options.folder is not None:
        if options.reference is not None:
            raise InputError("--reference compares on drawn frames; give no folder with it")
        model, settings, _ = load_run(options.weights, options.root, options.params, options.benchmark, device)
        sequence = read_split(options.folder)[0]
        measured = measure_inference(optimized(model, dtype), sequence, settings, device, options.repeats)
    else:
        _check_drawn(options)
        settings = settings_of_size(Settings(), tuple(options.size))
        model = drawn_model(settings, device)
        ours = optimized(model, dtype)
        if options.reference is not None:
            reference = Reference(options.reference, model)
            measured = compare_inference(
                ours, reference, tuple(options.size), settings.history, options.objects, options.repeats
            )
        else:
            with drawn_frames(tuple(options.size), DRAWN_FRAMES) as frames:
                measured = measure_inference(ours, frames, settings, device, options.repeats, options.objects)
    _tell(measured | {"dtype": options.dtype, "device": str(device)}, options.output)


def _train(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.evaluate.speed import TrainingSteps, measure_training
    from fdta.model.inference import precision
    from fdta.params import Params, Run, Settings

    device = choose_device(options.device, options.threads)
    settings = Settings()
    if options.run is not None:
        run = Run.parse(options.run)
        settings = Params(options.params, options.benchmark).settings(run.dataset, run.variant)
    _check_drawn(options, settings)
    frames = settings.history if options.frames is None else options.frames
    if not settings.training.gradient_frames < frames <= settings.history:
        raise InputError(f"--frames {frames}: above the frames with gradient, at most the settings' history")
    training = settings.training
    dtype = options.dtype or training.precision
    alone = options.no_gradient_dtype or options.dtype or training.no_gradient_precision or dtype
    for name in (dtype, alone):
        precision(name, device)
    settings = replace(settings, training=replace(training, precision=dtype, no_gradient_precision=alone))
    steps = TrainingSteps(settings, frames, tuple(options.size), options.objects, device)
    measured = measure_training(steps, options.repeats, options.reference)
    measured |= {"dtype": dtype, "no_gradient_dtype": alone, "device": str(device)}
    _tell(measured, options.output)


def _pipeline(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.evaluate.speed import drawn_frames, drawn_model, measure_pipeline, settings_of_size
    from fdta.model.inference import optimized, precision
    from fdta.params import Settings

    device = choose_device(options.device, options.threads)
    dtype = precision(options.dtype, device)
    _check_drawn(options)
    settings = settings_of_size(Settings(), tuple(options.size))
    model = optimized(drawn_model(settings, device), dtype)
    with drawn_frames(tuple(options.size), DRAWN_FRAMES) as frames:
        measured = measure_pipeline(model, settings, device, frames.folder, options.repeats, options.objects)
    _tell(measured | {"size": list(options.size), "dtype": options.dtype, "device": str(device)}, options.output)


def _check_drawn(options: argparse.Namespace, settings: Any = None) -> None:
    most = 50 if settings is None else min(settings.association.labels, settings.detector.queries)
    if min(options.size) < 64:
        raise InputError(f"--size {options.size[0]} {options.size[1]}: both sides from 64")
    if not 0 < options.objects <= most:
        raise InputError(f"--objects {options.objects}: between 1 and {most}, the model's ID labels or queries")


def _tell(measured: dict[str, Any], output: Path | None) -> None:
    """Print `measured` as a table of two columns, and write it if asked."""
    from fdta.files import write_json

    def rows(value: Any, name: str) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [row for key, inner in value.items() for row in rows(inner, f"{name} {key}".strip())]
        parts = value if isinstance(value, list) else [value]
        return [(name, "  ".join(f"{part:.4g}" if isinstance(part, float) else str(part) for part in parts))]

    table = rows(measured, "")
    width = max(len(name) for name, _ in table)
    for name, text in table:
        print(f"{name:{width}}  {text}")
    if output is not None:
        write_json(output, measured)
        print(f"written: {output}")
