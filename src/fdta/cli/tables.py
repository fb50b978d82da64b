"""``fdta tables``: results/tables.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params
from fdta.params import Params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += "\nReads scores/, models/*/history.jsonl and results/speed/; what is absent is a dash."
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of scores/ and models/")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/tables.md"),
        metavar="FILE",
        help="Markdown; CSVs beside, in tables/",
    )
    add_params(parser)
    parser.set_defaults(call=_tables)


def _tables(options: argparse.Namespace) -> None:
    from fdta.report.tables import write_tables

    write_tables(Params(options.params, options.benchmark), options.root, options.output)
