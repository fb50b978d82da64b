"""The words around the tables: how the numbers were made, and which differences their noise leaves.

Pieces of Markdown with `code`, **strong** and *emphasis* only.
"""

from __future__ import annotations

from pathlib import Path

from fdta.evaluate.metrics import HOTA, SCORES
from fdta.experiment.paper import PaperTable
from fdta.experiment.plan import FULL, table_baselines, table_inputs, table_runs
from fdta.names import Run
from fdta.report.results import Results, SeedNoise, TableRow

PUBLISHED_RULE = "object-max"


def measurement_notes(results: Results) -> list[str]:
    """How the numbers were made and what to make of them."""
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
    *names, last = (metric.label for metric in SCORES)
    lines = [
        f"{', '.join(names)} and {last} are in per cent, over all sequences of the split together (TrackEval)."
        " With several seeds: mean ± standard deviation over the seeds.",
        "Δ HOTA: a row's HOTA minus that of the table's reference. Its ± is the paired standard error over the test"
        " sequences, from each sequence's own difference; it leaves out the randomness of training.",
        noise_note(results.seed_noise),
        f"Assignment in the tracker: {assignment}. SORT, ByteTrack, OC-SORT and BoT-SORT link the detections of"
        f" `{FULL}` with the same seed, not those of the paper's detector for them.",
        *left_out_notes(results),
    ]
    if any(not params.dataset(run.dataset).weights for run in runs):
        lines.append(
            f"Seeds: {', '.join(map(str, benchmark.seeds))}; they vary the training of the tracker; all start from the"
            " data set's one detector. `fdta params show RUN` prints every setting of a run."
        )
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


def left_out_notes(results: Results) -> list[str]:
    """What the benchmark does not show, and why."""
    benchmark, params = results.benchmark, results.params
    imported = [f"`{name}`" for name, data in benchmark.datasets.items() if data.weights]
    hidden = [name for name in params.all_tables if name not in params.tables]
    titles = {name: name.capitalize().replace("-", " ") for name in hidden}
    not_chosen = [titles[name] for name in hidden if benchmark.tables is None or name in benchmark.tables]
    others = [title for title in titles.values() if title not in not_chosen]
    lines = []
    if imported:
        left = ", ".join([*others, "rows of variants without a checkpoint", "training curves"])
        lines.append(
            f"Nothing is trained on {', '.join(imported)}: every model is a published checkpoint. Left out, because"
            f" they show or compare trainings: {left}."
        )
    elif others:
        lines.append(f"Left out by `tables` of the benchmark: {', '.join(others)}.")
    if not_chosen and benchmark.only is not None:
        chosen = ", ".join(f"`{name}`" for name in benchmark.only)
        lines.append(
            f"Only {chosen} is run (`only` of the benchmark), so that these are left out: {', '.join(not_chosen)}."
        )
    return lines


def noise_note(noise: SeedNoise | None) -> str:
    """How far another seed moves a score."""
    if noise is None:
        return (
            "**Seed noise has not been measured in this run**: no variant has several seeds. How far another seed moves"
            " a number is unknown, so that no single difference between two trainings shows an effect of the method."
        )
    return (
        f"Seed noise: s = {noise.deviation:.2f} HOTA, the pooled standard deviation between the seeds of"
        f" {noise.variants} variant(s), {noise.freedom} degree(s) of freedom. Between two rows of n seeds each,"
        f" differences below 2·√2·s/√n are not resolved: {HOTA.text(noise.threshold(1))} HOTA with one seed."
    )


def table_notes(results: Results, name: str, rows: list[TableRow]) -> tuple[str, list[str]]:
    """Where the numbers of the table `name` come from, and the notes below it."""
    table, settings = results.paper.tables[name], results.params.tables[name]
    dataset = results.benchmark.dataset_of(settings.dataset)
    weights = results.params.dataset(dataset).weights if dataset else {}
    lines = list(table.notes if weights else table.trained_notes + table.notes)
    used = [
        f"`{name}` is `{Path(weights[name]).name}`" for name in dict.fromkeys(settings.rows.values()) if name in weights
    ]
    if used:
        lines.insert(0, f"Published checkpoints: {', '.join(used)}")
    resolution = _resolution(table, rows, results.seed_noise)
    if dataset is None:
        place = f"There is no such data set in this benchmark: nothing stands beside the paper's {settings.dataset}."
        return place, lines + resolution
    data = results.params.dataset(dataset)
    place = f"Here: `{dataset}` ({data.title}), {data.test_split}."
    place = place if dataset == settings.dataset else f"Paper: {settings.dataset}, test. {place}"
    if table.scored and (submitted := results.params.submission_split(dataset)):
        place += (
            f" A server keeps the ground truth of {submitted}: rows marked † are its scores of {submitted}, rows"
            f" marked ‡ wait for it and are scored here on {data.test_split}."
        )
    for run, scored, present in results.other_submissions(dataset, settings.rows.values()):
        told = f"The server scored submission {scored} of `{run}`, which has been tracked anew since: {present}"
        lines.append(f"**{told}**")
    for row in rows:
        if row.trained_on_test:
            label, split = row.paper.label, row.scored_on
            lines.append(f"**{label} is scored on `{split}`, which it was also trained on: no test result.**")
    if "milliseconds" in table.metrics and (speed := results.speed(dataset)):
        width, height = speed.image
        lines.append(
            f"Here: images of {width} x {height} in the network, {speed.objects:.1f} objects a frame; on"
            f" {speed.machine}; {speed.threads} CPU threads"
        )
    return place, lines + resolution


def _signed(label: str, difference: float) -> str:
    return f"{label} ({HOTA.text(difference, sign=True)})"


def _resolution(table: PaperTable, rows: list[TableRow], noise: SeedNoise | None) -> list[str]:
    """The references of a table's differences, and the differences that its noise leaves."""
    found = {row.paper.label: row.comparison for row in rows if row.comparison}
    differences = {label: each.here for label, each in found.items() if each.here is not None}
    errors = {label: each.error for label, each in found.items() if each.error is not None}
    lines = []
    references = dict.fromkeys(f"*{table.rows[each.reference].label}*" for each in found.values())
    if references:
        lines.append(f"Δ HOTA: against {', '.join(references)}{' in turn' if len(references) > 1 else ''}")
    if errors:
        sequences = " to ".join(map(str, sorted({found[label].sequences for label in errors})))
        beyond = [_signed(label, differences[label]) for label, e in errors.items() if abs(differences[label]) > 2 * e]
        lines.append(
            f"Beyond 2 s.e. of {sequences} paired test sequences (noise of training not counted):"
            f" {'; '.join(beyond) or 'none'}"
        )
    if differences and noise:
        seeds = min(len(here.values) for row in rows if (here := row.here["HOTA"]))
        threshold = noise.threshold(seeds)
        beyond = [_signed(label, value) for label, value in differences.items() if abs(value) > threshold]
        count = "one seed" if seeds == 1 else f"{seeds} seeds"
        lines.append(
            f"Beyond the seed noise, {HOTA.text(threshold)} HOTA with {count} a row: {'; '.join(beyond) or 'none'}"
        )
    return lines
