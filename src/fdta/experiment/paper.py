"""The paper's own numbers (paper.yaml), with the rows that params.yaml adds to its tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fdta.experiment.params import Experiment
from fdta.settings import ParamsError, read_yaml

COMPARED = ("HOTA", "IDF1", "AssA", "MOTA", "DetA")
"""The scores that the paper compares trackers by."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table."""

    label: str
    group: str
    """The paper's heading over it; empty where there is none."""
    values: dict[str, float | None]
    """Metric -> the paper's number; None: a dash, or a row that the paper does not have."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    metrics: tuple[str, ...]
    rows: dict[str, PaperRow]
    """By the keys that params.yaml uses (``tables.TABLE.rows``), in the paper's order."""
    references: dict[str, str]
    """Row -> the row that its difference is taken to."""
    notes: tuple[str, ...]
    trained_notes: tuple[str, ...] = ()
    """Further ones, for rows that are trained here and not made from published checkpoints."""

    @property
    def scored(self) -> bool:
        """Whether it shows scores, and not the speed alone."""
        return not set(COMPARED).isdisjoint(self.metrics)


@dataclass(frozen=True)
class Paper:
    """What the paper reports."""

    tables: dict[str, PaperTable]
    depth_costs: dict[str, dict[str, float]]
    """Data set -> hours and gigabytes of its pseudo depth (D.1.1)."""
    similarity_note: str
    """What it says of Fig. 1, which has no table."""


def read_paper(params: Experiment) -> Paper:
    """The paper's tables with the rows that `params` adds to them, and its tables of data sets that the paper lacks.

    Raises:
        ParamsError: ``tables`` of params.yaml names a table or row that does not exist.
    """
    raw = _shipped()
    for name, settings in params.tables.items():
        if name not in raw["tables"]:
            if settings.dataset in params.all_datasets:
                continue
            raise ParamsError(
                f"{params.path}: tables.{name}: no such table in the paper; there are"
                f" {', '.join(raw['tables'])}. A table of your own shows a data set of a benchmark, but there is no"
                f" {settings.dataset!r}"
            )
        known = [key for group in raw["tables"][name]["groups"] for key in group["rows"]] + list(raw["measured_only"])
        for key in settings.rows:
            if key not in known:
                raise ParamsError(f"{params.path}: tables.{name}.rows.{key}: no such row; there are {', '.join(known)}")
    tables = {}
    for name, table in raw["tables"].items():
        wanted = params.tables[name].rows if name in params.tables else {}
        tables[name] = _table(table, {key: label for key, label in raw["measured_only"].items() if key in wanted})
    for name, settings in params.tables.items():
        if name not in tables:
            rows = {key: PaperRow(key, "", dict.fromkeys(COMPARED)) for key in settings.rows}
            tables[name] = PaperTable(COMPARED, rows, {}, ())
    return Paper(tables, raw["depth_costs"], raw["similarity_note"])


@cache
def _shipped() -> dict[str, Any]:
    return read_yaml(Path(__file__).with_name("paper.yaml"))


def _table(raw: dict[str, Any], added: dict[str, str]) -> PaperTable:
    """Table from its YAML; `added` (key -> label) closes its first group, except for the rows that it has anyway."""
    metrics = tuple(raw["metrics"])
    rows: dict[str, PaperRow] = {}
    in_paper = {key for group in raw["groups"] for key in group["rows"]}
    for group in raw["groups"]:
        title = group.get("title", "")
        for key, row in group["rows"].items():
            rows[key] = PaperRow(row["label"], title, dict(zip(metrics, row["values"], strict=True)))
        for key, label in added.items():
            if key not in in_paper and key not in rows:
                rows[key] = PaperRow(label, title, dict.fromkeys(metrics))
    reference = raw.get("reference", {})
    if isinstance(reference, str):
        reference = {key: reference for key in rows if key != reference}
    return PaperTable(metrics, rows, reference, tuple(raw.get("notes", ())), tuple(raw.get("trained_notes", ())))
