"""What the commands do with a file that is malformed: success, or exit code 2 with one line that names it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import torch

from fdta.cli import main
from fdta.data.clips import ClipDataset
from fdta.data.motchallenge import write_image
from fdta.data.rendered import ATTRIBUTES
from fdta.errors import InputError
from fdta.experiment import jobs
from fdta.experiment.params import Experiment
from fdta.experiment.steps import Steps
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.names import Run
from helpers.finished_project import PARAMS, write_project
from helpers.mutation import mutate
from helpers.sequences import HEIGHT, WIDTH, make_sequence
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
    call: Callable[[list[str]], int] = main

    def arguments(self) -> list[str]:
        """The command's, with the names of files in the present folder for patterns."""
        return [name for part in self.command for name in (glob(part) if "*" in part else [part])]


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


def _scored(folder: Path) -> None:
    """A job of the workflow with its result and record."""
    _project(folder)
    make_sequence(folder / "data/dance/test/a")
    tracks = folder / "tracks/dance/full/seed-0/test"
    tracks.mkdir(parents=True)
    shutil.copy(folder / "data/dance/test/a/gt/gt.txt", tracks / "a.txt")
    steps = Steps(Experiment(folder / "params.yaml"), folder)
    job = steps.score(Run("dance", "full", 0), "test").job
    assert main(["run", str(jobs.write_job(folder, job)), "--root", str(folder)]) == 0


def _video(folder: Path) -> None:
    _model(folder)
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _learned(folder: Path) -> None:
    """A data set with depth and attributes, as trainings read it."""
    _split(folder)
    for name in ("a", "b"):
        sequence = folder / "data/d/train" / name
        (sequence / "depth").mkdir()
        for frame in (1, 2, 3):
            write_image(sequence / "depth" / f"{frame:08d}.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
        (sequence / "attributes.json").write_text(json.dumps({"1": dict.fromkeys(ATTRIBUTES, 1)}))


def read_clips(arguments: list[str]) -> int:
    """What a training reads of ``data/d/train``: not a command of its own, so that no model is trained."""
    settings = tiny_settings(clip={"intervals": [1, 1]}, augmentation={"short_sides": [24], "long_side": 32, "crop": 0})
    try:
        data = ClipDataset(Path("data/d"), ("train",), settings, 2, True, True, 4, 0)
        for position, clip in enumerate(data.sampler.epoch(0)):
            data.clip(0, position, *clip)
    except InputError as error:
        print(f"fdta: {error}", file=sys.stderr)
        return 2
    return 0


CLIPS = ("train",)
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
    "record": Kind("scores/dance/full/seed-0/test.record.json", ("trace", "dance/full/seed-0"), _scored),
    "record of a run": Kind("scores/dance/full/seed-0/test.record.json", TABLES, _scored),
    "job": Kind("jobs/*.json", ("run", "jobs/*.json"), _scored, "jobs/"),
    "video": Kind("clip.mp4", ("track", "clip.mp4", "--weights", "model.pt", "--output", "t.txt"), _video),
    "attributes": Kind("data/d/train/a/attributes.json", CLIPS, _learned, call=read_clips),
    "depth map": Kind("data/d/train/a/depth/00000002.png", CLIPS, _learned, call=read_clips),
    "learned ground truth": Kind("data/d/train/a/gt/gt.txt", CLIPS, _learned, call=read_clips),
    "learned image": Kind("data/d/train/a/img1/00000002.jpg", CLIPS, _learned, call=read_clips),
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
            assert kind.call(kind.arguments()) == 0


def try_one(kind: Kind, template: Path, random: Random) -> str | None:
    """Run the command of `kind` on a copy of `template` with its file changed; what is wrong with the end, or None."""
    with tempfile.TemporaryDirectory(prefix="fault.") as scratch:
        folder = Path(scratch) / "around" / "project"
        shutil.copytree(template, folder)
        (path,) = folder.glob(kind.file)
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
                code = kind.call(kind.arguments())
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
