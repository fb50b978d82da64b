"""What was measured: the only reader of scores, histories, similarities, speeds and costs of pseudo depth.

Nothing here decides how a number is shown. The same files give the same results.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.evaluate.score import COMBINED, paired_difference
from fdta.evaluate.similarity import HIGH
from fdta.experiment import plan
from fdta.experiment.paper import COMPARED, PaperRow, read_paper
from fdta.experiment.params import Experiment
from fdta.names import DETECTOR, Run
from fdta.report.server_scores import ServerScores, read_server_scores
from fdta.settings import read_json, require
from fdta.track.submission import submission_digest

Scores = dict[str, dict[str, FiniteFloat]]
"""What `fdta score` writes: sequence (and `COMBINED`) -> metric -> value."""
EDGES = (0, 0.25, 0.5, 0.75, 0.9)
"""Edges also of the histogram that `fdta similarity` writes."""
SIMILARITY_RANGES = {"below 0": (-math.inf, 0), **{f"{low} to {high}": (low, high) for low, high in pairwise(EDGES)}}
SIMILARITY_RANGES["above 0.9"] = (0.9, math.inf)


@dataclass(frozen=True)
class StepRecord:
    """One step of a training."""

    kind: Literal["step"]
    step: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: FiniteFloat

    def __post_init__(self) -> None:
        require("total" in self.losses, "losses must have the key total")


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, counted from 0; no scores if it was not validated."""

    kind: Literal["epoch"]
    epoch: int
    seconds: FiniteFloat
    scores: dict[str, FiniteFloat]


RECORD: TypeAdapter[StepRecord | Epoch] = TypeAdapter(Annotated[StepRecord | Epoch, Field(discriminator="kind")])


@dataclass(frozen=True)
class Speed:
    """What `fdta bench infer` writes."""

    milliseconds: dict[str, FiniteFloat]
    """Per frame, by component."""
    image: tuple[int, int]
    """Width and height in the network."""
    objects: FiniteFloat
    machine: str
    threads: int

    def __post_init__(self) -> None:
        require("total" in self.milliseconds, "milliseconds must have the key total")


@dataclass(frozen=True)
class Similarity:
    """What `fdta similarity` writes; mean and share are None if there is no pair."""

    pairs: int
    mean: FiniteFloat | None
    high: Annotated[FiniteFloat | None, Field(alias=f"share_above_{HIGH}")]
    histogram: dict[Literal["edges", "counts"], list[FiniteFloat]]

    def __post_init__(self) -> None:
        require(len(self.histogram) == 2, "histogram must have the keys edges and counts")
        require(sum(self.histogram["counts"]) == self.pairs, "pairs must be the sum of the histogram's counts")
        require((self.mean is None) == (self.pairs == 0), "mean must be null without pairs, and only then")

    def percent(self, low: float, high: float) -> float:
        """Share of the pairs between two edges of the histogram."""
        bins = zip(self.histogram["edges"], self.histogram["counts"], strict=False)
        return 100 * sum(count for edge, count in bins if low <= edge < high) / self.pairs


@dataclass(frozen=True)
class SequenceDepth:
    """What `fdta depth` writes of a sequence; no seconds if its maps were not made here."""

    seconds: FiniteFloat | None
    bytes: int


@dataclass(frozen=True)
class Measured:
    """A number, measured with one or several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None with one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """HOTA of a row minus that of the row `reference`, with its paired standard error over so many test sequences."""

    reference: str
    paper: float | None
    here: float | None = None
    error: float | None = None
    """None with fewer than two sequences."""
    sequences: int = 0


@dataclass(frozen=True)
class TableRow:
    """One row of a table of the paper: the paper's numbers and ours."""

    key: str
    paper: PaperRow
    here: dict[str, Measured | None]
    comparison: Comparison | None
    measured_by: str | None = None
    """Variant or baseline; None: cited only."""
    dataset: str | None = None
    scored_on: str | None = None
    """The split of our scores; None: cited only."""
    trained_on_test: bool = False
    """Whether the split that is scored was also trained on."""
    by_server: bool = False
    """Whether a server scored it."""
    awaits_server: bool = False
    """Whether a server can score it and has not yet."""


