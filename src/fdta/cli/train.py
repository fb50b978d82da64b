"""``fdta train``: one run."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_compute, add_params
from fdta.params import DETECTOR, Params, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nA data set's detector comes first (dance/detector); its variants (dance/full/seed-0) start from it."
        "\nA killed training goes on where it stood when the same command is given again."
    )
    parser.add_argument("run", help="DATASET/VARIANT/seed-N or DATASET/detector")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/ and models/")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read and augment clips")
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_train)


def _train(options: argparse.Namespace) -> None:
    from fdta.device import choose_device
    from fdta.train.run import train_detector, train_tracker

    params = Params(options.params, options.benchmark)
    device = choose_device(options.device, options.threads)
    dataset, _, rest = options.run.strip("/").partition("/")
    if rest == DETECTOR:
        train_detector(params, dataset, options.root, device, options.workers)
    else:
        train_tracker(params, Run.parse(options.run), options.root, device, options.workers)
