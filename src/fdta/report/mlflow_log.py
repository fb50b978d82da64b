"""Finished runs into MLflow: settings, curves, scores, similarities and checkpoints.

There is one experiment a data set, ``fdta/BENCHMARK/DATASET``, and in it each run once (``base (seed 0)``), in however
many tables it stands: the tag ``table-4`` is "yes" for those of Table 4 (but not for the further seeds that measure
noise). The experiment's description, which MLflow shows on each of its pages, links to the runs of each table. To
compare Table 4's eight runs, open the experiment and click the 4 in its description: after "Charts of Table" for curves
and bars, after "Side by side" for every number and setting in columns. (On a first visit MLflow wants one more click on
a notice of its own.)

Metrics are ``loss/NAME`` and ``learning_rate`` by step; ``validation/NAME`` and ``seconds_per_epoch`` at the last step
of an epoch; and ``SPLIT/NAME`` (scores) and ``similarity/NAME`` without a step, so that MLflow draws bars. A run's
digest, over its files and settings, is one of its tags: a run that did not change is left alone, and one that did takes
the place of the old one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fdta.evaluate.score import COMBINED
from fdta.params import BASELINES, DETECTOR, Params, Run, settings_to_dict
from fdta.report.measured import commit, read_history, read_json
from fdta.report.runs import FULL, history_path, scores_path, seeds_with, similarity_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as StoredRun

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""MLflow's own switches while it works here."""
CONNECT_SECONDS = 5
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""The most that MLflow takes."""
SQLITE = "sqlite:///"
SIMILARITY = ("mean", "share_above_0.9")
"""Numbers of the similarity file that are logged."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A run to log, and where it left what."""

    run: Run
    model: Path | None
    """None for a baseline, which has scores alone."""
    history: Path
    scores: Path
    similarity: Path
    settings: dict[str, str]
    """By dotted key."""
    tables: tuple[str, ...]

    @property
    def name(self) -> str:
        """DATASET/VARIANT/seed-N, or DATASET/detector."""
        return f"{self.run.dataset}/{DETECTOR}" if self.run.variant == DETECTOR else str(self.run)

    @property
    def title(self) -> str:
        return DETECTOR if self.run.variant == DETECTOR else f"{self.run.variant} (seed {self.run.seed})"

    def digest(self) -> str:
        """Digest of all files and settings."""
        digest = hashlib.sha256(json.dumps(self.settings).encode())
        for path in (self.model, self.history, self.scores, self.similarity):
            content = b""
            if path is not None and path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
            digest.update(content or b"absent")
        return digest.hexdigest()


def log_runs(params: Params, root: Path, tracking_uri: str | None = None) -> dict[str, str]:
    """Send every finished run of the benchmark that MLflow does not have yet: detectors, variants and baselines.

    Where MLflow is not installed or fails, a warning is logged and everything else stays as it is.

    Args:
        params: the benchmark.
        root: folder of models/ and scores/.
        tracking_uri: MLflow store; None: $MLFLOW_TRACKING_URI, or without it ``root/mlflow.db`` (SQLite) with
            artifacts in ``root/mlartifacts``.

    Returns:
        DATASET/VARIANT/seed-N (or DATASET/detector) -> MLflow's run id; without the runs that MLflow did not take.

    Raises:
        InputError: a file of a run is broken.
    """
    root = Path(root).resolve()
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root / 'mlflow.db'}"
    ids: dict[str, str] = {}
    with _quietly():
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            logger.warning("MLflow is not installed, no run was logged; pip install mlflow")
            return ids
        try:
            _check_reachable(uri)
            client = MlflowClient(uri)
            revision = commit(root)
            for dataset in params.benchmark.datasets:
                _log_dataset(client, params, dataset, _finished_runs(params, root, dataset), root, revision, ids)
        except (MlflowException, OSError, sqlite3.Error) as error:
            reason = str(error).partition("\n")[0]
            logger.warning("MLflow at %s failed after %d runs, the others were not logged: %s", uri, len(ids), reason)
    return ids


def _finished_runs(params: Params, root: Path, dataset: str) -> list[FinishedRun]:
    """The detector, then variants and baselines in the order of params.yaml, with every seed that is there."""
    split = params.benchmark.dataset(dataset).test_split
    models = root / "models" / dataset
    finished = []

    def add(run: Run, settings: dict[str, Any], model: Path | None, history: Path) -> None:
        tables = tuple(
            name
            for name, table in params.tables.items()
            if params.benchmark.dataset_of(table.dataset) == dataset
            and run.variant in table.rows.values()
            and run.seed in params.benchmark.seeds
        )
        scores, similarity = scores_path(params, root, run), similarity_path(params, root, run)
        finished.append(FinishedRun(run, model, history, scores, similarity, _flat(settings), tables))

    if (models / "detector.pt").is_file():
        settings = settings_to_dict(params.settings(dataset, DETECTOR))
        add(Run(dataset, DETECTOR), settings, models / "detector.pt", models / "detector-history.jsonl")
    for variant in params.variants:
        settings = settings_to_dict(params.settings(dataset, variant))
        for seed in seeds_with(models / variant, "model.pt"):
            run = Run(dataset, variant, seed)
            add(run, settings, models / variant / f"seed-{seed}" / "model.pt", history_path(root, run))
    for method in BASELINES:
        for seed in seeds_with(root / "scores" / dataset / method, f"{split}.json"):
            run = Run(dataset, method, seed)
            add(run, {"detections": str(Run(dataset, FULL, seed))}, None, history_path(root, run))
    return finished


