from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdta.data.motchallenge import Boxes, read_boxes, write_boxes
from fdta.evaluate.matches import NONE, match_tracks


def boxes(*rows: tuple[int, int, float]) -> Boxes:
    """Rows (frame, identity, x) of boxes of 10 x 10 pixels."""
    frames, identities, x = (np.array(column) for column in zip(*rows, strict=True))
    xywh = np.stack([x, np.zeros(len(x)), np.full(len(x), 10), np.full(len(x), 10)], axis=1).astype(float)
    return Boxes(frames.astype(np.int64), identities.astype(np.int64), xywh, np.ones(len(x)), np.ones(len(x), np.int64))


def test_an_exchange_is_two_switches():
    truth = boxes((1, 1, 0), (1, 2, 50), (2, 1, 0), (2, 2, 50))
    found = match_tracks(truth, boxes((1, 7, 0), (1, 8, 50), (2, 7, 50), (2, 8, 0)))
    assert found.identities.tolist() == [1, 2, 2, 1]
    assert found.previous.tolist() == [NONE, NONE, 8, 7] and found.switched.tolist() == [False, False, True, True]


def test_the_pair_of_the_frame_before_goes_first_and_too_little_overlap_is_no_match():
    truth = boxes((1, 1, 0), (2, 1, 0))
    found = match_tracks(truth, boxes((1, 7, 0), (2, 7, 3), (2, 8, 0)))
    assert found.identities.tolist() == [1, 1, NONE] and not found.switched.any()
    assert match_tracks(truth, boxes((1, 7, 4))).identities.tolist() == [NONE]


def test_a_switch_is_noticed_after_a_gap():
    found = match_tracks(boxes((1, 1, 0), (2, 1, 0), (3, 1, 0)), boxes((1, 7, 0), (3, 8, 0)))
    assert found.previous.tolist() == [NONE, 7]


@pytest.mark.parametrize("seed", range(3))
def test_switches_and_matches_are_those_of_trackeval(tmp_path: Path, seed: int):
    score = pytest.importorskip("fdta.evaluate.score").score
    pytest.importorskip("trackeval")
    rng = np.random.default_rng(seed)
    rows, found = [], []
    for frame in range(1, 31):
        places = {identity: 8 * identity + rng.normal(scale=2) for identity in range(1, 7)}
        rows += [(frame, identity, place) for identity, place in places.items() if rng.random() < 0.85]
        tracks = rng.permutation(6) if rng.random() < 0.3 else np.arange(6)
        noisy = zip(tracks.tolist(), places.values(), strict=True)
        found += [(frame, track, place + rng.normal(scale=2)) for track, place in noisy if rng.random() < 0.85]
    write_boxes(tmp_path / "truth" / "a" / "gt" / "gt.txt", boxes(*rows))
    write_boxes(tmp_path / "tracks" / "a.txt", boxes(*found))
    scores = score(tmp_path / "truth", tmp_path / "tracks")["a"]
    ours = match_tracks(read_boxes(tmp_path / "truth/a/gt/gt.txt"), read_boxes(tmp_path / "tracks/a.txt"))
    assert scores["IDSW"] == ours.switched.sum() > 0
    assert scores["CLR_TP"] == (ours.identities != NONE).sum()
