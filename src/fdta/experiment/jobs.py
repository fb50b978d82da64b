"""Jobs: one small typed object for each step, with everything that decides its result except the content of its inputs.

A job is written to a file whose name is its key, ``jobs/KEY.json``, and never changed. `fdta run` reads that file and
nothing else.
"""

from __future__ import annotations

import json
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fdta.acquire.catalogue import Checkpoint, Source, is_inside
from fdta.errors import InputError
from fdta.evaluate.settings import Preprocessing
from fdta.experiment.settings import Settings
from fdta.files import write_text
from fdta.model.settings import ModelSettings
from fdta.provenance import job_key
from fdta.settings import NAME, Name, read_json, read_settings, settings, to_plain
from fdta.synthetic.settings import RenderSettings
from fdta.track.settings import TrackerSettings

RunName = Annotated[str, Field(pattern=f"^{NAME}(/{NAME}){{1,2}}$", max_length=300)]
FOLDER = "jobs"
"""Folder of the files of jobs."""


@settings(kw_only=True)
class Job:
    """One step. Paths are relative to the project's folder."""

    entry: ClassVar[str]
    """Module whose code, with all that it imports, makes the result."""
    settled: ClassVar[tuple[str, ...]] = ("fdta.experiment.params", "fdta.experiment.plan")
    """Imported modules that do not count as this code, because the job contains what they decide."""

    kind: str
    code: str
    """Digest of the code that makes the result."""
    inputs: dict[str, str | None] = field(default_factory=dict)
    """Path -> record of the result that it is part of; null: it is the user's own."""
    outputs: tuple[str, ...]
    record: str

    @cached_property
    def key(self) -> str:
        """Digest of the whole job."""
        return job_key(to_plain(self))

    @property
    def target(self) -> str:
        """File that is there when the result is there, for schedulers that know files alone."""
        return self.outputs[0] if Path(self.outputs[0]).suffix else self.record

    @property
    def file(self) -> str:
        """Path of the job's file."""
        return f"{FOLDER}/{self.key}.json"


@settings(kw_only=True)
class RenderJob(Job):
    """Render a split."""

    entry: ClassVar[str] = "fdta.synthetic.render"

    kind: Literal["render"] = "render"
    dataset: Name
    split: Name
    sequences: int
    render: RenderSettings

    @property
    def target(self) -> str:
        """The sequence map, which is written last."""
        return f"data/{self.dataset}/seqmaps/{self.split}.txt"


@settings(kw_only=True)
class DataJob(Job):
    """Get a split of a real data set: download, convert, verify."""

    entry: ClassVar[str] = "fdta.acquire.splits"

    kind: Literal["data"] = "data"
    dataset: Name
    split: Name
    source: Source

    @property
    def target(self) -> str:
        """The sequence map, which is written last."""
        return f"data/{self.dataset}/seqmaps/{self.split}.txt"


@settings(kw_only=True)
class CheckpointJob(Job):
    """Download a published checkpoint."""

    entry: ClassVar[str] = "fdta.acquire.download"

    kind: Literal["checkpoint"] = "checkpoint"
    file_name: str
    place: Checkpoint


@settings(kw_only=True)
class DepthJob(Job):
    """Make the pseudo depth of a split."""

    entry: ClassVar[str] = "fdta.depth.teacher"

    kind: Literal["depth"] = "depth"
    dataset: Name
    split: Name
    teacher: Literal["rendered", "video-depth-anything"]
    size: Literal["small", "base", "large"] | None = None
    weights: str | None = None
    input_size: int | None = None


@settings(kw_only=True)
class TrainingJob(Job):
    """Train the detector of a data set, or a variant on top of it."""

    dataset: Name
    settings: Settings
    seed: int
    start: str | None
    """Checkpoint of the detector to start from; null: random weights."""
    validation_split: Name
    processes: int
    """Processes that train together."""

    @property
    def folder(self) -> str:
        """Folder of the result."""
        return str(Path(self.record).parent)


@settings(kw_only=True)
class DetectorJob(TrainingJob):
    """Train the detector of a data set alone."""

    entry: ClassVar[str] = "fdta.train.detector"

    kind: Literal["detector"] = "detector"
    start_class: int | None = None
    """The class to keep of a published `start` that tells several apart."""


@settings(kw_only=True)
class TrainJob(TrainingJob):
    """Train one run."""

    entry: ClassVar[str] = "fdta.train.tracker"

    kind: Literal["train"] = "train"
    run: RunName


@settings(kw_only=True)
class ImportJob(Job):
    """Make the model of a run from a published checkpoint, instead of training it."""

    entry: ClassVar[str] = "fdta.model.exchange"

    kind: Literal["import"] = "import"
    run: RunName
    """``DATASET/detector`` for a detector alone."""
    weights: str
    """The checkpoint."""
    kept_class: int | None
    """The class to keep of a detector that tells several apart."""
    settings: ModelSettings


