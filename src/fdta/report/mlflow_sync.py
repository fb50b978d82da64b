"""Runs into MLflow, from their files: settings, curves, scores by sequence, similarities and loadable models.

There is one experiment a data set, ``fdta/BENCHMARK/DATASET``, and in it each run once (``base (seed 0)``), in however
many tables it stands: the tag ``table-4`` holds its row in Table 4 (but not for the further seeds that measure noise).
The experiment's description, which MLflow shows on each of its pages, links to the runs of each table: as charts, as a
list of scores and settings that differ, and side by side.

Metrics are ``loss/NAME`` and ``learning_rate`` by step; ``validation/NAME`` and ``seconds_per_epoch`` at the last step
of an epoch; and ``SPLIT/NAME`` (scores) and ``similarity/NAME`` without a step, so that MLflow draws bars.

**Continued, never doubled.** The tag ``origin`` tells what a run is made of, its settings and the first record of its
training, and the tag ``sent`` what of its files MLflow has. Both are looked up in MLflow: it does not matter who sends.
A training that was killed and goes on, or is still under way, continues its MLflow run: only records behind the sent
ones are sent. A batch of records and its mark go in one request; a server that dies between the two gets the same
values with the same times again, which MLflow's databases keep once. A run of another origin, or with other scores than
the sent ones, takes the place of the old run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from fdta.evaluate.score import COMBINED
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FULL, history_path, scores_path, seeds_with, similarity_path
from fdta.files import write_json
from fdta.names import BASELINES, DETECTOR, Run
from fdta.report.measured import commit, read_history, read_json
from fdta.report.mlflow_model import link_or_copy, write_model
from fdta.settings import to_plain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as StoredRun

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own switches while it works here."""
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""Likewise, where the user did not set them: MLflow would try again for minutes."""
CONNECT_SECONDS = 5
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""The most that MLflow takes."""
SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SHOWN = ("HOTA", "AssA", "IDF1", "DetA", "MOTA")
"""Scores that MLflow's views of a table show; sorted by the first."""
SIMILARITY = ("mean", "share_above_0.9")
"""Numbers of the similarity file that are logged."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalRun:
    """A run, finished or not, and where it leaves what."""

    run: Run
    model: Path | None
    """None for a baseline, which has scores alone, and while the training is not finished."""
    history: Path
    scores: Path
    similarity: Path
    settings: dict[str, str]
    """By dotted key."""
    rows: dict[str, str]
    """Table -> the rows of it that this run measures."""

    @property
    def name(self) -> str:
        """DATASET/VARIANT/seed-N, or DATASET/detector."""
        return f"{self.run.dataset}/{DETECTOR}" if self.run.variant == DETECTOR else str(self.run)

    @property
    def title(self) -> str:
        return DETECTOR if self.run.variant == DETECTOR else f"{self.run.variant} (seed {self.run.seed})"

    @property
    def finished(self) -> bool:
        """Whether its training is; baselines have none."""
        return self.model is not None or self.run.variant in BASELINES

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Of the training, so far."""
        return read_history(self.history)

    @cached_property
    def origin(self) -> str:
        """What the run is made of: its settings and the first record of its training, with the time that it took."""
        return hashlib.sha256(json.dumps([self.settings, self.records[:1]]).encode()).hexdigest()[:16]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of the files that are sent whole, of those that are there; none before the training is finished."""
        digests: dict[str, str] = {}
        if not self.finished:
            return digests  # What lies there is of an earlier training.
        for part, path in (("model", self.model), ("scores", self.scores), ("similarity", self.similarity)):
            if path is not None and path.is_file():
                with path.open("rb") as file:
                    digests[part] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return digests


@dataclass
class State:
    """What MLflow has of a benchmark."""

    tracking_uri: str
    """Without its password."""
    runs: dict[str, str] = field(default_factory=dict)
    """DATASET/VARIANT/seed-N (or DATASET/detector) -> MLflow's run id, of those that it has as far as they are."""
    sent: list[str] = field(default_factory=list)
    """Of these, the ones of which something was sent now."""
    unsent: list[str] = field(default_factory=list)
    """Those of which something is not in MLflow."""
    reason: str | None = None
    """Why not."""


