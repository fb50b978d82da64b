"""DVC and Snakemake on one small pipeline: run, pushed, cloned, pulled, changed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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
    raw["tables"] = {"table-4": raw["tables"]["table-4"] | {"rows": {"base": "base", "full": "full"}},
                     "table-1": raw["tables"]["table-1"] | {"rows": {"sort": "sort", "ours": "full"}}}
    return raw


def run(folder: Path, *command: str, fails: bool = False) -> str:
    environment = ENVIRONMENT | GIT | {"PYTHONPATH": str(folder / "src")}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=900)
    logs = "".join(path.read_text()[-500:] for path in folder.glob("logs/**/*.log")) if result.returncode else ""
    assert bool(result.returncode) == fails, f"{command}: {result.stdout[-2000:]}{result.stderr[-3000:]}{logs[-3000:]}"
    return result.stdout + result.stderr


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
    """Stages that DVC holds for changed, once the settings are resolved."""
    run(folder, "fdta", "params", "resolve")
    status = json.loads(run(folder, "dvc", "status", "--json").strip() or "{}")
    return {name for name in status if name != "settings"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which `dvc repro` ran; its small results are committed, its large ones pushed."""
    folder = tmp_path_factory.mktemp("dvc") / "original"
    for name in PROJECT:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False))
    run(folder, "git", "init", "--quiet")
    run(folder, "fdta", "dvc")
    run(folder, "dvc", "remote", "add", "--quiet", "--default", "here", str(folder.parent / "remote"))
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "project")
    run(folder, "dvc", "repro", "--quiet")
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
    for name in ("results/tables.md", "results/metrics.json", "scores/smoke-dance/full/seed-0/test.json", "dvc.lock",
                 "settings/smoke-dance/full/train.json", "models/smoke-dance/full/seed-0/history.jsonl"):
        assert name in tracked
    assert not [name for name in tracked if name.startswith(("data/", "tracks/")) and not name.endswith((".gitignore", ".json"))]
    assert not [name for name in tracked if name.endswith((".pt", ".jpg", ".npz", "report.html"))]


def test_a_clone_has_nothing_to_do(original: Path, clone: Path):
    assert planned(clone) == {} and changed_stages(clone) == set()
    assert "up to date" in run(clone, "dvc", "status")
    assert run(clone, "git", "status", "--porcelain") == ""
    name = "models/smoke-dance/full/seed-0/model.pt"
    assert (clone / name).read_bytes() == (original / name).read_bytes()


def test_code_changed_in_a_clone_redoes_what_uses_it(clone: Path):
    source = clone / "src/fdta"
    adapter = source / "model/temporal_adapter.py"
    adapter.write_text(adapter.read_text() + "\n# A remark.\n")
    (source / "train/loop.py").touch()
    assert planned(clone) == {} and changed_stages(clone) == set()

    adapter.write_text(adapter.read_text() + "\nLATER = 1\n")
    assert planned(clone)["train"] == planned(clone)["track"] == {"full"}
    assert changed_stages(clone) == {"training-smoke-dance", "tracking-smoke-dance", "report"}


def test_a_threshold_changed_in_a_clone_redoes_tracking(clone: Path):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["variants"]["base"]["tracker.id_threshold"] = 0.3
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    jobs = planned(clone)
    assert jobs["track"] == {"base"} and "train" not in jobs
    assert changed_stages(clone) == {"tracking-smoke-dance"}


def test_an_experiment_changes_one_setting(clone: Path):
    run(clone, "dvc", "exp", "run", "-S", "benchmarks.smoke.settings.tracker.newborn_threshold=0.02")
    settings = json.loads((clone / "settings/smoke-dance/base/track.json").read_text())
    assert settings["tracker"]["newborn_threshold"] == 0.02
    assert planned(clone) == {} and changed_stages(clone) == set()
    assert (clone / "logs/track").is_dir() and not (clone / "logs/train").exists()
    difference = run(clone, "dvc", "params", "diff")
    assert "benchmarks.smoke.settings.tracker.newborn_threshold" in difference and "0.02" in difference
    assert "smoke-dance.base/seed-0.HOTA" in run(clone, "dvc", "metrics", "show", "--md")
    run(clone, "dvc", "plots", "show", "--out", "plots")
    assert "HOTA_here" in (clone / "plots/index.html").read_text()


def test_dvc_yaml_is_that_of_the_benchmark(tmp_path: Path):
    run(ROOT, "fdta", "dvc", "--output", str(tmp_path / "dvc.yaml"))
    assert (tmp_path / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text(), "write it anew: fdta dvc"
