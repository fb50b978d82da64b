"""Runs into MLflow, from their files: settings, curves, scores by sequence, similarities and loadable models.

Each run is there once, in the experiment ``fdta/BENCHMARK/DATASET``; docs/mlflow.md names its metrics and tags.

**Continued, never doubled.** The tag ``origin`` is a digest of the run's settings and first record, the tag ``sent``
lists what of its files MLflow has. Both are looked up in MLflow: it does not matter who sends. A training that resumes,
or is still under way, continues its MLflow run: only records behind the sent ones are sent. A batch of records and its
mark go in one request; if a server dies between the two, it gets the same values with the same times again, which
MLflow's databases keep once. A run of another origin, or with other scores than the sent ones, replaces the old run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fdta.errors import InputError
from fdta.evaluate.score import COMBINED
from fdta.evaluate.similarity import HIGH
from fdta.experiment.params import Experiment
from fdta.files import link_or_copy, write_json
from fdta.names import DETECTOR
from fdta.provenance import commit
from fdta.report.mlflow_model import write_model
from fdta.report.mlflow_runs import LocalRun, local_runs
from fdta.report.mlflow_store import SQLITE, check_reachable, quietly, without_password
from fdta.report.mlflow_views import describe
from fdta.report.results import Epoch, Scores, Similarity, StepRecord
from fdta.settings import parse_json, read_json, read_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as StoredRun

METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""The most that MLflow takes."""

logger = logging.getLogger(__name__)


@dataclass
class SyncState:
    """What MLflow has of a benchmark."""

    tracking_uri: str
    """Without its password."""
    runs: dict[str, str] = field(default_factory=dict)
    """DATASET/VARIANT/seed-N (or DATASET/detector) -> MLflow's run id, of those that it has as far as they are."""
    sent: list[str] = field(default_factory=list)
    """Of these, the ones of which something was sent now."""
    unsent: list[str] = field(default_factory=list)
    reason: str | None = None
    """Why something is not in MLflow."""


def sync(params: Experiment, root: Path, tracking_uri: str | None = None) -> SyncState:
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
    state = SyncState(without_password(uri))
    runs = {dataset: local_runs(params, root, dataset) for dataset in params.benchmark.datasets}
    with quietly():
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            state.reason = "MLflow is not installed; pip install mlflow"
        else:
            try:
                check_reachable(uri)
                client = MlflowClient(uri)
                for dataset, local in runs.items():
                    if local:
                        _sync_dataset(client, params, dataset, local, root, state)
            except (MlflowException, OSError, HTTPException, sqlite3.Error) as error:
                state.reason = str(error).partition("\n")[0].replace(uri, state.tracking_uri)
    state.unsent = [run.name for local in runs.values() for run in local if run.name not in state.runs]
    if state.reason is not None:
        told = "%d runs were not sent to MLflow at %s: %s; `fdta mlflow sync` sends them later"
        logger.warning(told, len(state.unsent), state.tracking_uri, state.reason)
    return state


def write_state(path: Path, state: SyncState) -> None:
    """Write `state` as JSON; a file that is right is left alone."""
    value = {"tracking_uri": state.tracking_uri, "runs": state.runs, "unsent": state.unsent, "reason": state.reason}
    text = json.dumps(value, indent=1) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_json(path, value)


