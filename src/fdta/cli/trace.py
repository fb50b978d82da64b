"""``fdta trace``: what a result was made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fdta.cli import add_description, add_params, add_root
from fdta.errors import InputError
from fdta.experiment.steps import INHERITED, Step, Steps
from fdta.provenance import described


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nPrints the chain of a result: job, inputs and outputs with their digests, code, commit, versions, machine"
        "\nand time; of each link whether it is fresh or stale, and why.",
    )
    parser.add_argument("result", help="run (dance/full/seed-0) or file (results/tables.md)")
    parser.add_argument(
        "--check", action="store_true", help="read all results of the chain and compare them with their digests"
    )
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
    if options.check:
        _check(steps, step)


def _check(steps: Steps, step: Step) -> None:
    """Compare the contents of all results of the chain with their records.

    Raises:
        InputError: one of them was changed since it was made.
    """
    from fdta.cli.run import digest_now

    compared, changed = 0, []
    for current in _chain(step):
        record = steps.state(current).record
        # What another job made is made again in any case.
        for path, content in record.outputs.items() if record and record.key == current.job.key else ():
            compared += 1
            if digest_now(current.job, steps.records.root, path) != content.digest:
                changed.append(path)
    if changed:
        raise InputError(
            f"{', '.join(changed)}: not as it was made; remove {'it' if len(changed) == 1 else 'them'} and run the "
            f"workflow again"
        )
    print(f"checked: {compared} results are as they were made")


def trace(steps: Steps, step: Step) -> Iterator[str]:
    """Lines of the chain of `step`, its own result first and each result once."""
    for number, current in enumerate(_chain(step)):
        yield from _lines(steps, current, causes=number == 0)


def _chain(step: Step) -> Iterator[Step]:
    """`step` and all that it is made from, each once."""
    seen: set[str] = set()
    waiting = [step]
    while waiting:
        current = waiting.pop(0)
        if current.job.record not in seen:
            seen.add(current.job.record)
            yield current
            waiting += current.needs


def _lines(steps: Steps, step: Step, causes: bool) -> Iterator[str]:
    job, state = step.job, steps.state(step)
    yield f"{job.outputs[0]}  {'fresh' if state.fresh else 'stale'}"
    for reason in state.reasons:
        yield f"  why      {reason}"
    if causes:
        for need in list(_chain(step))[1:]:
            own = [reason for reason in steps.state(need).reasons if not reason.endswith(INHERITED)]
            yield from (f"  cause    {need.job.outputs[0]}: {reason}" for reason in own)
    yield f"  job      {job.kind} {job.key}, code {job.code}"
    if state.record is not None:
        yield from (f"  {line}" for line in described(state.record))
