"""``fdta trace``: what a result was made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fdta.cli import add_description, add_params, add_root
from fdta.errors import InputError
from fdta.experiment.steps import Step, Steps
from fdta.provenance import described


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nPrints the chain of a result: job, inputs and outputs with their digests, code, commit, versions, machine"
        "\nand time; of each link whether it is fresh or stale, and why.",
    )
    parser.add_argument("result", help="run (dance/full/seed-0) or file (results/tables.md)")
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_trace)


def _trace(options: argparse.Namespace) -> None:
    from fdta.experiment.params import Experiment
    from fdta.names import BASELINES, Run

    steps = Steps(Experiment(options.params, options.benchmark), options.root)
    name = options.result.removeprefix("./").strip("/")
    if Run.PATTERN.fullmatch(name) or (name.endswith("/detector") and name.count("/") == 1):
        run = Run.parse(name)
        split = steps.experiment.dataset(run.dataset).test_split
        step = steps.train(run) if run.variant not in BASELINES else None
        scored = None if name.endswith("/detector") else steps.score(run, split)
        step = scored or step
    else:
        step = steps.producer(name)
    if step is None:
        raise InputError(f"{options.result}: no step makes this; give a run or a file such as results/tables.md")
    for line in trace(steps, step):
        print(line)


def trace(steps: Steps, step: Step) -> Iterator[str]:
    """Lines of the chain of `step`, its own result first and each result once."""
    seen: set[str] = set()
    waiting = [step]
    while waiting:
        current = waiting.pop(0)
        if current.job.record in seen:
            continue
        seen.add(current.job.record)
        yield from _lines(steps, current)
        waiting += current.needs


def _lines(steps: Steps, step: Step) -> Iterator[str]:
    job, state = step.job, steps.state(step)
    yield f"{job.outputs[0]}  {'fresh' if state.fresh else 'stale'}"
    for reason in state.reasons:
        yield f"  why      {reason}"
    yield f"  job      {job.kind} {job.key}, code {job.code}"
    if state.record is not None:
        yield from (f"  {line}" for line in described(state.record))
