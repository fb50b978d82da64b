from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fdta.cli import main
from fdta.data.motchallenge import read_sequence
from fdta.depth import sliding_window, teacher
from fdta.depth.video_depth_anything import VideoDepthAnything, load_video_depth_anything
from fdta.errors import InputError

CPU = torch.device("cpu")
TEACHER = "video-depth-anything"
INPUT_SIZE = 28
make_depth = functools.partial(teacher.make_depth, input_size=INPUT_SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vits.pth"
    network = VideoDepthAnything("small")
    torch.nn.init.constant_(network.head.scratch["output_conv2"][2].bias, 1.0)  # so that not all depth is 0
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def split(tmp_path) -> Path:
    """Two sequences of three small frames."""
    for name in ("a", "b"):
        images = tmp_path / "own/train" / name / "img1"
        images.mkdir(parents=True)
        rng = np.random.default_rng(ord(name))
        for frame in (1, 2, 3):
            cv2.imwrite(str(images / f"{frame:08d}.jpg"), rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        (images.parent / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nimDir=img1\nframeRate=20\nseqLength=3\nimWidth=40\nimHeight=30\nimExt=.jpg\n"
        )
    return tmp_path / "own/train"


def _user_maps(folder: Path, frames: int) -> None:
    folder.mkdir()
    for frame in range(1, frames + 1):
        cv2.imwrite(str(folder / f"{frame:08d}.png"), np.full((30, 40), frame, dtype=np.uint8))


def test_maps_are_the_videos_depth_by_its_maximum(split, weights) -> None:
    costs = make_depth(split, TEACHER, "small", weights)
    assert costs.keys() == {"a", "b"}
    sequence = read_sequence(split / "a")
    network = load_video_depth_anything(weights, "small", CPU)
    depth = np.stack(list(sliding_window.video_depth(network, lambda i: sequence.image(i + 1), 3, CPU, INPUT_SIZE)))
    maps = np.stack([sequence.depth(frame) for frame in (1, 2, 3)])
    assert maps.max() == 255 and maps.std() > 0
    assert np.abs(maps - depth / depth.max() * 255).max() < 0.7  # rounding, and half precision
    assert costs["a"]["bytes"] == sum(path.stat().st_size for path in (split.parent / "depth/train/a").glob("*.png"))
    assert costs["a"]["seconds"] > 0
    assert sorted(path.name for path in (split / "a").iterdir()) == ["img1", "seqinfo.ini"]


def test_maps_have_no_more_pixels_than_the_network_sees_need(split, weights) -> None:
    assert teacher.map_size(1920, 1080) == (960, 540)
    assert teacher.map_size(1280, 720) == (1280, 720)
    assert teacher.map_size(4000, 3000) == (800, 600)
    teacher.make_depth(split, TEACHER, "small", weights, input_size=14)
    sequence = read_sequence(split / "a")
    network = load_video_depth_anything(weights, "small", CPU)
    depth = np.stack(list(sliding_window.video_depth(network, lambda i: sequence.image(i + 1), 3, CPU, 14)))
    depth = depth.reshape(3, 15, 2, 20, 2).mean(axis=(2, 4))
    maps = np.stack([sequence.depth(frame) for frame in (1, 2, 3)])
    assert maps.shape == (3, 15, 20)
    assert np.abs(maps - depth / depth.max() * 255).max() < 0.7


def test_a_killed_run_goes_on_with_the_next_sequence(split, weights, monkeypatch) -> None:
    make = teacher._Estimator._make
    made = []

    def stop_at_b(self, sequence, *arguments):
        if sequence.name == "b":
            raise KeyboardInterrupt
        make(self, sequence, *arguments)

    def count(self, sequence, *arguments):
        made.append(sequence.name)
        make(self, sequence, *arguments)

    monkeypatch.setattr(teacher._Estimator, "_make", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        make_depth(split, TEACHER, "small", weights)
    seconds = json.loads((split.parent / "depth/train/a/teacher.json").read_text())["seconds"]
    monkeypatch.setattr(teacher._Estimator, "_make", count)
    costs = make_depth(split, TEACHER, "small", weights)
    assert made == ["b"]
    assert costs["a"]["seconds"] == seconds


def test_other_weights_make_other_maps(split, weights, tmp_path) -> None:
    make_depth(split, TEACHER, "small", weights)
    before = read_sequence(split / "a").depth(1)
    state = torch.load(weights, weights_only=True)
    torch.manual_seed(1)
    other = {name: value + 0.05 * torch.randn_like(value) for name, value in state.items()}
    torch.save(other, tmp_path / "other.pth")
    make_depth(split, TEACHER, "small", tmp_path / "other.pth")
    assert (read_sequence(split / "a").depth(1) != before).any()


def test_maps_from_elsewhere_are_left_alone_and_need_no_weights(split) -> None:
    for name in ("a", "b"):
        _user_maps(split / name / "depth", 3)
    costs = make_depth(split, TEACHER)
    assert read_sequence(split / "b").depth(2).max() == 2
    assert costs["b"]["seconds"] is None and costs["b"]["bytes"] > 0


def test_maps_from_elsewhere_for_some_frames_are_refused(split, weights) -> None:
    _user_maps(split / "b/depth", 2)
    with pytest.raises(InputError, match=r"b/depth/00000003\.png"):
        make_depth(split, TEACHER, "small", weights)


def test_infinite_depth_leaves_no_map(split, weights, tmp_path) -> None:
    state = torch.load(weights, weights_only=True)
    state["head.scratch.output_conv2.2.bias"].fill_(1e6)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(InputError, match="infinite depth"):
        make_depth(split, TEACHER, "small", tmp_path / "broken.pth")
    assert sorted(path.name for path in (split / "a").iterdir()) == ["img1", "seqinfo.ini"]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("small", "Video-Depth-Anything-Small (licence Apache-2.0)"),
        ("base", "Video-Depth-Anything-Base (licence CC BY-NC 4.0)"),
        ("large", "Video-Depth-Anything-Large (licence CC BY-NC 4.0)"),
    ],
)
def test_no_weights(split, size, told) -> None:
    with pytest.raises(InputError) as refused:
        make_depth(split, TEACHER, size)
    assert told in str(refused.value)


def test_weights_of_another_size_or_broken(weights, tmp_path) -> None:
    with pytest.raises(InputError, match="size base"):
        load_video_depth_anything(weights, "base", CPU)
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="broken"):
        load_video_depth_anything(tmp_path / "cut.pth", "small", CPU)


def test_command(split, weights, tmp_path, capsys) -> None:
    params, checkpoint = tmp_path / "params.yaml", tmp_path / "mine.pth"
    (tmp_path / "data").mkdir()
    (tmp_path / "own").rename(tmp_path / "data/own")
    params.write_text(
        "benchmark: mine\nvariants: {full: {}}\ntables: {}\nbenchmarks:\n  mine:\n    note: n\n    settings: {}\n"
        "    datasets: {own: {title: t, splits: {train: 2}, test_split: train, validation_split: train,"
        " teacher_size: small, teacher_input_size: 28, teacher_weights: mine.pth}}\n"
    )
    output = tmp_path / "data/own/depth-train.json"
    command = ["depth", "own", "train", "--root", str(tmp_path), "--params", str(params)]
    assert main(command) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"fdta: {checkpoint}: no such file") and "\n" not in error
    assert not output.exists()
    shutil.copy(weights, checkpoint)
    assert main([*command, "--device", "cpu", "--threads", "1"]) == 0
    assert json.loads(output.read_text())["b"]["seconds"] > 0
