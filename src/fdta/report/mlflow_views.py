"""What MLflow's pages show of the tables: a link to the runs of each, as charts, as a list and side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fdta.evaluate.metrics import SCORES
from fdta.experiment.params import Experiment
from fdta.names import BASELINES
from fdta.report.mlflow_runs import LocalRun

if TYPE_CHECKING:
    from mlflow import MlflowClient


def describe(
    client: MlflowClient, params: Experiment, experiment: str, runs: list[LocalRun], ids: dict[str, str]
) -> None:
    """Give the experiment views of the runs of each table, and links to them in one line, for MLflow shows no more."""
    tags: dict[str, str] = {}
    links: dict[str, list[str]] = {"Charts of Table": [], "List": [], "Side by side": []}
    for name, table in params.tables.items():
        shown = [run for row in table.rows.values() for run in runs if run.run.variant == row and name in run.rows]
        shown = list({run.name: run for run in shown}.values())
        if len(shown) < 2:
            continue
        number = name.removeprefix("table-")
        tags[f"mlflow.sharedViewState.{name}"] = json.dumps(_view(name, f"Table {number}", shown))
        page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={name}"
        compared = quote(json.dumps([ids[run.name] for run in shown]))
        addresses = (
            f"{page}&compareRunsMode=CHART",
            f"{page}&compareRunsMode=TABLE",
            f"#/compare-runs?runs={compared}&experiments={quote(json.dumps([experiment]))}",
        )
        for places, address in zip(links.values(), addresses, strict=True):
            places.append(f"[{number}]({address})")
    if tags:
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
    differing = [key for key in (settings[0] if settings else ()) if len({one[key] for one in settings}) > 1]
    split = runs[0].scores.stem
    chart: dict[str, Any] = {"metricSectionId": name, "deleted": False, "isGenerated": False, "runsCountToCompare": 10}
    charts = []
    for metric in SCORES:
        bars = {"type": "BAR", "metricKey": f"{split}/{metric.name}", "displayName": metric.label}
        charts.append(chart | {"uuid": f"{name}-{metric.name}"} | bars)
    difference = chart | {"uuid": f"{name}-settings", "type": "DIFFERENCE", "chartName": "Settings that differ"}
    difference |= {"compareGroups": ["Parameters"], "showDifferencesOnly": True}
    difference |= {"showChangeFromBaseline": False, "baselineColumnUuid": ""}
    columns = [f"metrics.`{split}/{metric.name}`" for metric in SCORES] + [f"params.`{key}`" for key in differing]
    return {
        "searchFilter": f"tags.`{name}` != ''",
        "orderByKey": columns[0],
        "orderByAsc": not SCORES[0].higher_is_better,
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunCharts": [*charts, difference],
        "compareRunSections": [{"uuid": name, "name": title, "display": True, "isReordered": True, "deleted": False}],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
    }
