from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fdta.errors import InputError
from fdta.evaluate.similarity import measure_similarity
from fdta.track.detections import Detections, write_detections


def write(file: Path, frames: list[int], scores: list[float], embeddings: np.ndarray) -> None:
    boxes_xyxy = np.zeros((len(frames), 4), dtype=np.float32)
    embeddings = np.asarray(embeddings, dtype=np.float16)
    write_detections(file, Detections(np.array(frames, dtype=np.int32), boxes_xyxy, np.array(scores), embeddings))


def test_pairs_of_one_frame_above_the_threshold(tmp_path: Path) -> None:
    # Frame 1 holds a, b and 3 a, with a.b = 0, and a b of too low a score; frame 2 holds a and -a; frame 3 one object.
    a, b = np.array([2.0, 0, 0]), np.array([0, 0, 7.0])
    write(tmp_path / "s.npz", [1, 1, 1, 1, 2, 2, 3], [0.9, 0.9, 0.3, 0.9, 0.9, 0.9, 0.9], [a, b, b, 3 * a, a, -a, b])
    result = measure_similarity(tmp_path, 0.3)
    assert result["pairs"] == 4
    assert result["mean"] == pytest.approx((1 + 0 + 0 - 1) / 4, abs=1e-6)
    assert result["share_above_0.9"] == 1 / 4
    counts, edges = result["histogram"]["counts"], result["histogram"]["edges"]
    assert (counts[0], counts[20], counts[39], sum(counts)) == (1, 2, 1, 4)
    assert (edges[0], edges[20], edges[38], edges[40]) == (-1, 0, 0.9, 1)
    assert json.loads(json.dumps(result)) == result


def test_agrees_with_all_pairs_and_adds_up_sequences(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cosines = []
    for index in range(3):
        frames = np.sort(random.integers(1, 8, 40))
        embeddings = (random.normal(size=(40, 6)) + 2).astype(np.float16)
        write(tmp_path / f"s{index}.npz", frames.tolist(), [0.9] * 40, embeddings)
        units = embeddings / np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
        cosines += [units[i] @ units[j] for i in range(40) for j in range(i) if frames[i] == frames[j]]
    result = measure_similarity(tmp_path, 0.5)
    assert result["pairs"] == len(cosines)
    assert result["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert result["share_above_0.9"] == pytest.approx(np.mean(np.array(cosines) > 0.9))
    assert result["histogram"]["counts"] == np.histogram(cosines, result["histogram"]["edges"])[0].tolist()


def test_no_pairs_have_no_mean(tmp_path: Path) -> None:
    write(tmp_path / "s.npz", [1, 2], [0.9, 0.9], np.ones((2, 3)))
    write(tmp_path / "empty.npz", [], [], np.ones((0, 3)))
    result = measure_similarity(tmp_path, 0.3)
    assert (result["pairs"], result["mean"], result["share_above_0.9"]) == (0, None, None)


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        measure_similarity(tmp_path / "nowhere", 0.3)
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"broken\.npz"):
        measure_similarity(tmp_path, 0.3)
