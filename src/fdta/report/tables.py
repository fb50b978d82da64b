"""The paper's tables with our numbers beside them: Markdown for people, CSV for programs.

Everything comes from files that the runs left (`table_inputs`); an absent file makes its cells a dash. The same files
on the same machine give the same text.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.evaluate.score import COMBINED, paired_difference
from fdta.experiment.paper import COMPARED, Paper, PaperRow, PaperTable, read_paper
from fdta.experiment.params import Experiment
from fdta.experiment.plan import (
    COMPLEMENTARY,
    FULL,
    METRICS,
    TRAINING_CURVES,
    depth_costs_paths,
    figure_datasets,
    history_path,
    scores_path,
    seeds_with,
    similarity_path,
    similarity_runs,
    speed_path,
    submission_path,
    table_baselines,
    table_inputs,
    table_runs,
)
from fdta.files import write_json, write_text
from fdta.machine import machine
from fdta.names import DETECTOR, Run
from fdta.report.measured import commit, read_history, read_json
from fdta.report.server_scores import ServerScores, read_server_scores
from fdta.track.submission import submission_digest

__all__ = ["table_baselines", "table_inputs", "table_runs", "write_tables"]

TITLES = {"milliseconds": "ms", "percent": "%", "history": "history", "hours_per_epoch": "h/epoch"}
DECIMALS = {"milliseconds": 2, "history": 0, "mean": 3}
DEPTH_COSTS_TITLE = "D.1.1: Cost of pseudo depth"
SIDES = ("paper", "here")
DASH = "—"
SIMILARITY_TITLE = "Similarity between objects (the statistic of Fig. 1)"
PUBLISHED_RULE = "object-max"
SIMILARITY_RANGES = {
    "below 0": (-math.inf, 0.0),
    "0 to 0.25": (0.0, 0.25),
    "0.25 to 0.5": (0.25, 0.5),
    "0.5 to 0.75": (0.5, 0.75),
    "0.75 to 0.9": (0.75, 0.9),
    "above 0.9": (0.9, math.inf),
}
"""What the similarity table shows; each end is an edge of the stored histogram."""


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
class Difference:
    """HOTA of a row minus that of its reference."""

    reference: str
    """Key of that row."""
    paper: float | None
    here: float | None
    error: float | None
    """Paired standard error over the test sequences; None with fewer than two."""
    sequences: int


@dataclass(frozen=True)
class Row:
    """One row: the paper's numbers and ours."""

    key: str
    paper: PaperRow
    measured_by: str | None
    """Variant or baseline; None: cited only."""
    here: dict[str, Measured | None]
    difference: Difference | None
    trained_on_test: bool
    """Whether the split that is scored was also trained on."""
    scored_on: str
    """The split of our scores; empty: cited only."""
    by_server: bool
    """Whether a server scored it."""
    mark: str
    """What the table adds to the run: a dagger for a server's score, ‡ for one that waits for the server."""


@dataclass(frozen=True)
class SeedNoise:
    """Deviation of HOTA between seeds, pooled over the variants of which several seeds are scored."""

    deviation: float
    variants: int
    freedom: int

    def threshold(self, seeds: int) -> float:
        """Difference of two rows of so many seeds each that is twice its standard error."""
        return 2 * math.sqrt(2) * self.deviation / math.sqrt(seeds)


def write_tables(params: Experiment, root: Path, output: Path) -> None:
    """Write the page `output`, and beside it ``tables/TABLE.csv`` for each table,
    ``tables/{depth-cost,similarity}.csv``, and for DVC ``metrics.json`` and ``training.csv``.

    Args:
        params: the benchmark and its tables.
        root: folder of scores/, models/ and results/speed/.
        output: Markdown file, results/tables.md.

    Raises:
        ParamsError: see `read_paper`.
        InputError: a file that is there cannot be read.
    """
    results = Results(params, Path(root))
    paper = read_paper(params)
    folder = output.parent / "tables"
    sections = [_introduction(results)]
    for name, settings in params.tables.items():
        table, dataset = paper.tables[name], params.benchmark.dataset_of(settings.dataset)
        rows = table_rows(results, table, name)
        sections.append(_section(results, table, name, rows))
        write_text(folder / f"{name}.csv", _csv(_records(table, rows, dataset)))
    costs = depth_costs(results, paper)
    if costs:
        text, header, rows = depth_costs_table(costs)
        sections += [f"## {DEPTH_COSTS_TITLE}", text, _markdown(header, rows, "llr")]
    write_text(folder / "depth-cost.csv", _csv(costs))
    measured = similarities(results)
    text, header, rows = similarity_table(measured, paper.similarity_note)
    sections += [f"## {SIMILARITY_TITLE}", text, _markdown(header, rows, "llr")]
    write_text(folder / "similarity.csv", _csv(_similarity_records(measured)))
    write_json(output.with_name(METRICS.name), _metrics(results))
    write_text(output.with_name(TRAINING_CURVES.name), _csv(_training_curves(results)))
    write_text(output, "\n\n".join(sections) + "\n")


