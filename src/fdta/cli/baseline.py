"""``fdta baseline``: tracking-by-detection methods on the detections of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params, add_root
from fdta.errors import InputError
from fdta.names import BASELINES, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=BASELINES, help="method of the package `trackers`")
    parser.add_argument("folder", type=Path, help="folder of sequences, data/DATASET/SPLIT")
    parser.add_argument("--detections", required=True, metavar="RUN", help="run of full whose detections are linked")
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_baseline)


def _baseline(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step
    from fdta.experiment.plan import FULL

    run = Run.parse(options.detections)
    if run.variant != FULL:
        raise InputError(f"--detections {run}: the baselines link the detections of {run.dataset}/{FULL}")
    own = options.root / "data" / run.dataset
    if options.folder.resolve().parent != own.resolve():
        raise InputError(f"{options.folder}: is no split of the data of --detections; give a folder of {own}")
    execute_step(options, lambda steps: steps.track(Run(run.dataset, options.method, run.seed), options.folder.name))
