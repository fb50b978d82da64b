"""``fdta bench``: speed on this machine."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fdta.cli import (
    PRECISIONS,
    WEIGHTS,
    add_action,
    add_compute,
    add_description,
    add_params,
    add_precision,
    check_project_outputs,
    output_file,
)
from fdta.errors import InputError
from fdta.files import check_outputs

if TYPE_CHECKING:
    import torch

    from fdta.experiment.settings import Settings
    from fdta.model.fdta import FDTA

DRAWN_FRAMES = 10
"""Frames of a pass where none are given."""
SIZES = (64, 8192)
"""Smallest and largest side of a drawn frame."""
MOST = {"repeats": 10_000, "frames": 1_000_000, "clips": 1_000}
"""Largest numbers of the options."""
COMPONENTS = {
    "detr": "detector (detr)",
    "sa": "Spatial Adapter (sa)",
    "ta": "Temporal Adapter (ta)",
    "id-prediction": "ID prediction",
    "other": "other",
}
"""Rows of Table 8."""
SPREAD = {"smallest": "milliseconds", "largest": "milliseconds"}
MEDIAN = {"median": "milliseconds", **SPREAD}
"""Columns of a table of times -> their metric."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    infer = add_action(actions, "infer", "measure milliseconds a frame by component of the online tracker (Table 8)")
    infer.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="a sequence, or a folder of sequences, for example data/dance/test, of which the first is used. Without "
        "one: drawn frames, and the paper's model with random weights",
    )
    pipeline = add_action(actions, "pipeline", "measure milliseconds a frame from image file to tracks")
    pipeline.add_argument(
        "folder",
        nargs="?",
        metavar="input",
        help="video, folder of images or sequence, as of `fdta track`. Without one: as of `fdta bench infer`",
    )
    train = add_action(actions, "train", "measure milliseconds and memory of a training step on a clip of drawn frames")
    load = add_action(actions, "load", "measure clips a second and milliseconds a frame of reading training data")
    workflow = add_action(actions, "workflow", "show the time and memory of the workflow's results, by kind")
    add_description(
        workflow,
        "\nReads the records of the results that are there and measures nothing. Times are those of the process that "
        "finished a result; of a training that was interrupted, the last one.",
    )
    workflow.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="the project's folder")
    workflow.add_argument("--output", type=output_file, metavar="FILE", help="JSON to write, with each result")
    workflow.set_defaults(call=_workflow)
    add_params(workflow)
    for action in (infer, pipeline):
        action.add_argument("--weights", metavar="RUN", help=WEIGHTS)
        action.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
        action.add_argument(
            "--frames", type=int, metavar="N", help=f"most of a pass; {DRAWN_FRAMES} drawn ones, 100 of those given"
        )
        add_precision(action)
    train.add_argument(
        "--frames", type=int, metavar="T", help="of the clip; the settings' history, its largest, if not given"
    )
    train.add_argument("--clips", type=int, default=1, metavar="N", help="in the batch")
    train.add_argument("--run", metavar="RUN", help="take the settings of this run, not the paper's for DanceTrack")
    train.add_argument("--dtype", choices=PRECISIONS, help="numbers of the networks; the settings' if not given")
    train.add_argument(
        "--no-gradient-dtype", choices=PRECISIONS, help="of the detector on frames without gradient; else as --dtype"
    )
    load.add_argument(
        "--run",
        metavar="RUN",
        help="data and settings of this run (dance/full/seed-0); without one: drawn frames, and the paper's settings",
    )
    load.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/")
    load.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read")
    load.add_argument("--clips", type=int, default=8, metavar="N", help="that each process reads, from 4")
    load.add_argument("--step", type=float, metavar="SECONDS", help="of a training step: tell how many workers feed it")
    for action in (infer, pipeline, train, load):
        action.add_argument("--output", type=output_file, metavar="FILE", help="JSON to write")
        action.add_argument(
            "--size", type=int, nargs=2, metavar=("H", "W"), help=f"of drawn frames, {SIZES[0]} to {SIZES[1]}"
        )
        action.add_argument("--objects", type=int, metavar="N", help="in a drawn frame")
        add_compute(action)
        add_params(action)
    for action in (infer, pipeline, train):
        action.add_argument("--repeats", type=int, default=3, metavar="N", help="how often it is measured")
        action.set_defaults(drawn_size=(800, 1422), drawn_objects=50)
    load.set_defaults(drawn_size=(1080, 1920), drawn_objects=20)
    infer.set_defaults(call=_infer)
    train.set_defaults(call=_train)
    pipeline.set_defaults(call=_pipeline)
    load.set_defaults(call=_load)


