from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.finished_project import HOTA, write_scores

import fdta
from fdta.cli import main
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.model.settings import (
    AssociationSettings,
    BackboneSettings,
    DetectorSettings,
    SpatialSettings,
    TemporalSettings,
)
from fdta.report import mlflow_store, mlflow_sync
from fdta.report.mlflow_sync import SyncState, sync, write_state
from fdta.track.settings import TrackerSettings

mlflow = pytest.importorskip("mlflow")

SETTINGS = Settings(
    history=4,
    backbone=BackboneSettings(block="basic", norm="group", stem_width=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1)),
    detector=DetectorSettings(
        width=16, heads=2, norm_groups=4, queries=6, encoder_layers=1, decoder_layers=1, feedforward=16
    ),
    spatial=SpatialSettings(enabled=False),
    temporal=TemporalSettings(layers=1, heads=2, feedforward=16),
    association=AssociationSettings(labels=5, label_width=16, layers=1, heads=2),
    tracker=TrackerSettings(
        short_side=48, long_side=96, record_threshold=0.001, detection_threshold=0.001, newborn_threshold=0.001
    ),
)
"""An untrained detector is unsure of everything: let it find something in every frame."""
EVERY_RUN = {"stills/detector", "dance/detector", *(f"dance/{name}/seed-0" for name in HOTA)}
WITH_WEIGHTS = ("full", "base", "sort", "bot-sort")
STEPS = ["loss/total", "loss/association", "learning_rate"]


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
    """Of the project's own store, where `sync` sends by default."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, root / "mlflow.db")
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


class Server:
    """A real MLflow server on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text())

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def remote(server: Server) -> Iterator[mlflow.MlflowClient]:
    """Of the server, which forgets everything after the test."""
    client = mlflow.MlflowClient(server.uri)
    yield client
    for experiment in client.search_experiments(filter_string="name LIKE 'fdta/%'"):
        client.rename_experiment(experiment.experiment_id, f"past/{experiment.experiment_id}")


def stored_runs(client: mlflow.MlflowClient, dataset: str = "dance", search: str = "") -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(f"fdta/tiny/{dataset}")
    return client.search_runs([experiment.experiment_id], search)


def steps(client: mlflow.MlflowClient, id_: str, metric: str) -> list[int]:
    return [point.step for point in client.get_metric_history(id_, metric)]


def assert_whole(client: mlflow.MlflowClient, state: SyncState) -> None:
    """Every run is there once, with each step of it once."""
    assert state.runs.keys() == EVERY_RUN and not state.unsent and state.reason is None
    assert len(stored_runs(client)) == len(HOTA) + 1 and len(stored_runs(client, "stills")) == 1
    for name, id_ in state.runs.items():
        if "sort" not in name:
            assert [steps(client, id_, metric) for metric in STEPS] == [[1, 2, 3, 4]] * 3
            assert steps(client, id_, "seconds_per_epoch") == [2, 4] and steps(client, id_, "validation/HOTA") == [4]
        if "detector" not in name:
            assert steps(client, id_, "test/HOTA") == [0]


def test_a_run_is_sent_whole(params: Experiment, root: Path, client: mlflow.MlflowClient):
    state = sync(params, root)
    assert_whole(client, state)
    assert set(state.sent) == EVERY_RUN
    run = client.get_run(state.runs["dance/ta/seed-0"])
    assert run.info.run_name == "ta (seed 0)" and run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 36_000
    wanted = {"benchmark": "tiny", "dataset": "dance", "variant": "ta", "seed": "0", "commit": "unknown"}
    assert wanted.items() <= run.data.tags.items()
    assert {key: run.data.tags.get(key) for key in params.tables} == {
        "table-1": None,
        "table-3": None,
        "table-4": "ta",
        "table-8": None,
        "table-11": "full-ta",
    }
    assert run.data.params["temporal.enabled"] == "True" and run.data.params["spatial.enabled"] == "False"
    assert run.data.params["history"] == "8" and run.data.params["training.betas"] == "[0.9, 0.999]"
    curve = client.get_metric_history(run.info.run_id, "loss/association")
    assert [point.value for point in curve] == [1 / step for step in range(1, 5)]
    assert [point.timestamp - run.info.start_time for point in curve] == [9_000, 18_000, 27_000, 36_000]
    final = {"test/HOTA": round(sum(HOTA["ta"]) / 3, 4), "test/IDSW": 7, "similarity/share_above_0.9": 0.25}
    assert final.items() <= run.data.metrics.items() and run.data.metrics["validation/HOTA"] == 30


