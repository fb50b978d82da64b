"""The whole workflow on the smoke benchmark, and what a user finds afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}
ENVIRONMENT.pop("MLFLOW_TRACKING_URI", None)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", "--directory", str(folder), "--snakefile", str(ROOT / "Snakefile")]
    command += [*arguments, "--config", "benchmark=smoke"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder in which the whole workflow ran once."""
    folder = tmp_path_factory.mktemp("smoke")
    result = snakemake(folder, "results/tables.md")
    logs = "\n".join(f"{path}:\n{path.read_text()[-600:]}" for path in sorted(folder.glob("logs/**/*.log")))
    assert result.returncode == 0, result.stderr[-4000:] + logs[-4000:]
    return folder


def test_every_table_is_written(workspace):
    text = (workspace / "results/tables.md").read_text()
    for number in range(1, 12):
        assert f"Table {number}" in text
        assert (workspace / f"results/tables/table-{number}.csv").is_file()
    assert (workspace / "results/tables/similarity.csv").is_file()
    assert "smoke" in text
    assert "numbers mean nothing" in text


def test_every_run_has_model_tracks_and_scores(workspace):
    models = list(workspace.glob("models/*/*/seed-*/model.pt"))
    assert len(models) == 27
    for model in models:
        run = model.parent.relative_to(workspace / "models")
        assert len(list((workspace / "tracks" / run / "test").glob("*.txt"))) == 2
        scores = json.loads((workspace / "scores" / run / "test.json").read_text())
        assert 0 <= scores["combined"]["HOTA"] <= 100
        assert not list(model.parent.glob("*resume*"))


def test_nothing_is_done_twice(workspace):
    result = snakemake(workspace, "-n", "results/tables.md")
    assert "Nothing to be done" in result.stdout + result.stderr


def test_a_missing_score_is_a_dash_and_comes_back(workspace, tmp_path):
    tables = workspace / "results/tables.md"
    before = tables.read_text()
    scores = workspace / "scores/smoke-dance/ta-ia/seed-0/test.json"
    shutil.move(scores, tmp_path / "test.json")
    command = ["fdta", "tables", "--benchmark", "smoke", "--params", str(ROOT / "params.yaml")]
    subprocess.run(command, cwd=workspace, check=True, env=ENVIRONMENT)
    assert tables.read_text() != before
    result = snakemake(workspace, "results/tables.md")
    assert result.returncode == 0, result.stderr[-4000:]
    assert json.loads(scores.read_text()) == json.loads((tmp_path / "test.json").read_text())
    assert tables.read_text() == before


def test_a_tracker_threshold_redoes_tracking_but_no_training(workspace):
    track = workspace / "settings/smoke-dance/sa/track.json"
    original = track.read_text()
    track.write_text(original.replace('"id_threshold": 0.2', '"id_threshold": 0.3'))
    try:
        # The Snakefile restores the settings of params.yaml, and so sees a changed file.
        result = snakemake(workspace, "-n", "results/tables.md")
    finally:
        track.write_text(original)
    text = result.stdout + result.stderr
    assert "tracks/smoke-dance/sa/seed-0/test/summary.json" in text
    assert "models/smoke-dance/sa/seed-0/model.pt\n    jobid" not in text


def test_mlflow_has_the_runs(workspace):
    code = (
        "import mlflow, sys\n"
        "mlflow.set_tracking_uri('sqlite:///mlflow.db')\n"
        "runs = mlflow.search_runs(search_all_experiments=True, output_format='list')\n"
        "names = {r.data.tags.get('variant') for r in runs}\n"
        "assert {'full', 'base', 'sa', 'ta', 'ia'} <= names, names\n"
        "assert any('HOTA' in key for key in runs[0].data.metrics) or len(runs) > 20\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=workspace, check=True, env=ENVIRONMENT)
