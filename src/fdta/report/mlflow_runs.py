"""The runs of a benchmark as MLflow gets them: from their files alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fdta.experiment import plan
from fdta.experiment.params import Experiment
from fdta.names import BASELINES, DETECTOR, Run
from fdta.report.results import Epoch, StepRecord, read_history
from fdta.settings import flat


@dataclass(frozen=True)
class LocalRun:
    """A run, finished or not, and its files."""

    run: Run
    finished: bool
    """Whether its model is there and no training of it is under way; baselines have none."""
    model: Path
    """A baseline has neither this nor a history."""
    history: Path
    """A run that was made from a published checkpoint has none."""
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

    @cached_property
    def records(self) -> list[StepRecord | Epoch]:
        """Of the training, so far."""
        return read_history(self.history)

    @property
    def milliseconds(self) -> int:
        """That all steps took."""
        return sum(int(1000 * record.seconds) for record in self.records if isinstance(record, StepRecord))

    @cached_property
    def origin(self) -> str:
        """What the run is made of: its settings and the first record of its training, with the time that it took."""
        lines = self.history.read_text().splitlines()[:1] if self.records else []
        return hashlib.sha256(json.dumps([self.settings, [*map(json.loads, lines)]]).encode()).hexdigest()[:16]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of the files that are sent whole, of those that are there; none before the training is finished."""
        digests = {}
        parts = {"model": self.model, "scores": self.scores, "similarity": self.similarity}
        for part, path in parts.items() if self.finished else ():  # Others are of an earlier training.
            if path.is_file():
                with path.open("rb") as file:
                    digests[part] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return digests

    @property
    def ended(self) -> int:
        """When the last of it was written, in milliseconds since 1970."""
        last = self.model if self.finished and self.model.is_file() else self.history if self.records else self.scores
        return int(1000 * last.stat().st_mtime)


def local_runs(params: Experiment, root: Path, dataset: str) -> list[LocalRun]:
    """The detector, then variants and baselines in the order of params.yaml, with every seed that left a file."""
    models, split = root / "models" / dataset, params.dataset(dataset).test_split
    detector = Run(dataset, DETECTOR)
    left = plan.under_way(root, detector) or plan.model_path(root, detector).is_file()
    runs = [detector] if left or plan.history_path(root, detector).is_file() else []
    for variant in params.variants_of(dataset):
        seeds = {seed for file in ("model.pt", "history.jsonl") for seed in plan.seeds_with(models / variant, file)}
        runs += [Run(dataset, variant, seed) for seed in sorted(seeds)]
    for method in BASELINES:
        seeds_scored = plan.seeds_with(root / "scores" / dataset / method, f"{split}.json")
        runs += [Run(dataset, method, seed) for seed in seeds_scored]
    return [_local_run(params, root, run) for run in runs]


def _local_run(params: Experiment, root: Path, run: Run) -> LocalRun:
    # While a training is under way, the finished model is that of an earlier one.
    training, model = plan.under_way(root, run), plan.model_path(root, run)
    finished = model.is_file() and training is None
    history = training / "history.jsonl" if training else plan.history_path(root, run)
    if run.variant in BASELINES:
        finished, settings = True, {"detections": str(Run(run.dataset, plan.FULL, run.seed))}
    else:
        settings = {key: str(value) for key, value in flat(params.used_settings(run.dataset, run.variant)).items()}
    rows = {
        name: ", ".join(row for row, variant in table.rows.items() if variant == run.variant)
        for name, table in params.tables.items()
        if params.benchmark.dataset_of(table.dataset) == run.dataset and run.seed in params.benchmark.seeds
    }
    rows = {name: measured for name, measured in rows.items() if measured}
    scores, similarity = plan.scores_path(params, root, run), plan.similarity_path(params, root, run)
    return LocalRun(run, finished, model, history, scores, similarity, settings, rows)
