"""``fdta report``: results/report.html."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_description, add_params, check_project_outputs, output_file
from fdta.experiment.params import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nOne file with every table and figure, which needs no network; the figures are taken from figures/ beside it,"
        "\nwhere `fdta figures` puts them. What is absent is a dash, or told.",
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of scores/ and models/")
    parser.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="HTML page to write; by default results/report.html in --root",
    )
    add_params(parser)
    parser.set_defaults(call=_report)


def _report(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_or_write
    from fdta.experiment.plan import require_scores
    from fdta.experiment.steps import Steps
    from fdta.report.page import write_page

    output = options.output or options.root / "results" / "report.html"
    check_project_outputs(options, output)
    params = Experiment(options.params, options.benchmark)
    require_scores(params, options.root)
    job = Steps(params, options.root).report().job
    execute_or_write(options.root, job, output, lambda: write_page(params, options.root, output))
    print(f"written: {output}")
