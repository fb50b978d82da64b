"""results/report.html: tables, figures, settings and machine on one page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import platform
import re
import struct
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FULL, figure_datasets, page_figures, table_baselines, table_inputs, table_runs
from fdta.files import write_text
from fdta.machine import machine
from fdta.provenance import RECORD, Record, Records, commit, described
from fdta.report.cells import Cell, Column, Difference, Missing, Number, Table, Text
from fdta.report.notes import measurement_notes, noise_note
from fdta.report.results import Results
from fdta.report.views import dataset_table, glance, tables
from fdta.settings import flat, read_json

if TYPE_CHECKING:
    from markupsafe import Markup


def write_page(params: Experiment, root: Path, output: Path) -> None:
    """Write the page `output`, with the figures in ``figures/`` next to it.

    Args:
        params: the benchmark and its tables.
        root: folder of scores/ and models/.
        output: HTML file, results/report.html.

    Raises:
        ParamsError: see `Results`.
        InputError: a file that is there cannot be read, or Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise InputError("Jinja is not installed; pip install jinja2") from None
    results = Results(params, root)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"marked": marked, "value": value, "heads": heads}
    environment.globals["style"] = style
    template = environment.from_string(files("fdta.report").joinpath("page.html").read_text(encoding="utf-8"))
    chains = _chains(params, root)
    page = template.render(
        benchmark=params.benchmark,
        rendered=any(data.render is not None for data in params.benchmark.datasets.values()),
        dash=Missing(),
        glance=glance(results),
        noise=noise_note(results.seed_noise),
        figures=[_figure(output.parent / "figures", name) for name in page_figures(params)],
        tables=[table for table in tables(results) if table.groups],
        datasets=dataset_table(results),
        notes=measurement_notes(results),
        commit=commit(results.root),
        span=_span(chains),
        machine=machine(),
        software=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        chains=chains,
        described=described,
        variants=_variants(params),
        settings={
            f"{dataset}/{FULL}": yaml.safe_dump(
                params.used_settings(dataset, FULL), sort_keys=False, default_flow_style=None, width=100
            )
            for dataset in figure_datasets(params)
        },
    )
    write_text(output, page)


def marked(text: object) -> Markup:
    """The Markdown that cells and notes use (`code`, **strong**, *emphasis*) as HTML; everything else is plain text."""
    from markupsafe import Markup, escape

    html = str(escape(str(text)))
    for pattern, tag in ((r"`([^`]+)`", "code"), (r"\*\*(.+?)\*\*", "strong"), (r"\*(\S[^*]*?)\*", "em")):
        html = re.sub(pattern, rf"<{tag}>\1</{tag}>", html)
    return Markup(html)


def value(cell: Cell) -> str | float:
    """What rows are sorted by; empty sorts last."""
    if isinstance(cell, Text):
        return cell.text if cell.sort is None else cell.sort
    return "" if isinstance(cell, Missing) else cell.value


def style(column: Column, cell: Cell) -> str:
    """CSS classes of a cell."""
    if column.paper:
        return "paper first"
    if isinstance(cell, Difference):
        better = (cell.value > 0) == cell.metric.higher_is_better
        return "paper" if column.page_only else "up" if better else "down"
    best = isinstance(cell, Number) and cell.best
    return "best" if best else "text" if column.text else ""


def heads(table: Table) -> list[tuple[str, int]]:
    """Headings over the columns, and over how many; none if no column has one."""
    found: list[tuple[str, int]] = []
    for column in table.columns:
        if column.group and found and found[-1][0] == column.group:
            found[-1] = column.group, found[-1][1] + 1
        else:
            found.append((column.group, 1))
    return found if any(title for title, _ in found) else []


def _figure(folder: Path, name: str) -> dict[str, Any]:
    """Picture, title, caption and alt text of a figure; without data where it is not drawn."""
    path = folder / f"{name}.png"
    words = read_json(dict[str, str], path.with_suffix(".json"))
    if words is None or not path.is_file():
        return {"name": name, "title": name, "data": None, "path": f"results/figures/{name}.png"}
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n" or not {"title", "caption", "alt"} <= words.keys():
        raise InputError(f"{path}: no figure with its caption; remove it and draw it again with `fdta figures`")
    width, height = struct.unpack(">II", data[16:24])
    return {"name": name, **words, "width": width, "height": height, "data": base64.b64encode(data).decode()}


def _chains(params: Experiment, root: Path) -> dict[str, dict[str, Record]]:
    """Each run of the tables, and further what they were made from -> path of a record -> the record."""
    records = Records(root)
    found: dict[str, dict[str, Record]] = {str(run): {} for run in (*table_runs(params), *table_baselines(params))}
    for path in table_inputs(params, Path()):
        for name, record in records.chain(f"{path.with_suffix('')}.{RECORD}").items():
            _, _, place = name.partition("/")
            run = "/".join(place.split("/")[:3])
            found.setdefault(run if run in found else "what they were made from", {})[name] = record
    return {run: chain for run, chain in found.items() if chain}


def _span(chains: dict[str, dict[str, Record]]) -> str:
    """When the results were made, and how long it took; empty if there is no record."""
    records = {path: record for chain in chains.values() for path, record in chain.items()}.values()
    if not records:
        return ""
    days = sorted(record.made[:10] for record in records)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    hours = sum(record.seconds for record in records) / 3600
    return f"{when}, {len(records)} results in {hours:.1f} hours, those of steps that ran side by side added up"


def _variants(params: Experiment) -> dict[str, str]:
    """Each variant, and what it changes of the full model on the first data set that the figures show."""
    shown = figure_datasets(params) or tuple(params.benchmark.datasets)
    full = flat(params.used_settings(shown[0], FULL))
    told = {}
    for variant in params.variants_of(shown[0]):
        settings = flat(params.used_settings(shown[0], variant))
        changes = [f"`{key}: {json.dumps(value)}`" for key, value in settings.items() if full[key] != value]
        told[variant] = ", ".join(changes) or "nothing"
    return told
