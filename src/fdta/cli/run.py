"""``fdta run``: one job. Every other command that makes a result finds its job and does the same."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fdta.acquire.catalogue import Source
from fdta.cli import add_compute, add_description, add_workers
from fdta.errors import InputError
from fdta.experiment import jobs
from fdta.experiment.sources import code_digests
from fdta.experiment.steps import Steps
from fdta.files import TEMPORARY, locked
from fdta.machine import cores
from fdta.provenance import Making, Records, check_unchanged, contents, job_key, making, origin, read_record, work_path

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """Where and how to compute."""

    device: str = "cpu"
    threads: int = 1
    workers: int | None = None
    """Processes that read clips; None: as many as fit the machine."""
    part: str | None = None
    """Share of the sequences to track, I/N; None: all."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Compute:
        """From the options of a command."""
        names = ("device", "threads", "workers", "part")
        return cls(**{name: getattr(options, name) for name in names if getattr(options, name, None) is not None})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\nReads the job's file and nothing else of the settings. A result that is right already is not made again.",
    )
    parser.add_argument("job", type=Path, help="file of a job, jobs/KEY.json")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="the project's folder")
    parser.add_argument("--part", metavar="I/N", help="of tracking, the I-th of N shares of the sequences")
    add_workers(parser)
    add_compute(parser)
    parser.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> None:
    execute(jobs.read_job(options.job), options.root, Compute.of(options))


def execute(job: jobs.Job, root: Path, compute: Compute, again: bool = False) -> None:
    """Make the result of `job`, unless it is right already.

    Args:
        job: what to make.
        root: the project's folder.
        compute: where and how.
        again: make it even if it is right.

    Raises:
        InputError: an input is missing, or the step cannot be done.
    """
    if not again and Records(root).state(job).fresh:
        _logger.info("%s: up to date", ", ".join(job.outputs))
        return
    if compute.part is not None:
        _track_part(job, root, compute)
        return
    with _alone(root, job) as waited:
        if waited and Records(root).state(job).fresh:
            _logger.info("%s: made meanwhile", ", ".join(job.outputs))
        elif isinstance(job, jobs.TrainingJob):
            _train(job, root, compute, again)
        else:
            conditions = {"device": compute.device, "threads": compute.threads}
            with making(root, job, _code(job), conditions) as made:
                MAKERS[type(job)](job, made, compute)
            _logger.info("written: %s", ", ".join(job.outputs))


