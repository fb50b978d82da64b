"""What a result was made from: one record for each result, one key, and one question, "is it still right?".

A *job* (`fdta.experiment.jobs`) holds everything that decides a result apart from the content of its inputs. A result
is right as long as its record names the same job, its inputs have the digests that the record names, and its files are
there. Times of files decide nothing, so that copies by git, DVC or hand stay right.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from fdta.errors import InputError
from fdta.files import check_own_folder, check_replaceable, place, write_json
from fdta.machine import peak_memory, processor
from fdta.settings import ParamsError, read_json, settings, to_plain

FORMAT = 1
RECORD = "record.json"
"""Name of the record in a result that is a folder; that of a file NAME.ext is NAME.record.json."""

_logger = logging.getLogger(__name__)


class Job(Protocol):
    """What provenance needs of a job."""

    @property
    def kind(self) -> str:
        """Kind of step."""

    @property
    def code(self) -> str:
        """Digest of the code that makes the result."""

    @property
    def inputs(self) -> Mapping[str, str | None]:
        """Path of an input -> path of the record of the result that it is part of; None: it is the user's own."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Files and folders that the step makes."""

    @property
    def record(self) -> str:
        """Path of the result's record."""

    @property
    def key(self) -> str:
        """Digest of the whole job."""


@settings
class Content:
    """Content of a file or folder."""

    digest: str
    bytes: int | None = None
    """Size of a file; null for a folder."""
    files: int | None = None
    """In a folder, without hidden ones and the record."""
    modified: int | None = None
    """Of an input without a record: its time in nanoseconds, so that an untouched file is not read again."""


@settings
class Record:
    """What a result was made from. Paths are relative to the project's folder."""

    format: int
    key: str
    """Digest of `job`."""
    job: dict[str, Any]
    inputs: dict[str, Content]
    outputs: dict[str, Content]
    code: dict[str, str]
    """Module or shipped file -> digest of its code, without comments and docstrings."""
    commit: str
    versions: dict[str, str]
    """Package -> version."""
    machine: str
    conditions: dict[str, Any]
    """Device, threads and the like."""
    made: str
    """When it was finished, ISO 8601, UTC."""
    seconds: float
    processor_seconds: float | None = None
    """Of the process that finished it, from its start on, and of the processes that it waited for."""
    peak_mebibytes: float | None = None
    """Most memory that one of these processes held."""


@dataclass(frozen=True)
class State:
    """Whether a result is right, and if not, why."""

    reasons: tuple[str, ...] = ()
    """Empty if it is right."""
    record: Record | None = None

    @property
    def fresh(self) -> bool:
        """Whether the result is right."""
        return not self.reasons


def job_key(job: Mapping[str, Any]) -> str:
    """Digest of a job's plain values."""
    text = json.dumps(job, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(path: Path) -> Record | None:
    """The record in the file `path`; None if there is none, or none that can be read."""
    try:
        return read_json(Record, path)
    except (OSError, ParamsError) as error:
        _logger.warning("%s: no readable record (%s); its result is made again", path, error)
        return None


def described(record: Record) -> list[str]:
    """Lines that tell what a result was made from."""
    lines = [f"input    {path}  {content.digest[:16]}" for path, content in record.inputs.items()]
    # Of what was fetched: from where, under which licence.
    source = record.job.get("place") or record.job.get("source")
    if isinstance(source, Mapping) and "licence" in source:
        ways = ("hub", "drive", "drive_folder", "url", "homepage", "title")
        place = next((f"{way} {source[way]}" for way in ways if source.get(way)), "unknown")
        lines.append(f"source   {place}; licence: {source['licence']}")
    for path, content in record.outputs.items():
        size = "" if content.bytes is None else f", {content.bytes} bytes"
        # Of a fetched file all of it, to be compared with what others publish: it is the file's SHA-256.
        digest = content.digest if "place" in record.job else content.digest[:16]
        lines.append(f"output   {path}  {digest}{size}")
    conditions = ", ".join(f"{name} {value}" for name, value in record.conditions.items())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        *lines,
        f"made     {record.made} in {record.seconds:g} s, commit {record.commit}",
        f"machine  {record.machine}; {conditions}",
        f"versions {versions}",
    ]