def sync(params: Experiment, root: Path, tracking_uri: str | None = None) -> State:
    """Send what MLflow does not have of the benchmark's runs: detectors, variants and baselines.

    Trainings that are under way are sent as far as their history is written. Where MLflow is not installed or fails, a
    warning is logged, everything else stays as it is, and the next call sends what is left.

    Args:
        params: the benchmark.
        root: folder of models/ and scores/.
        tracking_uri: MLflow store; None: $MLFLOW_TRACKING_URI, or without it ``root/mlflow.db`` (SQLite) with
            artifacts in ``root/mlartifacts``.

    Raises:
        InputError: a file of a run is broken.
    """
    root = Path(root).resolve()
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root / 'mlflow.db'}"
    state = State(_without_password(uri))
    runs = {dataset: _local_runs(params, root, dataset) for dataset in params.benchmark.datasets}
    with _quietly():
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            state.reason = "MLflow is not installed; pip install mlflow"
        else:
            try:
                _check_reachable(uri)
                client = MlflowClient(uri)
                for dataset, local in runs.items():
                    if local:
                        _sync_dataset(client, params, dataset, local, root, state)
            except (MlflowException, OSError, sqlite3.Error) as error:
                state.reason = str(error).partition("\n")[0].replace(uri, state.tracking_uri)
    state.unsent = [run.name for local in runs.values() for run in local if run.name not in state.runs]
    if state.reason is not None:
        told = "%d runs were not sent to MLflow at %s: %s; `fdta mlflow sync` sends them later"
        logger.warning(told, len(state.unsent), state.tracking_uri, state.reason)
    return state


def write_state(path: Path, state: State) -> None:
    """Write `state` as JSON; a file that is right is left alone."""
    value = {"tracking_uri": state.tracking_uri, "runs": state.runs, "unsent": state.unsent, "reason": state.reason}
    if not path.is_file() or path.read_text() != json.dumps(value, indent=1) + "\n":
        write_json(path, value)


def _local_runs(params: Experiment, root: Path, dataset: str) -> list[LocalRun]:
    """The detector, then variants and baselines in the order of params.yaml, with every seed that left a file."""
    split = params.dataset(dataset).test_split
    models = root / "models" / dataset
    found = []

    def add(run: Run, settings: dict[str, Any], model: Path | None, history: Path) -> None:
        rows = {}
        for name, table in params.tables.items():
            if params.benchmark.dataset_of(table.dataset) == dataset and run.seed in params.benchmark.seeds:
                measured = [row for row, variant in table.rows.items() if variant == run.variant]
                rows |= {name: ", ".join(measured)} if measured else {}
        scores, similarity = scores_path(params, root, run), similarity_path(params, root, run)
        found.append(LocalRun(run, model, history, scores, similarity, _flat(settings), rows))

    def finished(model: Path) -> Path | None:
        # While the state to go on from is there, the model beside it is that of an earlier training.
        under_way = model.with_name("resume.pt" if model.name == "model.pt" else "detector-resume.pt").is_file()
        return model if model.is_file() and not under_way else None

    if (models / "detector.pt").is_file() or (models / "detector-history.jsonl").is_file():
        settings = to_plain(params.settings(dataset, DETECTOR))
        add(Run(dataset, DETECTOR), settings, finished(models / "detector.pt"), models / "detector-history.jsonl")
    for variant in params.variants:
        settings = to_plain(params.settings(dataset, variant))
        seeds = {seed for file in ("model.pt", "history.jsonl") for seed in seeds_with(models / variant, file)}
        for seed in sorted(seeds):
            run = Run(dataset, variant, seed)
            history = history_path(root, run)
            add(run, settings, finished(history.with_name("model.pt")), history)
    for method in BASELINES:
        for seed in seeds_with(root / "scores" / dataset / method, f"{split}.json"):
            run = Run(dataset, method, seed)
            add(run, {"detections": str(Run(dataset, FULL, seed))}, None, history_path(root, run))
    return found