class Results:
    """What the runs of a benchmark left under `root`, read once."""

    def __init__(self, params: Experiment, root: Path) -> None:
        self.params, self.root, self.benchmark = params, root, params.benchmark
        self.json = cache(read_json)
        self.server = read_server_scores(params, self.root)

    def scores(self, run: Run) -> dict[str, dict[str, float]] | None:
        """Sequence (and `COMBINED`) -> metric -> value; None where `run` is not scored."""
        path = scores_path(self.params, self.root, run)
        scores = self.json(path)
        if scores is not None and any(metric not in scores.get(COMBINED, {}) for metric in COMPARED):
            raise InputError(f"{path}: no {', '.join(COMPARED)} under {COMBINED!r}; score the run again")
        return scores

    def all_scores(self, dataset: str, measured_by: str) -> list[dict[str, dict[str, float]]]:
        """Scores of the seeds that are there."""
        runs = [Run(dataset, measured_by, seed) for seed in self.benchmark.seeds]
        return [scores for run in runs if (scores := self.scores(run)) is not None]

    def server_scores(self, dataset: str | None, measured_by: str | None) -> list[ServerScores]:
        """What a server said of all seeds; nothing where that of a seed is missing."""
        runs = [Run(dataset, measured_by, seed) for seed in self.benchmark.seeds] if dataset and measured_by else []
        return [self.server[run] for run in runs] if all(run in self.server for run in runs) else []

    def measured(self, dataset: str | None, row: str, measured_by: str, metric: str) -> Measured | None:
        """Our number for `metric` of the row with key `row`."""
        if dataset is None:
            return None
        if metric in COMPARED:
            values = [getattr(scores, metric) for scores in self.server_scores(dataset, measured_by)]
            values = values or [scores[COMBINED][metric] for scores in self.all_scores(dataset, measured_by)]
        elif metric == "history":
            values = [self.params.settings(dataset, measured_by).history]
        elif metric == "hours_per_epoch":
            histories = [
                read_history(history_path(self.root, Run(dataset, measured_by, s))) for s in self.benchmark.seeds
            ]
            epochs = [[record["seconds"] for record in history if record["kind"] == "epoch"] for history in histories]
            values = [statistics.fmean(seconds) / 3600 for seconds in epochs if seconds]
        else:
            speed = (self.json(speed_path(self.root, dataset)) or {}).get("milliseconds", {})
            values = [speed[row]] if row in speed else []
            if metric == "percent":
                values = [100 * value / speed["total"] for value in values]
        return Measured(tuple(values)) if values else None

    def difference_error(self, dataset: str, reference: str, measured_by: str) -> tuple[float | None, int]:
        """Standard error of the HOTA difference over the sequences that both have, and how many these are.

        With several seeds the sequences' means over seeds are compared.
        """
        both = [self.all_scores(dataset, name) for name in (reference, measured_by)]
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
            for variant in self.params.variants:
                seeds = seeds_with(self.root / "scores" / dataset / variant, f"{data.test_split}.json")
                values = [self.scores(Run(dataset, variant, seed))[COMBINED]["HOTA"] for seed in seeds]
                if len(values) > 1:
                    squares += (len(values) - 1) * statistics.variance(values)
                    freedom += len(values) - 1
                    variants += 1
        return SeedNoise(math.sqrt(squares / freedom), variants, freedom) if freedom else None

    def trained_on_test(self, dataset: str | None, measured_by: str | None) -> bool:
        """Whether the split that is scored was also trained on."""
        if dataset is None or measured_by not in self.params.variants or self.server_scores(dataset, measured_by):
            return False
        return self.params.dataset(dataset).test_split in self.params.settings(dataset, measured_by).training_splits

    def scored_on(self, dataset: str | None, measured_by: str | None) -> tuple[str, bool, str]:
        """The split of the scores, whether a server gave them, and their mark."""
        if dataset is None or measured_by is None:
            return "", False, ""
        submitted, here = self.params.submission_split(dataset), self.params.dataset(dataset).test_split
        if submitted and self.server_scores(dataset, measured_by):
            return submitted, True, " †"
        return here, False, " ‡" if submitted else ""

    def frames(self, dataset: str) -> int | None:
        """Frames of the test split; None where it is neither rendered nor here in full."""
        data = self.params.dataset(dataset)
        if data.render:
            return data.splits[data.test_split] * data.render.frames
        try:
            return sum(sequence.frames for sequence in read_split(self.root / "data" / dataset / data.test_split))
        except InputError:
            return None


