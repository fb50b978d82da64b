"""Situations of public bug reports of trackers, scorers and data sets: each is read, or ends in one line."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.finished_project import PARAMS, write_project
from helpers.malformed import KINDS
from helpers.sequences import HEIGHT, WIDTH, make_sequence
from PIL import Image

from fdta.cli import main
from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.evaluate.preprocessing import scored_boxes
from fdta.evaluate.score import score
from fdta.experiment import jobs, locks
from fdta.experiment.params import Experiment
from fdta.experiment.steps import Steps
from fdta.files import OWN, locked, place, whole_file, whole_folder
from fdta.names import Run
from fdta.report.mlflow_store import check_reachable
from fdta.track.pipeline import FrameTracks
from fdta.track.source import Clock, open_source
from fdta.track.video import AnnotatedVideo, VideoWriter

ROOT = Path(__file__).parents[2]
ROW = "1,1,2,3,10,12,1,1,1\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The line with which a command ends."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def scored(truth: str, tracks: str = ROW, name: str = "a") -> dict[str, float]:
    make_sequence(Path("gt") / name)
    (Path("gt") / name / "gt" / "gt.txt").write_text(truth)
    Path("tracks").mkdir()
    (Path("tracks") / f"{name}.txt").write_text(tracks)
    return score(Path("gt"), Path("tracks"))["combined"]


@pytest.mark.parametrize("end", [",", " , ", "\r"])
def test_what_converters_leave_at_the_end_of_a_line(end: str) -> None:
    assert scored(ROW.replace("\n", f"{end}\n"))["HOTA"] == 100


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1,1,1e18,3,10,12,1,1,1\n", "column 'x' is 1e+18, beyond 1e+07"),
        ("1,1,2,3,10,12,1e300,1,1\n", "column 'score'"),
        ("1,1,2,3,1e-300,12,1,1,1\n", "must be above 0"),
        ("1,9007199254740993,2,3,10,12,1,1,1\n", "9007199254740993 is beyond 2**53"),
        ("0,1,2,3,10,12,1,1,1\n", "frame 0 is outside 1..3; frames count from 1; if here they count from 0"),
    ],
)
def test_numbers_out_of_all_proportion(row: str, told: str) -> None:
    with pytest.raises(InputError, match=r"gt\.txt, line 2") as refusal:
        scored(ROW + row)
    assert told in str(refusal.value)


@pytest.mark.parametrize("command", ["score", "check"])
def test_a_length_out_of_all_proportion(command: str, capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.write_text(seqinfo.read_text().replace("seqLength=3", "seqLength=100000000"))
    score_it = ("score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "s.json")
    line = refused(capsys, *(score_it if command == "score" else ("data", "check", "gt")))
    assert "seqinfo.ini: seqLength is 100000000" in line


def test_frames_without_boxes_change_no_score() -> None:
    rows = [f"{frame},1,{frame},3,10,12,1,1,1\n" for frame in (1, 2, 9)]
    near = scored("".join(rows[:2]), "".join(rows[:2]), "near")
    assert near["HOTA"] == 100 and near["GT_Dets"] == 2


def test_a_sequence_called_as_the_sum() -> None:
    with pytest.raises(InputError, match="combined: a sequence cannot be called combined"):
        scored(ROW, name="combined")


@pytest.mark.parametrize("benchmark", ["MOT17", "MOT20"])
def test_preprocessing_is_that_of_trackeval(benchmark: str) -> None:
    from trackeval.datasets import MotChallenge2DBox

    random = np.random.default_rng(0)
    for name in ("x", "y"):
        make_sequence(Path("gt") / name, frames=6)
        rows = [
            f"{frame},{identity},{x:.1f},3,10,12,{int(kind == 1 and random.random() < 0.8)},{kind},1\n"
            for frame in range(1, 7)
            for identity, (x, kind) in enumerate(zip(random.uniform(0, 60, 8), random.integers(1, 13, 8), strict=True))
        ]
        found = [
            f"{f},{i},{x:.1f},3,10,12,1,-1,-1,-1\n" for f in range(1, 7) for i, x in enumerate(np.arange(0, 60, 7.0))
        ]
        (Path("gt") / name / "gt" / "gt.txt").write_text("".join(rows))
        Path("all/t").mkdir(parents=True, exist_ok=True)
        Path(f"all/t/{name}.txt").write_text("".join(found))
    theirs = MotChallenge2DBox(
        {"GT_FOLDER": "gt", "TRACKERS_FOLDER": "all", "TRACKERS_TO_EVAL": ["t"], "TRACKER_SUB_FOLDER": "."}
        | {"SKIP_SPLIT_FOL": True, "SEQ_INFO": {"x": 6, "y": 6}, "BENCHMARK": benchmark, "PRINT_CONFIG": False}
        | {"OUTPUT_FOLDER": "out"}
    )
    ours = score(Path("gt"), Path("all/t"), preprocessing=benchmark)
    for sequence in ("x", "y"):
        data = theirs.get_preprocessed_seq_data(theirs.get_raw_seq_data("t", sequence), "pedestrian")
        assert ours[sequence]["Dets"] == data["num_tracker_dets"] < 54
        assert ours[sequence]["GT_Dets"] == data["num_gt_dets"] < 48


def test_distractors_are_preprocessed_by_the_name_of_their_benchmark_or_told(caplog: pytest.LogCaptureFixture) -> None:
    truth = ROW + "1,2,40,3,10,12,0,8,1\n"
    tracks = ROW + "1,2,40,3,10,12,1,-1,-1,-1\n"
    assert scored(truth, tracks, "MOT17-02-FRCNN")["CLR_FP"] == 0 and not caplog.records
    for path in ("gt", "tracks"):
        os.rename(path, f"{path}-before")
    assert scored(truth, tracks)["CLR_FP"] == 1
    assert "--preprocessing MOT17" in caplog.text
    (sequence,) = read_split(Path("gt"))
    with pytest.raises(InputError, match="class 99"):
        boxes = sequence.ground_truth()
        scored_boxes(type(boxes)(**vars(boxes) | {"classes": np.array([1, 99])}), boxes, "MOT17")


def test_what_does_not_count_or_reaches_beyond_the_image_is_told(capsys: pytest.CaptureFixture) -> None:
    scored("1,1,-9,3,20,12,1,1,1\n1,2,2,3,10,12,0,1,1\n2,2,2,3,10,12,0,1,1\n")
    assert main(["data", "check", "gt"]) == 0
    told = capsys.readouterr().out
    assert "2 boxes do not count (column 7 is 0)" in told and "1 boxes reach beyond the image" in told


def test_frames_whose_clips_are_left_out_are_told(capsys: pytest.CaptureFixture) -> None:
    crowd = "".join(f"1,{identity},2,3,10,12,1,1,1\n" for identity in range(1, 302))
    scored(crowd + "2,1,2,3,10,12,1,1,1\n")
    assert main(["data", "check", "gt"]) == 0
    assert "2 of 3 frames have no box, or more than 300; training leaves out the clips" in capsys.readouterr().out


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(path, exif=exif)


def test_images_that_say_how_to_turn_them_have_one_size_everywhere(capsys: pytest.CaptureFixture) -> None:
    make_sequence(Path("gt/a"))
    for path in Path("gt/a/img1").iterdir():
        turned(path)
    assert main(["data", "check", "gt", "--decode"]) == main(["data", "check", "gt"]) == 0
    (sequence,) = read_split(Path("gt"))
    assert sequence.image(1).shape == (HEIGHT, WIDTH, 3)
    Image.new("RGB", (HEIGHT, WIDTH)).save("gt/a/img1/00000002.jpg")
    assert "00000002.jpg: 24 x 32 pixels, turned" in refused(capsys, "data", "check", "gt")


def test_webp_under_another_name_is_read(capsys: pytest.CaptureFixture) -> None:
    make_sequence(Path("gt/a"))
    for path in Path("gt/a/img1").iterdir():
        path.write_bytes(cv2.imencode(".webp", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())
    assert main(["data", "check", "gt"]) == 0
    assert read_split(Path("gt"))[0].image(2).shape == (HEIGHT, WIDTH, 3)


def own(**form: object) -> None:
    raw = yaml.safe_load(PARAMS)
    source = {"title": "own", "licence": "none", "folder": "src", "splits": {"train": {"sequences": 1}}}
    raw["catalogue"] = {"datasets": {"own": source | {"form": {"rate": 10, **form}}}}
    Path("params.yaml").write_text(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("frame_0001.jpg", "frame_0001.jpg is not called as frames are: a number and one of .jpg, .jpeg, .png"),
        ("0001.webp", "0001.webp is not called as frames are"),
        ("0000.jpg", "0000.jpg: frame 0; frames count from 1"),
    ],
)
def test_names_of_frames_that_are_none(name: str, told: str, capsys: pytest.CaptureFixture) -> None:
    own()
    sequence = make_sequence(Path("src/train/a"), digits=4)
    (sequence / "seqinfo.ini").unlink()
    for path in (sequence / "img1").iterdir():
        path.unlink() if path.stem != "0001" else path.rename(path.with_name(name))
    assert told in refused(capsys, "data", "import", "own", "src", "--split", "train")


def test_a_folder_that_was_not_made_here_stays(capsys: pytest.CaptureFixture) -> None:
    KINDS["odgt"].build(Path())
    Path("a.odgt").write_bytes(b"\xef\xbb\xbf" + Path("a.odgt").read_bytes())
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("kept")
    command = ("data", "crowdhuman", "a.odgt", "images", "--output")
    assert "mine: the folder is there and not made by fdta" in refused(capsys, *command, "mine")
    assert Path("mine/thesis.txt").read_text() == "kept"
    assert main([*command, "made/train"]) == 0
    assert Path("made/train", OWN).is_file()
    # It may hold depth maps of the user's by now.
    assert "made/train: is there already; remove it" in refused(capsys, *command, "made/train")
    Path("other/seqmaps").mkdir(parents=True)
    Path("other/seqmaps/train.txt").write_text("mine")
    assert "seqmaps/train.txt: would be replaced" in refused(capsys, *command, "other/train")
    os.mkfifo("pipe.odgt")
    assert "pipe.odgt: is no file" in refused(
        capsys, "data", "crowdhuman", "pipe.odgt", "images", "--output", "p/train"
    )


def test_hidden_files_of_the_users_stay() -> None:
    mine = [Path(".tracks.20240131.txt"), Path(".made.20240131")]
    mine[0].write_text("mine")
    mine[1].mkdir()
    for path in mine:
        os.utime(path, (0, 0))
    for _ in range(2):
        with whole_file(Path("tracks.txt")) as temporary:
            temporary.write_text("new")
        with whole_folder(Path("made")) as folder:
            (folder / "a").touch()
    assert all(path.exists() for path in mine)


def test_what_a_killed_call_left_is_removed() -> None:
    left = [Path(".tracks.fdta-0123abcd.txt"), Path(".made.fdta-0123abcd")]
    left[0].write_text("half")
    left[1].mkdir()
    for path in left:
        os.utime(path, (0, 0))
    with whole_file(Path("tracks.txt")) as temporary, whole_folder(Path("made")):
        temporary.touch()
    assert not any(path.exists() for path in left)


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    line = refused(capsys, "score", "--ground-truth", "a", "--tracks", "b")
    assert line == "fdta: the current folder was removed; change to another one"
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["format", "large", "compressed", "pipe"])
def test_checkpoints_of_odd_contents(kind: str, capsys: pytest.CaptureFixture) -> None:
    KINDS["model"].build(Path())
    value = torch.load("model.pt", weights_only=True)
    if kind == "format":
        value["format"] = torch.tensor([1, 1])
    elif kind == "large":
        name, tensor = next(iter(value["model"].items()))
        value["model"][name] = torch.full(tensor.shape, 1e300, dtype=torch.float64)
    torch.save(value, "odd.pt")
    if kind == "compressed":
        with zipfile.ZipFile("odd.pt") as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile("odd.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in records.items():
                archive.writestr(name, content)
    elif kind == "pipe":
        Path("odd.pt").unlink()
        os.mkfifo("odd.pt")
    told = {
        "format": "odd.pt: ",
        "large": "holds nan or inf, or more than float32 can hold",
        "compressed": "odd.pt: a compressed archive",
        "pipe": "odd.pt: is no file",
    }[kind]
    for command in (("track", "sequence", "--weights", "odd.pt"), ("weights", "export", "odd.pt", "--output", "o.pth")):
        assert told in refused(capsys, *command)


def test_a_result_does_not_replace_a_folder_of_the_users(capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(PARAMS.replace("frames: 4", "frames: 4, width: 64, height: 48"))
    mine = Path("data/stills/train/mine.txt")
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    assert "stills/train: the folder is there and not made by fdta" in refused(
        capsys, "data", "render", "stills", "train"
    )
    assert mine.read_text() == "kept"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_what_is_no_file_is_not_replaced(kind: str, capsys: pytest.CaptureFixture) -> None:
    import socket

    place = Path("/dev/null") if kind == "device" else Path("place")
    {"pipe": lambda: os.mkfifo(place), "folder": place.mkdir, "device": lambda: None}.get(
        kind, lambda: socket.socket(socket.AF_UNIX).bind(str(place))
    )()
    before = place.stat().st_mode
    assert f"{place}: is a {kind}, which is not replaced" in refused(capsys, "track", "v.mp4", "--video", str(place))
    with pytest.raises(InputError, match=kind), whole_file(place):
        pytest.fail("begun in vain")
    assert place.stat().st_mode == before


@pytest.mark.parametrize(
    "command",
    [
        "track gt/a --weights m.pt --output gt/a/gt/gt.txt",
        "track gt/a --weights m.pt --output gt/a/seqinfo.ini",
        "track gt/a --weights m.pt --output link/seqinfo.ini",
        "track gt/a/img1 --weights m.pt --json gt/a/img1/00000001.jpg",
        "track gt/a/img1/%08d.jpg --weights m.pt --output gt/a/img1/00000001.jpg",
        "track gt/a/img1 --weights m.pt --output m.pt",
        "track gt/a/img1 --weights m.pt --output t.txt --json ./t.txt",
        "track gt --weights m.pt --output gt/a",
        "score --ground-truth gt --tracks tracks --output gt/a/gt/gt.txt",
        "score --ground-truth gt --tracks tracks --output tracks/a.txt",
        "weights import m.pt --output m.pt",
        "weights export models/m.pt --output ./models/m.pt",
        "weights get r50_deformable_detr_coco.pth --output params.yaml",
        "weights get r50_deformable_detr_coco.pth --output m.pt",
        "tables --output params.yaml",
        "tables --output scores/t.md",
        "tables --output metrics.json",
        "report --output params.yaml",
        "report --output link/report.html",
        "similarity dance/full/seed-0 test --output params.yaml",
        "submission dance/full/seed-0 --output params.yaml",
        "mlflow sync --output params.yaml",
        "figures tracks --output data/x.png",
        "bench infer gt/a --weights m.pt --output m.pt",
        "data crowdhuman m.pt gt --output gt/new",
    ],
)
def test_outputs_replace_no_input(command: str, capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    Path("params.yaml").write_text(PARAMS)
    for path in (Path("m.pt"), Path("models/m.pt")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"PK")
    Path("data").symlink_to("gt")
    Path("link").symlink_to("gt/a")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    line = refused(capsys, *command.split())
    assert any(told in line for told in ("an input", "as an image", "two outputs", "is there already"))
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["metrics.json", "training.csv", "tables/notes.csv"])
def test_tables_replace_no_file_that_happens_to_lie_beside(name: str, capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(PARAMS)
    write_project(Path())
    mine = Path("elsewhere", name)
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert "would be replaced" in refused(capsys, "tables", "--output", "elsewhere/x.md")
    assert mine.read_text() == "mine" and not Path("elsewhere/x.md").exists()
    mine.unlink()
    if mine.parent.name == "tables":
        mine.parent.rmdir()
    for _ in range(2):
        assert main(["tables", "--output", "elsewhere/x.md"]) == 0


def test_figures_replace_no_file_that_happens_to_lie_beside(capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(PARAMS)
    write_project(Path())
    Path("a.json").write_text("mine")
    assert "a.json: would be replaced" in refused(capsys, "figures", "training", "--output", "a.png")
    assert Path("a.json").read_text() == "mine"


def test_outputs_that_are_links(capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    command = ("score", "--ground-truth", "gt", "--tracks", "tracks", "--output")
    Path("elsewhere").mkdir()
    for name in ("there.json", "new.json"):
        Path(name).symlink_to(Path("elsewhere") / name)
    Path("elsewhere/there.json").write_text("old")
    for name in ("there.json", "new.json"):
        assert main([*command, name]) == 0
        assert Path(name).is_symlink() and json.loads(Path("elsewhere", name).read_text())["a"]["HOTA"] == 100
    assert len(list(Path("elsewhere").iterdir())) == 2
    for name, target, told in (("d", "/dev/null", "a device"), ("f", "gt", "a folder"), ("c", "c", "form a circle")):
        Path(name).symlink_to(target)
        assert told in refused(capsys, *command, name)
        assert os.readlink(name) == target


@contextmanager
def full() -> Iterator[None]:
    yield
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("make", [whole_file, whole_folder])
def test_a_full_disk_is_told_with_the_name_of_what_was_written(make: type, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: .*out'") as refusal, make(tmp_path / "out"), full():
        pass
    assert refusal.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_its_room(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(ROW)

    def write_text(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_text)
    line = refused(capsys, "score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "s.json")
    assert line.startswith("fdta: s.json: No space left on device (") and "MiB free); free some room" in line


def test_more_memory_than_there_is(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(ROW)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 900. GiB for an array")

    monkeypatch.setattr("fdta.evaluate.score.score", fail)
    line = refused(capsys, "score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "s.json")
    assert "more memory than there is (Unable to allocate 900. GiB" in line


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: raw["tables"].update({"../../x": raw["tables"]["table-1"]}), "params.yaml: tables.'../../x': use"),
        (lambda raw: raw["benchmarks"].update({"$(touch x)": {}}), "params.yaml: benchmarks.'$(touch x)': use letters"),
        (lambda raw: raw["benchmarks"]["tiny"]["datasets"].update({"a b": {}}), "benchmarks.tiny.datasets.'a b': use"),
        (lambda raw: raw["benchmarks"].update({"-rf": raw["benchmarks"]["tiny"]}), "benchmarks.'-rf': use letters"),
    ],
)
def test_names_that_lead_elsewhere(change: object, told: str, capsys: pytest.CaptureFixture) -> None:
    raw = yaml.safe_load(PARAMS)
    change(raw)
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    assert told in refused(capsys, "params", "check")


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "benchmarks: &b [*b]\n",
        "a: " + "[" * 5000 + "]" * 5000,
        "? {a: 1}\n: 1\n",
    ],
)
def test_yaml_that_blows_up(text: str, capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(text)
    assert "params.yaml" in refused(capsys, "params", "check")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\n../../x\n", "'../../x' cannot name a sequence"),
        ("name\n", "found 0 sequences"),
        ("", "found 0 sequences"),
        ("name\na\na\n", "none twice"),
        ("name\n/etc/x\n", "cannot name a sequence"),
    ],
)
def test_sequence_maps(text: str, told: str, capsys: pytest.CaptureFixture) -> None:
    KINDS["sequence map"].build(Path())
    Path("data/own/seqmaps/test.txt").write_text(text)
    line = refused(capsys, *KINDS["sequence map"].command)
    assert "test.txt" in line and told in line and not Path("s.zip").exists()


def test_scores_that_are_no_numbers(capsys: pytest.CaptureFixture) -> None:
    write_project(Path())
    Path("params.yaml").write_text(PARAMS)
    path = Path("scores/dance/full/seed-0/test.json")
    scores = json.loads(path.read_text())
    scores["combined"]["HOTA"] = float("nan")
    path.write_text(json.dumps(scores))
    assert "test.json: combined.HOTA: must be a finite number, not nan" in refused(capsys, "tables")
    assert not Path("results/tables.md").exists()


@pytest.mark.parametrize("uri", ["http://[server:5000", "http://server:99999999", "http://localhost:1 2/"])
def test_addresses_that_are_none(uri: str, capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(PARAMS)
    assert refused(capsys, "mlflow", "sync", "--tracking-uri", uri) == f"fdta: {uri}: no address of a tracking server"


def test_the_lock_of_a_killed_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Path(".snakemake/locks/0.input.lock")
    assert not locks.release_stale_lock(Path())
    lock.parent.mkdir()
    lock.write_text("x")
    with monkeypatch.context() as lives:
        lives.setattr(locks, "_others", lambda project: [1])
        assert not locks.release_stale_lock(Path()) and lock.exists()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "another")
        assert not locks.release_stale_lock(Path()) and lock.exists()
    assert locks.release_stale_lock(Path()) and not lock.exists()


def test_a_workflow_that_lives_is_seen(tmp_path: Path) -> None:
    lives = [sys.executable, "-c", "import time; print(flush=True); time.sleep(99)", "snakemake"]
    with subprocess.Popen(lives, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert locks._others(tmp_path) == [process.pid]
        process.kill()
    assert locks._others(tmp_path) == []


def test_a_job_waits_for_another_process_that_makes_the_same(caplog: pytest.LogCaptureFixture) -> None:
    KINDS["record"].build(Path())
    job = Steps(Experiment(Path("params.yaml")), Path()).score(Run("dance", "full", 0), "test").job
    place = Path(jobs.FOLDER) / "locks"
    (name,) = (path.name.removeprefix(".").removesuffix(".lock") for path in place.iterdir())
    Path(job.record).unlink()
    waits = [sys.executable, "-m", "fdta", "run", job.file]
    with locked(place / name):
        process = subprocess.Popen(waits, stderr=subprocess.PIPE, text=True)
        assert "another process makes it; waiting" in process.stderr.readline()
        assert process.poll() is None
        assert not Path(job.record).exists()
    assert process.wait() == 0 and Path(job.record).exists()
    process.stderr.close()


def test_more_identities_than_the_scoring_can_hold() -> None:
    rows = "".join(f"1,{identity},{identity},3,10,12,1,1,1\n" for identity in range(3000))
    with pytest.raises(InputError, match=r"gt\.txt: 3000 identities and 3000 tracks are too many"):
        scored(rows, rows)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("%d.jpg", "2.jpg: missing, the images run from 1.jpg to 20240101120000.jpg"),
        ("%0999999999d.jpg", "names of files have at most 255 letters"),
        ("%99999999999999999999d.jpg", "names of files have at most 255 letters"),
    ],
)
def test_image_patterns_of_many_numbers(pattern: str, told: str) -> None:
    Path("gap").mkdir()
    for name in ("1.jpg", "20240101120000.jpg"):
        Image.new("RGB", (8, 8)).save(f"gap/{name}")
    with pytest.raises(InputError, match=told):
        open_source(f"gap/{pattern}")


@pytest.mark.parametrize("decode", [[], ["--decode"]])
def test_more_pixels_than_can_be_decoded(decode: list[str], capsys: pytest.CaptureFixture) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    make_sequence(Path("gt/a"), extension=".png")
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    parts = (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(9))), chunk(b"IEND", b""))
    Path("gt/a/img1/00000002.png").write_bytes(b"".join(parts))
    image = (
        "00000002.png: no image that can be decoded" if not decode else "00000002.png: 40000 x 40000 pixels, more than"
    )
    assert image in refused(capsys, "data", "check", "gt", *decode)
    with pytest.raises(InputError, match="40000 x 40000 pixels, more than the 268 million that are read"):
        read_split(Path("gt"))[0].image(2)


def test_a_png_that_announces_more_than_it_has() -> None:
    make_sequence(Path("gt/a"), extension=".png")
    path = Path("gt/a/img1/00000002.png")
    data = bytearray(path.read_bytes())
    data[33:37] = b"\xff\xff\xff\xff"  # The length of the part behind the header.
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"00000002\.png: cut short"):
        read_split(Path("gt"))[0].image(2)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_a_terminal_cannot_show(encoding: str) -> None:
    make_sequence(Path("gt/é ü"))
    check = [sys.executable, "-m", "fdta", "data", "check", "gt"]
    done = subprocess.run(check, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert done.returncode == 0 and not done.stderr
    assert {"ascii": b"\\xe9 \\xfc: 3 frames", "utf-8": "é ü: 3 frames".encode()}[encoding] in done.stdout


def test_a_name_that_is_no_unicode(capsys: pytest.CaptureFixture) -> None:
    Path("gt", os.fsdecode(b"a\xff")).mkdir(parents=True)
    assert "gt: 'a\\udcff' cannot name a sequence" in refused(capsys, "data", "check", "gt")


@pytest.mark.parametrize("start", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\na.ts\n", "<?xml?><MPD>", "ffconcat v"])
def test_playlists_are_no_videos(start: str) -> None:
    Path("live.mp4").write_text(start)
    with pytest.raises(InputError, match=r"live\.mp4: a playlist, which names other files; give the video itself"):
        open_source("live.mp4")


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_to_nowhere_among_the_files(kind: str, capsys: pytest.CaptureFixture) -> None:
    own()
    for folder in ("src/train/a", "gt/a"):
        image, truth = make_sequence(Path(folder)) / "img1/00000002.jpg", Path(folder) / "gt/gt.txt"
        for path in (image, truth) if folder == "gt/a" else (image,):
            path.unlink()
            os.mkfifo(path) if kind == "pipe" else path.symlink_to("nowhere")
    line = refused(capsys, "data", "import", "own", "src")
    assert line.startswith("fdta: src/train/a/img1/00000002.jpg: is no file, or a link that leads to none; replace")
    assert "gt/a/img1/00000002.jpg: is no file, or a link" in refused(capsys, "data", "check", "gt")
    with pytest.raises(InputError, match=r"00000002\.jpg: is no file"):
        list(open_source("gt/a/img1").frames)
    with pytest.raises(InputError, match=r"gt\.txt: is no file"):
        read_split(Path("gt"))[0].ground_truth()


def write_video(path: str, times: list[int] | None = None, frames: int = 12, size: tuple[int, int] = (64, 48)) -> None:
    """A video of 25 frames a second, or of frames at `times` in milliseconds."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        for number in range(len(times) if times else frames):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 20 * number, np.uint8), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_names_that_ffmpeg_takes_for_a_protocol() -> None:
    write_video("12:30.mp4")
    assert len(list(open_source("12:30.mp4").frames)) == 12
    writer = VideoWriter(Path("3:4.mp4"), (48, 64, 3), 25)
    writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    writer.close()
    assert len(list(open_source("3:4.mp4").frames)) == 1