def test_scores_by_sequence_are_a_table(params: Experiment, root: Path, client: mlflow.MlflowClient):
    run = client.get_run(sync(params, root).runs["dance/ta/seed-0"])
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "test-by-sequence.json", "type": "table"}]
    table = json.loads((artifacts(run.info.artifact_uri) / "test-by-sequence.json").read_text())
    assert table["columns"][:2] == ["sequence", "HOTA"]
    rows = {row[0]: row[1] for row in table["data"]}
    assert rows == {f"dance-test-000{i + 1}": HOTA["ta"][i] for i in range(3)} | {"combined": sum(HOTA["ta"]) / 3}


def artifacts(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_checkpoints_take_no_room(params: Experiment, root: Path, client: mlflow.MlflowClient):
    ids = sync(params, root).runs
    detector = artifacts(client.get_run(ids["stills/detector"]).info.artifact_uri) / "model.pt"
    assert detector.samefile(root / "models/stills/detector/model.pt") and root / "mlartifacts" in detector.parents
    uri = client.get_run(ids["dance/ta/seed-0"]).data.tags["model"]
    model = artifacts(client.get_logged_model(uri.removeprefix("models:/")).artifact_location) / "data/model.pt"
    assert model.samefile(root / "models/dance/ta/seed-0/model.pt")
    assert not list((root / "models").rglob(".mlflow*"))


def test_detectors_and_baselines_are_sent(params: Experiment, root: Path, client: mlflow.MlflowClient):
    ids = sync(params, root).runs
    detector, sort = client.get_run(ids["stills/detector"]), client.get_run(ids["dance/sort/seed-0"])
    assert detector.data.params["loss.attributes"] == "0.5" and detector.data.metrics["loss/total"] == 1.25
    assert sort.data.params == {"detections": "dance/full/seed-0"} and sort.data.metrics["test/HOTA"] == 40
    assert sort.info.status == detector.info.status == "FINISHED"


def test_runs_of_published_checkpoints_are_sent_without_history(
    changed_params: Callable[..., Experiment], root: Path, client: mlflow.MlflowClient
):
    weights = "        weights: {detector: detr.pth, base: motip.pth, full: fdta.pth}"
    params = changed_params(("        detector_start: stills", weights))
    for path in root.glob("models/dance/**/history.jsonl"):
        path.unlink()
    ids = sync(params, root).runs
    assert ids.keys() == {"stills/detector", "dance/detector", *(f"dance/{name}/seed-0" for name in WITH_WEIGHTS)}
    full = client.get_run(ids["dance/full/seed-0"])
    assert full.info.status == "FINISHED" and full.data.metrics["test/HOTA"] == 61 and "model" in full.data.tags
    assert full.data.params["weights"] == "fdta.pth" and full.data.params["tracker.id_threshold"] == "0.2"
    assert not [key for key in full.data.params if key.startswith(("training", "loss"))]
    assert not [key for key in full.data.metrics if key.startswith(("loss", "validation", "learning_rate"))]
    assert sync(params, root).sent == []


def test_tables_are_a_link_away(params: Experiment, root: Path, client: mlflow.MlflowClient):
    ids = sync(params, root).runs
    found = stored_runs(client, search="tags.`table-4` != ''")
    assert {run.data.tags["variant"] for run in found} == {"base", "ta", "full"}
    tags = client.get_experiment_by_name("fdta/tiny/dance").tags
    note = tags["mlflow.note.content"]
    assert "viewStateShareKey=table-4&compareRunsMode=CHART)" in note and "\n" not in note
    compared = [ids[f"dance/{name}/seed-0"] for name in ("base", "ta", "full")]
    assert "%2C%20".join(f"%22{id_}%22" for id_ in compared) in note
    view = json.loads(tags["mlflow.sharedViewState.table-4"])
    assert view["searchFilter"] == "tags.`table-4` != ''" and view["orderByKey"] == "metrics.`test/HOTA`"
    differing = ["params.`spatial.enabled`", "params.`temporal.enabled`", "params.`identity.enabled`"]
    assert view["selectedColumns"][0] == "metrics.`test/HOTA`" and view["selectedColumns"][5:] == differing
    assert [chart["type"] for chart in view["compareRunCharts"]] == ["BAR"] * 5 + ["DIFFERENCE"]


def test_a_table_of_baselines_alone_has_a_view(
    changed_params: Callable[..., Experiment], root: Path, client: mlflow.MlflowClient
):
    params = changed_params(
        (
            "rows: {sort: sort, bot-sort: bot-sort, motip: base, ours: full, ours-extra: extra}",
            "rows: {sort: sort, bot-sort: bot-sort}",
        )
    )
    assert sync(params, root).reason is None
    tags = client.get_experiment_by_name("fdta/tiny/dance").tags
    view = json.loads(tags["mlflow.sharedViewState.table-1"])
    assert len(view["selectedColumns"]) == 5 and not view["orderByAsc"]


def test_sending_again_adds_nothing(params: Experiment, root: Path, client: mlflow.MlflowClient):
    first = sync(params, root)
    tags = {run.info.run_id: run.data.tags for run in stored_runs(client)}
    client.delete_experiment(client.get_experiment_by_name("fdta/tiny/stills").experiment_id)
    second = sync(params, root)
    assert {run.info.run_id: run.data.tags for run in stored_runs(client)} == tags
    # The deleted experiment is back.
    assert_whole(client, second)
    assert not set(second.sent) - {"stills/detector"} and second.runs.items() >= first.runs.items() - {
        ("stills/detector", first.runs["stills/detector"])
    }


def test_a_resumed_training_continues_its_run(
    params: Experiment, root: Path, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    folder = root / "models/dance/ta/seed-0"
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    # Killed after the first epoch: an earlier model and scores lie beside it.
    work = folder.with_name(".seed-0.0123456789abcdef")
    work.mkdir()
    (work / "history.jsonl").write_text("".join(lines[:2]))
    id_ = sync(params, root).runs["dance/ta/seed-0"]
    run = client.get_run(id_)
    assert run.info.status == "RUNNING" and steps(client, id_, "loss/total") == [1, 2]
    assert "model" not in run.data.tags and "test/HOTA" not in run.data.metrics
    (work / "history.jsonl").write_text("".join(lines[:5]))
    sent, send = [], mlflow.MlflowClient.log_batch
    with monkeypatch.context() as patch:
        patch.setattr(
            mlflow.MlflowClient,
            "log_batch",
            lambda self, id_, metrics=(), **rest: sent.extend(metrics) or send(self, id_, metrics, **rest),
        )
        assert sync(params, root).sent == ["dance/ta/seed-0"]
    assert {metric.step for metric in sent if metric.key == "loss/total"} == {3, 4}
    assert steps(client, id_, "loss/total") == [1, 2, 3, 4]
    shutil.rmtree(work)
    state = sync(params, root)
    assert state.runs["dance/ta/seed-0"] == id_
    assert_whole(client, state)
    times = [point.timestamp for point in client.get_metric_history(id_, "loss/total")]
    assert times == sorted(set(times)) and client.get_run(id_).info.status == "FINISHED"
    # Trained anew: another run takes the place.
    (folder / "history.jsonl").write_text("".join(lines).replace("9.0", "8.0"))
    state = sync(params, root)
    assert_whole(client, state)
    assert state.runs["dance/ta/seed-0"] != id_ and client.get_run(id_).info.lifecycle_stage == "deleted"


def test_what_changed_is_replaced(params: Experiment, root: Path, client: mlflow.MlflowClient):
    first = sync(params, root).runs
    model = client.get_run(first["dance/ta/seed-0"]).data.tags["model"].removeprefix("models:/")
    write_scores(root, "ta", (80.0, 81.0, 82.0))
    state = sync(params, root)
    assert state.sent == ["dance/ta/seed-0"]
    assert client.get_run(state.runs["dance/ta/seed-0"]).data.metrics["test/HOTA"] == 81
    assert client.get_run(first["dance/ta/seed-0"]).info.lifecycle_stage == "deleted"
    experiment = client.get_experiment_by_name("fdta/tiny/dance").experiment_id
    models = [one.model_id for one in client.search_logged_models([experiment])]
    assert model not in models and len(models) == len([name for name in HOTA if "sort" not in name])
    assert_whole(client, state)


def test_other_tables_only_change_tags(
    params: Experiment, changed_params: Callable[..., Experiment], root: Path, client: mlflow.MlflowClient
):
    first = sync(params, root)
    other = changed_params(("rows: {base: base, ta: ta, full: full}", "rows: {base: base, sa-ta: extra, full: full}"))
    assert sync(other, root).runs == first.runs
    found = stored_runs(client, search="tags.`table-4` != ''")
    assert {run.data.tags["table-4"] for run in found} == {"base", "sa-ta", "full"}


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://somebody:secret@127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "silent", "postgresql://somebody:secret@127.0.0.1:9/runs", "sqlite:////no/mlflow.db"]
)
def test_an_unreachable_store_is_one_warning(
    params: Experiment,
    root: Path,
    uri: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    uri = request.getfixturevalue("silent") if uri == "silent" else uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(mlflow_store, "CONNECT_SECONDS", 0.2)
    before, began = dict(os.environ), time.monotonic()
    state = sync(params, root)
    assert time.monotonic() - began < 5 and dict(os.environ) == before
    assert state.runs == {} and set(state.unsent) == EVERY_RUN
    (record,) = caplog.records
    told = record.getMessage()
    assert told.startswith("10 runs were not sent to MLflow at ") and "fdta mlflow sync" in told and "\n" not in told
    assert not (root / "mlflow.db").exists()
    write_state(root / "state.json", state)
    assert "secret" not in told + (root / "state.json").read_text()


def test_a_broken_store_is_one_warning(params: Experiment, root: Path, caplog: pytest.LogCaptureFixture):
    (root / "mlflow.db").write_text("no database" * 100)
    assert sync(params, root, f"sqlite:///{root / 'mlflow.db'}").runs == {}
    assert "file is not a database" in caplog.text


def test_the_command_says_what_it_did(
    params: Experiment, root: Path, client: mlflow.MlflowClient, capsys: pytest.CaptureFixture
):
    command = ["mlflow", "sync", "--root", str(root), "--params", str(root.parent / "params.yaml")]
    assert main([*command, "--tracking-uri", "http://127.0.0.1:9"]) == 0
    path = root / "results/mlflow-tiny.json"
    assert f"0 runs are in MLflow, 0 of them new or continued; 10 are not, see {path}" in capsys.readouterr().out
    state = json.loads(path.read_text())
    assert set(state["unsent"]) == EVERY_RUN and "refused" in state["reason"]
    assert main(command) == 0
    assert "10 runs are in MLflow, 10 of them new or continued\n" in capsys.readouterr().out
    state = json.loads(path.read_text())
    assert state["runs"].keys() == EVERY_RUN and state["unsent"] == [] and state["reason"] is None
    written = path.stat().st_mtime_ns
    assert main(command) == 0 and path.stat().st_mtime_ns == written


def test_a_model_is_loaded_and_tracks(params: Experiment, root: Path, server: Server, remote: mlflow.MlflowClient):
    torch.manual_seed(0)
    checkpoint = root / "models/dance/full/seed-0/model.pt"
    save_model(checkpoint, FDTA(SETTINGS), SETTINGS, "dance/full/seed-0")
    frames = np.random.default_rng(0).integers(0, 256, (5, 65, 97, 3), dtype=np.uint8)
    np.save(root / "frames.npy", frames)
    state = sync(params, root, server.uri)
    assert_whole(remote, state)
    code = (
        "import sys, numpy, mlflow.pyfunc, torch\n"
        "torch.set_num_threads(1)\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "frames = numpy.load(sys.argv[2])\n"
        "model.predict(frames[1:])\n"
        "found = model.predict(frames[..., ::-1], params={'channels': 'BGR', 'device': 'cpu'})\n"
        "numpy.savetxt(sys.stdout, found.to_numpy(), '%.17g', header=','.join(found.columns), comments='')\n"
    )
    uri = f"runs:/{state.runs['dance/full/seed-0']}/full-seed-0"
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code, uri, str(root / "frames.npy")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert result.returncode == 0, result.stderr
    header, _, lines = result.stdout.partition("\n")
    assert header == "frame,identity,left,top,width,height,score"
    tracker, wanted = fdta.Tracker.from_checkpoint(checkpoint, "cpu"), []
    for number, frame in enumerate(frames, start=1):
        tracks = tracker.update(frame)
        boxes = np.hstack([tracks.boxes_xyxy[:, :2], tracks.boxes_xyxy[:, 2:] - tracks.boxes_xyxy[:, :2]])
        numbers = np.full(len(tracks), number)
        wanted.append(np.column_stack([numbers, tracks.identities + 1, boxes, tracks.scores]))
    assert len(np.vstack(wanted)) >= 5
    np.testing.assert_array_equal(np.loadtxt(io.StringIO(lines), ndmin=2), np.vstack(wanted))


@pytest.mark.parametrize("how", ["stops answering", "is killed"])
def test_a_server_that_goes_away_midway_gets_the_rest_later(
    params: Experiment,
    root: Path,
    server: Server,
    remote: mlflow.MlflowClient,
    how: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(mlflow_sync, "METRICS_AT_ONCE", 3)  # a step
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    send, calls = mlflow.MlflowClient.log_batch, []

    def send_and_stop(self, run_id, metrics=(), params=(), tags=()):
        calls.append(len(metrics))
        if calls.count(3) == 10:
            # The worst place: the steps have arrived, their mark has not.
            send(self, run_id, metrics)
            server.kill() if how == "is killed" else server.signal(signal.SIGSTOP)
        send(self, run_id, metrics, params, tags)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", send_and_stop)
        state = sync(params, root, server.uri)
    assert calls.count(3) == 10 and 0 < len(state.runs) < len(EVERY_RUN)
    assert set(state.unsent) == EVERY_RUN - state.runs.keys() and len(caplog.records) == 1
    server.start() if how == "is killed" else server.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    half_sent = stored_runs(remote, search="attributes.status = 'RUNNING'")
    later = sync(params, root, server.uri)
    assert_whole(remote, later)
    assert later.runs.items() >= state.runs.items() and not set(later.sent) & state.runs.keys()
    assert {run.info.run_id for run in half_sent} <= set(later.runs.values()) and half_sent
