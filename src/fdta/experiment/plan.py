"""Which runs and files the tables need; imports nothing heavy, for the workflow reads it at every start."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from fdta.errors import InputError
from fdta.experiment.jobs import Figure
from fdta.experiment.paper import read_paper
from fdta.experiment.params import Experiment
from fdta.names import BASELINES, DETECTOR, Run

FULL = "full"
"""The variant whose detections the baselines link and whose speed is measured."""
BASE = "base"
"""The variant without adapters, which the figures set beside `FULL`."""
COMPLEMENTARY = "table-4"
"""The table whose variants the similarity table has."""
METRICS = Path("results/metrics.json")
"""The scores over all test sequences, by data set and run."""
TRAINING_CURVES = Path("results/training.csv")
"""Mean loss of each epoch of the full model, a column a data set."""
FIGURES: tuple[Figure, ...] = get_args(Figure)
"""Names of the figures, in the order of the page."""


def table_runs(params: Experiment) -> list[Run]:
    """Runs that the tables need, each once, in the tables' order; also those that baselines start from, and those that
    measure the noise of the seed. Each is a training, or a published checkpoint (`DatasetSettings.weights`).

    A table whose data set has no counterpart in the benchmark needs none.

    Raises:
        ParamsError: see `read_paper`.
    """
    runs = _runs(params, {name: (FULL if name in BASELINES else name) for name in (*params.variants, *BASELINES)})
    dataset = (
        params.benchmark.dataset_of(params.tables[COMPLEMENTARY].dataset) if COMPLEMENTARY in params.tables else None
    )
    if dataset:
        runs += [Run(dataset, name, seed) for name, seeds in params.benchmark.noise_seeds.items() for seed in seeds]
    return list(dict.fromkeys(runs))


def table_baselines(params: Experiment) -> list[Run]:
    """Tracking-by-detection methods that the tables need, as runs of that name.

    Raises:
        ParamsError: see `read_paper`.
    """
    return _runs(params, {name: name for name in BASELINES})


def similarity_variants(params: Experiment) -> list[str]:
    """The variants of Table 4, shown or not, which the similarity table has, in its order."""
    table = params.all_tables.get(COMPLEMENTARY)
    return list(dict.fromkeys(table.rows.values())) if table else []


def similarity_runs(params: Experiment) -> list[Run]:
    """Runs of the similarity table: on every data set the detector alone (seed 0) and the variants of Table 4."""
    variants = similarity_variants(params)
    runs = [run for run in table_runs(params) if run.variant in variants and run.seed in params.benchmark.seeds]
    detectors = [Run(dataset, DETECTOR) for dataset in dict.fromkeys(run.dataset for run in runs)]
    return detectors + runs


def submission_runs(params: Experiment) -> list[Run]:
    """Runs and baselines whose tracks of the split that a server scores are wanted, in the tables' order."""
    runs = []
    for table in params.tables.values() if params.benchmark.submissions else ():
        dataset = params.benchmark.dataset_of(table.dataset)
        if dataset and table.submissions and params.submission_split(dataset):
            runs += [Run(dataset, name, seed) for name in table.rows.values() for seed in params.benchmark.seeds]
    return list(dict.fromkeys(runs))


def table_inputs(params: Experiment, root: Path) -> list[Path]:
    """Every file that the tables read: scores, similarities, speed, histories for the hours an epoch, submissions and
    what pseudo depth cost.

    Raises:
        ParamsError: see `read_paper`.
    """
    paper = read_paper(params)
    files = [scores_path(params, root, run) for run in table_runs(params) + table_baselines(params)]
    files += [similarity_path(params, root, run) for run in similarity_runs(params)]
    for name, table in params.tables.items():
        dataset = params.benchmark.dataset_of(table.dataset)
        if dataset and "milliseconds" in paper.tables[name].metrics:
            files.append(speed_path(root, dataset))
        if dataset and "hours_per_epoch" in paper.tables[name].metrics and not params.dataset(dataset).weights:
            runs = [Run(dataset, variant, seed) for variant in table.rows.values() for seed in params.benchmark.seeds]
            files += [history_path(root, run) for run in runs]
    files += [submission_path(root, run) for run in submission_runs(params)]
    files += list(depth_costs_paths(params, root).values())
    return list(dict.fromkeys(files))


def figure_datasets(params: Experiment) -> tuple[str, ...]:
    """Data sets on which the tables have `BASE` and `FULL`: those that figures show.

    Raises:
        ParamsError: see `read_paper`.
    """
    runs = table_runs(params)
    both = [run.dataset for run in runs if run.variant == FULL and Run(run.dataset, BASE, run.seed) in runs]
    return tuple(dict.fromkeys(both))


def trained_datasets(params: Experiment) -> tuple[str, ...]:
    """Those of `figure_datasets` whose runs are trained, not made from published checkpoints.

    Raises:
        ParamsError: see `read_paper`.
    """
    return tuple(dataset for dataset in figure_datasets(params) if not params.dataset(dataset).weights)


