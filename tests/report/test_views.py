from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fdta.errors import InputError
from fdta.evaluate.metrics import HOTA, METRICS, SCORES
from fdta.experiment.params import Experiment
from fdta.experiment.plan import speed_path
from fdta.report.cells import Column, Difference, Missing, Number, Row, Table, Text
from fdta.report.console import console_text
from fdta.report.csv_files import csv_text
from fdta.report.markdown import grid, section
from fdta.report.results import Epoch, Results, Similarity, StepRecord, read_history
from fdta.report.views import paper_table, tables
from fdta.settings import read_json

TABLE = Table(
    (Column("", text=True), Column("paper", "HOTA", paper=True), Column("diff", "HOTA", page_only=True)),
    {
        "first": [Row((Text("`a`"), Number(71.25, HOTA, 0.5, best=True), Difference(-1.0, HOTA)))],
        "": [Row((Text("b"), Missing(), Text()))],
    },
    title="A table",
    text="Words.",
    notes=("a note",),
)


def test_a_number_has_the_decimals_of_its_metric():
    assert HOTA.text(71.25) == "71.2" and METRICS["milliseconds"].text(6.667) == "6.67"
    hours = METRICS["hours_per_epoch"]
    assert (hours.text(1.04), hours.text(0.0051), METRICS["hours_here"].text(0.5)) == ("1.0", "0.0051", "0.50")
    assert (METRICS["hours_here"].text(12.34), METRICS["gigabytes_here"].text(123.4)) == ("12.3", "123.4")
    assert str(Number(-3.14, HOTA, 0.26)) == "−3.1 ± 0.3"  # noqa: RUF001
    assert str(Difference(-3.14, HOTA, 0.26)) == "−3.1 ± 0.3"  # noqa: RUF001
    assert str(Difference(0.0, HOTA)) == "+0.0" and str(Missing()) == "—"


def test_markdown_lines_up():
    assert grid(TABLE).splitlines() == [
        "|         |     HOTA paper |",
        "| ------- | -------------: |",
        "| *first* |                |",
        "| `a`     | **71.2 ± 0.5** |",
        "| b       |              — |",
    ]
    assert section(TABLE).startswith("## A table\n\nWords.\n\n|") and section(TABLE).endswith("\n\n- a note")


def test_the_console_lines_up():
    lines = console_text(TABLE).splitlines()
    assert [line.split() for line in lines[1:]] == [["`a`", "71.2", "±", "0.5", "−1.0"], ["b", "—"]]  # noqa: RUF001
    assert len({len(line) for line in lines[:2]}) == 1


def test_csv_leaves_out_what_is_missing():
    assert csv_text([{"a": 1 / 3, "b": None}, {"a": 2, "b": "x"}]) == "a,b\n0.3333,\n2,x\n"
    assert csv_text([]) == "\n"


def test_every_metric_of_the_paper_is_listed(params: Experiment, root: Path):
    paper = Results(params, root).paper
    assert {metric for table in paper.tables.values() for metric in table.metrics} <= METRICS.keys()
    assert [metric.name for metric in SCORES] == ["HOTA", "IDF1", "AssA", "MOTA", "DetA"]


def test_cells_of_a_row(params: Experiment, root: Path):
    table = paper_table(Results(params, root), "table-4")
    rows = {str(row.cells[0]): row for rows in table.groups.values() for row in rows}
    full, cited = rows["SA + TA + IA"], rows["SA"]
    assert full.cells[1:4] == (Text("`full`", "full"), Number(71.7, HOTA), Number(61.0, HOTA, best=True))
    assert [str(cell) for cell in full.cells[4:6]] == ["+2.3", "+3.0 ± 1.0"]
    assert full.record["HOTA_here"] == 61.0 and full.record["reference"] == "base"
    assert cited.cited and cited.cells[3] == Text() and cited.record["HOTA_here"] is None
    assert [len(row.cells) for row in rows.values()] == [len(table.columns)] * len(rows)


def test_titles_tell_whose_data_and_differences_are_of_the_same_data(
    params: Experiment, changed_params: Callable[..., Experiment], root: Path
):
    rendered = paper_table(Results(params, root), "table-4")
    assert rendered.title == "Table 4 (made dancers; paper: DanceTrack): Adapters"
    assert not any(column.title == "diff" for column in rendered.columns)
    assert paper_table(Results(params, root), "table-3").title == "Table 3 (paper: BFT): Comparison"
    splits = "{train: {sequences: 1}, val: {sequences: 1}, test: {sequences: 3}}"
    real = f"catalogue: {{datasets: {{r: {{title: real, licence: none, folder: f, splits: {splits}}}}}}}\n"
    changed = changed_params(
        ("benchmark: tiny\n", real + "benchmark: tiny\n"),
        ("splits: {train: 2, val: 1, test: 3}\n        render: {scene: dance, frames: 10}", "source: r"),
        ("title: made dancers", "title: DanceTrack"),
    )
    table = paper_table(Results(changed, root), "table-4")
    assert table.title == "Table 4 (DanceTrack): Adapters"
    (full,) = (row for row in table.groups[""] if str(row.cells[0]) == "SA + TA + IA")
    place = [(column.group, column.title) for column in table.columns].index(("HOTA", "diff"))
    assert full.cells[place] == Difference(61.0 - 71.7, HOTA)
    assert [len(row.cells) for row in table.groups[""]] == [len(table.columns)] * len(table.groups[""])


def test_dvc_plots_columns_that_are_there(params: Experiment, root: Path):
    table = paper_table(Results(params, root), "table-4")
    columns = table.groups[""][0].record.keys()
    for plot in yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["plots"]:
        for path, chart in plot.items():
            if path.startswith("results/tables/"):
                assert chart["x"] == f"{HOTA.name}_here" and {chart["x"], chart["y"]} <= columns


def test_tables_have_different_names(params: Experiment, root: Path):
    names = [table.name for table in tables(Results(params, root))]
    assert names == [*params.tables, "depth-cost", "similarity"]


def test_files_are_read_as_typed_values(root: Path):
    history = root / "models/dance/full/seed-0/history.jsonl"
    records = read_history(history)
    assert [type(record) for record in records[:3]] == [StepRecord, StepRecord, Epoch]
    found = read_json(Similarity, root / "scores/dance/full/seed-0/test-similarity.json")
    assert found is not None and (found.high, found.percent(0.9, 1.0)) == (0.25, 25.0)
    assert read_history(root / "none") == [] and read_json(Similarity, root / "none") is None


def test_a_wrong_value_is_named(params: Experiment, root: Path):
    speed = speed_path(root, "dance")
    speed.write_text(json.dumps(json.loads(speed.read_text()) | {"threads": "two"}))
    with pytest.raises(InputError, match=r"\.json: threads: must be a whole number, not 'two'"):
        paper_table(Results(params, root), "table-8")
    history = root / "models/dance/full/seed-0/history.jsonl"
    history.write_text(history.read_text() + '{"kind": "step", "step": 5}\n')
    with pytest.raises(InputError, match=r"history\.jsonl:7: no record of a training"):
        read_history(history)
