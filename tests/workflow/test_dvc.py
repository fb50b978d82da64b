"""DVC and Snakemake on one small pipeline, in every order: run, pushed, cloned, pulled, changed, killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_smoke import ENVIRONMENT, ROOT

PROJECT = ("Snakefile", "workflow", "src", ".dvc/config", ".dvcignore", ".gitignore", "server-scores.yaml")
GIT = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "n@e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "n@e"}


def small_params() -> dict[str, Any]:
    """The smoke benchmark with one data set, two variants and one baseline."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmark"] = "smoke"
    smoke = raw["benchmarks"]["smoke"]
    smoke["noise_seeds"] = {}
    smoke["datasets"] = {name: smoke["datasets"][name] for name in ("smoke-appearance", "smoke-dance")}
    raw["benchmarks"]["synthetic"]["variants"] = {}
    raw["benchmarks"] = {name: raw["benchmarks"][name] for name in ("synthetic", "smoke")}
    raw["variants"] = {name: raw["variants"][name] for name in ("full", "base")}
    raw["tables"] = {
        "table-4": raw["tables"]["table-4"] | {"rows": {"base": "base", "full": "full"}},
        "table-1": raw["tables"]["table-1"] | {"rows": {"sort": "sort", "ours": "full"}},
    }
    return raw


def run(folder: Path, *command: str, fails: bool = False) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(folder), timeout=900)
    logs = "".join(path.read_text()[-500:] for path in folder.glob("logs/**/*.log")) if result.returncode else ""
    assert bool(result.returncode) == fails, f"{command}: {result.stdout[-2000:]}{result.stderr[-3000:]}{logs[-3000:]}"
    return result.stdout + result.stderr


def environment(folder: Path) -> dict[str, str]:
    return ENVIRONMENT | GIT | {"PYTHONPATH": str(folder / "src")}


def planned(folder: Path) -> dict[str, set[str]]:
    """Rule -> variants (or baselines) for which Snakemake would run it."""
    told = run(folder, "snakemake", "--cores", "2", "-n", "results/tables.md", "results/report.html")
    jobs: dict[str, set[str]] = {}
    for rule, block in re.findall(r"rule (\w+):\n((?: +.*\n)+)", told):
        wildcards = dict(re.findall(r"(\w+)=([\w-]+)", block.partition("wildcards:")[2].partition("\n")[0]))
        jobs.setdefault(rule, set()).add(wildcards.get("variant") or wildcards.get("name", ""))
    assert jobs or "Nothing to be done" in told
    return jobs


def changed_stages(folder: Path) -> set[str]:
    """Stages that DVC holds for changed, once the plan is made."""
    run(folder, "fdta", "plan")
    status = json.loads(run(folder, "dvc", "status", "--json").strip() or "{}")
    return {name for name in status if name != "plan"}


def trained(folder: Path) -> dict[str, str]:
    """Folder of each model -> when it was made."""
    records = {str(path.parent.relative_to(folder)): path for path in folder.glob("models/**/record.json")}
    return {name: json.loads(path.read_text())["made"] for name, path in records.items()}