def table_rows(results: Results, table: PaperTable, name: str) -> list[Row]:
    """Rows of the table `name`, in the paper's order."""
    settings = results.params.tables[name]
    dataset = results.benchmark.dataset_of(settings.dataset)
    here = {
        key: {metric: results.measured(dataset, key, measured_by, metric) for metric in table.metrics}
        for key, measured_by in settings.rows.items()
    }

    def difference(key: str) -> Difference | None:
        reference = table.references.get(key)
        if reference is None or key not in here:
            return None
        published = table.rows[key].values["HOTA"], table.rows[reference].values["HOTA"]
        paper = None if None in published else published[0] - published[1]
        ours = here[key]["HOTA"], here[reference]["HOTA"] if reference in here else None
        servers = {bool(results.server_scores(dataset, settings.rows.get(row))) for row in (key, reference)}
        if dataset is None or None in ours or len(servers) > 1:
            return Difference(reference, paper, None, None, 0)
        if servers == {True}:
            return Difference(reference, paper, ours[0].mean - ours[1].mean, None, 0)
        error, sequences = results.difference_error(dataset, settings.rows[reference], settings.rows[key])
        return Difference(reference, paper, ours[0].mean - ours[1].mean, error, sequences)

    unmeasured = dict.fromkeys(table.metrics)
    return [
        Row(
            key,
            paper,
            measured_by := settings.rows.get(key),
            here.get(key, unmeasured),
            difference(key),
            results.trained_on_test(dataset, measured_by),
            *results.scored_on(dataset, measured_by),
        )
        for key, paper in table.rows.items()
    ]


