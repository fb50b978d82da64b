"""``fdta trace``: what a result was made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fdta.cli import add_params, add_root
from fdta.errors import InputError
from fdta.experiment.steps import Step, Steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += (
        "\nPrints the chain of a result: job, inputs and outputs with their digests, code, commit, versions, machine"
        "\nand time; of each link whether it is fresh or stale, and why."
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
    record = state.record
    if record is None:
        return
    for path, content in record.inputs.items():
        yield f"  input    {path}  {content.digest[:16]}"
    for path, content in record.outputs.items():
        size = "" if content.bytes is None else f", {content.bytes} bytes"
        yield f"  output   {path}  {content.digest[:16]}{size}"
    conditions = ", ".join(f"{name} {value}" for name, value in record.conditions.items())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    yield f"  made     {record.made} in {record.seconds:g} s, commit {record.commit}"
    yield f"  machine  {record.machine}; {conditions}"
    yield f"  versions {versions}"
