"""Tables as Markdown that also reads well as plain text."""

from __future__ import annotations

from fdta.report.cells import Cell, Number, Table


def section(table: Table) -> str:
    """Title, words, table and notes."""
    notes = ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n\n".join([f"## {table.title}", table.text, grid(table), *notes])


def grid(table: Table) -> str:
    """The table alone, whose columns line up."""
    shown = [index for index, column in enumerate(table.columns) if not column.page_only]
    columns = [table.columns[index] for index in shown]
    header = [column.heading for column in columns]
    left = [column.text for column in columns]
    lines = []
    for heading, rows in table.groups.items():
        if heading and not table.group_column:
            lines.append([f"*{heading}*"] + [""] * (len(shown) - 1))
        first = [f"`{heading}`"] if table.group_column else []
        lines += [first + [_text(row.cells[index]) for index in shown] for row in rows]
    if table.group_column:
        header, left = [table.group_column, *header], [True, *left]
    widths = [max(3, *(len(line[i]) for line in [header, *lines])) for i in range(len(header))]
    rule = ["-" * width if text else "-" * (width - 1) + ":" for width, text in zip(widths, left, strict=True)]
    aligned = [
        [cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(line, widths, left, strict=True)]
        for line in [header, *lines]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [aligned[0], rule, *aligned[1:]])


def _text(cell: Cell) -> str:
    return f"**{cell}**" if isinstance(cell, Number) and cell.best else str(cell)
