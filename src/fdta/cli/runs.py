"""``fdta runs``: what is trained, tracked and scored."""

from __future__ import annotations

import argparse

from fdta.cli import add_description, add_params, add_root
from fdta.experiment.params import Experiment
from fdta.experiment.steps import Steps
from fdta.names import BASELINES, Run

SCORED = "scored"
"""State of a run whose scores are those of its settings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nThose that the tables need, and others in models/. States: not trained, in training, trained, scored; or"
        "\nstale, where settings, code or data have changed since. `fdta trace RUN` says why.",
    )
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_runs)


def _runs(options: argparse.Namespace) -> None:
    from fdta.evaluate.metrics import SCORES
    from fdta.evaluate.score import COMBINED
    from fdta.report.cells import Cell, Column, Missing, Number, Row, Table, Text
    from fdta.report.console import console_text
    from fdta.report.results import Results

    experiment = Experiment(options.params, options.benchmark)
    steps, results = Steps(experiment, options.root), Results(experiment, options.root)
    rows, scored = [], 0
    runs = _all_runs(steps)
    for run in runs:
        state = _state(steps, run)
        scored += state == SCORED
        scores = (results.scores(run) or {}).get(COMBINED, {})
        cells: list[Cell] = [
            Number(scores[metric.name], metric) if metric.name in scores else Missing() for metric in SCORES
        ]
        rows.append(Row((Text(str(run)), Text(state), *cells)))
    columns = Column("run", text=True), Column("state", text=True), *(Column(metric.label) for metric in SCORES)
    print(console_text(Table(columns, {"": rows})))
    print(f"benchmark {experiment.benchmark.name}: {scored} of {len(runs)} runs scored with these settings")


def _all_runs(steps: Steps) -> list[Run]:
    """The runs that tables need, baselines after them, then what is trained besides."""
    from fdta.experiment.plan import table_baselines, table_runs

    experiment = steps.experiment
    runs = [*table_runs(experiment), *table_baselines(experiment)]
    for dataset in experiment.benchmark.datasets:
        for folder in sorted((steps.records.root / "models" / dataset).glob("*/seed-*")):
            name = f"{dataset}/{folder.parent.name}/{folder.name}"
            if Run.PATTERN.fullmatch(name) and folder.parent.name in experiment.variants:
                runs.append(Run.parse(name))
    return list(dict.fromkeys(runs))


def _state(steps: Steps, run: Run) -> str:
    from fdta.experiment.plan import model_path, scores_path, under_way

    root = steps.records.root
    score = steps.score(run, steps.experiment.dataset(run.dataset).test_split)
    if scores_path(steps.experiment, root, run).is_file():
        return SCORED if steps.state(score).fresh else "stale"
    if run.variant in BASELINES:
        return "not scored"
    if not model_path(root, run).is_file():
        return "in training" if under_way(root, run) else "not trained"
    return "trained" if steps.state(steps.train(run)).fresh else "stale"
