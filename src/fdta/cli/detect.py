"""``fdta detect``: a data set's detector alone, on a split."""

from __future__ import annotations

import argparse

from fdta.cli import add_compute, add_description, add_params, add_root
from fdta.names import DETECTOR, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nWrites detections with embeddings to detections/DATASET/detector/seed-0/SPLIT/SEQUENCE.npz, so that"
        "\n`fdta similarity DATASET/detector/seed-0 SPLIT` can measure how alike they are before anything is tracked.",
    )
    parser.add_argument("dataset", help="data set whose detector is trained (models/DATASET/detector)")
    parser.add_argument("split", help="split to look at")
    add_root(parser)
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_detect)


def _detect(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step

    execute_step(options, lambda steps: steps.track(Run(options.dataset, DETECTOR), options.split))
