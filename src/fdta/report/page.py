"""results/report.html: tables, figures, settings and machine on one page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import itertools
import json
import platform
import re
import struct
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fdta.errors import InputError
from fdta.experiment.paper import Paper, PaperTable, read_paper
from fdta.experiment.params import Experiment
from fdta.experiment.plan import BASE, FULL, figure_datasets, page_figures
from fdta.experiment.settings import Settings
from fdta.files import write_text
from fdta.machine import machine
from fdta.names import BASELINES
from fdta.report.measured import commit, read_json
from fdta.report.tables import (
    DASH,
    DEPTH_COSTS_TITLE,
    SIMILARITY_RANGES,
    SIMILARITY_TITLE,
    TITLES,
    Measured,
    Results,
    Row,
    best_cells,
    dataset_table,
    depth_costs,
    depth_costs_table,
    difference_cells,
    measurement_notes,
    noise_note,
    number,
    signed,
    similarities,
    similarity_table,
    table_notes,
    table_rows,
    table_title,
    text_of,
)
from fdta.settings import to_plain

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """One cell of a table that can be sorted."""

    text: str | Markup
    value: str | float = ""
    """What it is sorted by; empty sorts last."""
    style: str = ""


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    style: str = ""


@dataclass(frozen=True)
class Line:
    """One row; `cited`: not measured here."""

    cells: list[Cell]
    cited: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    name: str
    title: str
    place: Markup
    columns: list[Column]
    groups: list[tuple[str, list[Line]]]
    heads: list[tuple[str, int]] = field(default_factory=list)
    """Titles over several columns, and over how many."""
    notes: list[Markup] = field(default_factory=list)


def write_page(params: Experiment, root: Path, output: Path) -> None:
    """Write the page `output`, with the figures that lie in ``figures/`` beside it.

    Args:
        params: the benchmark and its tables.
        root: folder of scores/, models/ and results/speed/.
        output: HTML file, results/report.html.

    Raises:
        ParamsError: see `read_paper`.
        InputError: a file that is there cannot be read, or Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise InputError("Jinja is not installed; pip install jinja2") from None
    results, paper = Results(params, Path(root)), read_paper(params)
    header, rows = dataset_table(results)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        files("fdta.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    page = template.render(
        benchmark=params.benchmark,
        dash=DASH,
        glance=_glance(results),
        noise=marked(noise_note(results.seed_noise)),
        figures=[_figure(output.parent / "figures", name) for name in page_figures(params)],
        tables=[
            *(_table(results, paper, name) for name in params.tables),
            *_depth_costs_table(results, paper),
            _similarity_table(results, paper),
        ],
        datasets={"header": header, "rows": [[marked(cell or DASH) for cell in row] for row in rows]},
        notes=[marked(note) for note in measurement_notes(results)],
        commit=commit(results.root),
        machine=machine(),
        software=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        variants=_variants(params),
        settings=[(f"{dataset}/{FULL}", _yaml(params.settings(dataset, FULL))) for dataset in figure_datasets(params)],
    )
    write_text(output, page)


def marked(text: str) -> Markup:
    """The Markdown that our notes use (`code`, **strong**, *emphasis*) as HTML; everything else is plain text."""
    from markupsafe import Markup, escape

    html = str(escape(text))
    for pattern, tag in ((r"`([^`]+)`", "code"), (r"\*\*(.+?)\*\*", "strong"), (r"\*(\S[^*]*?)\*", "em")):
        html = re.sub(pattern, rf"<{tag}>\1</{tag}>", html)
    return Markup(html)


def _glance(results: Results) -> list[dict[str, str | int]]:
    """HOTA of the best baseline, base and full on each data set."""
    rows = []
    for dataset in figure_datasets(results.params):
        data = results.params.dataset(dataset)
        base, full = (results.measured(dataset, "", variant, "HOTA") for variant in (BASE, FULL))
        baselines = {method: results.measured(dataset, "", method, "HOTA") for method in BASELINES}
        best = max((found.mean, method) for method, found in (baselines | {"": Measured((0.0,))}).items() if found)
        difference = DASH
        if base and full:
            error, _ = results.difference_error(dataset, BASE, FULL)
            difference = signed(full.mean - base.mean) + (f" ± {error:.1f}" if error is not None else "")
        rows.append(
            {
                "dataset": dataset,
                "title": data.title,
                "sequences": data.splits[data.test_split],
                "baseline": f"{best[1]} {best[0]:.1f}" if best[1] else DASH,
                "base": number("HOTA", base),
                "full": number("HOTA", full),
                "difference": difference,
            }
        )
    return rows


