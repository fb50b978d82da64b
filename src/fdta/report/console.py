"""Tables as plain text, for the console."""

from __future__ import annotations

from tabulate import tabulate

from fdta.report.cells import Table


def console_text(table: Table) -> str:
    """The table alone, without headings of groups."""
    lines = [[str(cell) for cell in row.cells] for rows in table.groups.values() for row in rows]
    sides = ["left" if column.text else "right" for column in table.columns]
    heading = [column.heading for column in table.columns]
    return tabulate(lines, heading, "plain", colalign=sides, headersalign=sides, disable_numparse=True)
