"""``fdta submission``: tracks zipped for an evaluation server."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_params
from fdta.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += "\nOf the split whose ground truth a server keeps; its answer goes to server-scores.yaml."
    parser.add_argument("run", help="DATASET/VARIANT/seed-N; instead of a variant also a baseline")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/ and tracks/")
    parser.add_argument("--output", type=Path, metavar="FILE", help="by default results/submissions/RUN.zip")
    add_params(parser)
    parser.set_defaults(call=_submission)


def _submission(options: argparse.Namespace) -> None:
    from fdta.experiment.params import Experiment
    from fdta.experiment.plan import submission_path
    from fdta.names import Run
    from fdta.report.server_scores import FILE
    from fdta.track.submission import write_submission

    params, run = Experiment(options.params, options.benchmark), Run.parse(options.run)
    split, source = params.submission_split(run.dataset), params.source(run.dataset)
    if split is None or source is None:
        raise InputError(f"{run}: no server keeps ground truth of {run.dataset}; `fdta score` scores all its splits")
    output = options.output or submission_path(options.root, run)
    digest = write_submission(
        options.root / "data" / run.dataset / "seqmaps" / f"{split}.txt",
        options.root / "tracks" / str(run) / split,
        output,
        source.splits[split].submission_folder,
    )
    print(f"written: {output}; enter the server's scores in {FILE}:")
    print(f"{run}: {{HOTA: , IDF1: , AssA: , MOTA: , DetA: , submission: '{digest}'}}")
