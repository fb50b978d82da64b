"""``fdta export``: the tracker of a run in a form that runs without torch."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from fdta.cli import WEIGHTS, add_description, add_params
from fdta.errors import InputError
from fdta.files import check_outputs, check_own_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nWrites detector.onnx, association.onnx and settings.json, if onnxruntime computes with them what torch does."
        "\n`fdta track VIDEO --weights FOLDER --engine onnxruntime` tracks with them.",
    )
    parser.add_argument("weights", metavar="RUN", help=WEIGHTS)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="form of the networks")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="height and width of all images in the network, for example 800x1422; by default they may change",
    )
    parser.add_argument(
        "--sampling",
        choices=("gather", "grid_sample"),
        default="gather",
        help="what deformable attention becomes: Gather, which every engine has, or GridSample",
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
    add_params(parser)
    parser.set_defaults(call=_export)


def _export(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.machine import cores
    from fdta.track.exported import SIZES, write_exported
    from fdta.track.weights import load_run

    if options.size is not None and not SIZES[0] <= min(options.size) <= max(options.size) <= SIZES[1]:
        height, width = options.size
        raise InputError(f"--size {height}x{width}: both sides from {SIZES[0]} to {SIZES[1]}")
    check_outputs([options.output], [options.weights, options.params, options.root / "models"])
    check_own_folder(options.output)
    device = choose_device("cpu", cores())
    model, settings, run = load_run(options.weights, options.root, device, options.params, options.benchmark)
    found = write_exported(model, settings, run, options.output, options.size, options.sampling)
    for name, differences in found.items():
        told = ", ".join(f"{output} {difference:.1e}" for output, difference in differences.items())
        print(f"{name}: largest difference from torch: {told}")
    print(f"written: {options.output} ({run})")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no height and width, such as 800x1422")
    return int(found[1]), int(found[2])