def page_figures(params: Experiment) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The figures of the page: file name without ending -> which of `FIGURES` it is, and its data sets.

    Raises:
        ParamsError: see `read_paper`.
    """
    figures: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in FIGURES:
        datasets = trained_datasets(params) if name == "training" else figure_datasets(params)
        if name == "tracks":
            figures |= {f"{name}-{dataset}": (name, (dataset,)) for dataset in datasets}
        elif datasets:
            figures[name] = name, datasets
    return figures


def figure_inputs(params: Experiment, root: Path, name: str, datasets: tuple[str, ...]) -> list[Path]:
    """Files and folders that figure `name` of `datasets` is made from."""
    files = []
    for dataset in datasets:
        data, seed = params.dataset(dataset), params.benchmark.seeds[0]
        base, full, detector = Run(dataset, BASE, seed), Run(dataset, FULL, seed), Run(dataset, DETECTOR)
        folder = root / "data" / dataset
        model = model_path(root, full)
        tested, validated = folder / data.test_split, folder / data.validation_split
        places = [(kind, run) for run in (base, full) for kind in ("tracks", "detections")]
        tracked = [root / kind / str(run) / data.test_split for kind, run in places]
        files += {
            "similarity": [similarity_path(params, root, run) for run in (detector, base, full)],
            "depth": [model, tested] if data.weights else [model, validated, folder / "depth" / data.validation_split],
            "tracks": [tested, *tracked],
            "embeddings": [tested, *tracked],
            "depth-attention": [model, tested],
            "interactions": [model, tested, *tracked[2:]],
            "training": [history_path(root, run) for run in (base, full, *([] if data.detector else [detector]))],
        }[name]
    return files


def scores_path(params: Experiment, root: Path, run: Run) -> Path:
    """Scores of `run` on its data set's test split: sequence (and "combined") -> metric -> value in per cent."""
    return root / "scores" / str(run) / f"{params.dataset(run.dataset).test_split}.json"


def similarity_path(params: Experiment, root: Path, run: Run) -> Path:
    """Similarities between the object embeddings of `run` on its data set's test split."""
    return scores_path(params, root, run).with_name(f"{params.dataset(run.dataset).test_split}-similarity.json")


def history_path(root: Path, run: Run) -> Path:
    """Losses, times and validation scores of the training of `run`."""
    return root / run_folder(run) / "history.jsonl"


def run_folder(run: Run) -> Path:
    """Folder of the training of `run`, in the project's folder."""
    return Path("models", run.dataset, DETECTOR) if run.variant == DETECTOR else Path("models", str(run))


def model_path(root: Path, run: Run) -> Path:
    """Checkpoint of `run`."""
    return root / run_folder(run) / "model.pt"


def under_way(root: Path, run: Run) -> Path | None:
    """Folder of a training of `run` that has not come to its end."""
    folder = root / run_folder(run)
    found = [path.parent for path in folder.parent.glob(f".{folder.name}.*/history.jsonl")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def speed_path(root: Path, dataset: str) -> Path:
    """Milliseconds a frame by component of the tracker."""
    return root / "scores" / dataset / "speed.json"


def submission_path(root: Path, run: Run) -> Path:
    """Tracks of `run` for the server."""
    return root / "results" / "submissions" / f"{run}.zip"


def depth_costs_paths(params: Experiment, root: Path) -> dict[str, Path]:
    """Data set -> seconds and bytes of the pseudo depth of its training split, where the full model learns depth."""
    datasets = dict.fromkeys(run.dataset for run in table_runs(params) if run.variant == FULL)
    return {
        dataset: root / "data" / dataset / f"depth-{settings.training_splits[0]}.json"
        for dataset in datasets
        if (settings := params.settings(dataset, FULL)).spatial.enabled and not params.dataset(dataset).weights
    }


def seeds_with(folder: Path, file: str) -> list[int]:
    """Every N for which ``folder/seed-N/file`` is there, also of a training that is under way."""
    found = [*folder.glob(f"seed-*/{file}"), *folder.glob(f".seed-*/{file}")]
    seeds = (path.parent.name.lstrip(".").removeprefix("seed-").partition(".")[0] for path in found)
    return sorted({int(seed) for seed in seeds if seed.isdecimal()})


def _runs(params: Experiment, needed: dict[str, str]) -> list[Run]:
    """Runs of the tables' rows; `needed`: what measures a row -> what has to run for it."""
    read_paper(params)
    runs = []
    for table in params.tables.values():
        dataset = params.benchmark.dataset_of(table.dataset)
        for measured_by in table.rows.values():
            if dataset and measured_by in needed:
                runs += [Run(dataset, needed[measured_by], seed) for seed in params.benchmark.seeds]
    return list(dict.fromkeys(runs))


def require_scores(experiment: Experiment, root: Path) -> tuple[int, int]:
    """How many runs of the tables are scored in `root`, and how many there are.

    Raises:
        InputError: none is scored.
    """
    runs = [*table_runs(experiment), *table_baselines(experiment)]
    scored = sum(scores_path(experiment, root, run).is_file() for run in runs)
    if not scored:
        raise InputError(
            f"{root / 'scores'}: no run of benchmark {experiment.benchmark.name!r} is scored; score one with "
            f"`fdta score`, or choose another benchmark with --benchmark"
        )
    return scored, len(runs)
