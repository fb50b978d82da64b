"""What each table shows: rows of typed cells from the results, for every writer alike."""

from __future__ import annotations

import dataclasses

from fdta.evaluate.metrics import HOTA, METRICS, Metric
from fdta.experiment.plan import BASE, FULL, figure_datasets, table_runs
from fdta.names import BASELINES, DETECTOR
from fdta.report.cells import Cell, Column, Difference, Missing, Number, Row, Table, Text
from fdta.report.notes import table_notes
from fdta.report.results import SIMILARITY_RANGES, DepthCost, Measured, Results, TableRow


def tables(results: Results) -> list[Table]:
    """The paper's tables, then pseudo depth, then the similarities."""
    papers = (paper_table(results, name) for name in results.params.tables)
    return [*papers, depth_table(results.depth_costs()), similarity_table(results)]


def paper_table(results: Results, name: str) -> Table:
    """The table `name` of the paper with our numbers."""
    table, rows = results.paper.tables[name], results.table_rows(name)
    settings = results.params.tables[name]
    dataset = results.benchmark.dataset_of(settings.dataset)
    # A difference from the paper's number says something on the paper's data alone.
    same_data = dataset is not None and results.params.dataset(dataset).render is None
    metrics = [METRICS[metric] for metric in table.metrics]
    columns = [Column("", text=True), Column("run", text=True)]
    for metric in metrics:
        columns += [Column("paper", metric.label, paper=True), Column("here", metric.label)]
        if same_data:
            columns.append(Column("diff", metric.label, page_only=True))
        if metric is HOTA and table.references:
            columns += [Column("paper", "Δ HOTA", paper=True), Column("here ± s.e.", "Δ HOTA")]
    best = _best(metrics, rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        made = _paper_row(row, metrics, best, same_data, bool(table.references))
        groups.setdefault(row.paper.group, []).append(made)
    data = [results.params.dataset(dataset).title] if dataset else []
    data += [f"paper: {settings.dataset}"] if settings.dataset not in (dataset, *data) else []
    title = f"{name.capitalize().replace('-', ' ')} ({'; '.join(data)}): {settings.title}"
    place, notes = table_notes(results, name, rows)
    return Table(tuple(columns), groups, name, title, place, tuple(notes))


def depth_table(costs: list[DepthCost]) -> Table:
    """What pseudo depth costs."""
    metrics = [METRICS[name] for name in ("hours_paper", "hours_here", "gigabytes_paper", "gigabytes_here")]
    rows = []
    for cost in costs:
        numbers = [_number(getattr(cost, metric.name), metric) for metric in metrics]
        name = Text(f"`{cost.dataset}`", cost.dataset)
        cells = name, Text(cost.teacher), *numbers, Number(cost.sequences, METRICS["sequences"])
        rows.append(Row(cells, dataclasses.asdict(cost)))
    text = (
        "Hours and disk of the training split's depth maps, made once. The paper's: Video Depth Anything on an H200;"
        " the teacher `rendered` only writes the depth that the renderer knows."
    )
    if any(cost.own_maps for cost in costs):
        text += " Sequences whose maps were brought along count for the disk alone."
    columns = [Column("data set", text=True), Column("teacher", text=True)]
    columns += [Column(metric.label) for metric in (*metrics, METRICS["sequences"])]
    return Table(tuple(columns), {"": rows} if rows else {}, "depth-cost", "D.1.1: Cost of pseudo depth", text)


def similarity_table(results: Results) -> Table:
    """How alike the object embeddings of one frame are."""
    columns = {"mean": METRICS["mean"], **dict.fromkeys(SIMILARITY_RANGES, METRICS["percent"])}
    groups: dict[str, list[Row]] = {}
    for (dataset, variant), found in results.similarities().items():
        name = Text("detector alone" if variant == DETECTOR else f"`{variant}`")
        cells = [_number(found.get(column), metric) for column, metric in columns.items()]
        record: dict[str, str | float | None] = {"dataset": dataset, "variant": variant}
        for column in columns:
            value = found.get(column)
            record[column] = value.mean if value else None
            record[f"{column} seed deviation"] = value.deviation if value else None
        groups.setdefault(dataset, []).append(Row((name, *cells), record))
    text = (
        "Cosine similarity of the object embeddings of one frame, over all pairs of detections above the tracker's"
        " threshold on the test split: mean, and share of the pairs in per cent by range. The embeddings are the"
        " decoder's output, so that SA and IA may change them, TA only by what it made the detector learn. "
        + results.paper.similarity_note
    )
    title = "Similarity between objects (the statistic of Fig. 1)"
    shown = (Column("run", text=True), *map(Column, columns))
    return Table(shown, groups, "similarity", title, text, group_column="data set")


def dataset_table(results: Results) -> Table:
    """The data sets of the benchmark."""
    params = results.params
    titles = ("data set", "what it is", "beside the paper's", "split", "sequences", "frames", "detector starts from")
    rows = []
    for name in dict.fromkeys(run.dataset for run in table_runs(params)):
        data = params.dataset(name)
        start = f"`{data.detector_start}`" if data.detector_start else "random weights"
        if data.weights:
            start = "not trained: published checkpoints"
        if data.detector_start in results.benchmark.datasets:
            loss = params.settings(data.detector_start, DETECTOR).loss
            start += " (attribute pre-training)" if loss.attributes else ""
        counterpart = Text(data.counterpart) if data.counterpart else Missing()
        sequences = Number(data.splits[data.test_split], METRICS["sequences"])
        frames = _number(results.frames(name) or None, METRICS["frames"])
        names = Text(f"`{name}`"), Text(data.title), counterpart, Text(data.test_split)
        rows.append(Row((*names, sequences, frames, Text(start))))
    numeric = (METRICS["sequences"].label, METRICS["frames"].label)
    return Table(tuple(Column(title, text=title not in numeric) for title in titles), {"": rows})


def glance(results: Results) -> list[Row]:
    """HOTA of the best baseline, base and full on each data set."""
    rows = []
    for dataset in figure_datasets(results.params):
        data = results.params.dataset(dataset)
        base, full = (results.score(dataset, variant, HOTA.name) for variant in (BASE, FULL))
        scored = [(found.mean, name) for name in BASELINES if (found := results.score(dataset, name, HOTA.name))]
        mean, name = max(scored, default=(0.0, ""))
        difference: Cell = Missing()
        if base and full:
            error, _ = results.difference_error(dataset, BASE, FULL)
            difference = Difference(full.mean - base.mean, HOTA, error)
        cells = Text(f"`{dataset}` {data.title}"), Number(data.splits[data.test_split], METRICS["sequences"])
        best = Text(f"{name} {HOTA.text(mean)}") if name else Missing()
        rows.append(Row((*cells, best, _number(base, HOTA), _number(full, HOTA), difference)))
    return rows


def _paper_row(
    row: TableRow, metrics: list[Metric], best: set[tuple[str, str]], same_data: bool, compared: bool
) -> Row:
    mark = " †" if row.by_server else " ‡" if row.awaits_server else ""
    run = Text(f"`{row.measured_by}`{mark}", row.measured_by) if row.measured_by else Text("cited", "")
    cells: list[Cell] = [Text(row.paper.label), run]
    record: dict[str, str | float | None] = {
        "row": row.key,
        "label": row.paper.label,
        "group": row.paper.group,
        "dataset": row.dataset,
        "measured_by": row.measured_by or "cited",
        "scored_on": row.scored_on,
        "scored_by": ("server" if row.by_server else "TrackEval") if row.scored_on else None,
    }
    for metric in metrics:
        name, paper, here = metric.name, row.paper.values[metric.name], row.here[metric.name]
        cells.append(_number(paper, metric))
        cells.append(_number(here, metric, (row.key, name) in best) if row.measured_by else Text())
        if same_data:
            cells.append(Text() if here is None or paper is None else Difference(here.mean - paper, metric))
        if metric is HOTA and compared:
            cells += _comparison(row)
        record[f"{name}_paper"], record[f"{name}_here"] = paper, here.mean if here else None
        record[f"{name}_seeds"] = len(here.values) if here else None
        record[f"{name}_seed_deviation"] = here.deviation if here else None
    if compared:
        found = row.comparison
        names = ("reference", *(f"HOTA_difference_{what}" for what in ("paper", "here", "standard_error")))
        values = dataclasses.astuple(found) if found else (None,) * 5
        record |= zip((*names, "paired_sequences"), values, strict=True)
    return Row(tuple(cells), record, cited=row.measured_by is None)


def _comparison(row: TableRow) -> list[Cell]:
    """The paper's difference of HOTA from the row's reference, and ours."""
    if row.comparison is None:
        return [Text(), Text()]
    here, error = row.comparison.here, row.comparison.error
    numbers = ((row.comparison.paper, None), (here, error))
    return [Missing() if value is None else Difference(value, HOTA, deviation) for value, deviation in numbers]


def _number(value: Measured | float | None, metric: Metric, best: bool = False) -> Number | Missing:
    if isinstance(value, Measured):
        return Number(value.mean, metric, value.deviation, best)
    return Missing() if value is None else Number(value, metric, best=best)


def _best(metrics: list[Metric], rows: list[TableRow]) -> set[tuple[str, str]]:
    """(row, metric) of the highest scores, where there are different ones; rows trained on the test split stay out, and
    the others once a server scored one."""
    compared = [row for row in rows if not row.trained_on_test]
    compared = [row for row in compared if row.by_server] or compared
    best = set()
    for metric in metrics:
        means = {row.key: found.mean for row in compared if (found := row.here[metric.name])}
        if metric.higher_is_better and len(set(means.values())) > 1:
            best |= {(key, metric.name) for key, mean in means.items() if mean == max(means.values())}
    return best
