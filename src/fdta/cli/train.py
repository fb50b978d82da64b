"""``fdta train``: one run."""

from __future__ import annotations

import argparse
import os

from fdta.cli import add_compute, add_description, add_params, add_root, add_workers
from fdta.names import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nA data set's detector comes first (dance/detector); its variants (dance/full/seed-0) start from it."
        "\nIf a training is stopped or killed, run the same command again to resume."
        "\nOn several GPUs: torchrun --nproc-per-node 4 -m fdta train RUN",
    )
    parser.add_argument("run", help="DATASET/VARIANT/seed-N or DATASET/detector")
    parser.add_argument("--again", action="store_true", help="train from scratch what is finished or under way")
    add_root(parser)
    add_workers(parser)
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_train)


def _train(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step

    run, processes = Run.parse(options.run), int(os.environ.get("WORLD_SIZE", "1"))
    execute_step(options, lambda steps: steps.train(run, processes), options.again)
