"""``fdta submission``: tracks zipped for an evaluation server."""

from __future__ import annotations

import argparse

from fdta.cli import add_description, add_params, add_root, check_project_outputs, output_file
from fdta.names import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nOf the split whose ground truth a server keeps; its answer goes to server-scores.yaml. Writes"
        "\nresults/submissions/RUN.zip.",
    )
    parser.add_argument("run", help="DATASET/VARIANT/seed-N; instead of a variant also a baseline")
    parser.add_argument("--output", type=output_file, metavar="FILE", help="zip to write, instead of the workflow's")
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_submission)


def _submission(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step, write_zip
    from fdta.experiment.jobs import SubmissionJob
    from fdta.experiment.params import Experiment
    from fdta.experiment.steps import Steps

    run = Run.parse(options.run)
    if options.output is None:
        execute_step(options, lambda steps: steps.submission(run))
    else:
        check_project_outputs(options, options.output)
        step = Steps(Experiment(options.params, options.benchmark), options.root).submission(run)
        assert isinstance(step.job, SubmissionJob)
        write_zip(step.job, options.root, options.output)