def test_a_video_of_changing_rate_keeps_its_times() -> None:
    KINDS["model"].build(Path())
    times = [0, 40, 520, 560, 4000, 4040, 9000, 9040, 9080, 30000, 30040, 300000]
    write_video("v.mkv", times)
    source = open_source("v.mkv")
    assert source.length == 12
    assert [frame.time for frame in source.frames] == pytest.approx([time / 1000 for time in times])
    assert main(["track", "v.mkv", "--weights", "model.pt", "--video", "seen.mp4", "--json", "lines.jsonl"]) == 0
    assert [frame.time for frame in open_source("seen.mp4").frames] == pytest.approx([time / 1000 for time in times])
    told = [json.loads(line)["time"] for line in Path("lines.jsonl").read_text().splitlines()]
    assert told == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize(
    ("told", "times"),
    [
        ([5.0, 5.1, 5.3], [0, 0.1, 0.3]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([0.0, 0.2, 0.0, 0.2], [0, 0.2, 0.3, 0.5]),
        ([0.0, 1e6, 1e6 + 0.5], [0, 0.1, 0.6]),
        ([1.0, 1.0, 1.0], [0, 0.1, 0.2]),
        ([0.0, None, 0.5], [0, 0.1, 0.2]),
    ],
)
def test_times_of_frames_begin_at_0_and_rise(told: list[float | None], times: list[float]) -> None:
    clock = Clock(10)
    assert [clock.time(time) for time in told] == pytest.approx(times)


@pytest.mark.parametrize("rate", [1e300, 1e-300])
def test_rates_that_no_video_has(rate: float, capsys: pytest.CaptureFixture) -> None:
    writer = VideoWriter(Path("v.mp4"), (48, 64, 3), rate)
    writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    writer.close()
    scored(ROW)
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.write_text(seqinfo.read_text().replace("frameRate=25", f"frameRate={rate}"))
    if rate > 1:
        assert "the sides and the rate at most 100000" in refused(capsys, "data", "check", "gt")


def test_images_that_no_encoder_takes(capfd: pytest.CaptureFixture) -> None:
    video = AnnotatedVideo(Path("v.mp4"), (1, 20000, 3), 25)
    tracks = FrameTracks(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.float32))
    with pytest.raises(InputError, match="--video: images of 20000 x 2 pixels cannot be encoded"), closing(video):
        for _ in range(3):
            video.write(np.zeros((1, 20000, 3), np.uint8), tracks, 0)
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("track 9999999999 --weights m.pt", "webcam 9999999999: no such webcam"),
        ("track gt/a --weights m.pt --threads 99999999999999999999", "--threads 99999999999999999999: give a number"),
        ("track gt/a --weights m.pt --threads 100000", "--threads 100000: give a number from 1 to"),
    ],
)
def test_numbers_that_the_system_does_not_take(arguments: str, told: str, capsys: pytest.CaptureFixture) -> None:
    assert told in refused(capsys, *arguments.split())