def _sync_dataset(
    client: MlflowClient, params: Experiment, dataset: str, runs: list[LocalRun], root: Path, state: SyncState
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
            start = run.ended - run.milliseconds  # The times of all metrics count from here.
            title = DETECTOR if run.run.variant == DETECTOR else f"{run.run.variant} (seed {run.run.seed})"
            made = client.create_run(experiment, start_time=start, tags=tags | run.rows, run_name=title)
            continued = client.get_run(made.info.run_id)
        marks = _send(client, experiment, run, continued)
        for name in params.tables:
            if run.rows.get(name) != continued.data.tags.get(name):
                if name in run.rows:
                    client.set_tag(continued.info.run_id, name, run.rows[name])
                else:
                    client.delete_tag(continued.info.run_id, name)
        for stored in versions:
            if stored.info.run_id != continued.info.run_id:
                # MLflow keeps it until `mlflow gc`.
                _delete_models(client, experiment, stored.info.run_id)
                client.delete_run(stored.info.run_id)
        state.runs[run.name] = continued.info.run_id
        if marks != before:
            state.sent.append(run.name)
    describe(client, params, experiment, runs, state.runs)


def _continues(run: LocalRun, stored: StoredRun) -> bool:
    """Whether all that MLflow has of `stored` is of `run`."""
    marks = _marks(stored)
    same = all(marks[part] == digest for part, digest in run.digests.items() if part in marks)
    return same and stored.data.tags.get("origin") == run.origin


def _marks(stored: StoredRun) -> dict[str, Any]:
    """What MLflow has of a run: how many records, and the digests of the files."""
    source = f"MLflow, run {stored.info.run_id}, tag sent"
    told = parse_json(stored.data.tags.get("sent", '{"records": 0}'), source)
    marks = read_settings(dict[str, int | str], told, "", source)
    if not isinstance(marks.get("records"), int):
        raise InputError(f"{source}: tells no number of records; delete the run in MLflow")
    return marks


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
    end = start + run.milliseconds
    for part in [part for part in run.digests if part not in marks]:
        final: dict[str, float] = {}
        if part == "model":
            _send_model(client, experiment, run, id_, len(run.records))
        elif part == "scores":
            scores = read_json(Scores, run.scores) or {}
            _send_table(client, run, scores, id_)
            # What fits MLflow's columns; the table has all digits.
            final = {f"{run.scores.stem}/{name}": round(value, 4) for name, value in scores.get(COMBINED, {}).items()}
        elif (found := read_json(Similarity, run.similarity)) and found.mean is not None and found.high is not None:
            final = {"similarity/mean": found.mean, f"similarity/share_above_{HIGH}": found.high}
        metrics = [Metric(name, value, end, 0) for name, value in final.items()]
        client.log_batch(id_, metrics=metrics, tags=marked(part, run.digests[part]))
    if run.finished and stored.info.status != "FINISHED":
        client.set_terminated(id_, end_time=end)
    return marks


def _curves(records: list[StepRecord | Epoch], sent: int, start: int) -> Iterator[tuple[int, list[Metric]]]:
    """Metrics of the records behind the first `sent`, whole records at a time, with the number of records until there.

    A record's time is `start`, in milliseconds since 1970, and what the steps until it took.
    """
    from mlflow.entities import Metric

    step, now = 0, start
    waiting: list[Metric] = []
    for count, record in enumerate(records, start=1):
        if isinstance(record, StepRecord):
            step, now = record.step, now + int(1000 * record.seconds)
            values = {f"loss/{name}": value for name, value in record.losses.items()}
            values["learning_rate"] = record.learning_rate
        else:
            values = {f"validation/{name}": value for name, value in record.scores.items()}
            values["seconds_per_epoch"] = record.seconds
        if count > sent:
            if len(waiting) + len(values) > METRICS_AT_ONCE:
                yield count - 1, waiting
                waiting = []
            waiting += [Metric(name, value, now, step) for name, value in values.items()]
    if waiting:
        yield len(records), waiting


def _send_table(client: MlflowClient, run: LocalRun, scores: Scores, id_: str) -> None:
    """The scores of each sequence, as a table that MLflow shows and compares."""
    names = list(scores.get(COMBINED, {}))
    rows = [[sequence, *(values[name] for name in names)] for sequence, values in scores.items()]
    file = f"{run.scores.stem}-by-sequence.json"
    client.log_dict(id_, {"columns": ["sequence", *names], "data": rows}, file)
    client.set_tag(id_, "mlflow.loggedArtifacts", json.dumps([{"path": file, "type": "table"}]))


def _send_model(client: MlflowClient, experiment: str, run: LocalRun, id_: str, step: int) -> None:
    """The checkpoint: of a tracker as a model that MLflow loads, of a detector, which cannot track, as a file."""
    from mlflow.entities import LoggedModelOutput

    # Next to the checkpoint, so that it can be linked.
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
        shutil.copytree(folder, url2pathname(place.path), copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        send()


def _delete_models(client: MlflowClient, experiment: str, run_id: str) -> None:
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)
