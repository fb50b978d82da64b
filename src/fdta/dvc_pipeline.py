"""dvc.yaml of a benchmark: the stages that `dvc repro` runs, each a call of Snakemake, with what it reads and writes.

DVC and Snakemake agree on what is out of date, because both look at the same files of ``settings/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fdta.experiment.paper import read_paper
from fdta.experiment.params import Experiment
from fdta.experiment.plan import (
    BASE,
    FULL,
    METRICS,
    TRAINING_CURVES,
    detector_history_path,
    figure_datasets,
    history_path,
    scores_path,
    similarity_path,
    similarity_runs,
    speed_path,
    submission_path,
    submission_runs,
    table_baselines,
    table_inputs,
    table_runs,
)
from fdta.names import DETECTOR, Run

HERE = Path()
HEADER = """\
# Written by `fdta dvc` from params.yaml; write it anew after a change of the benchmark, its data sets or its tables.
# Each stage calls Snakemake, which decides what of it is out of date and keeps what is not.
"""


def pipeline(params: Experiment) -> str:
    """Text of dvc.yaml for the benchmark of `params`."""
    paper = read_paper(params)
    stages = {"settings": _settings_stage()}
    stages |= _checkpoint_stages(params)
    for dataset in _datasets(params):
        stages |= _dataset_stages(params, dataset)
    stages["tables"] = _tables_stage(params)
    stages["report"] = _report_stage(params)
    curves = [
        {str(TRAINING_CURVES): {"x": "epoch", "y": list(figure_datasets(params)), "title": "loss of full by epoch"}}
    ]
    bars = [
        {
            f"results/tables/{name}.csv": {
                "template": "bar_horizontal",
                "x": "HOTA_here",
                "y": "row",
                "title": table.title,
            }
        }
        for name, table in params.tables.items()
        if params.benchmark.dataset_of(table.dataset) and "HOTA" in paper.tables[name].metrics
    ]
    value = {"params": ["params.yaml"], "plots": curves + bars, "stages": stages}
    return HEADER + yaml.safe_dump(value, sort_keys=False, width=120)


def _datasets(params: Experiment) -> list[str]:
    """Data sets of the tables' runs, after those that their detectors start from."""
    used = dict.fromkeys(run.dataset for run in table_runs(params))
    starts = [params.dataset(dataset).detector_start for dataset in used]
    return list(dict.fromkeys([*(start for start in starts if start in params.benchmark.datasets), *used]))


def _settings_stage() -> dict[str, Any]:
    """Its dependencies change with every comment, what it writes only where it matters."""
    return _stage("fdta params resolve", ["params.yaml", "src/fdta"], [], ["settings"])


def _checkpoint_stages(params: Experiment) -> dict[str, Any]:
    wanted = set()
    for dataset in _datasets(params):
        data = params.dataset(dataset)
        wanted |= {data.detector_start, data.teacher_weights if data.render is None else None}
    files = sorted(path for path in wanted if path is not None and path not in params.benchmark.datasets)
    return {"checkpoints": _snakemake(files, [], files)} if files else {}


