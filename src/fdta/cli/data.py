"""``fdta data``: data sets on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params
from fdta.errors import InputError
from fdta.params import Params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    render = actions.add_parser("render", help="draw the sequences of a rendered data set")
    render.add_argument("dataset", help="data set of the benchmark, for example dance")
    render.add_argument("split", help="train, val or test")
    render.add_argument("--root", type=Path, default=Path("data"), metavar="FOLDER", help="folder of all data sets")
    add_params(render)
    render.set_defaults(call=_render)
    check = actions.add_parser("check", help="read every line and image of a split and report defects")
    check.add_argument("folder", type=Path, help="folder of sequences, for example data/dance/train")
    check.set_defaults(call=_check)


def _render(options: argparse.Namespace) -> None:
    from fdta.data.render import render_split

    dataset = Params(options.params, options.benchmark).benchmark.dataset(options.dataset)
    if dataset.render is None:
        raise InputError(f"data set {options.dataset!r} is not rendered; see docs/reproducing.md for where to get it")
    if options.split not in dataset.splits:
        raise InputError(f"split {options.split!r}: {options.dataset} has {', '.join(dataset.splits)}")
    folder = options.root / options.dataset / options.split
    render_split(dataset.render, options.split, dataset.splits[options.split], folder)
    print(f"written: {folder}, {dataset.splits[options.split]} sequences")


def _check(options: argparse.Namespace) -> None:
    from fdta.data.motchallenge import check_split

    defects = 0
    for report in check_split(options.folder):
        print(report)
        defects += len(report.defects)
    if defects:
        raise InputError(f"{options.folder}: {defects} defects, listed above; mend or remove these files")
