"""results/tables.md for people, results/tables/*.csv for programs, and what DVC shows.

Everything comes from files of the runs (`fdta.experiment.plan.table_inputs`); an absent file makes its cells a dash.
"""

from __future__ import annotations

from pathlib import Path

from fdta.experiment.params import Experiment
from fdta.experiment.plan import METRICS, TRAINING_CURVES
from fdta.files import write_json, write_text
from fdta.machine import machine
from fdta.provenance import commit
from fdta.report import markdown
from fdta.report.cells import Missing
from fdta.report.csv_files import csv_text
from fdta.report.notes import measurement_notes
from fdta.report.results import Results
from fdta.report.views import dataset_table, tables


def write_tables(params: Experiment, root: Path, output: Path) -> None:
    """Write `output`, and next to it ``tables/TABLE.csv``, and for DVC ``metrics.json`` and ``training.csv``.

    Args:
        params: the benchmark and its tables.
        root: folder of scores/ and models/.
        output: Markdown file, results/tables.md.

    Raises:
        ParamsError: see `Results`.
        InputError: a file that is there cannot be read.
    """
    results = Results(params, root)
    written = tables(results)
    for table in written:
        records = [row.record for rows in table.groups.values() for row in rows]
        write_text(output.parent / "tables" / f"{table.name}.csv", csv_text(records))
    write_json(output.with_name(METRICS.name), results.metrics())
    curves = [{"epoch": epoch, **losses} for epoch, losses in results.training_curves().items()]
    # A benchmark that trains nothing has the column alone.
    write_text(output.with_name(TRAINING_CURVES.name), csv_text(curves) if curves else "epoch\n")
    sections = [_introduction(results), *(markdown.section(table) for table in written if table.groups)]
    write_text(output, "\n\n".join(sections) + "\n")


def _introduction(results: Results) -> str:
    benchmark = results.benchmark
    legend = (
        "`paper` is the paper's number, on its data set; `here` was measured by the run in the column `run`; rows"
        f" marked `cited` are not run here. {Missing()}: not given by the paper, or not measured yet."
        " Bold: the highest measured in its column, resolved or not."
    )
    written = f"Commit {commit(results.root)}; page written on {machine()}."
    lines = [f"- {line}" for line in (legend, *measurement_notes(results), written)]
    title = f"# The paper's tables, measured on the benchmark `{benchmark.name}`"
    return "\n".join([title, "", f"> {benchmark.note}", "", *lines, "", markdown.grid(dataset_table(results))])
