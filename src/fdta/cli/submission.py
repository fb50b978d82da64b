"""``fdta submission``: tracks zipped for an evaluation server."""

from __future__ import annotations

import argparse

from fdta.cli import add_description, add_params, add_root
from fdta.names import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nOf the split whose ground truth a server keeps; its answer goes to server-scores.yaml. Writes"
        "\nresults/submissions/RUN.zip.",
    )
    parser.add_argument("run", help="DATASET/VARIANT/seed-N; instead of a variant also a baseline")
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_submission)


def _submission(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step

    execute_step(options, lambda steps: steps.submission(Run.parse(options.run)))