def _figure(folder: Path, name: str) -> dict[str, Any]:
    """Picture and words of a figure; without data where it is not drawn."""
    path = folder / f"{name}.png"
    words = read_json(path.with_suffix(".json"))
    if words is None or not path.is_file():
        return {"name": name, "title": name, "data": None, "path": f"results/figures/{name}.png"}
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n" or not {"title", "caption", "alt"} <= set(words):
        raise InputError(f"{path}: no figure with its caption; remove it and draw it anew with `fdta figures`")
    width, height = struct.unpack(">II", data[16:24])
    return {
        "name": name,
        "title": words["title"],
        "caption": marked(words["caption"]),
        "alt": words["alt"],
        "width": width,
        "height": height,
        "data": base64.b64encode(data).decode(),
    }


def _table(results: Results, paper: Paper, name: str) -> Table:
    table = paper.tables[name]
    rows = table_rows(results, table, name)
    place, notes = table_notes(results, table, name, rows)
    columns, heads = [Column("method", "text"), Column("run", "text")], [("", 1), ("", 1)]
    for metric in table.metrics:
        columns += [Column("paper", "first"), Column("here"), Column("diff")]
        heads.append((TITLES.get(metric, metric), 3))
    if table.references:
        columns += [Column("paper", "first"), Column("here ± s.e.")]
        heads.append(("Δ HOTA", 2))
    best = best_cells(table, rows)
    groups = [
        (group, [_line(table, row, best) for row in members])
        for group, members in itertools.groupby(rows, key=lambda row: row.paper.group)
    ]
    return Table(
        name, table_title(results, name), marked(place), columns, groups, heads, [marked(note) for note in notes]
    )


def _line(table: PaperTable, row: Row, best: set[tuple[str, str]]) -> Line:
    name = row.paper.label
    cells = [
        Cell(name, name),
        Cell(marked(f"`{row.measured_by}`{row.mark}") if row.measured_by else "cited", row.measured_by or "", "text"),
    ]
    for metric in table.metrics:
        here, published = row.here[metric], row.paper.values[metric]
        cells.append(Cell(text_of(metric, published), "" if published is None else published, "paper first"))
        if here is None:
            cells += [Cell(DASH if row.measured_by else ""), Cell("")]
            continue
        cells.append(Cell(number(metric, here), here.mean, "best" if (row.key, metric) in best else ""))
        if published is None:
            cells.append(Cell(""))
        else:
            difference = here.mean - published
            text = text_of(metric, abs(difference))
            sign = "−" if difference < 0 else "+"  # noqa: RUF001
            cells.append(Cell(sign + text, difference, "paper"))
    if table.references:
        published, ours = difference_cells(row.difference)
        found = row.difference
        cells.append(Cell(published, "" if found is None or found.paper is None else found.paper, "paper first"))
        style = "" if found is None or found.here is None else "up" if found.here > 0 else "down"
        cells.append(Cell(ours, "" if found is None or found.here is None else found.here, style))
    return Line(cells, cited=row.measured_by is None)


def _depth_costs_table(results: Results, paper: Paper) -> list[Table]:
    """Nothing where no data set learns depth."""
    costs = depth_costs(results, paper)
    if not costs:
        return []
    text, header, rows = depth_costs_table(costs)
    numbers = [list(cost.values()) for cost in costs]
    lines = [
        Line([Cell(marked(cell), "" if value is None else value) for cell, value in zip(row, values, strict=False)])
        for row, values in zip(rows, numbers, strict=True)
    ]
    columns = [Column(title, "text") for title in header[:2]] + [Column(title) for title in header[2:]]
    return [Table("depth-cost", DEPTH_COSTS_TITLE, marked(text), columns, [("", lines)])]


def _similarity_table(results: Results, paper: Paper) -> Table:
    measured = similarities(results)
    text, header, rows = similarity_table(measured, paper.similarity_note)
    lines: dict[str, list[Line]] = {}
    for ((dataset, _), found), (_, run, *cells) in zip(measured.items(), rows, strict=True):
        values = [found[name].mean if name in found else "" for name in ("mean", *SIMILARITY_RANGES)]
        line = [Cell(marked(run), run), *(Cell(cell, value) for cell, value in zip(cells, values, strict=True))]
        lines.setdefault(dataset, []).append(Line(line))
    columns = [Column("run", "text"), *(Column(title) for title in header[2:])]
    return Table("similarity", SIMILARITY_TITLE, marked(text), columns, list(lines.items()))


def _variants(params: Experiment) -> list[tuple[str, Markup]]:
    """Each variant, and what it changes of the full model on the first data set that the figures show."""
    shown = figure_datasets(params) or tuple(params.benchmark.datasets)
    full = _flat(to_plain(params.settings(shown[0], FULL)))
    told = []
    for variant in params.variants:
        settings = _flat(to_plain(params.settings(shown[0], variant)))
        changes = [f"`{key}: {json.dumps(value)}`" for key, value in settings.items() if full[key] != value]
        told.append((variant, marked(", ".join(changes) or "nothing")))
    return told


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _yaml(settings: Settings) -> str:
    return yaml.safe_dump(to_plain(settings), sort_keys=False, default_flow_style=None, width=100)
