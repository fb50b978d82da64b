"""``fdta detect``: a data set's detector alone, on a split."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_compute, add_params
from fdta.experiment.params import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nWrites detections with embeddings to detections/DATASET/detector/seed-0/SPLIT/SEQUENCE.npz, so that"
        "\n`fdta similarity DATASET/detector/seed-0 SPLIT` can tell how alike they are before anything is tracked."
    )
    parser.add_argument("dataset", help="data set whose detector is trained (models/DATASET/detector.pt)")
    parser.add_argument("split", help="split to look at")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/ and models/")
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_detect)


def _detect(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.track.detect import detect_split

    params = Experiment(options.params, options.benchmark)
    device = choose_device(options.device, options.threads)
    print(f"written: {detect_split(params, options.dataset, options.split, options.root, device)}")
