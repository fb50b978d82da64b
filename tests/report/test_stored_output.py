"""The tables and the page of the small project are, byte by byte, those in tests/golden/report.

If a change of the output is intended, write the files again and look at their difference:
``PYTHONPATH=tests python tests/report/test_stored_output.py``.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

import pytest
from helpers.finished_project import HOTA, PARAMS, write_project, write_scores

from fdta.experiment.params import Experiment
from fdta.machine import machine
from fdta.report.page import write_page
from fdta.report.tables import write_tables

pytest.importorskip("jinja2")

STORED = Path(__file__).parents[1] / "golden" / "report"
SOFTWARE = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def written(folder: Path) -> dict[str, str]:
    """Everything that `fdta tables` and `fdta report` write, by file name; of the page the part about the results.

    The project has a second seed (seed noise), a run scored in part and a missing score.
    """
    root, results = folder / "project", folder / "project" / "results"
    write_project(root)
    write_scores(root, "base", (47.0, 61.5, 63.0), seed=1)
    write_scores(root, "ta", HOTA["ta"][:2])
    (root / "scores/dance/short-ta/seed-0/test.json").unlink()
    (folder / "params.yaml").write_text(PARAMS)
    params = Experiment(folder / "params.yaml")
    write_tables(params, root, results / "tables.md")
    write_page(params, root, results / "report.html")
    files = {path.name: path.read_text() for path in [*results.glob("*.*"), *results.glob("tables/*")]}
    # The settings on the page change with every new setting, the head with every change of its looks.
    files["report.html"] = files["report.html"].partition("<main>")[2].partition('<section id="settings"')[0]
    return {
        name: text.replace(machine(), "MACHINE").replace(SOFTWARE, "SOFTWARE") for name, text in sorted(files.items())
    }


def test_output_is_that_stored(tmp_path: Path):
    assert written(tmp_path) == {path.name: path.read_text() for path in STORED.iterdir()}


if __name__ == "__main__":
    STORED.mkdir(exist_ok=True)
    for old in STORED.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        for name, text in written(Path(temporary)).items():
            (STORED / name).write_text(text)
