"""Experiment -> jobs: which step makes which result, from what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from fdta.errors import InputError
from fdta.experiment import jobs
from fdta.experiment.params import Experiment
from fdta.experiment.plan import (
    BASE,
    FULL,
    figure_inputs,
    model_path,
    page_figures,
    run_folder,
    submission_path,
    table_inputs,
    table_runs,
)
from fdta.experiment.settings import Settings
from fdta.experiment.sources import code_digests, combined
from fdta.model.settings import ModelSettings
from fdta.names import BASELINES, DETECTOR, Run
from fdta.provenance import RECORD, Records, State
from fdta.settings import named

J = TypeVar("J", bound=jobs.Job)
HERE = Path()
INHERITED = " is stale"
"""End of the reason of a step whose input is not right."""
SERVER_SCORES = Path("server-scores.yaml")
OF_CLIPS = ("intervals", "groups", "occlusion", "switch")
"""Settings of clips that one frame at a time has no use for."""
OF_TRACKING = ("depth", "foreground_weight", "depth_smoothing", "identity", "association", "association_matching")
"""Settings of losses that a detector alone does not have."""
"""Scores of evaluation servers, entered by hand."""


@dataclass(frozen=True)
class Step:
    """A job and the steps that make its inputs."""

    job: jobs.Job
    needs: tuple[Step, ...] = ()

    def __hash__(self) -> int:
        return hash(self.job.record)


class Steps:
    """The steps of an experiment, each made when it is asked for."""

    def __init__(self, experiment: Experiment, root: Path = HERE) -> None:
        self.experiment = experiment
        self.records = Records(root)
        self._steps: dict[str, Step] = {}
        self._states: dict[str, State] = {}

    def state(self, step: Step) -> State:
        """Whether the result of `step` is right: its own record, and the results that it is made from."""
        record = step.job.record
        if record not in self._states:
            stale = [need.job.outputs[0] for need in step.needs if not self.state(need).fresh]
            own = self.records.state(step.job)
            reasons = (*own.reasons, *(f"input {path}{INHERITED}" for path in stale))
            self._states[record] = State(reasons, own.record)
        return self._states[record]

    def split(self, dataset: str, split: str) -> Step | None:
        """Step that renders or gets a split; None if the user puts it there."""
        data, source = self.experiment.dataset(dataset), self.experiment.source(dataset)
        if split not in data.splits:
            raise InputError(f"split {split!r}: {dataset} has {', '.join(data.splits)}")
        common: dict[str, Any] = {
            "dataset": dataset,
            "split": split,
            "outputs": (f"data/{dataset}/{split}",),
            "record": f"data/{dataset}/seqmaps/{split}.{RECORD}",
        }
        if data.render is not None:
            return self._step(jobs.RenderJob, (), sequences=data.splits[split], render=data.render, **common)
        if source is not None:
            return self._step(jobs.DataJob, (), source=source, **common)
        return None

    def checkpoint(self, path: str) -> Step | None:
        """Step that downloads the checkpoint at `path`; None if the user puts it there."""
        place = self.experiment.checkpoints.get(Path(path).name)
        if place is None or str(Path(path).parent) != "pretrained":
            return None
        name = Path(path).name
        # What commands call it makes no other file.
        place = replace(place, name=None, kind=None)
        common: dict[str, Any] = {"outputs": (path,), "record": f"{path}.{RECORD}"}
        return self._step(jobs.CheckpointJob, (), file_name=name, place=place, **common)

    def depth(self, dataset: str, split: str) -> Step:
        """Step that makes the pseudo depth of a split."""
        data = self.experiment.dataset(dataset)
        needs: list[tuple[str, Step | None]] = [(f"data/{dataset}/{split}", self.split(dataset, split))]
        made: dict[str, Any] = {"teacher": data.teacher}
        if data.teacher != "rendered":
            made |= {"size": data.teacher_size, "weights": data.teacher_weights, "input_size": data.teacher_input_size}
            if data.teacher_weights:
                needs.append((data.teacher_weights, self.checkpoint(data.teacher_weights)))
        return self._step(
            jobs.DepthJob,
            needs,
            dataset=dataset,
            split=split,
            outputs=(f"data/{dataset}/depth-{split}.json", f"data/{dataset}/depth/{split}"),
            record=f"data/{dataset}/depth-{split}.{RECORD}",
            **made,
        )

    def detector(self, dataset: str, processes: int | None = None) -> Step:
        """Step that trains the detector of a data set, or imports it."""
        data = self.experiment.dataset(dataset)
        if data.weights:
            return self._import(Run(dataset, DETECTOR), processes)
        settings = detector_settings(self.experiment.settings(dataset, DETECTOR))
        needs, start, start_class = self._training_data(dataset, settings, depth=False), None, None
        if data.detector_start in self.experiment.benchmark.datasets:
            start, made = self.detector_model(data.detector_start)
            needs.append((start, made))
        elif data.detector_start is not None:
            start, start_class = data.detector_start, data.detector_class
            needs.append((start, self.checkpoint(start)))
        return self._training(
            jobs.DetectorJob, Run(dataset, DETECTOR), needs, settings, processes, start=start, start_class=start_class
        )

    def detector_model(self, dataset: str) -> tuple[str, Step | None]:
        """Checkpoint of the detector of a data set, and the step that makes it; None: it is the user's own."""
        own = self.experiment.dataset(dataset).detector
        if own is not None:
            return own, self.checkpoint(own)
        return str(model_path(HERE, Run(dataset, DETECTOR))), self.detector(dataset)

    def train(self, run: Run, processes: int | None = None) -> Step:
        """Step that trains a run, or imports it where the data set has `weights`; of the variant `detector`, the
        detector alone.

        Raises:
            InputError: the data set has weights, but none of this run.
        """
        if run.variant == DETECTOR:
            return self.detector(run.dataset, processes)
        if self.experiment.dataset(run.dataset).weights:
            return self._import(run, processes)
        settings = tracker_settings(self.experiment.settings(run.dataset, run.variant))
        start, made = self.detector_model(run.dataset)
        needs = self._training_data(run.dataset, settings, depth=settings.spatial.enabled)
        needs.append((start, made))
        return self._training(jobs.TrainJob, run, needs, settings, processes, start=start, run=str(run))

    def track(self, run: Run, split: str) -> Step:
        """Step that tracks a split with a run, links a baseline, or detects with a detector alone."""
        settings = None if run.variant in BASELINES else self.experiment.settings(run.dataset, run.variant)
        data = (f"data/{run.dataset}/{split}", self.split(run.dataset, split))
        tracks, detections = f"tracks/{run}/{split}", f"detections/{run}/{split}"
        if settings is None:
            linked = Run(run.dataset, FULL, run.seed)
            return self._step(
                jobs.BaselineJob,
                [data, (f"detections/{linked}/{split}", self.track(linked, split))],
                method=run.variant,
                run=str(linked),
                split=split,
                outputs=(tracks,),
                record=f"{tracks}/{RECORD}",
            )
        if run.variant == DETECTOR:
            model, made = self.detector_model(run.dataset)
            return self._step(
                jobs.DetectJob,
                [data, (model, made)],
                dataset=run.dataset,
                model=model,
                split=split,
                tracker=settings.tracker,
                outputs=(detections,),
                record=f"{detections}/{RECORD}",
            )
        return self._step(
            jobs.TrackJob,
            [data, (str(model_path(HERE, run)), self.train(run))],
            without=settings.unused_code(),
            run=str(run),
            split=split,
            tracker=settings.tracker,
            outputs=(tracks, detections),
            record=f"{tracks}/{RECORD}",
        )

    def score(self, run: Run, split: str) -> Step:
        """Step that scores the tracks of a run or baseline."""
        needs = [
            (f"data/{run.dataset}/{split}", self.split(run.dataset, split)),
            (f"tracks/{run}/{split}", self.track(run, split)),
        ]
        source = self.experiment.source(run.dataset)
        chosen = {} if source is None else {"preprocessing": source.form.preprocessing}
        return self._file(jobs.ScoreJob, needs, f"scores/{run}/{split}.json", run=str(run), split=split, **chosen)

    def similarity(self, run: Run, split: str) -> Step:
        """Step that measures how alike the object embeddings of a run are."""
        threshold = self.experiment.settings(run.dataset, run.variant).tracker.detection_threshold
        needs: list[tuple[str, Step | None]] = [(f"detections/{run}/{split}", self.track(run, split))]
        output = f"scores/{run}/{split}-similarity.json"
        return self._file(jobs.SimilarityJob, needs, output, run=str(run), split=split, threshold=threshold)

    def speed(self, dataset: str) -> Step:
        """Step that measures milliseconds per frame of the full model on a data set."""
        run, split = Run(dataset, FULL, self.experiment.benchmark.seeds[0]), self.experiment.dataset(dataset).test_split
        needs: list[tuple[str, Step | None]] = [
            (f"data/{dataset}/{split}", self.split(dataset, split)),
            (str(model_path(HERE, run)), self.train(run)),
        ]
        tracker = self.experiment.settings(dataset, FULL).tracker
        return self._file(
            jobs.SpeedJob, needs, f"scores/{dataset}/speed.json", run=str(run), split=split, tracker=tracker
        )

    def submission(self, run: Run) -> Step:
        """Step that zips the tracks of a run for an evaluation server.

        Raises:
            InputError: no server keeps ground truth of the data set.
        """
        split, source = self.experiment.submission_split(run.dataset), self.experiment.source(run.dataset)
        if split is None or source is None:
            raise InputError(f"{run}: no server keeps ground truth of {run.dataset}; score its splits")
        needs = [
            (f"data/{run.dataset}/{split}", self.split(run.dataset, split)),
            (f"tracks/{run}/{split}", self.track(run, split)),
        ]
        folder = source.splits[split].submission_folder
        output = str(submission_path(HERE, run))
        return self._file(jobs.SubmissionJob, needs, output, run=str(run), split=split, folder_in_zip=folder)

    def tables(self) -> Step:
        """Step that writes the tables."""
        return self._step(
            jobs.TablesJob,
            [*self._table_needs(), *self._server_scores()],
            document=self.experiment.document(),
            outputs=("results/tables.md", "results/tables", "results/metrics.json", "results/training.csv"),
            record=f"results/tables.{RECORD}",
        )

    def figure(self, file: str) -> Step:
        """Step that draws the figure of the page with the file name `file`, without ending."""
        figures = page_figures(self.experiment)
        if file not in figures:
            raise InputError(f"figure {file!r}: there are {', '.join(figures) or 'none'}")
        name, datasets = figures[file]
        needs = [(str(path), self.producer(str(path))) for path in figure_inputs(self.experiment, HERE, name, datasets)]
        output = f"results/figures/{file}"
        return self._step(
            jobs.FigureJob,
            needs,
            figure=name,
            datasets=datasets,
            document=self.experiment.document(datasets, (BASE, FULL)),
            outputs=(f"{output}.png", f"{output}.json"),
            record=f"{output}.{RECORD}",
        )

    def report(self) -> Step:
        """Step that writes the page."""
        figures = [self.figure(file) for file in page_figures(self.experiment)]
        needs = [*self._table_needs(), *self._server_scores(), ("results/tables.md", self.tables())]
        needs += [(output, figure) for figure in figures for output in figure.job.outputs]
        return self._file(jobs.ReportJob, needs, "results/report.html", document=self.experiment.document())

    def producer(self, path: str) -> Step | None:
        """The step that makes the file or folder `path`; None if it is the user's own."""
        first, _, rest = path.partition("/")
        parts = tuple(rest.split("/"))
        if first == "data" and len(parts) == 2 and parts[1].startswith("depth-"):
            return self.depth(parts[0], parts[1].removeprefix("depth-").removesuffix(".json"))
        if first == "data" and len(parts) == 3 and parts[1] == "depth":
            return self.depth(parts[0], parts[2])
        if first == "data" and len(parts) == 2:
            return self.split(*parts)
        if first == "models" and len(parts) >= 3:
            return self.train(Run.parse("/".join(parts[:-1])))
        if first in ("tracks", "detections") and len(parts) == 4:
            return self.track(Run.parse("/".join(parts[:3])), parts[3])
        if first == "scores" and len(parts) == 4:
            split = parts[3].removesuffix(".json")
            run = Run.parse("/".join(parts[:3]))
            if split.endswith("-similarity"):
                return self.similarity(run, split.removesuffix("-similarity"))
            return self.score(run, split)
        if first == "scores" and parts[1:] == ("speed.json",):
            return self.speed(parts[0])
        if first == "results" and parts[0] == "submissions":
            return self.submission(Run.parse("/".join(parts[1:]).removesuffix(".zip")))
        if first == "results" and parts[0] == "figures":
            return self.figure(parts[1].rpartition(".")[0])
        if path == "results/report.html":
            return self.report()
        if path in ("results/tables.md", "results/metrics.json", "results/training.csv", "results/tables"):
            return self.tables()
        return self.checkpoint(path)

    def all(self) -> dict[str, Step]:
        """Every step that the page needs, by the path of its record, each after those that it needs."""
        found: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.job.record not in found:
                for need in step.needs:
                    visit(need)
                found[step.job.record] = step

        visit(self.report())
        return found

    def known(self) -> tuple[Step, ...]:
        """Every step that was asked for."""
        return tuple(self._steps.values())

    def _table_needs(self) -> list[tuple[str, Step | None]]:
        needs = [(str(path), self.producer(str(path))) for path in table_inputs(self.experiment, HERE)]
        for name in dict.fromkeys(run.dataset for run in table_runs(self.experiment)):
            data = self.experiment.dataset(name)
            if data.render is None:
                needs.append((f"data/{name}/{data.test_split}", self.split(name, data.test_split)))
        return needs

    def _server_scores(self) -> list[tuple[str, Step | None]]:
        return [(str(SERVER_SCORES), None)] if (self.records.root / SERVER_SCORES).is_file() else []

    def _training_data(self, dataset: str, settings: Settings, depth: bool) -> list[tuple[str, Step | None]]:
        """What a training reads: sequences, also of still images, and depth if an adapter needs it."""
        read = [(dataset, split) for split in settings.training_splits]
        for name in settings.clip.stills:
            still, _, split = name.partition("/")
            read.append((still, split))
        validation = (dataset, self.experiment.dataset(dataset).validation_split)
        ours = self.experiment.benchmark.datasets
        needs = [
            (f"data/{name}/{split}", self.split(name, split) if name in ours else None)
            for name, split in dict.fromkeys([*read, validation])
        ]
        if depth:
            needs += [(f"data/{name}/depth/{split}", self.depth(name, split)) for name, split in read if name in ours]
        return needs

    def _training(
        self,
        kind: type[jobs.TrainingJob],
        trained: Run,
        needs: list[tuple[str, Step | None]],
        settings: Settings,
        processes: int | None,
        **values: Any,
    ) -> Step:
        folder = run_folder(trained)
        return self._step(
            kind,
            needs,
            without=settings.unused_code(),
            dataset=trained.dataset,
            settings=settings,
            seed=trained.seed,
            validation_split=self.experiment.dataset(trained.dataset).validation_split,
            processes=processes or max(1, self.experiment.benchmark.gpus),
            outputs=(f"{folder}/model.pt", f"{folder}/history.jsonl"),
            record=f"{folder}/{RECORD}",
            **values,
        )

    def _import(self, run: Run, processes: int | None) -> Step:
        """Step that makes the model of a run from a published checkpoint."""
        weights, benchmark = self.experiment.dataset(run.dataset).weights, self.experiment.benchmark
        if run.variant not in weights or (run.seed not in benchmark.seeds and run.variant != DETECTOR):
            names = (variant if variant == DETECTOR else f"{variant}/seed-{benchmark.seeds[0]}" for variant in weights)
            raise InputError(
                f"{run}: nothing is trained on {run.dataset} in benchmark {benchmark.name!r}, whose checkpoints "
                f"(weights) are of {named(names)}; choose one of them, or another benchmark with --benchmark"
            )
        if (processes or 1) > 1:
            raise InputError(f"{run}: is imported, not trained; run the command without torchrun")
        name = f"{run.dataset}/{DETECTOR}" if run.variant == DETECTOR else str(run)
        file, folder = weights[run.variant], run_folder(run)
        return self._step(
            jobs.ImportJob,
            [(file, self.checkpoint(file))],
            run=name,
            weights=file,
            kept_class=self.experiment.dataset(run.dataset).detector_class,
            settings=imported_settings(self.experiment.settings(run.dataset, run.variant)),
            outputs=(f"{folder}/model.pt",),
            record=f"{folder}/{RECORD}",
        )

    def _file(self, kind: type[J], needs: list[tuple[str, Step | None]], output: str, **values: Any) -> Step:
        record = f"{output.rpartition('.')[0]}.{RECORD}"
        return self._step(kind, needs, outputs=(output,), record=record, **values)

    def _step(
        self,
        kind: type[J],
        needs: Iterable[tuple[str, Step | None]],
        without: tuple[str, ...] = (),
        **values: Any,
    ) -> Step:
        """Step of the job of `kind` with `values`; `needs`: path of each input and the step that makes it."""
        record = values["record"]
        if record not in self._steps:
            needs = tuple(needs)
            inputs = {path: step.job.record if step else None for path, step in needs}
            job = kind(code=combined(code_digests(kind.entry, (*kind.settled, *without))), inputs=inputs, **values)
            made_by = tuple(dict.fromkeys(step for _, step in needs if step))
            self._steps[record] = Step(job, made_by)
        return self._steps[record]