@settings(kw_only=True)
class DetectJob(Job):
    """Run the detector of a data set alone on a split."""

    entry: ClassVar[str] = "fdta.track.detect"

    kind: Literal["detect"] = "detect"
    dataset: Name
    model: str
    """Its checkpoint."""
    split: Name
    tracker: TrackerSettings


@settings(kw_only=True)
class TrackJob(Job):
    """Track a split with a run."""

    entry: ClassVar[str] = "fdta.track.run"

    kind: Literal["track"] = "track"
    run: RunName
    split: Name
    tracker: TrackerSettings


@settings(kw_only=True)
class BaselineJob(Job):
    """Link the detections of a run with a method that does not learn."""

    entry: ClassVar[str] = "fdta.track.baselines"

    kind: Literal["baseline"] = "baseline"
    method: str
    run: RunName
    """The run whose detections are linked."""
    split: Name


@settings(kw_only=True)
class ScoreJob(Job):
    """Score the tracks of a run or baseline."""

    entry: ClassVar[str] = "fdta.evaluate.score"

    kind: Literal["score"] = "score"
    run: RunName
    split: Name
    preprocessing: Preprocessing | None = None


@settings(kw_only=True)
class SimilarityJob(Job):
    """Measure how alike the object embeddings of a run are."""

    entry: ClassVar[str] = "fdta.evaluate.similarity"

    kind: Literal["similarity"] = "similarity"
    run: RunName
    split: Name
    threshold: float


@settings(kw_only=True)
class SpeedJob(Job):
    """Measure milliseconds per frame of a run."""

    entry: ClassVar[str] = "fdta.evaluate.speed"

    kind: Literal["speed"] = "speed"
    run: RunName
    split: Name
    tracker: TrackerSettings


@settings(kw_only=True)
class SubmissionJob(Job):
    """Zip the tracks of a run for an evaluation server."""

    entry: ClassVar[str] = "fdta.track.submission"

    kind: Literal["submission"] = "submission"
    run: RunName
    split: Name
    folder_in_zip: str


@settings(kw_only=True)
class DocumentJob(Job):
    """A step that shows results of many runs, with what it needs of params.yaml."""

    settled: ClassVar[tuple[str, ...]] = ()

    document: dict[str, Any]


@settings(kw_only=True)
class TablesJob(DocumentJob):
    """Write the tables."""

    entry: ClassVar[str] = "fdta.report.tables"

    kind: Literal["tables"] = "tables"


Figure = Literal["similarity", "depth", "tracks", "embeddings", "depth-attention", "interactions", "training"]
"""A figure of the paper, and the curves of the trainings."""


@settings(kw_only=True)
class FigureJob(DocumentJob):
    """Draw a figure."""

    entry: ClassVar[str] = "fdta.report.figures"

    kind: Literal["figure"] = "figure"
    figure: Figure
    datasets: tuple[str, ...]


@settings(kw_only=True)
class ReportJob(DocumentJob):
    """Write the page of tables and figures."""

    entry: ClassVar[str] = "fdta.report.page"

    kind: Literal["report"] = "report"


KINDS: dict[str, type[Job]] = {
    str(kind.__dataclass_fields__["kind"].default): kind
    for kind in (
        *(RenderJob, DataJob, CheckpointJob, DepthJob, DetectorJob, TrainJob, ImportJob, DetectJob, TrackJob),
        *(BaselineJob, ScoreJob, SimilarityJob, SpeedJob, SubmissionJob, TablesJob, FigureJob, ReportJob),
    )
}
"""Kind of a job -> its class."""


PLACES = ("data", "pretrained", "models", "detections", "tracks", "scores", "results")
"""Folders of a project in which results are."""


def write_job(root: Path, job: Job) -> Path:
    """Write the file of `job`, unless it is there; its path."""
    path = root / job.file
    if not path.is_file():
        write_text(path, json.dumps(to_plain(job), indent=1) + "\n")
    return path


def read_job(path: Path) -> Job:
    """The job in the file `path`.

    Raises:
        InputError: no such file, it holds no job, or its content is not the one that its name tells.
    """
    value = read_json(dict[str, Any], path)
    if value is None:
        raise InputError(f"{path}: no such file; give a file of {FOLDER}/, or the name of a run")
    kind = KINDS.get(str(value.get("kind")))
    if kind is None:
        raise InputError(f"{path}: kind: {value.get('kind')!r} is no kind of job; remove the file and plan again")
    job = read_settings(kind, value, "", path)
    if not job.outputs:
        raise InputError(f"{path}: outputs: there are none; remove the file and plan again")
    for made in (*job.outputs, job.record):
        if not is_inside(made):
            raise InputError(f"{path}: {made!r} leads out of the project; remove the file and plan again")
        if made.partition("/")[0] not in PLACES:
            raise InputError(f"{path}: {made!r} is no place of results; remove the file and plan again")
    if path.stem != job.key:
        raise InputError(f"{path}: the file was changed, its content has the key {job.key}; remove it and plan again")
    return job
