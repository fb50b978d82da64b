"""What the commands do with a file that is malformed: success, or exit code 2 with one line that names it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from fdta.cli import main
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from helpers.finished_project import PARAMS, write_project
from helpers.mutation import mutate
from helpers.sequences import make_sequence
from helpers.tiny_settings import tiny_settings

SECONDS = 20
CATALOGUE = """
catalogue:
  datasets:
    own:
      title: own
      licence: none
      folder: here
      splits: {train: {sequences: 1}, test: {sequences: 2, ground_truth: false}}
"""
OWN = """      own:
        title: own
        test_split: train
        validation_split: train
"""


@dataclass(frozen=True)
class Kind:
    """A file that a command reads."""

    file: str
    command: tuple[str, ...]
    build: Callable[[Path], None]
    named: str = ""
    """What a message must name, if it is not the file."""


def _project(folder: Path) -> None:
    (folder / "params.yaml").write_text(PARAMS)
    write_project(folder)


def _split(folder: Path) -> None:
    for name in ("a", "b"):
        make_sequence(folder / "data" / "d" / "train" / name)
        (folder / "tracks").mkdir(exist_ok=True)
        shutil.copy(folder / "data/d/train/a/gt/gt.txt", folder / "tracks" / f"{name}.txt")


def _crowd(folder: Path) -> None:
    make_sequence(folder / "made", frames=1)
    (folder / "images").mkdir()
    shutil.copy(folder / "made/img1/00000001.jpg", folder / "images" / "1,a.jpg")
    boxes = [{"tag": "person", "fbox": [1, 2, 10, 12], "extra": {"ignore": 0}}]
    (folder / "a.odgt").write_text(json.dumps({"ID": "1,a", "gtboxes": boxes}) + "\n")


def _model(folder: Path) -> None:
    torch.manual_seed(0)
    settings = tiny_settings()
    checkpoint.save_model(folder / "model.pt", FDTA(settings), settings, "d/full/seed-0")
    make_sequence(folder / "sequence", frames=2)


def _published(folder: Path) -> None:
    _model(folder)
    assert main(["weights", "export", str(folder / "model.pt"), "--output", str(folder / "published.pth")]) == 0


def _submission(folder: Path) -> None:
    _project(folder)
    (folder / "params.yaml").write_text(PARAMS.replace("      dance:", f"{OWN}      dance:", 1) + CATALOGUE)
    scores = "{HOTA: 1, IDF1: 2, AssA: 3, MOTA: 4, DetA: 5, submission: abcdef012345}"
    (folder / "server-scores.yaml").write_text(f"own/full/seed-0: {scores}\n")
    tracks = folder / "tracks" / "own" / "full" / "seed-0" / "test"
    tracks.mkdir(parents=True)
    for name in ("a", "b"):
        (tracks / f"{name}.txt").write_text("1,1,2,3,10,12,1,-1,-1,-1\n")
    (folder / "data" / "own" / "seqmaps").mkdir(parents=True)
    (folder / "data" / "own" / "seqmaps" / "test.txt").write_text("name\na\nb\n")


def _archive(folder: Path) -> None:
    _submission(folder)
    make_sequence(folder / "made" / "train" / "a")
    with zipfile.ZipFile(folder / "own.zip", "w") as archive:
        for path in sorted((folder / "made").rglob("*")):
            archive.write(path, path.relative_to(folder / "made"))


def _detections(folder: Path) -> None:
    _project(folder)
    make_sequence(folder / "data/dance/test/a")
    found = folder / "detections/dance/full/seed-0/test"
    found.mkdir(parents=True)
    arrays = {
        "frames": np.array([1, 1, 2]),
        "boxes_xyxy": np.array([[1, 2, 9, 12], [3, 4, 9, 12], [1, 2, 9, 12]], np.float32),
        "scores": np.array([0.9, 0.8, 0.7], np.float32),
        "identities": np.array([0, 1, 0]),
        "embeddings": np.ones((3, 4), np.float16),
    }
    np.savez(found / "a.npz", **arrays)


SCORE = ("score", "--ground-truth", "data/d/train", "--tracks", "tracks", "--output", "s.json")
TABLES = ("tables", "--output", "t.md")
KINDS = {
    "params": Kind("params.yaml", ("params", "check"), _project),
    "params of tables": Kind("params.yaml", TABLES, _project),
    "ground truth": Kind("data/d/train/a/gt/gt.txt", SCORE, _split),
    "tracks": Kind("tracks/a.txt", SCORE, _split),
    "seqinfo of a score": Kind("data/d/train/a/seqinfo.ini", SCORE, _split),
    "seqinfo": Kind("data/d/train/a/seqinfo.ini", ("data", "check", "data/d/train"), _split, "train/a"),
    "checked ground truth": Kind("data/d/train/a/gt/gt.txt", ("data", "check", "data/d/train"), _split),
    "image": Kind("data/d/train/a/img1/00000002.jpg", ("data", "check", "data/d/train", "--decode"), _split),
    "image's header": Kind("data/d/train/a/img1/00000002.jpg", ("data", "check", "data/d/train"), _split),
    "scores": Kind("scores/dance/full/seed-0/test.json", TABLES, _project),
    "similarity": Kind("scores/dance/full/seed-0/test-similarity.json", TABLES, _project),
    "speed": Kind("scores/dance/speed.json", TABLES, _project),
    "history": Kind("models/dance/full/seed-0/history.jsonl", TABLES, _project),
    "depth costs": Kind("data/dance/depth-train.json", TABLES, _project),
    "server's scores": Kind("server-scores.yaml", TABLES, _submission),
    "odgt": Kind("a.odgt", ("data", "crowdhuman", "a.odgt", "images", "--output", "crowd/train"), _crowd),
    "model": Kind("model.pt", ("track", "sequence", "--weights", "model.pt", "--output", "t.txt"), _model),
    "exported model": Kind("model.pt", ("weights", "export", "model.pt", "--output", "out.pth"), _model),
    "published checkpoint": Kind(
        "published.pth", ("weights", "import", "published.pth", "--output", "o.pt"), _published
    ),
    "sequence map": Kind(
        "data/own/seqmaps/test.txt", ("submission", "own/full/seed-0", "--output", "s.zip"), _submission
    ),
    "archive": Kind("own.zip", ("data", "import", "own", "own.zip", "--split", "train"), _archive, "own"),
    "detections": Kind(
        "detections/dance/full/seed-0/test/a.npz",
        ("baseline", "sort", "data/dance/test", "--detections", "dance/full/seed-0"),
        _detections,
    ),
}


def build(kind: Kind, template: Path) -> None:
    """Make `template` with a file that is right, and see that the command takes it."""
    template.mkdir()
    kind.build(template)
    with tempfile.TemporaryDirectory(prefix="fault.") as scratch:
        shutil.copytree(template, Path(scratch) / "project")
        with contextlib.chdir(Path(scratch) / "project"):
            assert main(list(kind.command)) == 0


def try_one(kind: Kind, template: Path, random: Random) -> str | None:
    """Run the command of `kind` on a copy of `template` with its file changed; what is wrong with the end, or None."""
    with tempfile.TemporaryDirectory(prefix="fault.") as scratch:
        folder = Path(scratch) / "around" / "project"
        shutil.copytree(template, folder)
        path = folder / kind.file
        path.write_bytes(mutate(path.read_bytes(), random))
        around = set(Path(scratch).rglob("*")) - set(folder.rglob("*"))
        wrong = _run(kind, folder)
        outside = set(Path(scratch).rglob("*")) - set(folder.rglob("*")) - around
        return wrong or (f"written outside of the project: {sorted(map(str, outside))}" if outside else None)


def _run(kind: Kind, folder: Path) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    began = time.monotonic()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with _limited():
                code = main(list(kind.command))
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return _place(error)
    lines = [line for line in err.getvalue().splitlines() if line.startswith("fdta: ")]
    told = f"exit code {code}: {err.getvalue()[-300:]}"
    if code not in (0, 2) or time.monotonic() - began > SECONDS:
        return told
    if code == 2 and (len(lines) != 1 or (kind.named or Path(kind.file).name) not in err.getvalue()):
        return f"no line that names the file; {told}"
    if "more memory than there is" in err.getvalue():
        return f"without bound; {told}"
    return None


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """The exception and the last place in the package that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}fdta{os.sep}" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "?"
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