def _sync_dataset(
    client: MlflowClient, params: Experiment, dataset: str, runs: list[LocalRun], root: Path, state: State
) -> None:
    """Send the runs of one data set, noting each in `state`."""
    experiment = _experiment(client, f"fdta/{params.benchmark.name}/{dataset}", root)
    revision = commit(root)
    known: dict[str | None, list[StoredRun]] = {}
    for stored in client.search_runs([experiment], max_results=10_000):
        known.setdefault(stored.data.tags.get("run"), []).append(stored)
    for run in runs:
        versions = known.get(run.name, [])
        continued = next((stored for stored in versions if _continues(run, stored)), None)
        before = _marks(continued) if continued else None
        if continued is None:
            tags = {"benchmark": params.benchmark.name, "dataset": dataset, "variant": run.run.variant}
            tags |= {"seed": str(run.run.seed), "run": run.name, "commit": revision, "origin": run.origin}
            # The times of all metrics count from here.
            last = run.model or (run.history if run.records else run.scores)
            start = int(1000 * last.stat().st_mtime) - _milliseconds(run.records)
            id_ = client.create_run(experiment, start_time=start, tags=tags | run.rows, run_name=run.title).info.run_id
            continued = client.get_run(id_)
        marks = _send(client, experiment, run, continued)
        for name in params.tables:
            if run.rows.get(name) != continued.data.tags.get(name):
                if name in run.rows:
                    client.set_tag(continued.info.run_id, name, run.rows[name])
                else:
                    client.delete_tag(continued.info.run_id, name)
        for stored in versions:
            if stored.info.run_id != continued.info.run_id:
                _delete(client, experiment, stored)
        state.runs[run.name] = continued.info.run_id
        if marks != before:
            state.sent.append(run.name)
    _describe(client, params, dataset, experiment, runs, state.runs)


def _continues(run: LocalRun, stored: StoredRun) -> bool:
    """Whether all that MLflow has of `stored` is of `run`."""
    marks = _marks(stored)
    same = all(marks[part] == digest for part, digest in run.digests.items() if part in marks)
    return same and stored.data.tags.get("origin") == run.origin


def _marks(stored: StoredRun) -> dict[str, Any]:
    """What MLflow has of a run: how many records, and the digests of the files."""
    return json.loads(stored.data.tags.get("sent", '{"records": 0}'))


