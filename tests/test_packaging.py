from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_environment_yml_has_the_packages_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]
    wanted += project["optional-dependencies"]["test"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert sorted(line for line in pip if not line.startswith("--")) == sorted(wanted)


def test_every_package_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[<>=]", line)[0].lower() for line in wanted} <= pinned


def test_import_loads_no_pipeline_tool():
    code = (
        "import sys, fdta, fdta.cli, fdta.train.detector, fdta.train.tracker, fdta.track.run, fdta.evaluate.score, "
        "fdta.evaluate.speed, fdta.track.baselines, fdta.report.tables, fdta.report.mlflow_sync, fdta.report.figures, "
        "fdta.report.page\n"
        "late = ('mlflow', 'snakemake', 'dvc', 'matplotlib', 'trackeval', 'trackers', 'sklearn', 'jinja2')\n"
        "print([module for module in late if module in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_model_imports_only_what_lies_below_it():
    allowed = {"fdta.model", "fdta.settings", "fdta.names", "fdta.errors", "fdta.files", "fdta.depth", "fdta.boxes"}
    for path in (ROOT / "src/fdta/model").glob("*.py"):
        for module in re.findall(r"^\s*(?:from|import) (fdta\.\w+)", path.read_text(), re.MULTILINE):
            assert module in allowed, f"{path.name} imports {module}"