class Records:
    """The records of a project, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Record | None] = {}

    def of(self, path: str) -> Record | None:
        """The record at the relative `path`."""
        if path not in self._read:
            self._read[path] = read_record(self.root / path)
        return self._read[path]

    def chain(self, path: str) -> dict[str, Record]:
        """The record at `path`, and those of all that its result was made from, inputs first; by path."""
        found: dict[str, Record] = {}

        def visit(path: str) -> None:
            record = self.of(path)
            if record is None or path in found:
                return
            for producer in record.job.get("inputs", {}).values():
                if producer:
                    visit(producer)
            found[path] = record

        visit(path)
        return found

    def content(self, path: str, record: str | None, before: Content | None = None) -> Content | None:
        """Content of the input `path`: as the record of its result has it, or as the file is; None if it is absent.

        Args:
            path: of the input.
            record: path of the record of the result that it is part of, if any.
            before: what is known of a file without a record; it is read again only if size or time differ.
        """
        found = self.of(record) if record else None
        if found and path in found.outputs:
            return found.outputs[path] if self._is_there(path, found.outputs[path]) else None
        file = self.root / path
        if file.is_dir():
            return Content(folder_listing(file))
        if not file.is_file():
            return None
        now = file.stat()
        if before and (before.bytes, before.modified) == (now.st_size, now.st_mtime_ns):
            return before
        return Content(file_digest(file), now.st_size, now.st_mtime_ns)

    def state(self, job: Job) -> State:
        """Whether the result of `job` is right, as far as its own record, inputs and outputs tell."""
        record = self.of(job.record)
        if record is None:
            return State(("not made yet",))
        if record.key != job.key:
            return State(tuple(_changes(record, to_plain(job))), record)
        reasons = [
            f"output {path} is missing or incomplete"
            for path in job.outputs
            if path not in record.outputs or not self._is_there(path, record.outputs[path])
        ]
        for path, producer in job.inputs.items():
            before = record.inputs.get(path)
            now = self.content(path, producer, before)
            if now is None:
                reasons.append(f"input {path} is missing")
            elif before is None or now.digest != before.digest:
                reasons.append(f"input {path} changed")
        return State(tuple(reasons), record)

    def _is_there(self, path: str, content: Content) -> bool:
        file = self.root / path
        if content.bytes is None:
            return file.is_dir() and content.files in (None, _number_of_files(file))
        try:
            return file.stat().st_size == content.bytes
        except OSError:
            return False


@dataclass
class Making:
    """A result that is being made."""

    root: Path
    job: Job
    inputs: dict[str, Content]
    digests: dict[str, str] = field(default_factory=dict)
    """Of outputs of which the step itself knows a digest."""
    _work: dict[str, Path] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Digest of job and inputs: work of another origin is not resumed."""
        return origin(self.job, self.inputs)

    def path(self, output: str) -> Path:
        """Where to write the file or folder `output`; it is put in place when all is made.

        The place depends on the job, so that a killed step finds its work again.

        Raises:
            InputError: there is a folder that neither a record nor its mark tells to be a result.
        """
        if not (self.root / self.job.record).is_file():
            target = self.root / output
            if not target.is_dir():
                check_replaceable(target)
            elif not target.is_symlink():
                check_own_folder(target)
        self._work[output] = work_path(self.root, self.job, output)
        self._work[output].parent.mkdir(parents=True, exist_ok=True)
        return self._work[output]

    def in_place(self) -> None:
        """Remove the record of the earlier result: the step changes its files one by one."""
        (self.root / self.job.record).unlink(missing_ok=True)


def work_path(root: Path, job: Job, output: str) -> Path:
    """Hidden neighbour of `output` in which `job` makes it."""
    target = root / output
    return target.with_name(f".{target.stem}.{job.key}{target.suffix}")


def origin(job: Job, inputs: Mapping[str, Content]) -> str:
    """Digest of a job and the content of its inputs."""
    return job_key({"job": job.key, "inputs": {path: content.digest for path, content in inputs.items()}})


def contents(root: Path, job: Job) -> dict[str, Content]:
    """Content of the inputs of `job`.

    Raises:
        InputError: an input is missing.
    """
    records = Records(root)
    found = {path: records.content(path, record) for path, record in job.inputs.items()}
    for path, content in found.items():
        if content is None and job.inputs[path] is None:
            raise InputError(f"{root / path}: no such file or folder; put it there, {job.outputs[0]} is made from it")
        if content is None:
            changed = f"incomplete or changed since {job.inputs[path]} was written"
            what = changed if (root / path).exists() else "not there"
            raise InputError(f"{root / path}: {what}; make it first, or run snakemake --cores all {job.outputs[0]}")
    return {path: content for path, content in found.items() if content is not None}


