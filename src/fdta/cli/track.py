"""``fdta track``: tracks of a video, or of the sequences of a folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from fdta.cli import WEIGHTS, add_compute, add_description, add_params, add_precision, output_file
from fdta.errors import InputError
from fdta.files import check_outputs, check_replaceable
from fdta.names import Run
from fdta.provenance import RECORD

if TYPE_CHECKING:
    import torch

    from fdta.track.pipeline import Tracker

MOST_FRAMES = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nOf one video, writes the tracks in MOTChallenge form and, if asked, an annotated video and lines of JSON."
        "\nOf a folder of sequences, writes TRACKS/SEQUENCE.txt, and every detection with its embedding to"
        "\nDETECTIONS/SEQUENCE.npz.",
    )
    parser.add_argument(
        "input",
        help="video file, folder of images, image pattern (frames/%%06d.jpg, 'frames/*.png'), address of a stream "
        "(rtsp://..., http://...), index of a webcam, one sequence, or a folder of sequences (data/dance/test)",
    )
    told = f"{WEIGHTS}; with --engine onnxruntime a folder of fdta export"
    parser.add_argument("--weights", metavar="RUN", help=told)
    parser.add_argument("--engine", choices=("torch", "onnxruntime"), default="torch", help="what runs the networks")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/ and tracks/")
    parser.add_argument(
        "--output", type=Path, metavar="TRACKS", help="by default tracks/RUN/NAME.txt; of sequences tracks/RUN/SPLIT/"
    )
    parser.add_argument("--video", type=output_file, metavar="FILE", help="annotated video to write, H.264 in MP4")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="file to write with a line of JSON a frame")
    parser.add_argument("--no-audio", dest="audio", action="store_false", help="leave the sound out of --video")
    parser.add_argument("--show-scores", action="store_true", help="write scores into the annotated video")
    parser.add_argument("--show", action="store_true", help="show the annotated frames in a window; q ends it")
    parser.add_argument("--stride", type=_one_or_more, default=1, metavar="N", help="track every N-th frame only")
    parser.add_argument("--max-frames", type=_one_or_more, metavar="N", help="end after N tracked frames")
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="of a folder of sequences, track the I-th of N shares; run the command without --part in the end",
    )
    add_compute(parser, threads=None)
    add_precision(parser)
    add_params(parser)
    parser.set_defaults(call=_track)


def _track(options: argparse.Namespace) -> None:
    from fdta.acquire.pretrained import Pretrained
    from fdta.cli.run import execute_step
    from fdta.device import choose_device
    from fdta.model.inference import precision
    from fdta.track.run import Part, track_split
    from fdta.track.source import is_sequence, is_split, open_source
    from fdta.track.video import track_video
    from fdta.track.weights import find_weights

    if options.weights is None:
        raise InputError(
            f"--weights is missing; type: {shlex.join(['fdta', 'track', options.input, '--weights', 'dancetrack'])} "
            f"(or another name of `fdta weights list`, a run, which `fdta train dance/full/seed-0` makes, or a "
            f"checkpoint file such as model.pt)"
        )
    _check_engine(options)
    exported = options.engine == "onnxruntime"
    device = choose_device("cpu" if exported else options.device, 1 if options.threads is None else options.threads)
    dtype = precision(options.dtype, device)
    split = is_split(Path(options.input))
    weights = Path(options.weights) if exported else find_weights(options.weights, options.params)
    run = weights if isinstance(weights, Run) else None
    _check_options(options, split)
    if split and run and options.output is None and _is_data_of(options, run):
        if options.dtype != "float32":
            raise InputError(f"--dtype {options.dtype}: tracks/{run} is made in float32; give --output FOLDER")
        job = execute_step(options, lambda steps: steps.track(run, Path(options.input).name))
        print(f"tracks: {job.outputs[0]}")
        return
    _check_outputs(options, split)
    source = None if split else open_source(options.input).every(options.stride, options.max_frames)
    # A folder of images may hold outputs too, but none that is called as an image.
    read = [
        options.input if split or not Path(options.input).is_dir() or is_sequence(Path(options.input)) else None,
        options.params,
        options.root / "models" if run else weights.folder if isinstance(weights, Pretrained) else options.weights,
    ]
    check_outputs([options.output, options.video, options.json], read)
    tracker, name = _load(options, device, dtype)
    if options.threads is None:
        choose_device(str(device), tracker.threads)
    if source is None:
        folder = options.output or options.root / "tracks" / name / Path(options.input).name
        if (folder / RECORD).is_file():
            raise InputError(f"{folder}: is a result of the workflow; give --output FOLDER")
        part = Part.parse(options.part) if options.part else None
        detections = (
            options.root / "detections" / name / folder.name if options.output is None else folder / "detections"
        )
        check_outputs([folder, detections], read)
        track_split(tracker, Path(options.input), folder, detections, part)
        print(f"tracks: {folder}")
        return
    tracks = options.output or options.root / "tracks" / name / f"{source.name}.txt"
    written = [path for path in (tracks, options.video, options.json) if path]
    check_outputs(written, read)
    result = track_video(
        tracker,
        source,
        tracks,
        video=options.video,
        lines=options.json,
        show_scores=options.show_scores,
        window=options.show,
        sound=options.audio,
    )
    speed = f"{result.frames / result.seconds:.3g} frames/s"
    print(f"{source.name}: {result.frames} frames, {result.identities} tracks, {speed}: {', '.join(map(str, written))}")
    if result.stopped is not None:
        raise KeyboardInterrupt(result.stopped)


def _load(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Tracker, str]:
    """The tracker of --weights, run by --engine, and the name of its run."""
    from fdta.model.inference import optimized
    from fdta.track.exported import Exported
    from fdta.track.pipeline import Tracker
    from fdta.track.weights import load_run

    if options.engine == "onnxruntime":
        exported = Exported.read(Path(options.weights))
        return exported.tracker(options.device, options.threads), exported.run
    model, settings, name = load_run(options.weights, options.root, device, options.params, options.benchmark)
    return Tracker(optimized(model, dtype), settings), name


def _check_engine(options: argparse.Namespace) -> None:
    """Raise InputError if --weights is not of --engine, or options are given that an exported tracker cannot follow."""
    from fdta.track.exported import is_exported

    if options.engine == "torch":
        if is_exported(Path(options.weights)):
            raise InputError(f"{options.weights}: a folder of `fdta export`; add --engine onnxruntime")
        return
    if options.dtype != "float32":
        raise InputError(f"--dtype {options.dtype}: exported networks are float32; leave it out")
    if options.benchmark is not None or options.params != Path("params.yaml"):
        raise InputError(f"--params and --benchmark are of a run; {options.weights} has its settings, leave them out")
    if not Path(options.weights).is_dir():
        raise InputError(
            f"{options.weights}: --engine onnxruntime needs a folder of `fdta export`; give fdta export "
            f"{options.weights} --format onnx --output FOLDER"
        )


def _check_options(options: argparse.Namespace, split: bool) -> None:
    """Raise InputError for options that do not fit each other or the input."""
    if options.part and not split:
        raise InputError(f"{options.input}: --part needs a folder of sequences")
    alone = ("video", "json", "show_scores", "show", "max_frames")
    given = [f"--{name.replace('_', '-')}" for name in alone if getattr(options, name)]
    given += ["--stride"] if options.stride > 1 else []
    given += [] if options.audio else ["--no-audio"]
    if split and given:
        raise InputError(f"{options.input}: a folder of sequences; {given[0]} needs one sequence or video")
    if not options.audio and not options.video:
        raise InputError("--no-audio needs --video FILE")
    if options.show_scores and not (options.video or options.show):
        raise InputError("--show-scores needs --video FILE or --show")


def _check_outputs(options: argparse.Namespace, split: bool) -> None:
    """Raise InputError for files that are not written under such a name."""
    from fdta.data.motchallenge import IMAGE_EXTENSIONS

    if options.output is not None and not split:
        check_replaceable(options.output)
    for path in (options.output, options.video, options.json):
        if path is not None and not split and path.suffix.lower() in IMAGE_EXTENSIONS:
            raise InputError(f"{path}: is called as an image, which is not written; choose another name")
    if options.video is not None and options.video.suffix.lower() not in (".mp4", ".m4v"):
        raise InputError(f"{options.video}: the annotated video is MP4; give a name that ends in .mp4")


def _one_or_more(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_FRAMES}")
    return int(text)


def _is_data_of(options: argparse.Namespace, run: Run) -> bool:
    """Whether the input is a split of the data set of `run` in the project."""
    folder = Path(options.input).resolve()
    return folder.parent == (options.root / "data" / run.dataset).resolve() and options.params.is_file()
