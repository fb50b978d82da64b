"""``fdta mlflow``: runs into MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_action, add_description, add_params, check_project_outputs, output_file
from fdta.experiment.params import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    sync = add_action(actions, "sync", "send what MLflow does not have yet")
    add_description(
        sync,
        "\nThat is of finished runs, and of trainings that are under way. A store that cannot be reached is one line of"
        "\nwarning; give the command again to send what is left.",
    )
    sync.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/ and scores/")
    sync.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="what is sent and what not; by default results/mlflow-BENCHMARK.json",
    )
    sync.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store; by default $MLFLOW_TRACKING_URI or sqlite:///mlflow.db"
    )
    add_params(sync)
    sync.set_defaults(call=_sync)


def _sync(options: argparse.Namespace) -> None:
    from fdta.report.mlflow_sync import sync, write_state

    check_project_outputs(options, options.output)
    params = Experiment(options.params, options.benchmark)
    state = sync(params, options.root, options.tracking_uri)
    output = options.output or options.root / "results" / f"mlflow-{params.benchmark.name}.json"
    write_state(output, state)
    told = f"{len(state.runs)} runs are in MLflow, {len(state.sent)} of them new or continued"
    print(told + (f"; {len(state.unsent)} are not, see {output}" if state.unsent else ""))
