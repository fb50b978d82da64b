"""The published checkpoints on miniature archives, both served on loopback: from nothing to the page."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
import test_smoke
import yaml
from helpers.loopback import Loopback
from helpers.miniature import miniature_params, write_weights

from fdta.cli import main
from fdta.cli.run import Compute, execute
from fdta.experiment.jobs import write_job
from fdta.experiment.params import Experiment
from fdta.experiment.plan import page_figures
from fdta.experiment.steps import Steps

ROWS = {
    "table-1": {"bytetrack": "bytetrack", "motip": "base", "ours": "full", "ours-extra": "full-extra-data"},
    "table-2": {"ours": "full", "motip": "base"},
    "table-3": {"oc-sort": "oc-sort", "motip": "base", "ours": "full"},
    "table-4": {"base": "base", "full": "full", "sa": "sa"},
    "table-8": {"detr": "full", "total": "full"},
}
CHOSEN = ["dancetrack", "bft"]


def snakemake(folder: Path, *arguments: str, params: Path) -> str:
    result = test_smoke.snakemake(folder, *arguments, params=params, benchmark="published")
    logs = "\n".join(f"{path}:\n{path.read_text()[-800:]}" for path in sorted(folder.glob("logs/**/*.log")))
    assert result.returncode == 0, result.stderr[-3000:] + logs[-3000:]
    return result.stdout + result.stderr


def run(folder: Path, *arguments: str) -> int:
    """`fdta` on the miniature."""
    params = ("--params", str(folder / "params.yaml"), "--benchmark", "published")
    return main([*arguments, "--root", str(folder), *params])


@pytest.fixture(scope="module")
def workspace(server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all results: the first ones by Snakemake, the others by the same jobs in this process."""
    folder = tmp_path_factory.mktemp("published")
    params = folder / "params.yaml"
    raw = miniature_params(server.folder, server.url, ROWS, frames=6)
    raw["benchmarks"]["published"]["only"] = CHOSEN
    params.write_text(yaml.safe_dump(raw, sort_keys=False))
    experiment = Experiment(params, "published")
    write_weights(server.folder, experiment)
    snakemake(folder, "models/bft/detector/model.pt", params=params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # checksums.json is where the command runs
        for step in Steps(experiment).all().values():
            write_job(Path(), step.job)
            execute(step.job, Path(), Compute())
    return folder


def test_nothing_is_trained_and_no_training_split_is_fetched(tmp_path: Path):
    told = snakemake(tmp_path, "-n", "results/report.html", params=test_smoke.ROOT / "params.yaml")
    planned = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", told, re.MULTILINE)}
    assert not {"train", "train_detector", "depth", "figure_training"} & planned.keys()
    assert (planned["get_data"], planned["get_weights"], planned["import_weights"]) == (5, 9, 9)
    maps = {"/".join(each) for each in re.findall(r"data/(\w+)/seqmaps/(\w+)\.txt", told)}
    assert maps == {"dancetrack/val", "dancetrack/test", "sportsmot/val", "sportsmot/test", "bft/test"}


def test_snakemake_has_nothing_left_to_do(workspace: Path):
    told = snakemake(workspace, "-n", "results/report.html", params=workspace / "params.yaml")
    assert "Nothing to be done" in told


def test_rows_of_checkpoints_have_numbers_and_the_rest_is_left_out(workspace: Path):
    text = (workspace / "results/tables.md").read_text()
    assert "Not measured yet" not in text and "Not scored on all" not in text and "Table 4:" not in text
    assert "every model is a published checkpoint. Left out, because they show or compare trainings: Table 4," in text
    assert "Only `dancetrack`, `bft` is run (`only` of the benchmark), so that these are left out: Table 2." in text
    assert not list((workspace / "results/tables").glob("table-[24].csv"))
    for name, rows in ROWS.items():
        if name in ("table-2", "table-4"):
            continue
        records = {row["row"]: row for row in csv.DictReader((workspace / f"results/tables/{name}.csv").open())}
        measured = {row for row in records if records[row]["measured_by"] != "cited"}
        assert measured == rows.keys() - {"ours-extra"}, name
        column = "milliseconds_here" if name == "table-8" else "HOTA_here"
        assert all(records[row][column] for row in measured), name
    similar = list(csv.DictReader((workspace / "results/tables/similarity.csv").open()))
    assert [(row["dataset"], row["variant"]) for row in similar] == [
        (dataset, name) for dataset in CHOSEN for name in ("detector", "base", "full")
    ]
    assert "`base` is `r50_deformable_detr_motip_bft.pth`, `full` is `fdta_bft.pth`" in text
    assert "trained as the other variants" not in text
    assert (workspace / "results/training.csv").read_text() == "epoch\n"


def test_figures_and_page_are_there(workspace: Path):
    figures = page_figures(Experiment(workspace / "params.yaml", "published"))
    assert "training" not in figures and {"depth", "tracks-bft", "similarity", "embeddings"} <= figures.keys()
    page = (workspace / "results/report.html").read_text()
    assert "they were measured on other data" not in page
    assert "Not drawn yet" not in page and page.count("data:image/png") == len(figures)
    caption = json.loads((workspace / "results/figures/depth.json").read_text())
    assert caption["title"] == "Predicted depth" and "`test` and `val`" in caption["caption"]
    with zipfile.ZipFile(workspace / "results/submissions/dancetrack/base/seed-0.zip") as archive:
        assert len(archive.namelist()) == 2
    assert not (workspace / "data/dancetrack/train").exists() and not list(workspace.glob("data/*/depth*"))


def test_trace_tells_licence_and_digest(workspace: Path, server: Loopback, capsys: pytest.CaptureFixture[str]):
    assert run(workspace, "trace", "bft/full/seed-0", "--check") == 0
    told = capsys.readouterr().out
    places = ["scores/bft/full/seed-0/test.json", "tracks/bft/full/seed-0/test", "models/bft/full/seed-0/model.pt"]
    assert all(f"{place}  fresh" in told for place in [*places, "pretrained/fdta_bft.pth"])
    digest = hashlib.sha256((server.folder / "fdta_bft.pth").read_bytes()).hexdigest()
    assert f"source   url {server.url}/fdta_bft.pth; licence: fdta_bft.pth is free" in told
    assert f"output   pretrained/fdta_bft.pth  {digest}" in told


def test_a_trained_model_is_not_replaced(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pretrained").symlink_to(workspace / "pretrained")
    (tmp_path / "params.yaml").symlink_to(workspace / "params.yaml")
    folder = Path("models/bft/full/seed-0")
    value = json.loads((workspace / folder / "record.json").read_text())
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "record.json").write_text(json.dumps(value | {"key": "", "job": {"kind": "train"}}))
    (tmp_path / folder / "model.pt").write_bytes(b"weeks of work")
    assert run(tmp_path, "train", "bft/full/seed-0") == 2
    assert "was trained, and pretrained/fdta_bft.pth does not replace it" in capsys.readouterr().err
    assert (tmp_path / folder / "model.pt").read_bytes() == b"weeks of work"
    assert run(tmp_path, "train", "bft/base/seed-0") == 0
    assert run(tmp_path, "train", "bft/sa/seed-0") == 2
    assert "nothing is trained on bft in benchmark 'published'" in capsys.readouterr().err
