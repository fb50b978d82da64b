from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_project import HOTA, write_scores

from fdta.params import Params
from fdta.report.mlflow_log import log_runs

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose tables exist, for making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    level = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    logging.getLogger("mlflow").setLevel(level)
    return path


@pytest.fixture
def client(empty_store: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """Of the project's own store, where `log_runs` logs by default."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, root / "mlflow.db")
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def stored_runs(client: mlflow.MlflowClient, dataset: str = "dance", search: str = "") -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(f"fdta/tiny/{dataset}")
    return client.search_runs([experiment.experiment_id], search)


def test_a_run_is_logged_whole(params: Params, root: Path, client: mlflow.MlflowClient):
    ids = log_runs(params, root)
    assert set(ids) == {"stills/detector", "dance/detector", *(f"dance/{name}/seed-0" for name in HOTA)}
    run = client.get_run(ids["dance/ta/seed-0"])
    assert run.info.run_name == "ta (seed 0)" and run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 36_000
    wanted = {"benchmark": "tiny", "dataset": "dance", "variant": "ta", "seed": "0", "commit": "unknown"}
    assert wanted.items() <= run.data.tags.items()
    assert {name for name, value in run.data.tags.items() if value == "yes"} == {"table-4", "table-11"}
    assert run.data.params["temporal.enabled"] == "True" and run.data.params["spatial.enabled"] == "False"
    assert run.data.params["history"] == "8" and run.data.params["training.betas"] == "[0.9, 0.999]"
    curve = client.get_metric_history(run.info.run_id, "loss/association")
    assert [(point.step, point.value) for point in curve] == [(step, 1 / step) for step in range(1, 5)]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "seconds_per_epoch")] == [2, 4]
    final = {"test/HOTA": sum(HOTA["ta"]) / 3, "test/IDSW": 7, "similarity/share_above_0.9": 0.25}
    assert final.items() <= run.data.metrics.items() and run.data.metrics["validation/HOTA"] == 30
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "model.pt").read_bytes() == b"weights" and root / "mlartifacts" in artifacts.parents


def test_detectors_and_baselines_are_logged(params: Params, root: Path, client: mlflow.MlflowClient):
    ids = log_runs(params, root)
    detector, sort = client.get_run(ids["stills/detector"]), client.get_run(ids["dance/sort/seed-0"])
    assert detector.data.params["loss.attributes"] == "0.5" and detector.data.metrics["loss/total"] == 1.25
    assert [file.path for file in client.list_artifacts(detector.info.run_id)] == ["detector.pt"]
    assert sort.data.params == {"detections": "dance/full/seed-0"} and sort.data.metrics["test/HOTA"] == 40


def test_tables_are_a_link_away(params: Params, root: Path, client: mlflow.MlflowClient):
    ids = log_runs(params, root)
    found = stored_runs(client, search="tags.`table-4` = 'yes'")
    assert {run.data.tags["variant"] for run in found} == {"base", "ta", "full"}
    note = client.get_experiment_by_name("fdta/tiny/dance").tags["mlflow.note.content"]
    assert "compareRunsMode=CHART&searchFilter=tags.%60table-4%60%20%3D%20%27yes%27)" in note
    compared = [ids[f"dance/{name}/seed-0"] for name in ("base", "ta", "full")]
    assert "%2C%20".join(f"%22{id_}%22" for id_ in compared) in note


def test_logging_again_adds_nothing(params: Params, root: Path, client: mlflow.MlflowClient):
    first = log_runs(params, root)
    tags = {run.info.run_id: run.data.tags for run in stored_runs(client)}
    client.delete_experiment(client.get_experiment_by_name("fdta/tiny/stills").experiment_id)
    second = log_runs(params, root)
    assert {run.info.run_id: run.data.tags for run in stored_runs(client)} == tags
    assert len(tags) == len(HOTA) + 1
    # The deleted experiment is back.
    assert second.keys() == first.keys() and len(stored_runs(client, "stills")) == 1


def test_what_changed_or_was_cut_short_is_replaced(params: Params, root: Path, client: mlflow.MlflowClient):
    first = log_runs(params, root)
    write_scores(root, "ta", (80.0, 81.0, 82.0))
    client.update_run(first["dance/base/seed-0"], status="RUNNING")
    second = log_runs(params, root)
    assert {name for name in first if first[name] != second[name]} == {"dance/ta/seed-0", "dance/base/seed-0"}
    assert client.get_run(second["dance/ta/seed-0"]).data.metrics["test/HOTA"] == 81
    assert client.get_run(first["dance/ta/seed-0"]).info.lifecycle_stage == "deleted"
    assert len(stored_runs(client)) == len(HOTA) + 1


def test_other_tables_only_change_tags(
    params: Params, changed_params: Callable[..., Params], root: Path, client: mlflow.MlflowClient
):
    first = log_runs(params, root)
    other = changed_params(("rows: {base: base, ta: ta, full: full}", "rows: {base: base, sa-ta: extra, full: full}"))
    assert log_runs(other, root) == first
    found = stored_runs(client, search="tags.`table-4` = 'yes'")
    assert {run.data.tags["variant"] for run in found} == {"base", "extra", "full"}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nonexistent/mlflow.db"])
def test_an_unreachable_store_is_one_warning(
    params: Params, root: Path, uri: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before, began = dict(os.environ), time.monotonic()
    assert log_runs(params, root) == {}
    assert time.monotonic() - began < 5 and dict(os.environ) == before
    (record,) = caplog.records
    assert f"MLflow at {uri} failed after 0 runs" in record.message and "\n" not in record.message
    assert not (root / "mlflow.db").exists()


def test_a_broken_store_is_one_warning(params: Params, root: Path, caplog: pytest.LogCaptureFixture):
    (root / "mlflow.db").write_text("no database" * 100)
    assert log_runs(params, root, f"sqlite:///{root / 'mlflow.db'}") == {}
    assert "file is not a database" in caplog.text
