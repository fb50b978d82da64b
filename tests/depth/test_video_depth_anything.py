from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.golden_weights import GOLDEN, assert_close_to_golden, fill_video_depth_anything, load_golden

from fdta.depth.sliding_window import input_shape, scale_and_shift, video_depth
from fdta.depth.video_depth_anything import VideoDepthAnything

NAME = "video_depth_anything_vits"


@pytest.fixture(scope="module")
def published():
    return load_golden(NAME)


@pytest.fixture(scope="module")
def network(published):
    network = VideoDepthAnything("small").eval().requires_grad_(False)
    fill_video_depth_anything(network, int(published["seed"]))
    return network


@pytest.mark.parametrize(("size", "file"), [("small", "vits"), ("base", "vitb"), ("large", "vitl")])
def test_names_and_shapes_are_the_published(size, file) -> None:
    listed = json.loads((GOLDEN / f"state_dict_video_depth_anything_{file}.json").read_text())
    with torch.device("meta"):
        state = VideoDepthAnything(size).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == dict(listed)


def test_a_clip_as_the_published(network, published, device) -> None:
    rng = np.random.default_rng([int(published["seed"]), 1])
    clip = torch.from_numpy(rng.standard_normal(tuple(published["clip_shape"]), dtype=np.float32))
    depth = network.to(device)(clip.to(device))
    network.cpu()
    assert_close_to_golden(depth, published["clip_depth"])


def test_half_precision_stays_near(network, published) -> None:
    rng = np.random.default_rng([int(published["seed"]), 1])
    clip = torch.from_numpy(rng.standard_normal(tuple(published["clip_shape"]), dtype=np.float32))
    with torch.autocast("cpu", dtype=torch.float16):
        depth = network(clip)
    assert depth.dtype == torch.float32
    assert_close_to_golden(depth, published["clip_depth"], tolerance=0.03)


def test_a_video_as_the_published(network, published) -> None:
    video, asked = published["video"], []

    def image(index: int) -> np.ndarray:
        asked.append(index)
        return video[index]

    maps = video_depth(network, image, len(video), torch.device("cpu"), int(published["video_input_size"]))
    first = next(maps)
    assert max(asked) < 54  # two windows: the third is not needed yet
    depth = np.stack([first, *maps])
    assert depth.dtype == np.float32
    assert asked == list(range(len(video)))  # each frame once
    assert_close_to_golden(torch.from_numpy(depth[:, ::3, ::3]), published["video_depth"], tolerance=1e-3)


class _Brightness(torch.nn.Module):
    """A teacher whose windows each have a scale and shift of their own: depth is brightness up to these."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        assert clip.shape[:3] == (1, 32, 3)
        self.windows += 1
        return clip.mean(dim=2) * self.windows + 10 + self.windows**2


@pytest.mark.parametrize("frames", [1, 10, 22, 23, 32, 45, 90])
def test_windows_are_aligned_whatever_the_length(frames) -> None:
    network = _Brightness()
    flat = np.random.default_rng(0).integers(0, 256, (frames, 3), dtype=np.uint8)
    maps = list(
        video_depth(
            network,
            lambda index: np.broadcast_to(flat[index], (28, 28, 3)).copy(),
            frames,
            torch.device("cpu"),
            input_size=28,
        )
    )
    normalized = (flat / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert len(maps) == frames
    assert network.windows == -(-frames // 22)
    np.testing.assert_allclose(np.stack(maps)[:, 5, 5], normalized.mean(axis=1) + 11, rtol=1e-4)


def test_memory_does_not_grow_with_the_video() -> None:
    read, ahead = 0, 0

    def image(index: int) -> np.ndarray:
        nonlocal read
        read = index + 1
        return np.full((28, 28, 3), index % 256, dtype=np.uint8)

    maps = video_depth(_Brightness(), image, 700, torch.device("cpu"), input_size=28)
    for done, _ in enumerate(maps, start=1):
        ahead = max(ahead, read - done)
    assert done == 700
    assert ahead <= 54


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(1080, 1920, (518, 924)), (720, 1280, (518, 924)), (480, 640, (518, 686)), (518, 518, (518, 518))],
)
def test_input_keeps_the_ratio_in_whole_patches(height, width, expected) -> None:
    assert input_shape(height, width) == expected
    assert input_shape(width, height) == expected[::-1]


def test_input_of_a_wide_frame_is_smaller() -> None:
    assert input_shape(500, 1000) == (462, 924)


def test_scale_and_shift() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)
    assert scale_and_shift(x, 3 * x - 2) == pytest.approx((3, -2), rel=1e-5)
    assert scale_and_shift(np.ones((2, 3)), np.zeros((2, 3))) == (1, 0)
