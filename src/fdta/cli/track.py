"""``fdta track``: tracks of a video, or of the sequences of a folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from fdta.cli import WEIGHTS, add_compute, add_description, add_params, add_precision, output_file
from fdta.errors import InputError
from fdta.files import check_outputs, check_replaceable
from fdta.names import Run
from fdta.provenance import RECORD

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
    parser.add_argument("--weights", metavar="RUN", help=WEIGHTS)
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
    from fdta.data.motchallenge import IMAGE_EXTENSIONS
    from fdta.device import choose_device
    from fdta.model.inference import optimized, precision
    from fdta.track.pipeline import Tracker
    from fdta.track.run import Part, track_split
    from fdta.track.source import is_sequence, is_split, open_source
    from fdta.track.video import track_video
    from fdta.track.weights import find_weights, load_run

    if options.weights is None:
        raise InputError(
            f"--weights is missing; type: {shlex.join(['fdta', 'track', options.input, '--weights', 'dancetrack'])} "
            f"(or another name of `fdta weights list`, a run, which `fdta train dance/full/seed-0` makes, or a "
            f"checkpoint file such as model.pt)"
        )
    device = choose_device(options.device, 1 if options.threads is None else options.threads)
    dtype = precision(options.dtype, device)
    split = is_split(Path(options.input))
    if options.part and not split:
        raise InputError(f"{options.input}: --part needs a folder of sequences")
    alone = ("video", "json", "show_scores", "show", "max_frames")
    given = [f"--{name.replace('_', '-')}" for name in alone if getattr(options, name)]
    given += ["--stride"] if options.stride > 1 else []
    given += [] if options.audio else ["--no-audio"]
    if split and given:
        raise InputError(f"{options.input}: a folder of sequences; {given[0]} needs one sequence or video")
    weights = find_weights(options.weights, options.params)
    run = weights if isinstance(weights, Run) else None
    if run is None and options.benchmark:
        raise InputError(f"--benchmark {options.benchmark}: {options.weights} has its own settings; leave it out")
    if not options.audio and not options.video:
        raise InputError("--no-audio needs --video FILE")
    if options.show_scores and not (options.video or options.show):
        raise InputError("--show-scores needs --video FILE or --show")
    if split and run and options.output is None and _is_data_of(options, run):
        if options.dtype != "float32":
            raise InputError(f"--dtype {options.dtype}: tracks/{run} is made in float32; give --output FOLDER")
        job = execute_step(options, lambda steps: steps.track(run, Path(options.input).name))
        print(f"tracks: {job.outputs[0]}")
        return
    if options.output is not None and not split:
        check_replaceable(options.output)
    for path in (options.output, options.video, options.json):
        if path is not None and not split and path.suffix.lower() in IMAGE_EXTENSIONS:
            raise InputError(f"{path}: is called as an image, which is not written; choose another name")
    if options.video is not None and options.video.suffix.lower() not in (".mp4", ".m4v"):
        raise InputError(f"{options.video}: the annotated video is MP4; give a name that ends in .mp4")
    source = None if split else open_source(options.input).every(options.stride, options.max_frames)
    # A folder of images may hold outputs too, but none that is called as an image.
    read = [
        options.input if split or not Path(options.input).is_dir() or is_sequence(Path(options.input)) else None,
        options.params,
        options.root / "models" if run else weights.folder if isinstance(weights, Pretrained) else options.weights,
    ]
    check_outputs([options.output, options.video, options.json], read)
    model, settings, name = load_run(options.weights, options.root, device, options.params, options.benchmark)
    tracker = Tracker(optimized(model, dtype), settings)
    if options.threads is None:
        choose_device(options.device, tracker.threads)
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
        tracker, source, tracks, options.video, options.json, options.show_scores, options.show, options.audio
    )
    speed = f"{result.frames / result.seconds:.3g} frames/s"
    print(f"{source.name}: {result.frames} frames, {result.identities} tracks, {speed}: {', '.join(map(str, written))}")
    if result.stopped is not None:
        raise KeyboardInterrupt(result.stopped)


def _one_or_more(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_FRAMES}")
    return int(text)


def _is_data_of(options: argparse.Namespace, run: Run) -> bool:
    """Whether the input is a split of the data set of `run` in the project."""
    folder = Path(options.input).resolve()
    return folder.parent == (options.root / "data" / run.dataset).resolve() and options.params.is_file()
