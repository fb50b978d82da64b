from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fdta.data.motchallenge import Boxes, read_boxes
from fdta.errors import InputError
from fdta.names import BASELINES
from fdta.track.baselines import METHODS, track_baseline
from fdta.track.detections import Detections, write_detections

pytest.importorskip("trackers")

FIRST_FRAME = {"sort": 3, "bytetrack": 2, "oc-sort": 2, "bot-sort": 1}
"""First frame in which a method reports an object that is there from frame 1 on."""
Row = tuple[int, float, float, float]
"""Frame, left, top and score of a detection of 20 x 40 pixels."""


def write_sequence(folder: Path, name: str, rows: list[Row], images: list[np.ndarray], rate: int = 30) -> None:
    height, width = images[0].shape[:2]
    (folder / "split" / name / "img1").mkdir(parents=True)
    for frame, image in enumerate(images, start=1):
        cv2.imwrite(str(folder / "split" / name / "img1" / f"{frame:08d}.png"), image)
    (folder / "split" / name / "seqinfo.ini").write_text(
        f"[Sequence]\nname={name}\nimDir=img1\nframeRate={rate}\nseqLength={len(images)}\n"
        f"imWidth={width}\nimHeight={height}\nimExt=.png\n"
    )
    table = np.array(sorted(rows), dtype=np.float32)
    boxes_xyxy = np.hstack((table[:, 1:3], table[:, 1:3] + np.array([20, 40], dtype=np.float32)))
    embeddings = np.zeros((len(table), 1), dtype=np.float16)
    detections = Detections(table[:, 0].astype(np.int32), boxes_xyxy, table[:, 3], embeddings)
    write_detections(folder / "detections" / f"{name}.npz", detections)


def track(method: str, folder: Path, name: str = "s") -> Boxes:
    track_baseline(method, folder / "split", folder / "detections", folder / "tracks")
    return read_boxes(folder / "tracks" / f"{name}.txt")


def blank(frames: int) -> list[np.ndarray]:
    return [np.zeros((64, 96, 3), dtype=np.uint8)] * frames


def identities_at(boxes: Boxes, frame: int) -> set[int]:
    return set(boxes.identities[boxes.frames == frame].tolist())


@pytest.mark.parametrize("method", METHODS)
def test_moving_objects_keep_their_identity(tmp_path: Path, method: str) -> None:
    rows: list[Row] = [(t, 100 * i + 2 * t, 5 * i, 0.9) for t in range(1, 13) for i in range(3)]
    # Never sure enough for a track of its own.
    rows += [(t, 600, 0, 0.4) for t in range(1, 13)]
    for name in ("first", "second"):
        write_sequence(tmp_path, name, rows, blank(12))
    for name in ("first", "second"):
        boxes = track(method, tmp_path, name)
        start = FIRST_FRAME[method]
        assert boxes.frames.tolist() == np.repeat(np.arange(start, 13), 3).tolist()
        assert set(boxes.identities.tolist()) == {1, 2, 3}
        for identity in (1, 2, 3):
            of_one = boxes.boxes_xywh[boxes.identities == identity]
            i = round(of_one[0, 1] / 5)
            expected = [[100 * i + 2 * t, 5 * i, 20, 40] for t in range(start, 13)]
            np.testing.assert_allclose(of_one, expected, atol=0.01)
        np.testing.assert_allclose(boxes.scores, 0.9, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rate", [10, 30])
def test_lost_tracks_are_kept_for_thirty_frames_at_any_rate(tmp_path: Path, method: str, rate: int) -> None:
    seen = [*range(1, 11), *range(36, 41), *range(76, 81)]
    write_sequence(tmp_path, "s", [(t, 30, 10, 0.9) for t in seen], blank(80), rate)
    boxes = track(method, tmp_path)
    assert identities_at(boxes, 10) == identities_at(boxes, 40) == {1}
    assert identities_at(boxes, 80) == {2}


@pytest.mark.parametrize(("method", "frames"), [("sort", 0), ("bytetrack", 3), ("oc-sort", 0), ("bot-sort", 3)])
def test_who_links_unsure_detections(tmp_path: Path, method: str, frames: int) -> None:
    scores = [0.9] * 6 + [0.3] * 3 + [0.9] * 3
    write_sequence(tmp_path, "s", [(t, 30, 10, score) for t, score in enumerate(scores, start=1)], blank(12))
    boxes = track(method, tmp_path)
    assert ((boxes.frames >= 7) & (boxes.frames <= 9)).sum() == frames
    assert identities_at(boxes, 12) == {1}


def test_bot_sort_follows_the_camera(tmp_path: Path) -> None:
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 480, 3), dtype=np.uint8), (0, 0), 2)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    # The camera jerks by more than an object's width, so boxes alone do not overlap.
    offsets = [0, 2, 4, 30, 6, 34, 10, 40, 12, 38]
    rows: list[Row] = [(t, x - offset, 50, 0.9) for t, offset in enumerate(offsets, start=1) for x in (60, 150, 240)]
    write_sequence(tmp_path / "seeing", "s", rows, [scene[:, offset : offset + 400] for offset in offsets])
    write_sequence(tmp_path / "blind", "s", rows, blank(len(offsets)))
    assert set(track("bot-sort", tmp_path / "seeing").identities.tolist()) == {1, 2, 3}
    assert len(track("bot-sort", tmp_path / "blind").frames) < 3 * len(offsets)


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_each_time(tmp_path: Path, method: str) -> None:
    random = np.random.default_rng(1)
    rows: list[Row] = [
        (t, *random.uniform(0, 60, 2), score) for t in range(1, 16) for score in random.uniform(0.1, 1, 5)
    ]
    write_sequence(tmp_path, "s", rows, list(random.integers(0, 256, (15, 64, 96, 3), dtype=np.uint8)))
    track(method, tmp_path)
    first = (tmp_path / "tracks" / "s.txt").read_bytes()
    track(method, tmp_path)
    assert (tmp_path / "tracks" / "s.txt").read_bytes() == first != b""


def test_nothing_detected_nothing_tracked(tmp_path: Path) -> None:
    write_sequence(tmp_path, "s", [(1, 0, 0, 0.01)], blank(3))
    for method in METHODS:
        assert len(track(method, tmp_path).frames) == 0


def test_methods_are_those_of_the_params() -> None:
    assert tuple(METHODS) == BASELINES


def test_bad_input_is_named_and_leaves_no_tracks(tmp_path: Path) -> None:
    write_sequence(tmp_path, "s", [(1, 0, 0, 0.9)], blank(3))
    with pytest.raises(InputError, match="deep-sort"):
        track("deep-sort", tmp_path)
    (tmp_path / "detections" / "s.npz").unlink()
    with pytest.raises(InputError, match=r"s\.npz"):
        track("sort", tmp_path)
    assert not (tmp_path / "tracks").exists()