def _infer(options: argparse.Namespace) -> None:
    from fdta.data.motchallenge import read_sequence, read_split
    from fdta.evaluate.speed import FRAMES, measure_inference
    from fdta.evaluate.timing import drawn_frames
    from fdta.model.inference import optimized

    device, dtype, model, settings = _tracking(options)
    kind = {"dtype": options.dtype, "device": str(device)}
    ours = optimized(model, dtype)
    if options.folder is not None:
        alone = (options.folder / "seqinfo.ini").is_file()
        sequence = read_sequence(options.folder) if alone else read_split(options.folder)[0]
        frames = options.frames or FRAMES
        measured = measure_inference(ours, sequence, settings, device, options.repeats, None, frames) | kind
    else:
        with drawn_frames(tuple(options.size), options.frames or DRAWN_FRAMES) as sequence:
            given = options.repeats, options.objects, sequence.frames
            measured = measure_inference(ours, sequence, settings, device, *given) | kind
    _tell_components(measured, options.output)


def _pipeline(options: argparse.Namespace) -> None:
    from fdta.evaluate.speed import FRAMES, measure_pipeline
    from fdta.evaluate.timing import drawn_frames
    from fdta.model.inference import optimized

    device, dtype, model, settings = _tracking(options)
    drawn: AbstractContextManager[Any] = nullcontext()
    if options.folder is None:
        drawn = drawn_frames(tuple(options.size), options.frames or DRAWN_FRAMES)
    with drawn as sequence:
        video = options.folder or str(sequence.folder)
        given = options.repeats, options.objects, options.frames or FRAMES
        measured = measure_pipeline(optimized(model, dtype), settings, device, video, *given)
    measured |= {"dtype": options.dtype, "device": str(device)}
    write(measured, options.output)
    width, height = measured["image"]
    print(f"from file to tracks: {width} x {height}, {measured['objects']:.1f} objects, {where(measured)}")
    print_table("", MEDIAN, {"milliseconds a frame": (measured["milliseconds"], *measured["spread"])})
    print(f"{1000 / measured['milliseconds']:.1f} frames a second; peak memory {_memory(measured)}")


def _tracking(options: argparse.Namespace) -> tuple[torch.device, torch.dtype, FDTA, Settings]:
    """Device, precision, model and settings: of the run given, or drawn."""
    from fdta.device import choose_device
    from fdta.evaluate.speed import settings_of_size
    from fdta.evaluate.timing import drawn_model
    from fdta.experiment.settings import Settings
    from fdta.model.inference import precision
    from fdta.track.weights import load_run

    check(options)
    device = choose_device(options.device, options.threads)
    dtype = precision(options.dtype, device)
    if (options.folder is None) != (options.weights is None):
        raise InputError("give both what to track and --weights, or neither for drawn frames")
    if options.frames is not None and options.frames < 1:
        raise InputError(f"--frames {options.frames}: measure at least one")
    if options.weights is not None:
        _refuse(options, "with --weights", "size", "objects")
        model, settings, _ = load_run(options.weights, options.root, device, options.params, options.benchmark)
        return device, dtype, model, settings
    _without_run(options, "--weights")
    choose_drawn(options, 50)
    settings = settings_of_size(Settings(), tuple(options.size))
    return device, dtype, drawn_model(settings, device), settings