def _dataset_stages(params: Experiment, dataset: str) -> dict[str, Any]:
    benchmark, data = params.benchmark, params.dataset(dataset)
    runs = [run for run in table_runs(params) if run.dataset == dataset]
    baselines = [run for run in table_baselines(params) if run.dataset == dataset]
    settings = [params.settings(dataset, run.variant) for run in runs]
    folder = f"data/{dataset}"
    trainings = [params.settings(dataset, DETECTOR), *settings]
    trained = {data.validation_split, *(split for s in trainings for split in s.training_splits)}
    submitted = [run for run in submission_runs(params) if run.dataset == dataset]
    server_split = params.submission_split(dataset) if submitted else None
    splits = [s for s in data.splits if s in trained or (s in (data.test_split, server_split) and runs)]
    deep = [split for split in data.splits if any(s.spatial.enabled and split in s.training_splits for s in settings)]
    if dataset in figure_datasets(params) and data.validation_split not in deep:
        deep.append(data.validation_split)
    read = [f"{folder}/{split}" for split in splits if split in trained]
    read += [f"data/{name}" for name in sorted({name for s in trainings for name in s.clip.stills})]
    start = data.detector_start
    detector_start = f"models/{start}/detector.pt" if start in benchmark.datasets else start
    sequence_maps = {split: f"{folder}/seqmaps/{split}.txt" for split in splits}
    stages = {
        f"data-{dataset}": _snakemake(
            list(sequence_maps.values()),
            [f"settings/{dataset}/data.json"],
            [*(f"{folder}/{split}" for split in splits), f"{folder}/seqmaps"],
        )
    }
    if deep:
        weights = [data.teacher_weights] if data.teacher != "rendered" and data.teacher_weights else []
        costs = [f"{folder}/depth-{split}.json" for split in deep]
        stages[f"depth-{dataset}"] = _snakemake(
            costs,
            [f"settings/{dataset}/depth.json", *(f"{folder}/{split}" for split in deep), *weights],
            [f"{folder}/depth"],
            costs,
        )
    detector = f"models/{dataset}/detector.pt"
    stages[f"detector-{dataset}"] = _snakemake(
        [detector],
        [
            f"settings/{dataset}/detector.json",
            *read,
            *([detector_start] if detector_start else []),
        ],
        [detector],
        [str(detector_history_path(HERE, dataset))],
    )
    if not runs:
        return stages
    models = [f"models/{run}/model.pt" for run in runs]
    stages[f"training-{dataset}"] = _snakemake(
        models,
        [
            *dict.fromkeys(f"settings/{dataset}/{run.variant}/train.json" for run in runs),
            *read,
            *([f"{folder}/depth"] if deep else []),
            detector,
        ],
        models,
        [str(history_path(HERE, run)) for run in runs],
    )
    tracked = [(run, data.test_split) for run in runs + baselines]
    tracked += [(run, server_split) for run in submitted if server_split]
    summaries = [f"tracks/{run}/{split}/summary.json" for run, split in tracked]
    alone = f"detections/{dataset}/{DETECTOR}/seed-0/{data.test_split}/summary.json"
    with_detector = Run(dataset, DETECTOR) in similarity_runs(params)
    tracking_splits = [split for split in splits if split in (data.test_split, server_split)]
    stages[f"tracking-{dataset}"] = _snakemake(
        summaries + ([alone] if with_detector else []),
        [
            *dict.fromkeys(f"settings/{dataset}/{run.variant}/track.json" for run in runs),
            *([f"settings/{dataset}/{DETECTOR}/track.json"] if with_detector else []),
            "settings/baseline.json",
            *(f"{folder}/{split}" for split in tracking_splits),
            *models,
            *([detector] if with_detector else []),
        ],
        [f"tracks/{dataset}", f"detections/{dataset}"],
    )
    scores = [scores_path(params, HERE, run) for run in runs + baselines]
    scores += [similarity_path(params, HERE, run) for run in similarity_runs(params) if run.dataset == dataset]
    speed = [path for path in [speed_path(HERE, dataset)] if path in table_inputs(params, HERE)]
    files = [str(path) for path in [*scores, *speed, *(submission_path(HERE, run) for run in submitted)]]
    stages[f"scoring-{dataset}"] = _snakemake(
        files,
        [
            *("settings/score.json", "settings/similarity.json"),
            *(["settings/speed.json", f"models/{Run(dataset, FULL, benchmark.seeds[0])}/model.pt"] if speed else []),
            *(f"{folder}/{split}" for split in tracking_splits),
            *(f"tracks/{dataset}", f"detections/{dataset}"),
        ],
        [],
        files,
    )
    return stages


def _tables_stage(params: Experiment) -> dict[str, Any]:
    inputs = [str(path) for path in table_inputs(params, HERE)]
    written = [
        "results/tables.md",
        "results/tables",
        str(TRAINING_CURVES),
        f"results/mlflow-{params.benchmark.name}.json",
    ]
    stage = _snakemake(["results/tables.md"], ["settings/tables.json", "server-scores.yaml", *inputs], [], written)
    return stage | {"metrics": [{str(METRICS): {"cache": False, "persist": True}}]}


def _report_stage(params: Experiment) -> dict[str, Any]:
    seed = params.benchmark.seeds[0]
    runs = [Run(dataset, variant, seed) for dataset in figure_datasets(params) for variant in (BASE, FULL)]
    deps = ["results/tables.md", "settings/figures.json", "settings/page.json"]
    deps += [f"models/{run}/model.pt" for run in runs]
    deps += [f"{kind}/{dataset}" for dataset in figure_datasets(params) for kind in ("data", "tracks", "detections")]
    return _snakemake(["results/report.html"], deps, ["results/report.html"], ["results/figures"])


def _snakemake(targets: list[str], deps: list[str], outs: list[str], small: list[str] | None = None) -> dict[str, Any]:
    return _stage(f"snakemake --cores all {' '.join(targets)}", deps, outs, small or [])


def _stage(command: str, deps: list[str], outs: list[str], small: list[str]) -> dict[str, Any]:
    """`outs` go to DVC's cache, `small` stay in git; both are there when the command runs again."""
    kept = [{out: {"persist": True}} for out in outs] + [{out: {"cache": False, "persist": True}} for out in small]
    return {"cmd": command, "deps": list(dict.fromkeys(deps)), **({"outs": kept} if kept else {})}
