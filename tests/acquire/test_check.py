from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.sequences import HEIGHT, WIDTH, break_image, make_sequence

from fdta.acquire.catalogue import Form, Split
from fdta.acquire.check import check_split, header_size, split_folders
from fdta.cli import main
from fdta.errors import InputError

SPORTSMOT = Path(os.environ.get("FDTA_SPORTSMOT_GT", Path(__file__).parents[3] / "shared" / "sportsmot-gt"))


@pytest.mark.parametrize("decode", [False, True])
def test_check_finds_every_defect(tmp_path, decode) -> None:
    split = tmp_path / "val"
    make_sequence(split / "good")
    without = make_sequence(split / "no-truth")
    (without / "gt" / "gt.txt").unlink()
    images = make_sequence(split / "images", frames=4)
    break_image(images / "img1" / "00000001.jpg", "cut")
    break_image(images / "img1" / "00000003.jpg", "garbage")
    lines = make_sequence(split / "lines")
    (lines / "gt" / "gt.txt").write_text("1,1,2,3,10,12\n1,1,2,3,10,12\n9,1,2,3,10,12\n2,1,2,3,0,12\n2,1,2,3,9,12\n")
    info = make_sequence(split / "info", text="[Sequence]\n")
    (info / "gt" / "gt.txt").write_text("oops\n")
    empty = make_sequence(split / "empty")
    (empty / "gt" / "gt.txt").write_text("")
    reports = {report.name: report for report in check_split(split, decode=decode)}
    assert {name: len(report.defects) for name, report in reports.items()} == {
        "good": 0, "no-truth": 0, "images": 2, "lines": 3, "info": 2, "empty": 1,
    }  # fmt: skip
    good = reports["good"]
    assert (good.frames, good.boxes, good.identities, good.ground_truth) == (3, 2, 1, True)
    assert str(good) == "good: 3 frames, 2 boxes of 1 identities, whole"
    assert "no ground truth" in str(reports["no-truth"])
    assert reports["lines"].boxes == 2
    assert "line 3" in str(reports["lines"]) and str(reports["lines"]).count("\n") == 3


def test_frames_are_told_in_runs(tmp_path) -> None:
    folder = make_sequence(tmp_path / "val" / "a", frames=9)
    for frame in (2, 3, 4, 7):
        (folder / "img1" / f"{frame:08d}.jpg").unlink()
    (folder / "img1" / "00000009.jpg").rename(folder / "img1" / "00000012.jpg")
    (folder / "img1" / "00000001.jpg").rename(folder / "img1" / "000001.jpg")
    (report,) = check_split(tmp_path / "val", form=Form(digits=8))
    told = "\n".join(report.defects)
    assert all(f"frame {run} of 9 is missing" in told for run in ("2-4", "7", "9"))
    assert "frame 12 is outside 1..9" in told and "000001.jpg: its name has not the form 00000001.jpg" in told
    assert len(report.defects) == 5


def test_headers(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        path = tmp_path / name
        cv2.imwrite(str(path), image)
        assert header_size(path) == (WIDTH, HEIGHT)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match="cut short"):
            header_size(path)
    with pytest.raises(InputError, match="no such file"):
        header_size(tmp_path / "b.jpg")


def test_what_the_headers_do_not_tell(tmp_path) -> None:
    folder = make_sequence(tmp_path / "val" / "a", extension=".png")
    path = folder / "img1" / "00000002.png"
    data = path.read_bytes()
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 4
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    assert [len(report.defects) for report in check_split(tmp_path / "val")] == [0]
    assert [len(report.defects) for report in check_split(tmp_path / "val", decode=True)] == [1]


def test_depth_maps(tmp_path) -> None:
    folder = make_sequence(tmp_path / "val" / "a")
    (folder / "depth").mkdir()
    for frame in (1, 2):
        cv2.imwrite(str(folder / "depth" / f"{frame:08d}.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    assert [len(report.defects) for report in check_split(tmp_path / "val")] == [1]  # the missing one
    assert [len(report.defects) for report in check_split(tmp_path / "val", decode=True)] == [3]  # 16 bits, too


def test_what_the_catalogue_tells(tmp_path) -> None:
    make_sequence(tmp_path / "val" / "a")
    (tmp_path / "val" / "a" / "gt" / "gt.txt").write_text("1,0,2,3,10,12\n")
    bare = make_sequence(tmp_path / "val" / "b")
    (bare / "gt" / "gt.txt").unlink()
    for image in (bare / "img1").iterdir():
        image.unlink()
    assert [len(report.defects) for report in check_split(tmp_path / "val")] == [0, 1]
    reports = check_split(tmp_path / "val", published=Split(2), form=Form(first_identity=1))
    assert "identity 0 is below 1" in reports[0].defects[0]
    assert [("no images" in d, "has ground truth" in d) for d in reports[1].defects] == [(True, False), (False, True)]


def test_folders(tmp_path) -> None:
    make_sequence(tmp_path / "data" / "val" / "a")
    (tmp_path / "data" / "seqmaps").mkdir()
    (tmp_path / "data" / "seqmaps" / "val.txt").write_text("name\na\n")
    assert split_folders(tmp_path / "data") == [tmp_path / "data" / "val"]
    assert split_folders(tmp_path / "data" / "val") == [tmp_path / "data" / "val"]
    with pytest.raises(InputError, match="no sequence in it"):
        split_folders(tmp_path)


@pytest.mark.skipif(not SPORTSMOT.is_dir(), reason="needs real ground truth")
def test_real_ground_truth_without_images(capsys) -> None:
    assert main(["data", "check", str(SPORTSMOT)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "v_00HRwkvvjtQ_c007: 707 frames without images, 6458 boxes of 10 identities, whole"
    # 39429 lines in five files, counted with wc.
    assert lines[-1] == f"{SPORTSMOT / 'val'}: 5 sequences, 3827 frames, 39429 boxes, 63 identities; 0 defects"


@pytest.mark.skipif(not SPORTSMOT.is_dir(), reason="needs real ground truth")
def test_one_wrong_line_among_real_ones(tmp_path, capsys) -> None:
    for source in sorted((SPORTSMOT / "val").iterdir())[:2]:
        target = tmp_path / "val" / source.name
        (target / "gt").mkdir(parents=True)
        (target / "seqinfo.ini").write_text((source / "seqinfo.ini").read_text())
        lines = (source / "gt" / "gt.txt").read_text().splitlines()
        lines[99] = lines[99].replace(", ", ", x", 1)
        (target / "gt" / "gt.txt").write_bytes("\r\n".join(lines).encode())
    assert main(["data", "check", str(tmp_path / "val")]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("gt.txt, line 100: ") == 2 and "2 defects" in captured.err
