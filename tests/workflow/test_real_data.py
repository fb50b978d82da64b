"""The paper's benchmark on miniature archives of the published form, served on loopback: from nothing to the tables."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from functools import partial
from pathlib import Path

import pytest
import test_smoke
import yaml
from helpers.loopback import Loopback
from helpers.miniature import miniature_params, write_starts
from test_smoke import ROOT

from fdta.cli import main

ROWS = {
    "table-1": {"motip": "base", "ours": "full", "ours-extra": "full-extra-data"},
    "table-2": {"ours": "full"},
    "table-3": {"oc-sort": "oc-sort", "ours": "full"},
    "table-4": {"base": "base", "full": "full"},
}


snakemake = partial(test_smoke.snakemake, benchmark="paper")


@pytest.fixture(scope="module")
def workspace(server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole workflow ran once."""
    folder = tmp_path_factory.mktemp("paper")
    raw = miniature_params(server.folder, server.url, ROWS)
    write_starts(server.folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    result = snakemake(folder, "results/tables.md", params=folder / "params.yaml")
    logs = "\n".join(f"{path}:\n{path.read_text()[-800:]}" for path in sorted(folder.glob("logs/**/*.log")))
    assert result.returncode == 0, result.stderr[-3000:] + logs[-6000:]
    return folder


def test_the_paper_is_planned_without_data(tmp_path: Path):
    result = snakemake(tmp_path, "-n", "results/tables.md", params=ROOT / "params.yaml")
    assert result.returncode == 0, result.stderr[-2000:]
    planned = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, re.MULTILINE))
    assert (planned["get_data"], planned["get_weights"], planned["train_detector"]) == ("9", "2", "3")
    assert {"depth", "train", "track", "score", "submission", "speed", "tables"} <= planned.keys()
    assert not any((tmp_path / name).exists() for name in ("data", "downloads", "pretrained"))


def test_every_data_set_reaches_its_table(workspace: Path):
    text = (workspace / "results/tables.md").read_text()
    assert "DanceTrack, SportsMOT and BFT with the paper's settings" in text
    assert "Not measured yet" not in text and "Not scored on all" not in text
    for name, rows in ROWS.items():
        records = {row["row"]: row for row in csv.DictReader((workspace / f"results/tables/{name}.csv").open())}
        assert all(records[row]["HOTA_here"] for row in rows), name
    places = {
        row["dataset"]: row["scored_on"]
        for name in ("table-1", "table-2", "table-3")
        for row in csv.DictReader((workspace / f"results/tables/{name}.csv").open())
        if row["dataset"]
    }
    assert places == {"dancetrack": "val", "sportsmot": "val", "bft": "test"}


def test_data_have_our_form(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    for dataset in ("dancetrack", "sportsmot", "bft"):
        assert main(["data", "check", dataset, "--decode", "--benchmark", "paper"]) == 0, dataset
    assert len(list(workspace.glob("data/sportsmot/depth/train/*/*.png"))) == 16


def test_submissions_hold_every_test_sequence(workspace: Path):
    for dataset, folder in (("dancetrack", "tracker/"), ("sportsmot", "")):
        sequences = sorted(path.name for path in (workspace / "data" / dataset / "test").glob("[!.]*"))
        with zipfile.ZipFile(workspace / f"results/submissions/{dataset}/full/seed-0.zip") as archive:
            assert sorted(archive.namelist()) == [f"{folder}{name}.txt" for name in sequences]
            assert (
                archive.read(f"{folder}{sequences[0]}.txt")
                == (workspace / f"tracks/{dataset}/full/seed-0/test/{sequences[0]}.txt").read_bytes()
            )
    assert not (workspace / "results/submissions/bft").exists()


def test_depth_cost_is_told(workspace: Path):
    rows = list(csv.DictReader((workspace / "results/tables/depth-cost.csv").open()))
    assert [row["dataset"] for row in rows] == ["dancetrack", "sportsmot", "bft"]
    assert all(float(row["gigabytes_here"]) >= 0 and row["sequences"] == "2" and row["own_maps"] == "0" for row in rows)


def test_detector_starts_from_the_published_one(workspace: Path):
    job = json.loads((workspace / "models/bft/detector/record.json").read_text())["job"]
    assert (job["start"], job["start_class"]) == ("pretrained/r50_deformable_detr_coco.pth", 15)


def test_nothing_is_fetched_or_done_twice(workspace: Path, server: Loopback):
    asked = len(server.requests)
    result = snakemake(workspace, "results/tables.md", params=workspace / "params.yaml")
    assert "Nothing to be done" in result.stdout + result.stderr
    assert len(server.requests) == asked


def test_a_servers_score_renews_the_tables_alone(workspace: Path):
    (workspace / "server-scores.yaml").write_text(
        "dancetrack/full/seed-0: {HOTA: 71.7, IDF1: 77.2, AssA: 63.5, MOTA: 91.3, DetA: 81.0}\n"
    )
    result = snakemake(workspace, "results/tables.md", params=workspace / "params.yaml")
    assert result.returncode == 0, result.stderr[-2000:]
    assert set(re.findall(r"^(?:local)?rule (\w+):", result.stdout + result.stderr, re.MULTILINE)) == {"tables"}
    assert "`full` †" in (workspace / "results/tables.md").read_text()
