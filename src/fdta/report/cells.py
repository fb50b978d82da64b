"""A table as rows of typed cells. The writers decide how it looks: markdown.py, csv_files.py, page.py, console.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fdta.evaluate.metrics import Metric


@dataclass(frozen=True)
class Text:
    """Words, with the marks of Markdown: `code`, **strong**, *emphasis*."""

    text: str = ""
    sort: str | None = None
    """What rows are sorted by; None: the text."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Number:
    """A number, with its standard deviation over several seeds."""

    value: float
    metric: Metric
    spread: float | None = None
    best: bool = False
    """Whether it is marked as the best of its column."""
    signed = False

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.metric.text(self.spread)}"
        return self.metric.text(self.value, self.signed) + spread


class Difference(Number):
    """A difference of two numbers, with its standard error."""

    signed = True


class Missing:
    """A number that the paper does not give, or that is not measured yet."""

    def __str__(self) -> str:
        return "—"


Cell = Text | Number | Missing
Record = Mapping[str, str | float | None]
"""Column of a CSV file -> value."""


@dataclass(frozen=True)
class Column:
    """One column, and the heading (group) over it and its neighbours."""

    title: str
    group: str = ""
    text: bool = False
    """Whether it holds words, which are aligned left."""
    paper: bool = False
    """Whether its numbers are the paper's."""
    page_only: bool = False
    """Whether only the page, which has the room, shows it."""

    @property
    def heading(self) -> str:
        return f"{self.group} {self.title}".strip()


@dataclass(frozen=True)
class Row:
    """One row, for people and for programs."""

    cells: tuple[Cell, ...]
    record: Record = field(default_factory=dict)
    cited: bool = False
    """Whether its numbers are the paper's alone."""


@dataclass(frozen=True)
class Table:
    """One table, with a text above and notes below it."""

    columns: tuple[Column, ...]
    groups: dict[str, list[Row]]
    """Heading, which may be empty -> rows."""
    name: str = ""
    title: str = ""
    text: str = ""
    notes: tuple[str, ...] = ()
    group_column: str = ""
    """Title of the column in which Markdown shows the headings; empty: they are rows."""
