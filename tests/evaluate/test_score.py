from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest

from fdta.errors import InputError
from fdta.evaluate.score import COMBINED, paired_difference, score

pytest.importorskip("trackeval")

SPORTSMOT = Path(os.environ.get("FDTA_SPORTSMOT_GT", Path(__file__).parents[3] / "shared" / "sportsmot-gt"))


def write_sequence(folder: Path, name: str, truth: list[str], tracks: list[str], frames: int | None = None) -> None:
    """One sequence, with the blanks and line ends of SportsMOT's files."""
    gt = folder / "gt" / name / "gt" / "gt.txt"
    gt.parent.mkdir(parents=True)
    gt.write_bytes("".join(line.replace(",", ", ") + "\r\n" for line in truth).encode())
    if frames is not None:
        gt.parent.with_name("seqinfo.ini").write_text(f"[Sequence]\nname={name}\nseqLength={frames}\n")
    (folder / "tracks").mkdir(exist_ok=True)
    (folder / "tracks" / f"{name}.txt").write_text("".join(line + "\n" for line in tracks))


@pytest.fixture
def two_sequences(tmp_path: Path) -> Path:
    # In "a" every box is found, but object 0 changes its identity from 1 to 2 half-way. The row with score 0 is void.
    truth = [f"{t},{i},{40 * i},10,10,20,1,1,1" for t in range(1, 5) for i in (0, 5)] + ["2,9,300,10,10,20,0,1,1"]
    tracks = [f"{t},{3 if i else (t + 1) // 2},{40 * i},10,10,20" for t in range(1, 5) for i in (0, 5)]
    write_sequence(tmp_path, "a", truth, tracks)
    # In "b" the object is found in one frame of two, at an IoU of 8 / 12, among three false boxes.
    tracks = ["1,1,2,0,10,20,0.9,-1,-1,-1"] + [f"{t},2,500,0,10,20,0.9,-1,-1,-1" for t in (1, 2, 3)]
    write_sequence(tmp_path, "b", ["1,0,0,0,10,20", "2,0,0,0,10,20"], tracks, frames=3)
    return tmp_path


def test_hand_computed_scores(two_sequences: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scores = score(two_sequences / "gt", two_sequences / "tracks")
    assert list(scores) == ["a", "b", COMBINED]
    # Association: 4 of the 8 matches share half of the two tracks' rows with their identity, 4 all of them.
    expected = {
        "a": {"DetA": 100, "AssA": 75, "AssRe": 75, "AssPr": 100, "LocA": 100, "HOTA": 100 * math.sqrt(0.75)}
        | {"MOTA": 100 * 7 / 8, "IDF1": 75, "IDSW": 1, "CLR_FP": 0, "CLR_FN": 0, "IDs": 3, "GT_IDs": 2, "GT_Dets": 8},
        # The one match counts at the thresholds 0.05, 0.10, ..., 0.65: 13 of 19.
        "b": {"DetA": 20 * 13 / 19, "AssA": 50 * 13 / 19, "HOTA": 100 * math.sqrt(0.1) * 13 / 19}
        | {"DetRe": 50 * 13 / 19, "DetPr": 25 * 13 / 19, "MOTA": -100, "IDF1": 100 / 3, "CLR_FP": 3, "CLR_FN": 1},
        COMBINED: {"MOTA": 100 * (9 - 3 - 1) / 10, "IDF1": 100 * 7 / (7 + 0.5 * 5 + 0.5 * 3), "IDSW": 1, "Dets": 12},
    }
    for name, values in expected.items():
        for metric, value in values.items():
            assert scores[name][metric] == pytest.approx(value, abs=1e-9), (name, metric)
    assert json.loads(json.dumps(scores)) == scores
    assert capfd.readouterr() == ("", "")


def test_chosen_sequences_only(two_sequences: Path) -> None:
    scores = score(two_sequences / "gt", two_sequences / "tracks", ["b"])
    assert list(scores) == ["b", COMBINED]
    assert scores["b"] == scores[COMBINED]


def test_no_tracks_score_zero(two_sequences: Path) -> None:
    (two_sequences / "tracks" / "b.txt").write_text("")
    scores = score(two_sequences / "gt", two_sequences / "tracks", ["b"])
    assert (scores["b"]["HOTA"], scores["b"]["CLR_FN"], scores["b"]["IDs"]) == (0, 2, 0)


@pytest.mark.skipif(not SPORTSMOT.is_dir(), reason="set FDTA_SPORTSMOT_GT to the folder of real SportsMOT ground truth")
def test_real_ground_truth_as_the_original_trackeval() -> None:
    scores = score(SPORTSMOT / "val", SPORTSMOT / "tracks")
    expected = json.loads((SPORTSMOT / "expected_scores.json").read_text())
    expected[COMBINED] = expected.pop("COMBINED")
    assert set(scores) == set(expected)
    for name, values in expected.items():
        assert {metric: scores[name][metric] for metric in values} == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tracks/b.txt", None, r"b\.txt.*tracks"),
        ("gt/b/gt/gt.txt", None, r"b/gt/gt\.txt.*ground truth"),
        ("tracks/b.txt", "1,1,0,0,10,20\n1,2,x,0,10,20\n", r"b\.txt, line 2"),
        ("tracks/b.txt", "1,1,0,0,10,20\n4,1,0,0,10,20\n", r"b\.txt, line 2"),
        ("tracks/b.txt", "1,1,0,0,10,20\n1,1,5,0,10,20\n", r"b\.txt, line 2"),
        ("gt/b/seqinfo.ini", "[Sequence]\nname=b\n", "seqLength"),
    ],
    ids=["no-tracks", "no-ground-truth", "malformed", "frame-outside", "identity-twice", "no-length"],
)
def test_bad_files_are_named(two_sequences: Path, file: str, text: str | None, message: str) -> None:
    if text is None:
        (two_sequences / file).unlink()
    else:
        (two_sequences / file).write_text(text)
    with pytest.raises(InputError, match=message):
        score(two_sequences / "gt", two_sequences / "tracks", ["a", "b"])


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        score(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="no sequence"):
        score(tmp_path, tmp_path)


def test_a_test_split_takes_seconds(tmp_path: Path) -> None:
    rows = [f"{t},{i},{40 * i + t},10,20,40,1,1,1" for t in range(1, 41) for i in range(6)]
    for index in range(60):
        write_sequence(tmp_path, f"s{index:02}", rows, rows, frames=40)
    start = time.process_time()
    assert score(tmp_path / "gt", tmp_path / "tracks")[COMBINED]["HOTA"] == pytest.approx(100)
    assert time.process_time() - start < 10


def test_paired_difference() -> None:
    first = {"x": {"HOTA": 50.0}, "y": {"HOTA": 60.0}, "z": {"HOTA": 10.0}, COMBINED: {"HOTA": 1.0}}
    second = {"x": {"HOTA": 52.0}, "y": {"HOTA": 63.0}, "z": {"HOTA": 14.0}, COMBINED: {"HOTA": 99.0}}
    mean, error = paired_difference(first, second, "HOTA")
    assert mean == pytest.approx(3)
    assert error == pytest.approx(np.std([2, 3, 4], ddof=1) / math.sqrt(3))
    with pytest.raises(InputError, match="z"):
        paired_difference(first, {name: second[name] for name in ("x", "y")}, "HOTA")
    with pytest.raises(InputError, match="two"):
        paired_difference({"x": first["x"]}, {"x": second["x"]}, "HOTA")
