"""What the results of a workflow cost, by their records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fdta.experiment.params import Experiment
from fdta.experiment.steps import Steps


@dataclass(frozen=True)
class Cost:
    """Time and memory of one result."""

    record: str
    kind: str
    machine: str
    seconds: float
    processor_seconds: float
    peak_mebibytes: float


def costs(experiment: Experiment, root: Path) -> list[Cost]:
    """Of the results in `root` of all steps of the workflow, as far as their records hold it."""
    steps = Steps(experiment, root)
    found = []
    for path, step in steps.all().items():
        record = steps.records.of(path)
        if record and record.processor_seconds is not None and record.peak_mebibytes is not None:
            usage = record.seconds, record.processor_seconds, record.peak_mebibytes
            found.append(Cost(path, step.job.kind, record.machine, *usage))
    return found


def by_kind(found: Iterable[Cost]) -> dict[str, tuple[float, ...]]:
    """Rows of a table, the dearest first, and their total.

    Each has the number of results, minutes of wall time and of processor time, the share of all processor time in
    percent, seconds of the longest result, and the largest peak of memory in MiB.
    """
    kinds: dict[str, list[Cost]] = {}
    for cost in found:
        kinds.setdefault(cost.kind, []).append(cost)
    everything = [cost for costs in kinds.values() for cost in costs]
    whole = sum(cost.processor_seconds for cost in everything)

    def row(costs: list[Cost]) -> tuple[float, ...]:
        spent = sum(cost.processor_seconds for cost in costs)
        return (
            len(costs),
            sum(cost.seconds for cost in costs) / 60,
            spent / 60,
            100 * spent / whole,
            max(cost.seconds for cost in costs),
            max(cost.peak_mebibytes for cost in costs),
        )

    rows = {kind: row(costs) for kind, costs in kinds.items()}
    ordered = dict(sorted(rows.items(), key=lambda item: -item[1][2]))
    return ordered | {"all": row(everything)}
