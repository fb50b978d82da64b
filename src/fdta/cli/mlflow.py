"""``fdta mlflow``: runs into MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params
from fdta.params import Params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    log = actions.add_parser("log", help="send every finished run that MLflow does not have yet")
    log.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/ and scores/")
    log.add_argument("--output", type=Path, metavar="FILE", help="JSON of the MLflow run of each of our runs")
    log.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store; by default $MLFLOW_TRACKING_URI or sqlite:///mlflow.db"
    )
    add_params(log)
    log.set_defaults(call=_log)


def _log(options: argparse.Namespace) -> None:
    from fdta.files import write_json
    from fdta.report.mlflow_log import log_runs

    logged = log_runs(Params(options.params, options.benchmark), options.root, options.tracking_uri)
    print(f"MLflow has {len(logged)} runs of this benchmark")
    if options.output:
        write_json(options.output, logged)