@pytest.mark.parametrize(
    "number", ["[" * 100_000, "1" * 400, "1" * 5000, "NaN", "1e9", '{"ID": "a", "gtboxes": ' + "[" * 100_000]
)
def test_annotations_that_no_parser_takes(number: str, capsys: pytest.CaptureFixture) -> None:
    KINDS["odgt"].build(Path())
    box = f'{{"tag": "person", "fbox": [{number}, 2, 3, 4]}}'
    Path("a.odgt").write_text(number if number.startswith("{") else f'{{"ID": "a", "gtboxes": [{box}]}}\n')
    assert "a.odgt: line 1 is " in refused(capsys, "data", "crowdhuman", "a.odgt", "images", "--output", "out")
    assert not Path("out").exists()


def test_more_images_than_the_length_says(capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.write_text(seqinfo.read_text().replace("seqLength=3", "seqLength=2"))
    with pytest.raises(InputError, match=r"img1: has 3 images, but seqinfo.ini says seqLength=2; correct it, or"):
        open_source("gt/a")
    assert "frame 3 is outside 1..2" in refused(capsys, "data", "check", "gt")


@pytest.mark.parametrize("folder", ["nope", "."])
def test_images_elsewhere_than_told(folder: str, capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.write_text(seqinfo.read_text().replace("imDir=img1", f"imDir={folder}"))
    assert f"imDir is {folder}, where no images are, but img1 has 3" in refused(capsys, "data", "check", "gt")


@pytest.mark.parametrize("part", ["gt/b/img1", "gt/b/gt", "tracks/b.txt"])
def test_no_sequence_is_left_out_of_the_scores(part: str, capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    Path("gt/b").mkdir()
    Path(part).mkdir() if part.startswith("gt") else Path(part).write_text(ROW)
    line = refused(capsys, "score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "s.json")
    assert "gt/b/gt/gt.txt: no such file; 1 of 2 sequences have no ground truth" in line


def test_ground_truth_without_a_box_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert scored("")["HOTA"] == 0
    assert "gt/a/gt/gt.txt: no box that counts, so every track of this sequence counts as false" in caplog.text
    caplog.clear()
    Path("gt/a/gt/gt.txt").write_text("1,1,2,3,10,12,0,1,1\n")
    Path("tracks/other.txt").write_text(ROW)
    score(Path("gt"), Path("tracks"))
    assert "gt/a/gt/gt.txt: no box that counts" in caplog.text
    assert "tracks: without ground truth in gt, not scored: other.txt" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_a_seqinfo_that_is_no_file(kind: str) -> None:
    scored(ROW)
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.unlink()
    {"folder": seqinfo.mkdir, "pipe": lambda: os.mkfifo(seqinfo), "link": lambda: seqinfo.symlink_to("nowhere")}[kind]()
    with pytest.raises(InputError, match=r"seqinfo\.ini: is no file, or a link that leads to none; replace it"):
        score(Path("gt"), Path("tracks"))


def test_text_is_no_video() -> None:
    for name in ("README.nfo", "gt.txt"):
        Path(name).write_text(ROW * 50)
        with pytest.raises(InputError, match=f"{name}: no video that can be read"):
            open_source(name)


def test_the_picture_of_a_song_is_no_video(caplog: pytest.LogCaptureFixture) -> None:
    def write(path: str, pictures: int, videos: int) -> None:
        with av.open(path, "w") as container:
            streams = []
            for number in range(pictures + videos):
                stream = container.add_stream("mjpeg" if number < pictures else "libx264", rate=25)
                stream.width, stream.height = 64, 48
                stream.pix_fmt = "yuvj420p" if number < pictures else "yuv420p"
                if number < pictures:
                    stream.disposition = av.stream.Disposition.attached_pic
                streams.append(stream)
            for number, stream in enumerate(streams):
                for _ in range(1 if number < pictures else 5):
                    picture = np.zeros((48, 64, 3), np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode(None))

    write("song.mp4", 1, 0)
    with pytest.raises(InputError, match=r"song\.mp4: there is no video in it"):
        open_source("song.mp4")
    write("film.mp4", 1, 1)
    assert len(list(open_source("film.mp4").frames)) == 5 and not caplog.messages
    caplog.set_level(logging.INFO, "fdta")
    write("two.mp4", 0, 2)
    assert len(list(open_source("two.mp4").frames)) == 5
    assert "two.mp4: has 2 videos, the first is tracked" in caplog.text


@pytest.mark.parametrize("arguments", ["track v.mp4 --stride 0", "figures nope --output x.png", "nope", "track"])
def test_wrong_arguments_are_told_in_one_line(arguments: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("fdta") and error.count("\n") == 1 and "--help" in error


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--no-audio", "--no-audio needs --video"),
        ("--show-scores", "--show-scores needs --video FILE or --show"),
        ("--benchmark smoke", "--benchmark smoke: model.pt has its own settings"),
    ],
)
def test_options_that_would_do_nothing(options: str, told: str, capsys: pytest.CaptureFixture) -> None:
    KINDS["model"].build(Path())
    assert told in refused(capsys, "track", "sequence", "--weights", "model.pt", *options.split())


def test_a_file_that_cannot_be_made_has_the_name_that_was_given(capsys: pytest.CaptureFixture) -> None:
    scored(ROW)
    line = refused(capsys, "score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "/proc/x")
    assert line.startswith("fdta: /proc/x: ")


def test_numbers_that_python_alone_reads(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match=r"gt\.txt, line 1: column 'frame' is '1_0', not a number"):
        scored("1_0,1,2,3,10,12,1,1,1\n")
    seqinfo = Path("gt/a/seqinfo.ini")
    seqinfo.write_text(seqinfo.read_text().replace("seqLength=3", "seqLength=0_3"))
    score_it = ("score", "--ground-truth", "gt", "--tracks", "tracks", "--output", "s.json")
    for command in (score_it, ("track", "gt/a", "--weights", "m.pt")):
        assert "seqinfo.ini: " in refused(capsys, *command)


@pytest.mark.parametrize("arguments", [["data", "import", "dancetrack", ""], ["track", ""], ["track", "a", "--root="]])
def test_an_empty_argument(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert refused(capsys, *arguments).startswith(f"fdta: {arguments[0]}: an argument is empty")


def test_files_that_may_not_be_read(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video("v.mp4")
    Path("m.pt").write_bytes(b"PK")
    opened = Path.open

    def forbidden(self: Path, *given: object, **named: object) -> object:
        if self.name in ("v.mp4", "m.pt"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *given, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    make_sequence(Path("gt/a"))
    for arguments, name in (("track v.mp4 --weights m.pt", "v.mp4"), ("track gt/a --weights m.pt", "m.pt")):
        told = f"fdta: {name}: Permission denied; allow it with chmod, or choose another place"
        assert refused(capsys, *arguments.split()) == told


@pytest.mark.parametrize("text", [b"a: \xff\xfe\n", b"a: \x00\n"])
def test_settings_that_are_no_text(text: bytes, capsys: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_bytes(text)
    assert "params.yaml: is no valid YAML" in refused(capsys, "params", "check")


def test_kinds_of_files_that_are_confused(capsys: pytest.CaptureFixture) -> None:
    make_sequence(Path("gt/a"))
    Path("m.pt").write_bytes(Path("gt/a/img1/00000001.jpg").read_bytes())
    line = refused(capsys, "track", "gt/a", "--weights", "m.pt")
    assert "m.pt: broken or no checkpoint" in line and "weights_only" not in line
    Path("bmp").mkdir()
    Path("bmp/1.bmp").write_bytes(b"BM")
    assert "bmp: no images; expected .jpg" in refused(capsys, "track", "bmp", "--weights", "m.pt", "--video", "a.mp4")
    line = refused(capsys, "track", "gt/a", "--weights", "m.pt", "--video", "x.gif")
    assert line == "fdta: x.gif: the annotated video is MP4; give a name that ends in .mp4"
    assert refused(capsys, "params", "check", "--params", "bmp") == "fdta: bmp: is a folder; give the name of a file"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("{clip: 5, clip.intervals: [1, 1]}", "variants.w.clip: given twice"),
        ("{clip.intervals: [1, 1], clip: 5}", "variants.w.clip: given twice"),
        ("{spatial: {bins: 20}, spatial.bins: 30}", "variants.w.spatial.bins: given twice"),
        ("{clip.intervals.: [1, 1]}", "no key begins or ends with a dot"),
    ],
)
def test_a_setting_given_twice(changes: str, told: str, capsys: pytest.CaptureFixture) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  full: {}\n", f"  full: {{}}\n  w: {changes}\n", 1)
    Path("p.yaml").write_text(text)
    assert told in refused(capsys, "params", "check", "--params", "p.yaml")


@pytest.mark.parametrize(
    "command",
    [
        "bench train --repeats 1 --size 64 64 --clips 99999999999999999999",
        "bench pipeline --frames 99999999999999999999",
        "bench train --size 64 64 --repeats 99999999999999999999",
        "bench load --step 1e-320",
    ],
)
def test_numbers_out_of_proportion_of_a_benchmark(command: str, capsys: pytest.CaptureFixture) -> None:
    assert "give " in refused(capsys, *command.split())


def test_a_file_does_not_replace_a_folder() -> None:
    Path("made.json").write_text("{}")
    (Path("data") / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match=r"data/mine: is a folder, where a file belongs"):
        place(Path("made.json"), Path("data/mine"))
    assert Path("data/mine").is_dir()


def test_baselines_link_the_detections_of_their_own_split(capsys: pytest.CaptureFixture) -> None:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    given = ["baseline", "sort", "elsewhere/test", "--detections", "dance/full/seed-0"]
    assert "elsewhere/test: is no split of the data of --detections" in refused(capsys, *given)


@pytest.mark.parametrize("uri", ["nonsense://x", "ftp://x"])
def test_a_tracking_server_of_another_kind(uri: str) -> None:
    with pytest.raises(InputError, match="no address of a tracking server"):
        check_reachable(uri)