def check_unchanged(root: Path, job: Job) -> None:
    """Reject inputs of `job` that are there, but not as their step made them.

    Raises:
        InputError: one of them is incomplete or was changed.
    """
    records = Records(root)
    for path, record in job.inputs.items():
        if record and (root / path).exists() and records.of(record) and records.content(path, record) is None:
            again = f"make it again with snakemake --cores all {path}"
            raise InputError(f"{root / path}: incomplete or changed since {record} was written; {again}")


@contextmanager
def making(root: Path, job: Job, code: Mapping[str, str], conditions: Mapping[str, Any]) -> Iterator[Making]:
    """Make the result of `job`: on success, what was written to `Making.path` is put in place, with its record.

    An earlier result stays until then. If the step fails, what it wrote to `Making.path` stays too, to be resumed.

    Args:
        root: the project's folder.
        job: what to make.
        code: module -> digest, of the code that makes it.
        conditions: device, threads and the like, for the record.

    Raises:
        InputError: an input is missing.
    """
    began = time.monotonic()
    made = Making(root, job, contents(root, job))
    record_path = root / job.record
    try:
        yield made
    except BaseException:
        for work in made._work.values():
            if not work.exists():
                with suppress(OSError):
                    os.removedirs(work.parent)
        raise
    inside = {output: work for output, work in made._work.items() if record_path.is_relative_to(root / output)}
    for output, work in made._work.items():
        if not work.exists():
            raise InputError(f"{root / output}: the step did not write it")
    outputs = {output: _content(_working(root, made, output), made.digests.get(output)) for output in job.outputs}
    record = Record(
        format=FORMAT,
        key=job.key,
        job=to_plain(job),
        inputs=made.inputs,
        outputs=outputs,
        code=dict(code),
        commit=commit(root),
        versions=_versions(),
        machine=_machine(),
        conditions=dict(conditions),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 3),
        processor_seconds=round(sum(os.times()[:4]), 2),
        peak_mebibytes=round(peak_memory(), 1),
    )
    plain = to_plain(record)
    record_path.unlink(missing_ok=True)
    for output, work in inside.items():
        write_json(work / record_path.relative_to(root / output), plain)
    for output, work in sorted(made._work.items(), key=lambda item: item[0] in inside):
        place(work, root / output)
    if not inside:
        write_json(record_path, plain)
    remove_other_work(root, job)


def remove_other_work(root: Path, job: Job) -> None:
    """Remove what killed or outdated jobs left for the same result."""
    for output in (*job.outputs, str(Path(job.record).parent)):
        target = root / output
        for path in target.parent.glob(f".{target.stem}.{'[0-9a-f]' * 16}{target.suffix}"):
            if path != work_path(root, job, output):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files of `folder` that are neither hidden nor its record."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n".encode())
    return found.hexdigest()


def folder_listing(folder: Path) -> str:
    """SHA-256 of the names and sizes of all files of `folder` that are neither hidden nor its record."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return found.hexdigest()


def commit(root: Path) -> str:
    """Commit that is checked out in `root`, "+ changes" if tracked files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(root)]
    try:
        found = subprocess.run([*command, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain", "--untracked-files=no", "--", ":!*.record.json", ":!dvc.lock"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return "unknown"
    if found.returncode:
        return "unknown"
    return found.stdout.strip() + (" + changes" if changed.stdout.strip() else "")


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != RECORD
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _number_of_files(folder: Path) -> int:
    number = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        number += sum(not name.startswith(".") and name != RECORD for name in names)
    return number


def _working(root: Path, made: Making, output: str) -> Path:
    """Where `output` is before it is put in place."""
    for result, work in made._work.items():
        if output == result:
            return work
        if Path(output).is_relative_to(result):
            return work / Path(output).relative_to(result)
    return root / output


def _content(path: Path, digest: str | None) -> Content:
    if path.is_dir():
        return Content(digest or folder_digest(path), files=_number_of_files(path))
    if not path.is_file():
        raise InputError(f"{path}: the step did not write it")
    return Content(digest or file_digest(path), path.stat().st_size)


def _changes(record: Record, job: dict[str, Any]) -> list[str]:
    """What differs between the job of a record and `job`."""
    before, after = dict(_flat(record.job)), dict(_flat(job))
    changed = []
    for name in sorted({*before, *after} - {"code"}):
        if before.get(name) != after.get(name):
            changed.append(f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}")
    if record.job.get("code") != job.get("code"):
        changed.append("code changed")
    return changed or ["made by another job"]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("fdta", "torch", "numpy", "scipy", "opencv-python", "trackeval", "trackers"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores"
