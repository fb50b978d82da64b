from __future__ import annotations

import numpy as np
import pytest
import torch

from fdta.data.images import IMAGE_MEAN, IMAGE_STD, resize, resized_size, to_tensor


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), (1422, 800)),
        ((1080, 1920), (800, 1422)),
        ((1280, 720), (1422, 800)),
        ((3000, 1000), (1440, 480)),
        ((500, 500), (800, 800)),
        ((10000, 2), (1440, 1)),
    ],
)
def test_resized_size_bounds_both_sides(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, 800, 1440) == expected


def test_image_of_the_right_size_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    assert resize(image, 9, 6) is image


def test_resize_keeps_colours_and_averages_when_it_shrinks() -> None:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[:, ::4] = 200  # every fourth column; without antialiasing it would vanish or dominate
    image[..., 1] = 7
    smaller = resize(image[:, ::-1], 12, 8)
    assert smaller.shape == (8, 12, 3) and smaller.dtype == np.uint8
    assert np.abs(smaller[:, 1:-1, 0].astype(int) - 50).max() <= 2
    assert (smaller[..., 1] == 7).all()


def test_tensor_has_the_mean_and_deviation_of_imagenet() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = to_tensor(image[:, ::-1])
    assert tensor.shape == (3, 5, 7) and tensor.dtype == torch.float32
    expected = (image[2, 6] / 255 - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)
    np.testing.assert_allclose(tensor[:, 2, 0], expected, atol=1e-6)
