from __future__ import annotations

import numpy as np
import pytest
import torch

from fdta.data.images import (
    IMAGE_MEAN,
    IMAGE_STD,
    pin,
    resize,
    resize_on_device,
    resized_size,
    to_network,
    to_tensor,
)


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


@pytest.mark.parametrize("size", [(96, 64), (40, 27), (150, 101)])
def test_images_for_the_network(size: tuple[int, int], device: torch.device) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    network = to_network(images, size, device)
    assert network.shape == (2, 3, size[1], size[0]) and network.dtype == torch.float32
    expected = torch.stack([to_tensor(resize(image, *size)) for image in images])
    # A GPU may round a byte to the other side.
    tolerance = 1e-5 if device.type == "cpu" or size == (96, 64) else 1.01 / 255 / min(IMAGE_STD)
    torch.testing.assert_close(network.cpu(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [(40, 27), (120, 64), (150, 101), (96, 64)])
def test_bytes_resized_as_floats_are_within_one_level(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images[1] = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    levels = resize_on_device(torch.from_numpy(images), size)
    assert torch.equal(levels, levels.round()) and levels.dtype == torch.float32
    expected = np.stack([resize(image, *size) for image in images]).transpose(0, 3, 1, 2)
    difference = np.abs(levels.numpy() - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.2


@pytest.mark.cuda
def test_pinned_image_is_the_same_and_not_copied_again() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)[:, ::-1]
    pinned = pin(image)
    np.testing.assert_array_equal(pinned, image)
    assert torch.from_numpy(pinned).is_pinned()
    assert pin(pinned).ctypes.data == pinned.ctypes.data
