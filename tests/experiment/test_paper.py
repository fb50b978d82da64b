from __future__ import annotations

from pathlib import Path

import pytest

from fdta.experiment.paper import PaperTable, read_paper
from fdta.experiment.params import Experiment


@pytest.fixture(scope="module", params=["synthetic", "smoke", "paper"])
def tables(request: pytest.FixtureRequest, repository: Path) -> dict[str, PaperTable]:
    """With the project's own settings, whose rows must all exist."""
    return read_paper(Experiment(repository / "params.yaml", request.param)).tables


def test_all_tables_are_there_in_full(tables: dict[str, PaperTable]):
    numbers = {
        name: sum(value is not None for row in table.rows.values() for value in row.values.values())
        for name, table in tables.items()
    }
    scores = {1: 23 * 5 - 3, 2: 13 * 5, 3: 13 * 5, 4: 8 * 5, 5: 2 * 5, 6: 3 * 5, 7: 4 * 5, 9: 4 * 5, 10: 2 * 5}
    assert numbers == {f"table-{n}": count for n, count in (scores | {8: 12, 11: 8 * 4}).items()}


def test_numbers_that_stand_in_several_tables_agree(tables: dict[str, PaperTable]):
    def row(table: int, key: str) -> dict[str, float | None]:
        return tables[f"table-{table}"].rows[key].values

    assert row(1, "ours") == row(4, "full") == row(5, "with") == row(10, "with")
    assert row(4, "base") == row(6, "without-ta") == row(7, "none") == row(9, "none")
    assert (row(4, "sa"), row(4, "ta"), row(4, "ia")) == (row(9, "after"), row(6, "mask"), row(7, "cl-cfe-if"))
    for key, same in (("full-base", "base"), ("full-ta", "ta")):
        assert [row(11, key)[metric] for metric in ("HOTA", "IDF1")] == [
            row(4, same)[metric] for metric in ("HOTA", "IDF1")
        ]
    parts = [row(8, key) for key in ("detr", "sa", "ta", "id-prediction", "other")]
    assert sum(part["milliseconds"] for part in parts) == pytest.approx(row(8, "total")["milliseconds"], abs=0.011)
    assert sum(part["percent"] for part in parts) == pytest.approx(100, abs=0.11)


def test_differences_are_those_that_the_text_names(tables: dict[str, PaperTable]):
    def difference(table: int, key: str, metric: str) -> float:
        rows = tables[f"table-{table}"].rows
        reference = tables[f"table-{table}"].references[key]
        return round(rows[key].values[metric] - rows[reference].values[metric], 1)

    assert (difference(6, "zero-vector", "HOTA"), difference(6, "zero-vector", "IDF1")) == (-1.3, -2.9)
    assert (difference(7, "cl", "HOTA"), difference(7, "cl", "IDF1")) == (-1.0, -1.6)
    assert [difference(11, f"{length}-ta", "HOTA") for length in ("short", "medium", "long", "full")] == [
        0.7,
        0.6,
        0.9,
        1.0,
    ]
    assert [difference(11, f"{length}-ta", "IDF1") for length in ("short", "medium", "long", "full")] == [
        0.0,
        1.3,
        1.0,
        1.2,
    ]
    assert difference(9, "after", "HOTA") == 0.8 and difference(5, "with", "HOTA") == 0.4
