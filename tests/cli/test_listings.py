"""Commands that print what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.finished_project import PARAMS, write_project
from helpers.sequences import make_sequence

from fdta.cli import main


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_with_state_and_scores(project: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(project / "models/dance/ta")
    shutil.rmtree(project / "scores/dance/ta")
    (project / "scores/dance/sort/seed-0/test.json").unlink()
    (project / "models/dance/.full.part").mkdir()
    for name in ("full/seed-7", "unknown/seed-0"):
        (project / "models/dance" / name).mkdir(parents=True)
    (project / "models/dance/full/.seed-7.work").mkdir()
    (project / "models/dance/full/.seed-7.work/history.jsonl").touch()
    assert main(["runs"]) == 0
    heading, *lines, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "state", "HOTA", "IDF1", "AssA", "MOTA", "DetA"]
    told = {line.split()[0]: " ".join(line.split()[1:-5]) for line in lines}
    # Nothing here was made by a job, so no score is of the settings that are there.
    assert told == {
        "dance/full/seed-0": "stale",
        "dance/base/seed-0": "stale",
        "dance/extra/seed-0": "stale",
        "dance/ta/seed-0": "not trained",
        "dance/short-base/seed-0": "stale",
        "dance/short-ta/seed-0": "stale",
        "dance/sort/seed-0": "not scored",
        "dance/bot-sort/seed-0": "stale",
        "dance/full/seed-7": "in training",
    }
    assert "dance/full/seed-0" in lines[0] and lines[0].split()[2:] == ["61.0", "71.0", "56.0", "81.0", "66.0"]
    assert last == "benchmark tiny: 0 of 9 runs scored with these settings"


@pytest.mark.parametrize("name", ["4", "table-4"])
def test_one_table_is_printed_and_nothing_written(project: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    assert main(["tables", "--only", name]) == 0
    told = capsys.readouterr().out
    assert told.startswith("## Table 4 (") and "| `full` |" in told
    assert not (project / "results/tables.md").exists()
    assert main(["tables", "--only", "99"]) == 2
    assert "--only 99: no such table; did you mean table-" in capsys.readouterr().err


def test_scores_are_printed_by_sequence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "tracks").mkdir()
    for name in ("b", "a"):
        make_sequence(tmp_path / "gt" / name)
        shutil.copy(tmp_path / "gt" / name / "gt/gt.txt", tmp_path / "tracks" / f"{name}.txt")
    command = ["score", "--ground-truth", str(tmp_path / "gt"), "--tracks", str(tmp_path / "tracks")]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["per", "a", "b", "combined"]
    assert all(line.split()[1:] == ["100.0"] * 5 for line in printed[1:])
    assert main([*command, "--output", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()).keys() == {"a", "b", "combined"}


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("fdta 0.")


def test_a_table_that_the_benchmark_leaves_out_is_told(project: Path, capsys: pytest.CaptureFixture) -> None:
    text = PARAMS.replace("    note: Made for a test.\n", "    note: Made for a test.\n    only: [stills, dance]\n")
    (project / "params.yaml").write_text(text)
    told = "benchmark tiny leaves table-3 out: it has no data set BFT and none that stands for it"
    assert main(["params", "check"]) == 0
    assert told in capsys.readouterr().out.splitlines()
    assert main(["tables", "--only", "3"]) == 2
    assert f"--only 3: {told}; choose another table" in capsys.readouterr().err
    (project / "params.yaml").write_text(text.replace("    only:", "    tables: [table-1]\n    only:"))
    assert main(["tables", "--only", "4"]) == 2
    assert "leaves table-4 out: its key tables names table-1" in capsys.readouterr().err
