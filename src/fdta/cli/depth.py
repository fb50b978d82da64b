"""``fdta depth``: pseudo depth of a split."""

from __future__ import annotations

import argparse

from fdta.cli import add_compute, add_description, add_params, add_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nWrites data/DATASET/depth/SPLIT/SEQUENCE/%08d.png: 8-bit, larger is nearer; and seconds and bytes to"
        "\ndata/DATASET/depth-SPLIT.json. Video Depth Anything skips sequences that have their maps, or maps of your"
        "\nown in SEQUENCE/depth/.",
    )
    parser.add_argument("dataset", help="data set of the benchmark, for example dance")
    parser.add_argument("split", help="train, val or test")
    add_root(parser)
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_depth)


def _depth(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step

    execute_step(options, lambda steps: steps.depth(options.dataset, options.split))