@contextmanager
def _alone(root: Path, job: jobs.Job) -> Iterator[bool]:
    """Wait until no other process makes this result, and keep others from it; whether there was one.

    A job of a killed workflow may live on and write to the same places. Of the processes of a torchrun the first waits
    for all.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield False
        return
    told: list[str] = []

    def waiting() -> None:
        told.append("waiting")
        _logger.info("%s: another process makes it; waiting for its end", ", ".join(job.outputs))

    with locked(root / jobs.FOLDER / "locks" / job_key({"record": job.record}), waiting):
        yield bool(told) and int(os.environ.get("WORLD_SIZE", "1")) == 1


def execute_step(options: argparse.Namespace, job: Callable[[Steps], Any], again: bool = False) -> jobs.Job:
    """Find a job in the experiment that the options of a command name, write its file and execute it."""
    from fdta.experiment.params import Experiment

    step = job(Steps(Experiment(options.params, options.benchmark), options.root))
    if step is None:
        raise InputError("nothing makes this; it is data of your own")
    jobs.write_job(options.root, step.job)
    execute(step.job, options.root, Compute.of(options), again)
    made: jobs.Job = step.job
    return made


def execute_or_write(root: Path, job: jobs.Job, output: Path, write: Callable[[], None]) -> None:
    """Execute `job` if all that it reads is there and it writes to `output`.

    Otherwise call `write`, which writes with gaps or to another place. That is no result of the workflow: its record is
    removed, so that the workflow makes it again.
    """
    is_result = output.resolve() == (root / job.outputs[0]).resolve()
    if is_result and all((root / path).exists() for path in job.inputs):
        jobs.write_job(root, job)
        execute(job, root, Compute())
        return
    check_unchanged(root, job)
    if is_result:
        (root / job.record).unlink(missing_ok=True)
    write()


def _code(job: jobs.Job) -> dict[str, str]:
    settings = getattr(job, "settings", None)
    return dict(code_digests(job.entry, (*job.settled, *(settings.unused_code() if settings else ()))))


def _device(compute: Compute) -> Any:
    from fdta.device import choose_device

    return choose_device(compute.device, compute.threads)


def _render(job: jobs.RenderJob, made: Making, compute: Compute) -> None:
    from fdta.synthetic.render import render_split

    folder = made.path(job.outputs[0])
    for left in folder.glob(f".*.{TEMPORARY}*"):
        shutil.rmtree(left)  # A sequence that a killed call left half-drawn.
    render_split(job.render, job.split, job.sequences, folder)
    _map_split(job.outputs[0], folder, made)


def _map_split(output: str, folder: Path, made: Making) -> None:
    """Write the sequence map of the split `output`, which is still in `folder`, and take its digest from there."""
    from fdta.data.motchallenge import sequence_map_path, split_summary, write_sequence_map

    names = _sequences(folder)
    summary = split_summary(folder, names)
    made.digests[output] = str(summary["digest"])
    write_sequence_map(sequence_map_path(made.root / output), names, summary)


def _sequences(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _split_digest(folder: Path) -> str:
    from fdta.data.motchallenge import split_summary

    return str(split_summary(folder, _sequences(folder))["digest"])


def _get_data(job: jobs.DataJob, made: Making, compute: Compute) -> None:
    from fdta.acquire.splits import get_split

    made.in_place()
    source: Source = job.source
    print(f"{source.title}: {source.licence}")
    folder = get_split(job.dataset, source, job.split, made.root / "data", made.root / "downloads")
    made.digests[job.outputs[0]] = _split_digest(folder)


def _get_checkpoint(job: jobs.CheckpointJob, made: Making, compute: Compute) -> None:
    from fdta.acquire.download import fetch

    made.in_place()
    print(f"{job.file_name}: {job.place.licence}")
    fetch(job.place, made.root / job.outputs[0], f"checkpoints/{job.file_name}")


def _import(job: jobs.ImportJob, made: Making, compute: Compute) -> None:
    from fdta.model.exchange import import_run

    before = read_record(made.root / job.record)
    if before is not None and before.job.get("kind") != job.kind:
        raise InputError(
            f"{made.root / job.outputs[0]}: was trained, and {job.weights} does not replace it; work in another folder "
            f"(snakemake --directory FOLDER), or move the training away"
        )
    found = import_run(made.root / job.weights, made.path(job.outputs[0]), job.run, job.settings, job.kept_class)
    print(f"{job.weights}: {found.kind}; missing: {'; '.join(found.missing) or 'nothing'}")


def _depth(job: jobs.DepthJob, made: Making, compute: Compute) -> None:
    from fdta.depth.sliding_window import INPUT_SIZE
    from fdta.depth.teacher import make_depth
    from fdta.files import write_json
    from fdta.provenance import folder_listing

    made.in_place()
    weights = made.root / job.weights if job.weights else None
    folder = made.root / "data" / job.dataset / job.split
    size, input_size = job.size or "large", job.input_size or INPUT_SIZE
    costs = make_depth(folder, job.teacher, size, weights, _device(compute), input_size, made.origin)
    write_json(made.path(job.outputs[0]), costs)
    maps = made.root / job.outputs[1]
    maps.mkdir(parents=True, exist_ok=True)
    made.digests[job.outputs[1]] = folder_listing(maps) + made.origin


def _track(job: jobs.TrackJob, made: Making, compute: Compute) -> None:
    from fdta.track.run import track_run

    tracks, detections = (made.path(output) for output in job.outputs)
    track_run(job, made.root, tracks, detections, _device(compute))


def _track_part(job: jobs.Job, root: Path, compute: Compute) -> None:
    """Track a share of the sequences into the place where the whole is made."""
    from fdta.track.run import Part, track_run

    if not isinstance(job, jobs.TrackJob):
        raise InputError(f"--part {compute.part}: only tracking can be shared")
    contents(root, job)
    tracks, detections = (work_path(root, job, output) for output in job.outputs)
    track_run(job, root, tracks, detections, _device(compute), Part.parse(compute.part or "1/1"))


def _detect(job: jobs.DetectJob, made: Making, compute: Compute) -> None:
    from fdta.track.detect import detect_split

    detect_split(job, made.root, made.path(job.outputs[0]), _device(compute))


def _baseline(job: jobs.BaselineJob, made: Making, compute: Compute) -> None:
    from fdta.track.baselines import track_baseline

    split = made.root / "data" / job.run.partition("/")[0] / job.split
    track_baseline(job.method, split, made.root / "detections" / job.run / job.split, made.path(job.outputs[0]))


def _score(job: jobs.ScoreJob, made: Making, compute: Compute) -> None:
    from fdta.evaluate.score import COMBINED, score
    from fdta.files import write_json

    dataset = job.run.partition("/")[0]
    truth, tracks = made.root / "data" / dataset / job.split, made.root / "tracks" / job.run / job.split
    scores = score(truth, tracks, preprocessing=job.preprocessing)
    write_json(made.path(job.outputs[0]), scores)
    print("  ".join(f"{name} {scores[COMBINED][name]:.1f}" for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")))


def _similarity(job: jobs.SimilarityJob, made: Making, compute: Compute) -> None:
    from fdta.evaluate.similarity import measure_similarity
    from fdta.files import write_json

    found = measure_similarity(made.root / "detections" / job.run / job.split, job.threshold)
    write_json(made.path(job.outputs[0]), found)


def _speed(job: jobs.SpeedJob, made: Making, compute: Compute) -> None:
    from dataclasses import replace

    import torch

    from fdta.data.motchallenge import read_split
    from fdta.evaluate.speed import measure_inference
    from fdta.files import write_json
    from fdta.model.inference import optimized
    from fdta.track.weights import load_tracker

    device = _device(compute)
    model, settings, _ = load_tracker(made.root / "models" / job.run / "model.pt", device)
    sequence = read_split(made.root / "data" / job.run.partition("/")[0] / job.split)[0]
    model = optimized(model, torch.float32)
    measured = measure_inference(model, sequence, replace(settings, tracker=job.tracker), device)
    write_json(made.path(job.outputs[0]), measured | {"dtype": "float32", "device": str(device)})


def _submission(job: jobs.SubmissionJob, made: Making, compute: Compute) -> None:
    write_zip(job, made.root, made.path(job.outputs[0]))


def write_zip(job: jobs.SubmissionJob, root: Path, output: Path) -> None:
    """Write the submission of `job` to `output`, and print what its scores are to be entered with."""
    from fdta.track.submission import write_submission

    sequence_map = root / "data" / job.run.partition("/")[0] / "seqmaps" / f"{job.split}.txt"
    digest = write_submission(sequence_map, root / "tracks" / job.run / job.split, output, job.folder_in_zip)
    print("enter the server's scores in server-scores.yaml:")
    print(f"{job.run}: {{HOTA: , IDF1: , AssA: , MOTA: , DetA: , submission: '{digest}'}}")


def _experiment(job: jobs.DocumentJob, root: Path) -> Any:
    from fdta.experiment.params import Experiment

    return Experiment.from_document(job.document, root / job.file)


def _tables(job: jobs.TablesJob, made: Making, compute: Compute) -> None:
    from fdta.report.tables import write_tables

    with TemporaryDirectory(prefix=".tables.", dir=made.path("results/tables.md").parent) as folder:
        write_tables(_experiment(job, made.root), made.root, Path(folder) / "tables.md")
        for output in job.outputs:
            shutil.rmtree(made.path(output), ignore_errors=True)
            os.replace(Path(folder) / Path(output).name, made.path(output))


def _figure(job: jobs.FigureJob, made: Making, compute: Compute) -> None:
    from fdta.report.figures import draw

    picture, caption = (made.path(output) for output in job.outputs)
    draw(job.figure, _experiment(job, made.root), made.root, job.datasets, picture)
    os.replace(picture.with_suffix(".json"), caption)


def _report(job: jobs.ReportJob, made: Making, compute: Compute) -> None:
    from fdta.report.page import write_page

    output = made.path(job.outputs[0])
    write_page(_experiment(job, made.root), made.root, output)


MAKERS: dict[type[jobs.Job], Callable[[Any, Making, Compute], None]] = {
    jobs.RenderJob: _render,
    jobs.DataJob: _get_data,
    jobs.CheckpointJob: _get_checkpoint,
    jobs.ImportJob: _import,
    jobs.DepthJob: _depth,
    jobs.TrackJob: _track,
    jobs.DetectJob: _detect,
    jobs.BaselineJob: _baseline,
    jobs.ScoreJob: _score,
    jobs.SimilarityJob: _similarity,
    jobs.SpeedJob: _speed,
    jobs.SubmissionJob: _submission,
    jobs.TablesJob: _tables,
    jobs.FigureJob: _figure,
    jobs.ReportJob: _report,
}
"""Kind of job -> what makes its result."""


def digest_now(job: jobs.Job, root: Path, output: str) -> str:
    """The digest of `output` of `job` as its record has it, of what is there now; empty if nothing is."""
    from fdta.provenance import file_digest, folder_digest, folder_listing

    place = root / output
    if place.is_file():
        return file_digest(place)
    if not place.is_dir():
        return ""
    if isinstance(job, jobs.RenderJob | jobs.DataJob):
        return _split_digest(place)
    if isinstance(job, jobs.DepthJob):
        return folder_listing(place) + origin(job, contents(root, job))
    return folder_digest(place)


def _train(job: jobs.TrainingJob, root: Path, compute: Compute, again: bool) -> None:
    """Train alone, or with the other processes of a torchrun, of which the first writes the record."""
    from contextlib import nullcontext

    from fdta.distributed import failures_in_one_line, local_device, process_group, rank, world_size
    from fdta.train.interruption import Stopped

    device = local_device(_device(compute))
    workers = _workers(compute.workers, device.type)
    conditions = {"device": str(device), "threads": compute.threads, "processes": world_size()}
    detector = isinstance(job, jobs.DetectorJob)
    memory = "detector_training.batch" if detector else "training.batch or training.no_gradient_chunk"
    with process_group(device), failures_in_one_line(root / job.folder, device, memory):
        if world_size() != job.processes:
            raise InputError(
                f"{job.folder}: planned for {job.processes} processes, these are {world_size()}; plan again"
            )
        folder = work_path(root, job, job.folder)
        first = rank() == 0
        if again and first:
            shutil.rmtree(folder, ignore_errors=True)
        made_by = making(root, job, _code(job), conditions) if first else nullcontext()
        try:
            with made_by as made:
                if made is not None:
                    made.path(job.folder)
                _fit(job, root, folder, origin(job, contents(root, job)), device, workers)
        except Stopped as stopped:
            if first:
                print(f"fdta: {stopped}", file=sys.stderr)
            # As a shell reports a process that ended on this signal.
            sys.exit(128 + stopped.number)


def _fit(job: jobs.TrainingJob, root: Path, folder: Path, made_of: str, device: Any, workers: int) -> None:
    from fdta.train.validation import detector_validation, tracker_validation

    validated = root / "data" / job.dataset / job.validation_split
    if isinstance(job, jobs.DetectorJob):
        from fdta.train.detector import train_detector

        def scores_of_detector(detector: Any) -> Callable[[], dict[str, float]]:
            return detector_validation(detector, job.settings, validated)

        train_detector(job, root, folder, made_of, device, workers, scores_of_detector)
    elif isinstance(job, jobs.TrainJob):
        from fdta.train.tracker import train_tracker

        def scores_of_tracker(model: Any) -> Callable[[], dict[str, float]]:
            return tracker_validation(model, job.settings, validated)

        train_tracker(job, root, folder, made_of, device, workers, scores_of_tracker)


def _workers(asked: int | None, device: str) -> int:
    """Processes that read clips: none on a CPU, else the CPU cores of each GPU, at most 8."""
    if asked is not None:
        return asked
    of_each = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 0 if device == "cpu" else min(max(of_each, 1), 8)