def _train(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.experiment.params import Experiment
    from fdta.experiment.settings import Settings
    from fdta.model.inference import precision
    from fdta.names import Run
    from fdta.train.speed import measure_training

    check(options)
    device = choose_device(options.device, options.threads)
    settings = Settings()
    if options.run is not None:
        run = Run.parse(options.run)
        settings = Experiment(options.params, options.benchmark).settings(run.dataset, run.variant)
    else:
        _without_run(options, "--run")
    choose_drawn(options, min(settings.association.labels, settings.detector.queries))
    frames = settings.history if options.frames is None else options.frames
    training = settings.training
    if not training.gradient_frames < frames <= settings.history:
        raise InputError(
            f"--frames {frames}: from {training.gradient_frames + 1}, because {training.gradient_frames} have a "
            f"gradient, to {settings.history}, the settings' history"
        )
    dtype = options.dtype or training.precision
    alone = options.no_gradient_dtype or options.dtype or training.no_gradient_precision or dtype
    for name in (dtype, alone):
        precision(name, device)
    settings = replace(settings, training=replace(training, precision=dtype, no_gradient_precision=alone))
    size = tuple(options.size)
    measured = measure_training(settings, frames, size, options.objects, device, options.repeats, options.clips)
    measured |= {"dtype": dtype, "no_gradient_dtype": alone, "device": str(device)}
    write(measured, options.output)
    height, width = measured["size"]
    print(
        f"a step on {options.clips} clip{'s' * (options.clips != 1)} of {frames} frames of {width} x {height}, "
        f"{training.gradient_frames} of them with gradient, {options.objects} objects; {where(measured)}; without "
        f"gradient {alone}"
    )
    ours = measured["ours"]
    rows = {"this code": (ours["milliseconds"], *ours["spread"], ours["peak_mebibytes"])}
    print_table("milliseconds a step", MEDIAN | {"peak memory (MiB)": "mebibytes"}, rows)
    print("median of its parts: " + ", ".join(f"{name} {_text(value)}" for name, value in measured["parts"].items()))


def _load(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.experiment.params import Experiment
    from fdta.experiment.settings import Settings
    from fdta.names import Run
    from fdta.train.loading import drawn_data, measure_loading

    check(options)
    device = choose_device(options.device, options.threads)
    if options.run is None:
        _without_run(options, "--run")
        settings = Settings()
        choose_drawn(options, min(settings.association.labels, settings.detector.queries))
        data: AbstractContextManager[Path] = drawn_data(settings, tuple(options.size), options.objects)
    else:
        _refuse(options, "with --run", "size", "objects")
        run = Run.parse(options.run)
        settings = Experiment(options.params, options.benchmark).settings(run.dataset, run.variant)
        data = nullcontext(options.root / "data" / run.dataset)
    with data as folder:
        measured = measure_loading(folder, settings, device, options.workers, options.clips, options.step)
    measured |= {"device": str(device)}
    write(measured, options.output)
    width, height = measured["image"]
    frames, rates = measured["clip"]["frames"], measured["clips_a_second"]
    print(f"clips of {frames} frames of {width} x {height} as the training reads them; {measured['machine']}")
    parts = {"image": "image, reading and decoding", "depth": "depth map, reading and decoding"}
    rows: dict[str, tuple[float, ...]] = {
        parts.get(name, name): (value,) for name, value in measured["milliseconds"].items()
    }
    print_table("milliseconds a frame, one thread", {"mean": "milliseconds"}, rows)
    print(f"besides, normalizing on {device}: {_text(measured['apart']['normalize'])}")
    smallest, largest = map(_text, measured["clip"]["spread"])
    print(f"a clip: {_text(measured['clip']['milliseconds'])} milliseconds ({smallest} to {largest})")
    for number, rate in rates.items():
        by = "the training process alone" if number == "0" else f"{number} workers"
        print(f"clips a second, by {by}: {rate:.3g}")
    if "step" in measured:
        step = measured["step"]
        print(
            f"workers that feed a step of {step['seconds']:g} s (batch {step['clips']}): {step['workers']}"
            + (f", more than the {step['cores']} cores here" if step["workers"] > step["cores"] else "")
        )


def _workflow(options: argparse.Namespace) -> None:
    from fdta.experiment.costs import by_kind, costs
    from fdta.experiment.params import Experiment
    from fdta.settings import to_plain

    check_project_outputs(options, options.output)
    found = costs(Experiment(options.params, options.benchmark), options.root)
    if not found:
        raise InputError(
            f"{options.root}: no result with a measured time is there; make them first, for example with "
            f"snakemake --cores all results/tables.md"
        )
    kinds = by_kind(found)
    write({"results": {cost.record: to_plain(cost) for cost in found}, "kinds": kinds}, options.output)
    columns = {"results": "results", "wall (min)": "minutes", "processor (min)": "minutes", "%": "percent"}
    columns |= {"longest (s)": "seconds", "peak memory (MiB)": "mebibytes"}
    print_table("kind", columns, kinds)
    for name in sorted({cost.machine for cost in found}):
        print(f"made on: {name}")


def _tell_components(measured: dict[str, Any], output: Path | None) -> None:
    write(measured, output)
    width, height = measured["image"]
    print(f"tracking {measured['sequence']}: {width} x {height}, {measured['objects']:.1f} objects, {where(measured)}")
    total = measured["milliseconds"]["total"]
    rows = {
        name: (measured["milliseconds"][key], *measured["spread"][key], 100 * measured["milliseconds"][key] / total)
        for key, name in (COMPONENTS | {"total": "total"}).items()
    }
    columns = {f"median of {len(measured['passes'])}": "milliseconds", **SPREAD, "%": "percent"}
    print_table("milliseconds a frame", columns, rows)
    apart = measured["apart"]
    print(f"in 'other': resizing, normalizing and moving the image {_text(apart['preprocessing'])}")
    print(f"in 'ID prediction': the tracker without networks {_text(apart['bookkeeping'])}")
    print(f"not in the total, because tracking reads ahead: reading an image {_text(apart['decode'])}")
    if "as_tracked" in measured:
        print(f"total with CUDA graphs, as `fdta track` runs: {_text(measured['as_tracked']['milliseconds'])}")
    print(f"{1000 / total:.1f} frames a second; peak memory {_memory(measured)}")


def where(measured: dict[str, Any]) -> str:
    """Numbers, device, threads and machine of a measurement."""
    threads = measured["threads"]
    return f"{measured['dtype']} on {measured['device']}, {threads} thread{'s' * (threads != 1)}; {measured['machine']}"


def _memory(measured: dict[str, Any]) -> str:
    from fdta.evaluate.metrics import METRICS

    return f"{METRICS['mebibytes'].text(measured['peak_mebibytes'])} {METRICS['mebibytes'].unit}"


def _text(milliseconds: float) -> str:
    from fdta.evaluate.metrics import METRICS

    return METRICS["milliseconds"].text(milliseconds)


def print_table(title: str, columns: dict[str, str], rows: dict[str, tuple[float, ...]]) -> None:
    """Print a table of numbers.

    Args:
        title: of the column of names.
        columns: title of each further column -> metric of its numbers.
        rows: name -> numbers.
    """
    from fdta.evaluate.metrics import METRICS
    from fdta.report.cells import Column, Number, Row, Table, Text
    from fdta.report.console import console_text

    metrics = [METRICS[metric] for metric in columns.values()]
    lines = [Row((Text(name), *map(Number, values, metrics))) for name, values in rows.items()]
    print(console_text(Table((Column(title, text=True), *map(Column, columns)), {"": lines})))


def write(measured: dict[str, Any], output: Path | None) -> None:
    """Write a measurement to the file `output`, if any."""
    from fdta.files import write_json

    if output is not None:
        write_json(output, measured)
        print(f"written: {output}")


def check(options: argparse.Namespace) -> None:
    """Raise InputError for numbers and for an --output that would fail only after the measurement."""
    if getattr(options, "repeats", 1) < 1:
        raise InputError(f"--repeats {options.repeats}: measure at least once")
    for name, most in MOST.items():
        number = getattr(options, name, None)
        if number is not None and not 1 <= number <= most:
            raise InputError(f"--{name} {number}: give a number from 1 to {most}")
    if options.output is None:
        return
    given = [getattr(options, name, None) for name in ("folder", "weights", "params")]
    check_outputs([options.output], given)
    if options.output.is_dir():
        raise InputError(f"--output {options.output}: it is a folder, give the name of a file")
    above = next(parent for parent in options.output.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"--output {options.output}: {above} is a file, choose another place")


def _refuse(options: argparse.Namespace, when: str, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is of drawn frames; leave it out {when}")


def _without_run(options: argparse.Namespace, choice: str) -> None:
    if options.benchmark is not None or options.params != Path("params.yaml"):
        raise InputError(f"--params and --benchmark are of a run; give {choice} with them")


def choose_drawn(options: argparse.Namespace, most: int) -> None:
    """Fill in size (height, width) and number of objects of drawn frames; InputError if they are out of range."""
    options.size = options.size or options.drawn_size
    options.objects = options.drawn_objects if options.objects is None else options.objects
    height, width = options.size
    if not SIZES[0] <= min(height, width) <= max(height, width) <= SIZES[1]:
        raise InputError(f"--size {height} {width}: both sides from {SIZES[0]} to {SIZES[1]}")
    if not 0 < options.objects <= most:
        raise InputError(f"--objects {options.objects}: between 1 and {most}, the model's ID labels or queries")