def _experiment(client: MlflowClient, name: str, root: Path) -> str:
    """Id of the experiment `name`, made or restored where it is absent."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # Servers know themselves where artifacts go.
        local = client.tracking_uri.startswith(SQLITE)
        return client.create_experiment(name, (root / "mlartifacts").as_uri() if local else None)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _send(client: MlflowClient, experiment: str, run: LocalRun, stored: StoredRun) -> dict[str, Any]:
    """Send what `stored` lacks of `run`, each part with its mark; returns the marks."""
    from mlflow.entities import Metric, Param, RunTag

    id_, start, marks = stored.info.run_id, stored.info.start_time, _marks(stored)

    def marked(part: str, value: Any) -> list[RunTag]:
        marks[part] = value
        return [RunTag("sent", json.dumps(marks))]

    missing = [Param(key, value) for key, value in run.settings.items() if key not in stored.data.params]
    for first in range(0, len(missing), PARAMETERS_AT_ONCE):
        client.log_batch(id_, params=missing[first : first + PARAMETERS_AT_ONCE])
    for count, metrics in _curves(run.records, marks["records"], start):
        client.log_batch(id_, metrics=metrics, tags=marked("records", count))
    end = start + _milliseconds(run.records)
    for part in [part for part in run.digests if part not in marks]:
        tags = marked(part, run.digests[part])
        if part == "model":
            _send_model(client, experiment, run, id_, len(run.records))
            client.log_batch(id_, tags=tags)
            continue
        values = read_json(run.scores if part == "scores" else run.similarity) or {}
        if part == "scores":
            _send_table(client, run, values, id_)
            # What fits MLflow's columns; the table has all digits.
            final = {f"{run.scores.stem}/{name}": round(value, 4) for name, value in values.get(COMBINED, {}).items()}
        else:
            final = {f"similarity/{name}": values[name] for name in SIMILARITY if values.get(name) is not None}
        client.log_batch(id_, metrics=[Metric(name, value, end, 0) for name, value in final.items()], tags=tags)
    if run.finished and stored.info.status != "FINISHED":
        client.set_terminated(id_, end_time=end)
    return marks


def _curves(records: list[dict[str, Any]], sent: int, start: int) -> Iterator[tuple[int, list[Metric]]]:
    """Metrics of the records behind the first `sent`, whole records at a time, with the number of records until there.

    A record's time is `start`, in milliseconds since 1970, and what the steps until it took.
    """
    from mlflow.entities import Metric

    step, now, waiting = 0, start, []
    for count, record in enumerate(records, start=1):
        values = {}
        if record["kind"] == "step":
            step, now = record["step"], now + int(1000 * record["seconds"])
            values = {f"loss/{name}": value for name, value in record["losses"].items()}
            values["learning_rate"] = record["learning_rate"]
        elif record["kind"] == "epoch":
            values = {f"validation/{name}": value for name, value in record["scores"].items()}
            values["seconds_per_epoch"] = record["seconds"]
        if count > sent:
            if len(waiting) + len(values) > METRICS_AT_ONCE:
                yield count - 1, waiting
                waiting = []
            waiting += [Metric(name, value, now, step) for name, value in values.items()]
    if waiting:
        yield len(records), waiting


def _milliseconds(records: list[dict[str, Any]]) -> int:
    """That all steps took."""
    return sum(int(1000 * record["seconds"]) for record in records if record["kind"] == "step")


def _send_table(client: MlflowClient, run: LocalRun, scores: dict[str, Any], id_: str) -> None:
    """The scores of each sequence, as a table that MLflow shows and compares."""
    names = list(scores.get(COMBINED, {}))
    rows = [[sequence, *(values[name] for name in names)] for sequence, values in scores.items()]
    file = f"{run.scores.stem}-by-sequence.json"
    client.log_dict(id_, {"columns": ["sequence", *names], "data": rows}, file)
    client.set_tag(id_, "mlflow.loggedArtifacts", json.dumps([{"path": file, "type": "table"}]))


def _send_model(client: MlflowClient, experiment: str, run: LocalRun, id_: str, step: int) -> None:
    """The checkpoint: of a tracker as a model that MLflow loads, of a detector, which cannot track, as a file."""
    from mlflow.entities import LoggedModelOutput

    assert run.model is not None
    # Beside the checkpoint, so that it can be linked.
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=run.model.parent) as temporary:
        folder = Path(temporary) / "files"
        if run.run.variant == DETECTOR:
            folder.mkdir()
            link_or_copy(run.model, folder / run.model.name)
            _upload(folder, client.get_run(id_).info.artifact_uri, lambda: client.log_artifacts(id_, str(folder)))
            return
        _delete_models(client, experiment, id_)  # What an earlier call left half sent.
        tags = {"run": run.name, "dataset": run.run.dataset}
        title = f"{run.run.variant}-seed-{run.run.seed}"
        model = client.create_logged_model(experiment, title, id_, tags, model_type="tracker")
        write_model(folder, run.model, model.model_id, id_)
        _upload(folder, model.artifact_location, lambda: client.log_model_artifacts(model.model_id, str(folder)))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(id_, [LoggedModelOutput(model.model_id, step)])
        client.set_tag(id_, "model", model.model_uri)
        load = f'`mlflow.pyfunc.load_model("{model.model_uri}").predict(frames)`'
        client.set_tag(id_, "mlflow.note.content", f"Tracks of a video, frames uint8 (n, height, width, 3): {load}")


def _upload(folder: Path, uri: str, send: Callable[[], None]) -> None:
    """The files of `folder` to `uri`; where that is a folder of this machine as links, so that they take no room."""
    place = urlsplit(uri)
    if place.scheme == "file":
        shutil.copytree(folder, urllib.request.url2pathname(place.path), copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        send()


def _delete(client: MlflowClient, experiment: str, stored: StoredRun) -> None:
    """What another version of the run replaces; MLflow keeps it until ``mlflow gc``."""
    _delete_models(client, experiment, stored.info.run_id)
    client.delete_run(stored.info.run_id)


def _delete_models(client: MlflowClient, experiment: str, run_id: str) -> None:
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)


def _describe(
    client: MlflowClient, params: Experiment, dataset: str, experiment: str, runs: list[LocalRun], ids: dict[str, str]
) -> None:
    """Give the experiment views of the runs of each table, and links to them in one line, for MLflow shows no more."""
    tags, charts, lists, side_by_side = {}, [], [], []
    for name, table in params.tables.items():
        if params.benchmark.dataset_of(table.dataset) != dataset:
            continue
        of_table = [run for row in table.rows.values() for run in runs if run.run.variant == row and name in run.rows]
        of_table = list({run.name: run for run in of_table}.values())
        if len(of_table) > 1:
            number = name.removeprefix("table-")
            tags[f"mlflow.sharedViewState.{name}"] = json.dumps(_view(name, f"Table {number}", of_table))
            page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={name}"
            charts.append(f"[{number}]({page}&compareRunsMode=CHART)")
            lists.append(f"[{number}]({page}&compareRunsMode=TABLE)")
            compared = quote(json.dumps([ids[run.name] for run in of_table]))
            side_by_side.append(
                f"[{number}](#/compare-runs?runs={compared}&experiments={quote(json.dumps([experiment]))})"
            )
    if charts:
        links = {"Charts of Table": charts, "List": lists, "Side by side": side_by_side}
        tags["mlflow.note.content"] = ". ".join(f"{what} {', '.join(places)}" for what, places in links.items())
    known = client.get_experiment(experiment).tags
    for key, value in tags.items():
        if known.get(key) != value:
            client.set_experiment_tag(experiment, key, value)


def _view(name: str, title: str, runs: list[LocalRun]) -> dict[str, Any]:
    """How MLflow's page shows the runs of a table: the state that its "Share" button stores.

    First come the scores as bars and the settings that differ, then MLflow's own charts of every metric. Columns of the
    list are the scores and the settings that differ.
    """
    settings = [run.settings for run in runs if run.run.variant not in BASELINES]
    differing = [key for key in settings[0] if len({one[key] for one in settings}) > 1]
    split = runs[0].scores.stem
    chart = {"metricSectionId": name, "deleted": False, "isGenerated": False, "runsCountToCompare": 10}
    bars = [
        chart | {"uuid": f"{name}-{metric}", "type": "BAR", "metricKey": f"{split}/{metric}", "displayName": metric}
        for metric in SHOWN
    ]
    difference = {"type": "DIFFERENCE", "chartName": "Settings that differ", "compareGroups": ["Parameters"]}
    difference |= {"showDifferencesOnly": True, "showChangeFromBaseline": False, "baselineColumnUuid": ""}
    columns = [f"metrics.`{split}/{metric}`" for metric in SHOWN] + [f"params.`{key}`" for key in differing]
    return {
        "searchFilter": f"tags.`{name}` != ''",
        "orderByKey": f"metrics.`{split}/{SHOWN[0]}`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunCharts": [*bars, chart | {"uuid": f"{name}-settings"} | difference],
        "compareRunSections": [{"uuid": name, "name": title, "display": True, "isReordered": True, "deleted": False}],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@", 1)


def _check_reachable(uri: str) -> None:
    """Raise at once where MLflow itself would try again for minutes.

    Raises:
        OSError: nothing answers at `uri`.
        sqlite3.Error: the file of `uri` is no database, or cannot be one.
    """
    place = urlsplit(uri)
    scheme = place.scheme.partition("+")[0]
    if scheme in ("http", "https"):
        try:
            urllib.request.urlopen(uri, timeout=CONNECT_SECONDS).close()
        except urllib.error.HTTPError:
            return  # Somebody answers; MLflow tells better what is wrong.
    elif scheme in DATABASE_PORTS and place.hostname:
        address = place.hostname, place.port or DATABASE_PORTS[scheme]
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    elif uri.startswith(SQLITE):
        with closing(sqlite3.connect(uri.removeprefix(SQLITE))) as database:
            database.execute("PRAGMA schema_version")


@contextmanager
def _quietly() -> Iterator[None]:
    """MLflow without its messages, its telemetry and its patience."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [one.level for one in loggers]
    before = {name: os.environ.get(name) for name in (*QUIET, *IMPATIENT)}
    os.environ.update(QUIET | {name: value for name, value in IMPATIENT.items() if name not in os.environ})
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
