"""``fdta params``: what params.yaml runs."""

from __future__ import annotations

import argparse
import json

import yaml

from fdta.cli import add_action, add_params
from fdta.experiment.params import Experiment
from fdta.names import DETECTOR, Run
from fdta.settings import to_plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = add_action(actions, "check", "check the file and print the data sets, runs and tables")
    add_params(check)
    check.set_defaults(call=_check)
    show = add_action(actions, "show", "print all settings of one run")
    show.add_argument("run", help="DATASET/VARIANT/seed-N, or DATASET/detector")
    add_params(show)
    show.set_defaults(call=_show)
    reference = add_action(actions, "reference", "print every key with its values, default and meaning, in Markdown")
    reference.set_defaults(call=_reference)


def _check(options: argparse.Namespace) -> None:
    from fdta.experiment.plan import table_baselines, table_runs

    params = Experiment(options.params, options.benchmark)
    benchmark = params.benchmark
    print(f"benchmark {benchmark.name}: {benchmark.note}")
    print(f"seeds {', '.join(map(str, benchmark.seeds))}")
    for name, dataset in benchmark.datasets.items():
        splits = ", ".join(f"{split} {n}" for split, n in dataset.splits.items())
        stands = f" (beside the paper's {dataset.counterpart})" if dataset.counterpart else ""
        start = f"detector from {dataset.detector_start or 'scratch'}"
        if dataset.weights:
            start = f"checkpoints: {', '.join(f'{by} {file}' for by, file in dataset.weights.items())}"
        print(f"data set {name}: {dataset.title}{stands}; sequences: {splits}; {start}")
    runs = table_runs(params)
    print(f"{len(runs)} runs:")
    for run in runs:
        print(f"  {run}")
    baselines = table_baselines(params)
    print(f"{len(baselines)} baseline runs:")
    for run in baselines:
        print(f"  {run}")
    for name, table in params.tables.items():
        print(f"{name}: {table.title} ({table.dataset}): {', '.join(table.rows.values())}")
    for name in params.all_tables:
        if reason := params.left_out(name):
            print(reason)
    shown = {row for table in params.tables.values() for row in table.rows.values()}
    trained = any(not dataset.weights for dataset in benchmark.datasets.values())
    for name in params.variants if trained else ():
        if name not in shown:
            print(f"variant {name}: in no table, so it runs only if you ask for its scores")


def _reference(options: argparse.Namespace) -> None:
    from fdta.experiment.reference import reference

    print(reference(), end="")


def _show(options: argparse.Namespace) -> None:
    params = Experiment(options.params, options.benchmark)
    dataset, _, rest = options.run.partition("/")
    variant = rest if rest == DETECTOR else Run.parse(options.run).variant
    settings = to_plain(params.settings(dataset, variant))
    print(yaml.safe_dump(json.loads(json.dumps(settings)), sort_keys=False), end="")