def _log_dataset(
    client: MlflowClient,
    params: Params,
    dataset: str,
    finished: list[FinishedRun],
    root: Path,
    revision: str,
    ids: dict[str, str],
) -> None:
    """Log the runs of one data set, adding them to `ids`."""
    if not finished:
        return
    experiment = _experiment(client, f"fdta/{params.benchmark.name}/{dataset}", root)
    stored = {}
    for old in client.search_runs([experiment], max_results=10_000):
        stored.setdefault(old.data.tags.get("run"), []).append(old)
    for run in finished:
        digest, previous = run.digest(), stored.get(run.name, [])
        same = [old for old in previous if old.data.tags.get("digest") == digest and old.info.status == "FINISHED"]
        if same:
            ids[run.name] = same[0].info.run_id
            _update_tables(client, same[0], params, run)
        else:
            tags = {"benchmark": params.benchmark.name, "dataset": dataset, "variant": run.run.variant}
            tags |= {"seed": str(run.run.seed), "run": run.name, "commit": revision, "digest": digest}
            ids[run.name] = _log_run(client, experiment, run, tags | dict.fromkeys(run.tables, "yes"))
        for old in previous:
            if old.info.run_id != ids[run.name]:
                client.delete_run(old.info.run_id)
    note = _description(params, dataset, experiment, ids)
    if client.get_experiment(experiment).tags.get("mlflow.note.content", "") != note:
        client.set_experiment_tag(experiment, "mlflow.note.content", note)


def _update_tables(client: MlflowClient, stored: StoredRun, params: Params, run: FinishedRun) -> None:
    """Make the tags of a stored run name the tables that it is in now."""
    for name in params.tables:
        if (name in run.tables) != (name in stored.data.tags):
            if name in run.tables:
                client.set_tag(stored.info.run_id, name, "yes")
            else:
                client.delete_tag(stored.info.run_id, name)


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


def _log_run(client: MlflowClient, experiment: str, run: FinishedRun, tags: dict[str, str]) -> str:
    """MLflow's id of `run`, logged; one that was cut short is left as running, and so is replaced next time."""
    from mlflow.entities import Param

    metrics, start, end = _metrics(run)
    id_ = client.create_run(experiment, start_time=start, tags=tags, run_name=run.title).info.run_id
    parameters = [Param(key, value) for key, value in run.settings.items()]
    for first in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(id_, params=parameters[first : first + PARAMETERS_AT_ONCE])
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(id_, metrics=metrics[first : first + METRICS_AT_ONCE])
    if run.model is not None:
        client.log_artifact(id_, str(run.model))
    client.set_terminated(id_, end_time=end)
    return id_


def _metrics(run: FinishedRun) -> tuple[list[Metric], int, int]:
    """Metrics of a run, and when it started and ended, in milliseconds since 1970.

    The end is when its last file was written; the start is as much earlier as its steps took.
    """
    from mlflow.entities import Metric

    history = read_history(run.history)
    last = run.model or run.scores
    end = int(1000 * last.stat().st_mtime)
    start = now = end - int(1000 * sum(record["seconds"] for record in history if record["kind"] == "step"))
    step, metrics = 0, []
    for record in history:
        if record["kind"] == "step":
            step, now = record["step"], now + int(1000 * record["seconds"])
            values = {f"loss/{name}": value for name, value in record["losses"].items()}
            values["learning_rate"] = record["learning_rate"]
        else:
            values = {f"validation/{name}": value for name, value in record["scores"].items()}
            values["seconds_per_epoch"] = record["seconds"]
        metrics += [Metric(name, value, now, step) for name, value in values.items()]
    final = {
        f"{run.scores.stem}/{name}": value for name, value in (read_json(run.scores) or {}).get(COMBINED, {}).items()
    }
    similarity = read_json(run.similarity) or {}
    final |= {f"similarity/{name}": similarity[name] for name in SIMILARITY if similarity.get(name) is not None}
    return metrics + [Metric(name, value, end, 0) for name, value in final.items()], start, end


def _description(params: Params, dataset: str, experiment: str, ids: dict[str, str]) -> str:
    """Markdown with two links to the runs of each table; short, for MLflow shows its first line only."""
    charts, side_by_side = [], []
    for name, table in params.tables.items():
        if params.benchmark.dataset_of(table.dataset) != dataset:
            continue
        runs = [Run(dataset, variant, seed) for variant in table.rows.values() for seed in params.benchmark.seeds]
        found = list(dict.fromkeys(ids[str(run)] for run in runs if str(run) in ids))
        if len(found) > 1:
            number = name.removeprefix("table-")
            page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART"
            tagged = quote(f"tags.`{name}` = 'yes'")
            charts.append(f"[{number}]({page}&searchFilter={tagged})")
            compared = f"runs={quote(json.dumps(found))}&experiments={quote(json.dumps([experiment]))}"
            side_by_side.append(f"[{number}](#/compare-runs?{compared})")
    if not charts:
        return ""
    return f"Charts of Table {', '.join(charts)}. Side by side: Table {', '.join(side_by_side)}."


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat


def _check_reachable(uri: str) -> None:
    """Raise at once where MLflow itself would try again for minutes.

    Raises:
        OSError: nothing answers at `uri`.
        sqlite3.Error: the file of `uri` is no database, or cannot be one.
    """
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(uri, timeout=CONNECT_SECONDS).close()
        except urllib.error.HTTPError:
            return  # Somebody answers; MLflow tells better what is wrong.
    elif uri.startswith(SQLITE):
        with closing(sqlite3.connect(uri.removeprefix(SQLITE))) as database:
            database.execute("PRAGMA schema_version")


@contextmanager
def _quietly() -> Iterator[None]:
    """MLflow without its messages and its telemetry."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [one.level for one in loggers]
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
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
