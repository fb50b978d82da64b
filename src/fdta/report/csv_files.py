"""Tables as CSV, for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from fdta.report.cells import Record


def csv_text(records: Sequence[Record]) -> str:
    """One line per record, under the columns of the first; numbers with four decimals, None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()})
    return text.getvalue()