def make_project(folder: Path) -> Path:
    """A committed project in which nothing ran."""
    for name in PROJECT:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False))
    pipeline = (ROOT / "dvc.yaml").read_text()
    pipeline = pipeline.replace("start: appearance", "start: smoke-appearance")
    (folder / "dvc.yaml").write_text(pipeline.replace("datasets: [dance, sports, flock]", "datasets: [smoke-dance]"))
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "remote", "add", "--quiet", "--default", "here", str(folder.parent / "remote"))
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "project")
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which Snakemake ran, then `dvc repro`; small results are committed, large ones pushed."""
    folder = make_project(tmp_path_factory.mktemp("dvc") / "original")
    run(folder, "snakemake", "--cores", "2", "results/report.html")
    before = trained(folder)
    run(folder, "dvc", "repro", "--quiet")
    assert len(before) == 4 and trained(folder) == before
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "results")
    run(folder, "dvc", "push", "--quiet")
    return folder


@pytest.fixture
def clone(original: Path, tmp_path: Path) -> Path:
    """What a colleague has after `git clone` and `dvc pull`."""
    folder = tmp_path / "clone"
    run(original.parent, "git", "clone", "--quiet", str(original), str(folder))
    run(folder, "dvc", "pull", "--quiet")
    return folder


def test_both_tools_have_nothing_left_to_do(original: Path):
    assert planned(original) == {} and changed_stages(original) == set()
    assert run(original, "git", "status", "--porcelain") == ""


def test_small_results_are_in_git_and_large_ones_in_the_cache(original: Path):
    tracked = run(original, "git", "ls-files").splitlines()
    for name in (
        "results/tables.md",
        "results/metrics.json",
        "scores/smoke-dance/full/seed-0/test.json",
        "dvc.lock",
        "scores/smoke-dance/full/seed-0/test.record.json",
        "plan/models-smoke-dance.json",
    ):
        assert name in tracked
    large = ("data/", "models/", "tracks/", "detections/")
    assert not [name for name in tracked if name.startswith(large) and not name.endswith(".gitignore")]
    assert "results/report.html" not in tracked


def test_a_clone_has_nothing_to_do(original: Path, clone: Path):
    assert planned(clone) == {} and changed_stages(clone) == set()
    assert "up to date" in run(clone, "dvc", "status")
    assert run(clone, "git", "status", "--porcelain") == ""
    name = "models/smoke-dance/full/seed-0/model.pt"
    assert (clone / name).read_bytes() == (original / name).read_bytes()
    run(clone, "snakemake", "--cores", "2", "results/report.html")
    run(clone, "dvc", "repro", "--quiet")
    assert trained(clone) == trained(original)


def test_code_changed_in_a_clone_redoes_what_uses_it(clone: Path):
    source = clone / "src/fdta"
    adapter = source / "model/temporal_adapter.py"
    adapter.write_text(adapter.read_text() + "\n# A remark.\n")
    (source / "train/loop.py").touch()
    assert planned(clone) == {} and changed_stages(clone) == set()

    adapter.write_text(adapter.read_text() + "\nLATER = 1\n")
    assert planned(clone)["train"] == planned(clone)["track"] == {"full"}
    assert changed_stages(clone) == {"models@smoke-dance", "tracks@smoke-dance", "report"}


def test_a_changed_loss_trains_again_by_hand_too(clone: Path):
    loss = clone / "src/fdta/loss/association.py"
    loss.write_text(loss.read_text() + "\nLATER = 1\n")
    before = trained(clone)
    run(clone, "fdta", "train", "smoke-dance/full/seed-0")
    after = trained(clone)
    assert {name for name in before if before[name] != after[name]} == {"models/smoke-dance/full/seed-0"}
    assert "up to date" in run(clone, "fdta", "train", "smoke-dance/full/seed-0")
    assert planned(clone)["train"] == {"base"}


def test_a_page_or_the_papers_numbers_changed_are_shown(clone: Path):
    page = clone / "src/fdta/report/page.html"
    page.write_text(page.read_text() + "<!-- later -->")
    assert set(planned(clone)) == {"report"}
    paper = clone / "src/fdta/experiment/paper.yaml"
    paper.write_text(paper.read_text() + "\n")
    assert {"report", "tables"} <= set(planned(clone)) and "train" not in planned(clone)


def test_a_threshold_changed_in_a_clone_redoes_tracking(clone: Path):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["variants"]["base"]["tracker.id_threshold"] = 0.3
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    jobs = planned(clone)
    assert jobs["track"] == {"base"} and "train" not in jobs
    assert "tracks@smoke-dance" in changed_stages(clone) and "models@smoke-dance" not in changed_stages(clone)


def test_an_experiment_changes_one_setting(clone: Path):
    run(clone, "dvc", "exp", "run", "-S", "benchmarks.smoke.settings.tracker.newborn_threshold=0.02")
    record = json.loads((clone / "tracks/smoke-dance/base/seed-0/test/record.json").read_text())
    assert record["job"]["tracker"]["newborn_threshold"] == 0.02
    assert planned(clone) == {} and changed_stages(clone) == set()
    assert (clone / "logs/track").is_dir() and not (clone / "logs/train").exists()
    difference = run(clone, "dvc", "params", "diff")
    assert "benchmarks.smoke.settings.tracker.newborn_threshold" in difference and "0.02" in difference
    assert "plan/tracks-smoke-dance.json" in difference
    assert "smoke-dance.base/seed-0.HOTA" in run(clone, "dvc", "metrics", "show", "--md")
    run(clone, "dvc", "plots", "show", "--out", "plots")
    assert "HOTA_here" in (clone / "plots/index.html").read_text()


def test_a_killed_repro_is_taken_over_by_either_tool(clone: Path):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["variants"]["base"]["loss.focal_gamma"] = 2.5
    params["variants"]["full"]["tracker.id_threshold"] = 0.3
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made = clone / "models/smoke-dance/base/seed-0/record.json"
    before = made.read_text()
    with subprocess.Popen(
        ["dvc", "repro", "--quiet"], cwd=clone, env=environment(clone), start_new_session=True
    ) as going:
        while made.read_text() == before and going.poll() is None:
            time.sleep(0.05)
        os.killpg(going.pid, signal.SIGKILL)
    shutil.rmtree(clone / ".dvc/tmp", ignore_errors=True)
    shutil.rmtree(clone / ".snakemake", ignore_errors=True)
    after = made.read_text()
    run(clone, "snakemake", "--cores", "2", "results/report.html")
    run(clone, "dvc", "repro", "--quiet")
    assert made.read_text() == after and planned(clone) == {} and changed_stages(clone) == set()


def test_dvc_yaml_is_that_of_the_benchmark(tmp_path: Path):
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 200
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    run(tmp_path, "fdta", "plan")
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert stages - {"plan", "start"} == {path.stem.partition("-")[0] for path in (tmp_path / "plan").iterdir()}
    assert "must be [smoke-dance" in run(tmp_path, "fdta", "plan", "--benchmark", "smoke", fails=True)
