"""``fdta dvc``: the stages of the benchmark for DVC."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += "\nNeeded after a change of the benchmark, its data sets, variants or tables."
    parser.add_argument("--output", type=Path, default=Path("dvc.yaml"), metavar="FILE", help="file to write")
    add_params(parser)
    parser.set_defaults(call=_dvc)


def _dvc(options: argparse.Namespace) -> None:
    from fdta.dvc_pipeline import pipeline
    from fdta.experiment.params import Experiment
    from fdta.files import write_text

    write_text(options.output, pipeline(Experiment(options.params, options.benchmark)))
    print(f"written: {options.output}")