@dataclass(frozen=True)
class SeedNoise:
    """Deviation of HOTA between seeds, pooled over the variants of which several seeds are scored."""

    deviation: float
    variants: int
    freedom: int

    def threshold(self, seeds: int) -> float:
        """Difference of two rows of so many seeds each that is twice its standard error."""
        return 2 * math.sqrt(2) * self.deviation / math.sqrt(seeds)


@dataclass(frozen=True)
class DepthCost:
    """What the pseudo depth of a data set cost; the fields are the columns of its CSV file."""

    dataset: str
    teacher: str
    hours_paper: float | None
    hours_here: float | None
    gigabytes_paper: float | None
    gigabytes_here: float | None
    sequences: int
    own_maps: int
    """Sequences whose maps were not made here."""


def read_history(path: Path) -> list[StepRecord | Epoch]:
    """Records of a training, in order; empty where there is no such file.

    A last line without an end is being written, or its writer was killed. It is no record yet.

    Raises:
        InputError: a line is no record; the message gives its number.
    """
    records = []
    text = path.read_text(errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.rpartition("\n")[0].splitlines(), start=1):
        try:
            records.append(RECORD.validate_json(line))
        except ValidationError:
            raise InputError(f"{path}:{number}: no record of a training; remove the file and train again") from None
    return records