def measurement_notes(results: Results) -> list[str]:
    """How the numbers were made and what to make of them; pieces of Markdown."""
    benchmark, params = results.benchmark, results.params
    runs = table_runs(params)
    rules: dict[str, list[Run]] = {}
    for run in runs:
        rules.setdefault(params.settings(run.dataset, run.variant).tracker.assignment, []).append(run)
    assignment = "; ".join(
        f"{rule} ({'the published rule' if rule == PUBLISHED_RULE else f'not the published one, {PUBLISHED_RULE}'})"
        + (f" in {', '.join(f'`{run}`' for run in used)}" if len(rules) > 1 else "")
        for rule, used in rules.items()
    )
    lines = [
        "HOTA, IDF1, AssA, MOTA and DetA are in per cent, over all sequences of the split together (TrackEval)."
        " With several seeds: mean ± standard deviation over the seeds.",
        "Δ HOTA: a row's HOTA minus that of the table's reference. Its ± is the paired standard error over the test"
        " sequences, from each sequence's own difference; it leaves out the randomness of training.",
        noise_note(results.seed_noise),
        f"Assignment in the tracker: {assignment}. SORT, ByteTrack, OC-SORT and BoT-SORT link the detections of"
        f" `{FULL}` with the same seed, not those of the paper's detector for them.",
        f"Seeds: {', '.join(map(str, benchmark.seeds))}; they vary the training of the tracker; all start from the"
        " data set's one detector. `fdta params show RUN` prints every setting of a run.",
    ]
    partial = []
    for run in runs + table_baselines(params):
        data = params.dataset(run.dataset)
        scores, sequences = results.scores(run), data.splits[data.test_split]
        if scores and len(scores) - 1 != sequences:
            partial.append(f"`{run}` ({len(scores) - 1} of {sequences})")
    if partial:
        lines.append(f"**Not scored on all test sequences**: {', '.join(partial)}.")
    missing = [path for path in table_inputs(params, results.root) if not path.is_file()]
    if missing:
        shown = ", ".join(f"`{path.relative_to(results.root)}`" for path in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        lines.append(f"**Not measured yet**, {len(missing)} files: {shown}{more}.")
    return lines


def dataset_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that tells what the data sets are."""
    benchmark, params = results.benchmark, results.params
    header = ["data set", "what it is", "beside the paper's", "split", "sequences", "frames", "detector starts from"]
    cells = []
    for name in dict.fromkeys(run.dataset for run in table_runs(params)):
        data = params.dataset(name)
        sequences, frames = data.splits[data.test_split], results.frames(name) or DASH
        start = f"`{data.detector_start}`" if data.detector_start else "random weights"
        if data.detector_start in benchmark.datasets:
            loss = params.settings(data.detector_start, DETECTOR).loss
            start += " (attribute pre-training)" if loss.attributes else ""
        cells.append([f"`{name}`", data.title, data.counterpart, data.test_split, str(sequences), str(frames), start])
    return header, cells


def _introduction(results: Results) -> str:
    benchmark = results.benchmark
    title = f"# The paper's tables, measured on the benchmark `{benchmark.name}`"
    legend = (
        "`paper` is the paper's number, on its data set; `here` was measured by the run in the column `run`; rows"
        f" marked `cited` are not run here. {DASH}: not given by the paper, or not measured yet."
        " Bold: the highest measured in its column, resolved or not."
    )
    written = f"Commit {commit(results.root)}; page written on {machine()}."
    lines = [f"- {line}" for line in (legend, *measurement_notes(results), written)]
    datasets = _markdown(*dataset_table(results), "llllrrl")
    return "\n".join([title, "", f"> {benchmark.note}", "", *lines, "", datasets])


def noise_note(noise: SeedNoise | None) -> str:
    """How far another seed moves a score, in Markdown."""
    if noise is None:
        return (
            "**Seed noise has not been measured in this run**: no variant has several seeds. How far another seed moves"
            " a number is unknown, so that no single difference between two trainings shows an effect of the method."
        )
    return (
        f"Seed noise: s = {noise.deviation:.2f} HOTA, the pooled standard deviation between the seeds of"
        f" {noise.variants} variant(s), {noise.freedom} degree(s) of freedom. Between two rows of n seeds each,"
        f" differences below 2·√2·s/√n are not resolved: {noise.threshold(1):.1f} HOTA with one seed."
    )


def table_title(results: Results, name: str) -> str:
    """Title of the table `name`, with its number."""
    return f"{name.capitalize().replace('-', ' ')}: {results.params.tables[name].title}"


def table_notes(results: Results, table: PaperTable, name: str, rows: list[Row]) -> tuple[str, list[str]]:
    """Where the numbers of a table come from, and what is said below it; pieces of Markdown."""
    settings = results.params.tables[name]
    dataset = results.benchmark.dataset_of(settings.dataset)
    below = list(table.notes)
    if dataset is None:
        place = f"There is no such data set in this benchmark: nothing stands beside the paper's {settings.dataset}."
    else:
        data = results.params.dataset(dataset)
        place = f"Here: `{dataset}` ({data.title}), {data.test_split}."
        place = place if dataset == settings.dataset else f"Paper: {settings.dataset}, test. {place}"
        if submitted := results.params.submission_split(dataset):
            place += (
                f" A server keeps the ground truth of {submitted}: rows marked † are its scores of {submitted}, rows"
                f" marked ‡ wait for it and are scored here on {data.test_split}."
            )
        below += _other_submissions(results, dataset, settings.rows.values())
        below += [
            f"**{row.paper.label} is scored on `{data.test_split}`, which it was also trained on: no test result.**"
            for row in rows
            if row.trained_on_test
        ]
        if "milliseconds" in table.metrics and (speed := results.json(speed_path(results.root, dataset))):
            width, height = speed["image"]
            below.append(
                f"Here: images of {width} x {height} in the network, {speed['objects']:.1f} objects a frame; on"
                f" {speed['machine']}; {speed['threads']} CPU threads"
            )
    return place, below + _resolution(results, table, rows)


def _section(results: Results, table: PaperTable, name: str, rows: list[Row]) -> str:
    place, below = table_notes(results, table, name, rows)
    title = f"## {table_title(results, name)}"
    return "\n\n".join(
        [title, place, _layout(table, rows), *(["\n".join(f"- {line}" for line in below)] if below else [])]
    )


def _layout(table: PaperTable, rows: list[Row]) -> str:
    header = ["", "run"] + [f"{TITLES.get(metric, metric)} {side}" for metric in table.metrics for side in SIDES]
    if table.references:
        header += ["Δ HOTA paper", "Δ HOTA here ± s.e."]
    best = best_cells(table, rows)
    cells, group = [], ""
    for row in rows:
        if row.paper.group != group:
            group = row.paper.group
            cells.append([f"*{group}*"] + [""] * (len(header) - 1))
        line = [row.paper.label, f"`{row.measured_by}`{row.mark}" if row.measured_by else "cited"]
        for metric in table.metrics:
            here = number(metric, row.here[metric]) if row.measured_by else ""
            line += [text_of(metric, row.paper.values[metric]), f"**{here}**" if (row.key, metric) in best else here]
        cells.append(line + (difference_cells(row.difference) if table.references else []))
    return _markdown(header, cells, "llr")


def best_cells(table: PaperTable, rows: list[Row]) -> set[tuple[str, str]]:
    """(row, metric) of the highest scores, where there are different ones; rows trained on the test split stay out, and
    the others once a server scored one."""
    compared = [row for row in rows if not row.trained_on_test]
    compared = [row for row in compared if row.by_server] or compared
    best = set()
    for metric in set(table.metrics) & set(COMPARED):
        means = {row.key: value.mean for row in compared if (value := row.here[metric])}
        if len(set(means.values())) > 1:
            best |= {(key, metric) for key, mean in means.items() if mean == max(means.values())}
    return best


def difference_cells(difference: Difference | None) -> list[str]:
    """The paper's difference and ours, as text; empty where the row has no reference."""
    if difference is None:
        return ["", ""]
    paper = DASH if difference.paper is None else signed(difference.paper)
    if difference.here is None:
        return [paper, DASH]
    error = "" if difference.error is None else f" ± {difference.error:.1f}"
    return [paper, signed(difference.here) + error]


def _resolution(results: Results, table: PaperTable, rows: list[Row]) -> list[str]:
    """What the differences of a table are taken to, and which of them its noise leaves."""
    differences = {row.paper.label: row.difference for row in rows if row.difference}
    measured = {label: found for label, found in differences.items() if found.here is not None}
    paired = {label: found for label, found in measured.items() if found.error is not None}
    references = dict.fromkeys(f"*{table.rows[found.reference].label}*" for found in differences.values())
    lines = []
    if references:
        lines.append(f"Δ HOTA: against {', '.join(references)}{' in turn' if len(references) > 1 else ''}")
    if paired:
        sequences = " to ".join(str(n) for n in sorted({found.sequences for found in paired.values()}))
        beyond = [label for label, found in paired.items() if abs(found.here) > 2 * found.error]
        lines.append(
            f"Beyond 2 s.e. of {sequences} paired test sequences (noise of training not counted):"
            f" {'; '.join(beyond) or 'none'}"
        )
    if measured and (noise := results.seed_noise):
        seeds = min(len(row.here["HOTA"].values) for row in rows if row.here["HOTA"])
        threshold = noise.threshold(seeds)
        beyond = [label for label, found in measured.items() if abs(found.here) > threshold]
        count = "one seed" if seeds == 1 else f"{seeds} seeds"
        lines.append(f"Beyond the seed noise, {threshold:.1f} HOTA with {count} a row: {'; '.join(beyond) or 'none'}")
    return lines


def _metrics(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Scores over all test sequences: data set -> run -> metric."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in table_runs(results.params) + table_baselines(results.params):
        if scores := results.scores(run):
            values = {metric: round(scores[COMBINED][metric], 4) for metric in COMPARED}
            found.setdefault(run.dataset, {})[f"{run.variant}/seed-{run.seed}"] = values
    return found


def _training_curves(results: Results) -> list[dict[str, Any]]:
    """Mean loss of each epoch of the full model with the first seed, a column a data set."""
    epochs: dict[int, dict[str, list[float]]] = {}
    datasets = figure_datasets(results.params)
    for dataset in datasets:
        for record in read_history(history_path(results.root, Run(dataset, FULL, results.benchmark.seeds[0]))):
            if record["kind"] == "step":
                losses = epochs.setdefault(record["epoch"] + 1, {}).setdefault(dataset, [])
                losses.append(record["losses"]["total"])
    return [
        {"epoch": epoch, **{name: statistics.fmean(losses[name]) if name in losses else None for name in datasets}}
        for epoch, losses in sorted(epochs.items())
    ]


def _other_submissions(results: Results, dataset: str, rows: Iterable[str]) -> list[str]:
    """A line for each score of a server that is not of the submission that is here."""
    lines = []
    for run in (Run(dataset, name, seed) for name in dict.fromkeys(rows) for seed in results.benchmark.seeds):
        path, scores = submission_path(results.root, run), results.server.get(run)
        if scores and scores.submission and path.is_file() and submission_digest(path) != scores.submission:
            lines.append(
                f"**The server scored submission {scores.submission} of `{run}`, which has been tracked anew since:"
                f" {submission_digest(path)}**"
            )
    return lines


def depth_costs(results: Results, paper: Paper) -> list[dict[str, Any]]:
    """A record for each data set: what its pseudo depth cost, the paper's and ours."""
    records = []
    for dataset, path in depth_costs_paths(results.params, results.root).items():
        data, sequences = results.params.dataset(dataset), (results.json(path) or {}).values()
        seconds = [cost["seconds"] for cost in sequences if cost["seconds"] is not None]
        published = paper.depth_costs.get(data.counterpart or "", {})
        records.append(
            {
                "dataset": dataset,
                "teacher": data.teacher if data.teacher == "rendered" else f"{data.teacher} {data.teacher_size}",
                "hours_paper": published.get("hours"),
                "hours_here": sum(seconds) / 3600 if seconds else None,
                "gigabytes_paper": published.get("gigabytes"),
                "gigabytes_here": sum(cost["bytes"] for cost in sequences) / 1e9 if sequences else None,
                "sequences": len(sequences),
                "own_maps": len(sequences) - len(seconds),
            }
        )
    return records


def depth_costs_table(costs: list[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    """Words, header and rows of the table of `costs`."""
    header = ["data set", "teacher", "hours paper", "hours here", "GB paper", "GB here", "sequences"]
    rows = []
    for cost in costs:
        numbers = [
            DASH if value is None else f"{value:.1f}" if side == "paper" else f"{value:#.2g}"
            for kind in ("hours", "gigabytes")
            for side in SIDES
            for value in [cost[f"{kind}_{side}"]]
        ]
        rows.append([f"`{cost['dataset']}`", cost["teacher"], *numbers, str(cost["sequences"])])
    text = (
        "Hours and disk of the training split's depth maps, made once. The paper's: Video Depth Anything on an H200;"
        " the teacher `rendered` only writes the depth that the renderer knows."
    )
    if any(cost["own_maps"] for cost in costs):
        text += " Sequences whose maps were brought along count for the disk alone."
    return text, header, rows


def similarities(results: Results) -> dict[tuple[str, str], dict[str, Measured]]:
    """(data set, variant) -> column of the similarity table -> number; no columns where nothing is measured."""
    due = similarity_runs(results.params)
    variants = [DETECTOR, *results.params.tables[COMPLEMENTARY].rows.values()] if due else []
    datasets = list(results.benchmark.datasets)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for run in sorted(due, key=lambda run: (datasets.index(run.dataset), variants.index(run.variant), run.seed)):
        similarity = results.json(similarity_path(results.params, results.root, run))
        seeds = found.setdefault((run.dataset, run.variant), [])
        if similarity and similarity["pairs"]:
            seeds.append(_similarity_columns(similarity))
    return {
        name: {column: Measured(tuple(columns[column] for columns in seeds)) for column in (seeds[0] if seeds else ())}
        for name, seeds in found.items()
    }


def _similarity_columns(similarity: dict[str, Any]) -> dict[str, float]:
    """Mean similarity, and the shares of pairs in per cent by range, of what `fdta similarity` wrote."""
    bins = list(zip(similarity["histogram"]["edges"], similarity["histogram"]["counts"], strict=False))
    shares = {
        title: 100 * sum(count for edge, count in bins if low <= edge < high) / similarity["pairs"]
        for title, (low, high) in SIMILARITY_RANGES.items()
    }
    return {"mean": similarity["mean"], **shares}


def similarity_table(
    table: dict[tuple[str, str], dict[str, Measured]], note: str
) -> tuple[str, list[str], list[list[str]]]:
    """What the similarity table shows, its header and its rows."""
    header = ["data set", "run", "mean", *SIMILARITY_RANGES]
    rows = []
    for (dataset, variant), columns in table.items():
        cells = [f"`{dataset}`", "detector alone" if variant == DETECTOR else f"`{variant}`"]
        rows.append(cells + [number(column, columns.get(column)) for column in header[2:]])
    text = (
        "Cosine similarity of the object embeddings of one frame, over all pairs of detections above the tracker's"
        " threshold on the test split: mean, and share of the pairs in per cent by range. The embeddings are the"
        " decoder's output, so that SA and IA may change them, TA only by what it made the detector learn. " + note
    )
    return text, header, rows


def number(metric: str, measured: Measured | None) -> str:
    """`measured` as text, with the deviation over seeds where there are several."""
    if measured is None:
        return DASH
    deviation = measured.deviation
    return text_of(metric, measured.mean) + (f" ± {text_of(metric, deviation)}" if deviation is not None else "")


def text_of(metric: str, value: float | None) -> str:
    """`value` with the decimals of `metric`."""
    if value is None:
        return DASH
    if metric == "hours_per_epoch" and value < 0.1:
        return f"{value:#.2g}"
    return f"{value:.{DECIMALS.get(metric, 1)}f}"


def signed(value: float) -> str:
    """`value` with its sign and one decimal."""
    return f"{value:+.1f}".replace("-", "−")  # noqa: RUF001


def _markdown(header: list[str], rows: list[list[str]], align: str) -> str:
    """Table whose columns line up as plain text too; `align`: "l" or "r" a column, the last for all that follow."""
    align += align[-1] * (len(header) - len(align))
    widths = [max(3, *(len(line[i]) for line in [header, *rows])) for i in range(len(header))]
    rule = ["-" * (width - 1) + ":" if side == "r" else "-" * width for width, side in zip(widths, align, strict=True)]
    lines = [
        [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ]
        for line in [header, *rows]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _records(table: PaperTable, rows: list[Row], dataset: str | None) -> Iterable[dict[str, Any]]:
    """Rows of a table's CSV; numbers that are missing are empty."""
    for row in rows:
        record = {
            "row": row.key,
            "label": row.paper.label,
            "group": row.paper.group,
            "dataset": dataset if row.measured_by else None,
            "measured_by": row.measured_by or "cited",
            "scored_on": row.scored_on or None,
            "scored_by": ("server" if row.by_server else "TrackEval") if row.scored_on else None,
        }
        for metric in table.metrics:
            here = row.here[metric]
            record[f"{metric}_paper"] = row.paper.values[metric]
            record[f"{metric}_here"] = here and here.mean
            record[f"{metric}_seeds"] = here and len(here.values)
            record[f"{metric}_seed_deviation"] = here and here.deviation
        if table.references:
            difference = row.difference
            record["reference"] = difference and difference.reference
            record["HOTA_difference_paper"] = difference and difference.paper
            record["HOTA_difference_here"] = difference and difference.here
            record["HOTA_difference_standard_error"] = difference and difference.error
            record["paired_sequences"] = difference and difference.sequences
        yield record


def _similarity_records(table: dict[tuple[str, str], dict[str, Measured]]) -> Iterable[dict[str, Any]]:
    for (dataset, variant), columns in table.items():
        record: dict[str, Any] = {"dataset": dataset, "variant": variant}
        for column in ("mean", *SIMILARITY_RANGES):
            measured = columns.get(column)
            record[column] = measured and measured.mean
            record[f"{column} seed deviation"] = measured and measured.deviation
        yield record


def _csv(records: Iterable[dict[str, Any]]) -> str:
    records = list(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()})
    return text.getvalue()