def detector_settings(settings: Settings) -> Settings:
    """`settings` with defaults for all that the training of a detector alone does not use."""
    unused = Settings()
    clip = replace(settings.clip, **{name: getattr(unused.clip, name) for name in OF_CLIPS})
    loss = replace(settings.loss, **{name: getattr(unused.loss, name) for name in OF_TRACKING})
    sizes = settings.validation
    validation = replace(unused.validation, short_side=sizes.short_side, long_side=sizes.long_side)
    off = {name: replace(getattr(settings, name), enabled=False) for name in ("spatial", "temporal", "identity")}
    detector = replace(
        settings,
        **off,
        history=unused.history,
        association=replace(unused.association, heads=1),
        clip=clip,
        loss=loss,
        training=unused.training,
        tracker=unused.tracker,
        validation=validation,
    )
    return detector.with_defaults_for_unused()


def imported_settings(settings: Settings) -> ModelSettings:
    """The settings of the model of a run that is imported: without the Identity Adapter's feature extractor, which
    published checkpoints do not hold, for it serves in training only."""
    used = settings.with_defaults_for_unused()
    model = ModelSettings(**{each.name: getattr(used, each.name) for each in fields(ModelSettings)})
    return replace(model, identity=replace(model.identity, feature_extractor=False))


def tracker_settings(settings: Settings) -> Settings:
    """`settings` with defaults for all that the training of a variant does not use."""
    tracker = replace(settings, detector_training=Settings().detector_training, tracker=settings.validation)
    return tracker.with_defaults_for_unused()