class Results:
    """What the runs of a benchmark left under `root`, and what the paper reports.

    Raises:
        ParamsError: see `read_paper` and `read_server_scores`. Every method raises InputError for a broken file.
    """

    def __init__(self, params: Experiment, root: Path) -> None:
        self.params, self.root, self.benchmark = params, Path(root), params.benchmark
        self.paper = read_paper(params)
        self._server = read_server_scores(params, self.root)
        self._scores: dict[Run, Scores | None] = {}

    def scores(self, run: Run) -> Scores | None:
        """None where `run` is not scored."""
        if run not in self._scores:
            path = plan.scores_path(self.params, self.root, run)
            scores = read_json(Scores, path)
            entries: Scores = {} if scores is None else {COMBINED: {}} | scores
            for name, entry in entries.items():
                if not entry.keys() >= set(COMPARED):
                    raise InputError(f"{path}: no {', '.join(COMPARED)} under {name!r}; score the run again")
            self._scores[run] = scores
        return self._scores[run]

    def score(self, dataset: str, measured_by: str, metric: str) -> Measured | None:
        """`metric` over all test sequences: the server's if it scored every seed, else that of the seeds here."""
        values = [float(getattr(scores, metric)) for scores in self._server_scores(dataset, measured_by)]
        values = values or [scores[COMBINED][metric] for scores in self._seeds_scores(dataset, measured_by)]
        return Measured(tuple(values)) if values else None

    def speed(self, dataset: str) -> Speed | None:
        """Of the full model on `dataset`."""
        return read_json(Speed, plan.speed_path(self.root, dataset))

    def table_rows(self, name: str) -> list[TableRow]:
        """Rows of the table `name`, in the paper's order."""
        table, measuring = self.paper.tables[name], self.params.tables[name].rows
        dataset = self.benchmark.dataset_of(self.params.tables[name].dataset)
        rows = []
        for key, paper in table.rows.items():
            measured_by, reference = measuring.get(key), table.references.get(key)
            comparison = self._comparison(name, dataset, key, reference) if measured_by and reference else None
            row = TableRow(key, paper, dict.fromkeys(table.metrics), comparison, measured_by)
            if dataset and measured_by:
                split, submitted = self.params.dataset(dataset).test_split, self.params.submission_split(dataset)
                served = bool(self._server_scores(dataset, measured_by))
                trainable = not served and measured_by in self.params.variants
                row = replace(
                    row,
                    here={metric: self._measured(dataset, key, measured_by, metric) for metric in table.metrics},
                    dataset=dataset,
                    scored_on=submitted if served else split,
                    trained_on_test=trainable and split in self.params.settings(dataset, measured_by).training_splits,
                    by_server=served,
                    awaits_server=submitted is not None and not served and table.scored,
                )
            rows.append(row)
        return rows

    def difference_error(self, dataset: str, reference: str, measured_by: str) -> tuple[float | None, int]:
        """Standard error of the HOTA difference over the sequences that both have, and how many these are.

        With several seeds the sequences' means over seeds are compared.
        """
        both = [self._seeds_scores(dataset, name) for name in (reference, measured_by)]
        common = set.intersection(*(set(scores) for seeds in both for scores in seeds)) - {COMBINED}
        if len(common) < 2:
            return None, len(common)
        first, second = (
            {name: {"HOTA": statistics.fmean(scores[name]["HOTA"] for scores in seeds)} for name in common}
            for seeds in both
        )
        return paired_difference(first, second, "HOTA")[1], len(common)

    @cached_property
    def seed_noise(self) -> SeedNoise | None:
        """Of all scored seeds of the benchmark's variants, those that no table asks for too; None: nowhere two."""
        squares, freedom, variants = 0.0, 0, 0
        for dataset, data in self.benchmark.datasets.items():
            for variant in self.params.variants_of(dataset):
                seeds = plan.seeds_with(self.root / "scores" / dataset / variant, f"{data.test_split}.json")
                scored = [self.scores(Run(dataset, variant, seed)) for seed in seeds]
                values = [scores[COMBINED]["HOTA"] for scores in scored if scores is not None]
                if len(values) > 1:
                    squares += (len(values) - 1) * statistics.variance(values)
                    freedom += len(values) - 1
                    variants += 1
        return SeedNoise(math.sqrt(squares / freedom), variants, freedom) if freedom else None

    def frames(self, dataset: str) -> int | None:
        """Frames of the test split; None where it is neither rendered nor here in full."""
        data = self.params.dataset(dataset)
        if data.render:
            return data.splits[data.test_split] * data.render.frames
        try:
            return sum(sequence.frames for sequence in read_split(self.root / "data" / dataset / data.test_split))
        except InputError:
            return None

    def other_submissions(self, dataset: str, measured_by: Iterable[str]) -> list[tuple[Run, str, str]]:
        """Runs whose submission has changed since the server scored it: digests of the scored and the present one."""
        found = []
        for run in (Run(dataset, name, seed) for name in dict.fromkeys(measured_by) for seed in self.benchmark.seeds):
            path, scores = plan.submission_path(self.root, run), self._server.get(run)
            if scores and scores.submission and path.is_file() and submission_digest(path) != scores.submission:
                found.append((run, scores.submission, submission_digest(path)))
        return found

    def depth_costs(self) -> list[DepthCost]:
        """Of each data set whose full model learns depth."""
        costs = []
        for dataset, path in plan.depth_costs_paths(self.params, self.root).items():
            data = self.params.dataset(dataset)
            sequences = list((read_json(dict[str, SequenceDepth], path) or {}).values())
            seconds = [sequence.seconds for sequence in sequences if sequence.seconds is not None]
            published = self.paper.depth_costs.get(data.counterpart or "", {})
            costs.append(
                DepthCost(
                    dataset,
                    teacher=data.teacher if data.teacher == "rendered" else f"{data.teacher} {data.teacher_size}",
                    hours_paper=published.get("hours"),
                    hours_here=sum(seconds) / 3600 if seconds else None,
                    gigabytes_paper=published.get("gigabytes"),
                    gigabytes_here=sum(sequence.bytes for sequence in sequences) / 1e9 if sequences else None,
                    sequences=len(sequences),
                    own_maps=len(sequences) - len(seconds),
                )
            )
        return costs

    def similarities(self) -> dict[tuple[str, str], dict[str, Measured]]:
        """(data set, variant) -> "mean" and the per cent of pairs in `SIMILARITY_RANGES`; nothing if not measured."""
        due = plan.similarity_runs(self.params)
        variants = [DETECTOR, *plan.similarity_variants(self.params)]
        datasets = list(self.benchmark.datasets)
        found: dict[tuple[str, str], dict[str, Measured]] = {}
        for run in sorted(due, key=lambda run: (datasets.index(run.dataset), variants.index(run.variant), run.seed)):
            columns = found.setdefault((run.dataset, run.variant), {})
            similarity = read_json(Similarity, plan.similarity_path(self.params, self.root, run))
            if similarity is None or similarity.mean is None:
                continue
            shares = {title: similarity.percent(*ends) for title, ends in SIMILARITY_RANGES.items()}
            for column, value in {"mean": similarity.mean, **shares}.items():
                seeds = columns[column].values if column in columns else ()
                columns[column] = Measured((*seeds, value))
        return found

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Scores over all test sequences: data set -> run -> metric."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for run in plan.table_runs(self.params) + plan.table_baselines(self.params):
            if scores := self.scores(run):
                values = {metric: round(scores[COMBINED][metric], 4) for metric in COMPARED}
                found.setdefault(run.dataset, {})[f"{run.variant}/seed-{run.seed}"] = values
        return found

    def training_curves(self) -> dict[int, dict[str, float | None]]:
        """Epoch, from 1 -> data set that something is trained on -> mean loss of the full model with the first seed."""
        epochs: dict[int, dict[str, list[float]]] = {}
        datasets = plan.trained_datasets(self.params)
        for dataset in datasets:
            for record in read_history(plan.history_path(self.root, Run(dataset, plan.FULL, self.benchmark.seeds[0]))):
                if isinstance(record, StepRecord):
                    losses = epochs.setdefault(record.epoch + 1, {}).setdefault(dataset, [])
                    losses.append(record.losses["total"])
        return {
            epoch: {name: statistics.fmean(losses[name]) if name in losses else None for name in datasets}
            for epoch, losses in sorted(epochs.items())
        }

    def _seeds_scores(self, dataset: str, measured_by: str) -> list[Scores]:
        """Scores of the seeds that are there."""
        runs = [Run(dataset, measured_by, seed) for seed in self.benchmark.seeds]
        return [scores for run in runs if (scores := self.scores(run)) is not None]

    def _server_scores(self, dataset: str, measured_by: str) -> list[ServerScores]:
        """A server's scores of all seeds; nothing where that of a seed is missing."""
        runs = [Run(dataset, measured_by, seed) for seed in self.benchmark.seeds]
        return [self._server[run] for run in runs] if all(run in self._server for run in runs) else []

    def _measured(self, dataset: str, row: str, measured_by: str, metric: str) -> Measured | None:
        """Our number for `metric` of the row with key `row`."""
        if metric in COMPARED:
            return self.score(dataset, measured_by, metric)
        if metric == "history":
            return Measured((self.params.settings(dataset, measured_by).history,))
        if metric == "hours_per_epoch":
            paths = [plan.history_path(self.root, Run(dataset, measured_by, seed)) for seed in self.benchmark.seeds]
            epochs = [[each.seconds for each in read_history(path) if isinstance(each, Epoch)] for path in paths]
            hours = tuple(statistics.fmean(seconds) / 3600 for seconds in epochs if seconds)
            return Measured(hours) if hours else None
        milliseconds = speed.milliseconds if (speed := self.speed(dataset)) else {}
        if row not in milliseconds:
            return None
        return Measured(
            (100 * milliseconds[row] / milliseconds["total"] if metric == "percent" else milliseconds[row],)
        )

    def _comparison(self, name: str, dataset: str | None, key: str, reference: str) -> Comparison:
        """The row `key` of the table `name` with the row `reference`; ours only if both are scored by the same."""
        rows, measuring = self.paper.tables[name].rows, self.params.tables[name].rows
        published, base = rows[key].values["HOTA"], rows[reference].values["HOTA"]
        paper = None if published is None or base is None else published - base
        if dataset is None or reference not in measuring:
            return Comparison(reference, paper)
        first, second = measuring[reference], measuring[key]
        theirs, ours = (self.score(dataset, measured_by, "HOTA") for measured_by in (first, second))
        servers = {bool(self._server_scores(dataset, measured_by)) for measured_by in (first, second)}
        if theirs is None or ours is None or len(servers) > 1:
            return Comparison(reference, paper)
        error = (None, 0) if servers == {True} else self.difference_error(dataset, first, second)
        return Comparison(reference, paper, ours.mean - theirs.mean, *error)
