"""``fdta plan``: what each step depends on, for DVC."""

from __future__ import annotations

import argparse

from fdta.cli import add_description, add_params, add_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nWrites plan/STAGE.json for every stage of dvc.yaml: the settings of its jobs and a digest of their code."
        "\nFiles that are right are not changed.",
    )
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_plan)


def _plan(options: argparse.Namespace) -> None:
    from fdta.experiment.dvc import check_pipeline, write_plan
    from fdta.experiment.params import Experiment
    from fdta.experiment.steps import Steps

    steps = Steps(Experiment(options.params, options.benchmark), options.root)
    check_pipeline(options.root / "dvc.yaml", steps)
    changed = write_plan(steps, options.root)
    print(f"plan/: {', '.join(changed) or 'nothing'} changed")
