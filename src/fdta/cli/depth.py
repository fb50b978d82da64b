"""``fdta depth``: pseudo depth beside the frames."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_compute, add_params
from fdta.experiment.params import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nWrites data/DATASET/depth/SPLIT/SEQUENCE/%08d.png: 8-bit, larger is nearer. Video Depth Anything leaves"
        "\nsequences alone that have their maps, or maps of your own in SEQUENCE/depth/."
    )
    parser.add_argument("dataset", help="data set of the benchmark, for example dance")
    parser.add_argument("split", help="train, val or test")
    parser.add_argument("--root", type=Path, default=Path("data"), metavar="FOLDER", help="folder of all data sets")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON of seconds and bytes")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint instead of teacher_weights")
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_depth)


def _depth(options: argparse.Namespace) -> None:
    from fdta.depth.teacher import make_depth
    from fdta.device import choose_device
    from fdta.files import write_json

    dataset = Experiment(options.params, options.benchmark).dataset(options.dataset)
    weights = options.weights or (Path(dataset.teacher_weights) if dataset.teacher_weights else None)
    device = choose_device(options.device, options.threads)
    folder = options.root / options.dataset / options.split
    costs = make_depth(folder, dataset.teacher, dataset.teacher_size, weights, device, dataset.teacher_input_size)
    write_json(options.output, costs)
