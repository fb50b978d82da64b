"""``fdta track``: tracks of the sequences of a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_compute, add_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nWrites TRACKS/SEQUENCE.txt in MOTChallenge form, and every detection with its embedding to"
        "\nDETECTIONS/SEQUENCE.npz."
    )
    parser.add_argument("folder", type=Path, help="folder of sequences, for example data/dance/test")
    parser.add_argument(
        "--weights", required=True, metavar="RUN", help="run (dance/full/seed-0) or checkpoint file (model.pt)"
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/ and tracks/")
    parser.add_argument("--output", type=Path, metavar="TRACKS", help="folder of tracks; by default tracks/RUN/SPLIT")
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_track)


def _track(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.track.run import load_run, track_folder

    device = choose_device(options.device, options.threads)
    model, settings, name = load_run(options.weights, options.root, options.params, options.benchmark, device)
    track_folder(model, settings, name, options.folder, options.root, options.output, device)
