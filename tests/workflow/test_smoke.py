"""The whole workflow on the smoke benchmark, and what a user finds afterwards."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fdta.cli import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}
ENVIRONMENT.pop("MLFLOW_TRACKING_URI", None)


def snakemake(
    folder: Path, *arguments: str, params: Path = ROOT / "params.yaml", benchmark: str = "smoke"
) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", "--directory", str(folder), "--snakefile", str(ROOT / "Snakefile")]
    command += [*arguments, "--config", f"benchmark={benchmark}", f"params={params}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)


def has_nothing_to_do(result: subprocess.CompletedProcess[str]) -> bool:
    return "Nothing to be done" in result.stdout + result.stderr


def planned(workspace: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, set[str]]:
    """What would run again after a change of params.yaml: rule -> the runs (or data sets) it would run for."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(raw)
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(raw, sort_keys=False))
    result = snakemake(workspace, "results/report.html", "-n", "--quiet", "host", params=params)
    assert result.returncode == 0, result.stderr[-2000:]
    jobs: dict[str, set[str]] = {}
    for rule, block in re.findall(r"rule (\w+):\n((?: +.*\n)+)", result.stdout + result.stderr):
        wildcards = dict(re.findall(r"(\w+)=([\w-]+)", block.partition("wildcards:")[2].partition("\n")[0]))
        rule = "figure" if rule.startswith("figure_") else rule
        name = wildcards.get("variant") or wildcards.get("method") or wildcards.get("name", "")
        jobs.setdefault(rule, set()).add("/".join(filter(None, [wildcards.get("dataset"), name])))
    return jobs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder in which the whole workflow ran once."""
    folder = tmp_path_factory.mktemp("smoke")
    result = snakemake(folder, "results/report.html")
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
    speed = text.partition("## Table 8")[2].partition("## Table 9")[0]
    assert "—" not in speed.replace("by component", "")
    assert "numbers mean nothing" in text


def test_the_page_has_every_table_and_figure_and_loads_nothing(workspace):
    text = (workspace / "results/report.html").read_text()
    for name in [*(f"table-{number}" for number in range(1, 12)), "similarity"]:
        assert f'<section id="{name}"' in text
    figures = {path.stem for path in (workspace / "results/figures").glob("*.png")}
    assert len(figures) == 9 and "tracks-smoke-flock" in figures
    assert set(re.findall(r'<figure id="figure-([\w-]+)"', text)) == figures
    assert text.count("data:image/png;base64,") == 9 and "Not drawn yet" not in text
    assert not re.search(r"https?://|url\(|@import|<link", text)


def test_figures_are_the_same_when_drawn_again(workspace, tmp_path):
    output = tmp_path / "interactions.png"
    command = ["fdta", "figures", "interactions", "--output", str(output), "--benchmark", "smoke"]
    subprocess.run([*command, "--params", str(ROOT / "params.yaml")], cwd=workspace, check=True, env=ENVIRONMENT)
    assert output.read_bytes() == (workspace / "results/figures/interactions.png").read_bytes()


def test_every_run_has_model_tracks_and_scores(workspace):
    models = list(workspace.glob("models/*/*/seed-*/model.pt"))
    assert len(models) == 27
    for model in models:
        run = model.parent.relative_to(workspace / "models")
        assert len(list((workspace / "tracks" / run / "test").glob("*.txt"))) == 2
        scores = json.loads((workspace / "scores" / run / "test.json").read_text())
        assert 0 <= scores["combined"]["HOTA"] <= 100
        assert not list(model.parent.glob("*resume*"))


def test_time_and_memory_of_every_result(workspace, tmp_path, capsys):
    output = tmp_path / "costs.json"
    command = ["bench", "workflow", "--root", str(workspace), "--benchmark", "smoke", "--output", str(output)]
    assert main([*command, "--params", str(ROOT / "params.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"train", "render", "all"} <= {line.split()[0] for line in lines if line}
    found = json.loads(output.read_text())
    trained = [cost for cost in found["results"].values() if cost["kind"] == "train"]
    assert len(trained) == found["kinds"]["train"][0] and all(cost["peak_mebibytes"] > 100 for cost in trained)
    assert all(cost["processor_seconds"] > 0 for cost in found["results"].values())


def test_nothing_is_done_twice(workspace):
    result = snakemake(workspace, "-n", "results/tables.md", "results/report.html")
    assert has_nothing_to_do(result)


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


def test_a_comment_redoes_nothing(workspace, tmp_path):
    assert planned(workspace, tmp_path, lambda raw: None) == {}


def test_a_tracker_threshold_redoes_tracking_but_no_training(workspace, tmp_path):
    def change(raw: dict[str, Any]) -> None:
        raw["variants"]["sa"]["tracker.id_threshold"] = 0.3

    jobs = planned(workspace, tmp_path, change)
    assert jobs["track"] == jobs["similarity"] == {"smoke-dance/sa"}
    assert jobs["score"] == {"smoke-dance/sa"} and set(jobs) == {"track", "similarity", "score", "tables", "report"}


def test_a_variants_setting_redoes_that_variant(workspace, tmp_path):
    def change(raw: dict[str, Any]) -> None:
        raw["variants"]["no-foreground-weight"]["loss.foreground_weight"] = 2.0

    jobs = planned(workspace, tmp_path, change)
    assert jobs["train"] == jobs["track"] == jobs["score"] == {"smoke-dance/no-foreground-weight"}
    assert not {"render", "depth", "train_detector", "baseline", "figure"} & set(jobs)


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


@pytest.fixture
def copy(workspace, tmp_path):
    """A copy of the finished workspace, to be changed; its files have other times, as in any copy."""
    folder = tmp_path / "copy"
    shutil.copytree(
        workspace,
        folder,
        ignore=shutil.ignore_patterns("mlartifacts", "mlflow.db", ".snakemake"),
        copy_function=shutil.copy,
    )
    return folder


def params_with(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(raw)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def record(folder: Path, path: str) -> dict[str, Any]:
    return json.loads((folder / path).read_text())


def test_a_copy_without_times_and_metadata_has_nothing_to_do(copy):
    assert has_nothing_to_do(snakemake(copy, "-n", "results/report.html"))


def test_a_dry_run_writes_nothing(copy, tmp_path):
    def files() -> dict[str, int]:
        paths = [path for path in copy.rglob("*") if ".snakemake" not in path.parts]
        return {str(path.relative_to(copy)): path.stat().st_mtime_ns for path in paths}

    before = files()
    params = params_with(tmp_path / "params.yaml", lambda raw: raw["variants"]["sa"].update({"history": 4}))
    assert snakemake(copy, "-n", "results/report.html", params=params).returncode == 0
    assert files() == before


def test_params_edited_while_jobs_wait_change_nothing(copy, tmp_path):
    def with_rate(rate: float) -> Callable[[dict[str, Any]], None]:
        def change(raw: dict[str, Any]) -> None:
            for name in ("sa", "ta"):
                raw["variants"][name]["training.learning_rate"] = rate

        return change

    params = params_with(tmp_path / "params.yaml", with_rate(2e-4))
    runs = [f"models/smoke-dance/{name}/seed-0" for name in ("sa", "ta")]
    targets = [f"{run}/model.pt" for run in runs]
    shutil.rmtree(copy / "logs")
    command = ["snakemake", "--cores", "1", "--directory", str(copy), "--snakefile", str(ROOT / "Snakefile"), *targets]
    command += ["--config", "benchmark=smoke", f"params={params}"]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as running:
        while not list(copy.glob("logs/train/**/*.log")) and running.poll() is None:
            time.sleep(0.02)
        params_with(params, with_rate(3e-4))
        told = running.communicate()[1]
    assert running.returncode == 0, told[-2000:]
    for run in runs:
        assert record(copy, f"{run}/record.json")["job"]["settings"]["training"]["learning_rate"] == 2e-4
    again = snakemake(copy, "-n", *targets, params=params)
    assert "rule train:" in again.stdout + again.stderr and not has_nothing_to_do(again)
    params_with(params, with_rate(2e-4))
    assert has_nothing_to_do(snakemake(copy, "-n", *targets, params=params))


def test_a_smaller_split_leaves_nothing_of_the_larger_one(copy, tmp_path):
    def change(raw: dict[str, Any]) -> None:
        raw["benchmarks"]["smoke"]["datasets"]["smoke-dance"]["splits"]["test"] = 1

    params = params_with(tmp_path / "params.yaml", change)
    name = "scores/smoke-dance/base/seed-0/test-similarity.json"
    before = record(copy, name)["pairs"]
    result = snakemake(copy, name, params=params)
    assert result.returncode == 0, result.stderr[-3000:]
    assert record(copy, name)["pairs"] < before
    for kind, ending in (("detections", "npz"), ("tracks", "txt")):
        assert len(list((copy / kind / "smoke-dance/base/seed-0/test").glob(f"*.{ending}"))) == 1
    assert len(list((copy / "data/smoke-dance/test").glob("[!.]*"))) == 1


def test_a_full_disk_in_every_step(copy, capsys, monkeypatch):
    """No file can have a byte, as on a disk that is full."""
    monkeypatch.chdir(copy)
    monkeypatch.setattr(tempfile, "tempdir", None)
    jobs = {}
    for path in sorted(Path("jobs").glob("?" * 16 + ".json")):
        job = json.loads(path.read_text())
        if Path(job["record"]).exists():
            jobs.setdefault(job["kind"], (path, job))
    jobs |= {kind: jobs.pop(kind) for kind in ("speed", "tables", "figure", "report")}
    assert len(jobs) == 13
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for kind, (path, job) in jobs.items():
        Path(job["record"]).unlink()
        before = results(copy)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            code = main(["run", str(path)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        told = capsys.readouterr().err
        last = told.splitlines()[-1]
        assert code == 2 and "Traceback" not in told, told
        assert re.match(r"fdta: \S+: .*File too large|fdta: No usable temporary directory found", last), last
        assert results(copy) == before, kind
        if kind not in ("render", "depth", "detect", "train", "detector"):
            assert main(["run", str(path)]) == 0, capsys.readouterr().err


def results(folder: Path) -> dict[str, bytes]:
    """Contents of all results, but not of what a failed step keeps for the next try."""
    places = ("data", "models", "detections", "tracks", "scores", "results")
    return {
        str(path): path.read_bytes()
        for place in places
        for path in (folder / place).rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_the_tables_do_not_wait_for_mlflow(copy):
    (copy / "results/tables.md").unlink()
    environment = ENVIRONMENT | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = ["snakemake", "--cores", "2", "--directory", str(copy), "--snakefile", str(ROOT / "Snakefile")]
    command += ["results/tables.md", "--config", "benchmark=smoke"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (copy / "results/tables.md").is_file()
    assert "mlflow" not in snakemake(copy, "-n", "--forceall", "results/report.html").stdout


def test_a_run_is_traced_to_its_data(workspace):
    command = [
        "fdta",
        "trace",
        "smoke-dance/full/seed-0",
        "--benchmark",
        "smoke",
        "--params",
        str(ROOT / "params.yaml"),
    ]
    told = subprocess.run(command, cwd=workspace, check=True, env=ENVIRONMENT, capture_output=True, text=True).stdout
    links = re.findall(r"^(\S+)  (fresh|stale)$", told, re.MULTILINE)
    assert {state for _, state in links} == {"fresh"}
    assert links[0][0] == "scores/smoke-dance/full/seed-0/test.json"
    assert "models/smoke-appearance/detector/model.pt" in dict(links) and "data/smoke-dance/train" in dict(links)


def test_a_damaged_result_is_found(copy, capsys):
    shutil.copy(ROOT / "params.yaml", copy / "params.yaml")
    command = ["trace", "smoke-dance/full/seed-0", "--benchmark", "smoke", "--params", str(copy / "params.yaml")]
    command += ["--root", str(copy)]
    assert main([*command, "--check"]) == 0
    assert "results are as they were made" in capsys.readouterr().out.splitlines()[-1]
    model = copy / "models/smoke-dance/full/seed-0/model.pt"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    truth = copy / "data/smoke-dance/train/dance-train-0001/gt/gt.txt"
    truth.write_text(truth.read_text()[:-2] + "2\n")
    assert main([*command, "--check"]) == 2
    error = capsys.readouterr().err
    assert "models/smoke-dance/full/seed-0/model.pt" in error and "data/smoke-dance/train" in error
    (copy / "tracks/smoke-dance/full/seed-0/test/dance-test-0001.txt").unlink()
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "cause    tracks/smoke-dance/full/seed-0/test: output tracks/smoke-dance/full/seed-0/test is missing" in told


def test_an_edited_score_is_shown_nowhere(copy, capsys, monkeypatch):
    monkeypatch.chdir(copy)
    given = ["--benchmark", "smoke", "--params", str(ROOT / "params.yaml"), "--root", str(copy)]
    commands = [["tables", "--only", "4"], ["tables", "--output", "e/x.md"], ["report", "--output", "e/x.html"]]
    assert main([*commands[0], *given]) == 0
    path = copy / "scores/smoke-dance/full/seed-0/test.json"
    scores = json.loads(path.read_text())
    scores["combined"]["HOTA"] = 99.0
    path.write_text(json.dumps(scores, indent=1))
    capsys.readouterr()
    for command in commands:
        assert main([*command, *given]) == 2
        told = f"{path}: incomplete or changed since scores/smoke-dance/full/seed-0/test.record.json was written; make"
        assert told in capsys.readouterr().err


def test_trainings_wait_for_still_images(tmp_path):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmarks"]["smoke"]["settings"]["clip"] = {
        "intervals": [1, 1],
        "stills": ["people/train", "smoke-flock/val"],
    }
    del raw["benchmarks"]["smoke"]["settings"]["clip.intervals"]
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(raw, sort_keys=False))
    model = "models/smoke-dance/full/seed-0/model.pt"
    missing = snakemake(tmp_path, "-n", model, params=params)
    assert missing.returncode and "data/people/seqmaps/train.txt" in missing.stdout + missing.stderr
    (tmp_path / "data/people/seqmaps").mkdir(parents=True)
    for ending in ("txt", "json"):
        (tmp_path / f"data/people/seqmaps/train.{ending}").touch()
    result = snakemake(tmp_path, "-n", model, params=params)
    plan = result.stdout + result.stderr
    assert result.returncode == 0, plan[-2000:]
    assert "data/smoke-flock/depth-val.json" in plan and "data/people/depth" not in plan
