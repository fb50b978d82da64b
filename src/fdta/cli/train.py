"""``fdta train``: one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fdta.cli import add_compute, add_params
from fdta.experiment.params import Experiment
from fdta.names import DETECTOR, Run

MOST_WORKERS = 8
"""Of the processes that read clips for one GPU."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nA data set's detector comes first (dance/detector); its variants (dance/full/seed-0) start from it."
        "\nA training that was stopped or killed goes on where it stood when the same command is given again."
        "\nOn several GPUs: torchrun --nproc-per-node 4 -m fdta train RUN"
    )
    parser.add_argument("run", help="DATASET/VARIANT/seed-N or DATASET/detector")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/ and models/")
    parser.add_argument(
        "--workers",
        type=_workers,
        default="auto",
        metavar="N",
        help=f"processes that read and augment clips, for each GPU; auto: none on a CPU, else as many as there are CPU "
        f"cores for each GPU, at most {MOST_WORKERS}",
    )
    parser.add_argument("--again", action="store_true", help="train anew what is finished or under way")
    add_compute(parser)
    add_params(parser)
    parser.set_defaults(call=_train)


def _workers(text: str) -> int | None:
    """Number of workers, None for "auto"."""
    if text == "auto":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number from 0")
    return int(text)


def _train(options: argparse.Namespace) -> None:
    import torch

    from fdta.device import choose_device
    from fdta.distributed import local_device, process_group, rank
    from fdta.train.interruption import Stopped
    from fdta.train.run import train_detector, train_tracker

    params = Experiment(options.params, options.benchmark)
    device = local_device(choose_device(options.device, options.threads))
    # As the published trainer: float32 is float32.
    torch.backends.cudnn.allow_tf32 = False
    workers = options.workers
    if workers is None:
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = 0 if device.type == "cpu" else min(max(cores, 1), MOST_WORKERS)
    dataset, _, rest = options.run.strip("/").partition("/")
    with process_group(device):
        try:
            if rest == DETECTOR:
                train_detector(params, dataset, options.root, device, workers, options.again)
            else:
                train_tracker(params, Run.parse(options.run), options.root, device, workers, options.again)
        except Stopped as stopped:
            if rank() == 0:
                print(f"fdta: {stopped}", file=sys.stderr)
            # As a shell tells of a process that ended on this signal.
            sys.exit(128 + stopped.number)
