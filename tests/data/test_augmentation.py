from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fdta.data.augmentation import Frame, crop, draw_augmentation, flip, jitter, pan, resize_frame
from fdta.data.settings import AugmentationSettings


@pytest.fixture
def frame():
    """A white square on black, 5 to 9 across and 2 to 6 down, in image and depth alike; a second box far right."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[2:6, 5:9] = 255
    boxes = np.array([[5.0, 2, 9, 6], [25, 10, 29, 19]])
    return Frame(image, image[..., 0].copy(), boxes, np.array([7, 3]))


def _square(frame: Frame) -> list[float]:
    rows, columns = np.nonzero(frame.depth > 127)
    assert np.array_equal(frame.image[..., 0] > 127, frame.depth > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_flip_moves_image_depth_and_boxes_alike(frame):
    flipped = flip(frame)
    assert _square(flipped) == flipped.boxes_xyxy[0].tolist() == [21, 2, 25, 6]
    assert np.array_equal(flip(flipped).image, frame.image)


def test_resize_moves_image_depth_and_boxes_alike(frame):
    larger = resize_frame(frame, 60, 80)
    assert larger.image.shape == (80, 60, 3) and larger.depth.shape == (80, 60)
    assert larger.boxes_xyxy[0].tolist() == [10, 8, 18, 24]
    assert np.abs(np.subtract(_square(larger), larger.boxes_xyxy[0])).max() <= 1


def test_crop_cuts_boxes_and_drops_those_outside(frame):
    part = crop(frame, left=6, top=0, width=15, height=10)
    assert part.identities.tolist() == [7]
    assert part.boxes_xyxy.tolist() == [[0, 2, 3, 6]] == [_square(part)]


PILLOW = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def coloured(image):
    return Frame(image, None, np.zeros((0, 4)), np.zeros(0, np.int64))


@pytest.fixture
def photo():
    lattice = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(lattice, (120, 90), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", PILLOW)
def test_no_change_of_colours_keeps_the_image(name, photo):
    assert np.array_equal(jitter(coloured(photo), [(name, 1.0)]).image, photo)


@pytest.mark.parametrize("factor", [0.6, 0.83, 1.17, 1.4])
@pytest.mark.parametrize("name", PILLOW)
def test_colours_change_as_pillow_changes_them(name, factor, photo):
    """Which the published trainer uses."""
    changed = jitter(coloured(photo), [(name, factor)]).image.astype(int)
    difference = np.abs(changed - np.asarray(PILLOW[name](Image.fromarray(photo)).enhance(factor)))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05


@pytest.mark.parametrize("turn", [-0.2, 0.07, 0.2])
def test_hue_turns_as_pillow_turns_it(turn, photo):
    hue, saturation, value = Image.fromarray(photo).convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(int(turn * 255) % 256))
    expected = np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB")).astype(int)
    difference = np.abs(jitter(coloured(photo), [("hue", turn)]).image - expected)
    # Hues of 8 bits are rounded in other ways.
    assert difference.mean() < 1.5 and difference.max() < 20


def test_colours_change_step_by_step_in_the_order_given(photo):
    steps = [("contrast", 0.7), ("brightness", 1.3), ("saturation", 0.6)]
    one_by_one = coloured(photo)
    for step in steps:
        one_by_one = jitter(one_by_one, [step])
    assert np.array_equal(jitter(coloured(photo), steps).image, one_by_one.image)
    assert not np.array_equal(jitter(coloured(photo), steps[::-1]).image, one_by_one.image)


def test_depth_with_fewer_pixels_comes_to_the_size_of_the_image(frame):
    smaller = Frame(frame.image, frame.depth[::2, ::2], frame.boxes_xyxy, frame.identities)
    assert flip(smaller).depth.shape == (10, 15)
    for size in ((30, 20), (24, 16), (60, 40)):
        assert resize_frame(smaller, *size).depth.shape == size[::-1] == resize_frame(smaller, *size).image.shape[:2]
    assert pan(smaller, 3, 0.1, np.random.default_rng(1))[-1].depth.shape == (20, 30)


def test_enough_is_what_comes_before_the_first_cut():
    cropped = AugmentationSettings(crop=1.0, crop_resize=(400,), short_sides=(800,))
    assert draw_augmentation(cropped, 1920, 1080, [], np.random.default_rng(0)).enough == (711, 400)
    plain = AugmentationSettings(crop=0.0, short_sides=(480,))
    assert draw_augmentation(plain, 1920, 1080, [], np.random.default_rng(0)).enough == (853, 480)


def test_one_draw_fits_every_frame_of_a_clip(frame):
    settings = AugmentationSettings(
        short_sides=(16, 24), long_side=60, crop=1.0, crop_resize=(20, 30), crop_sides=(10, 18)
    )
    sizes = set()
    for seed in range(30):
        augmentation = draw_augmentation(settings, 30, 20, [frame.boxes_xyxy], np.random.default_rng(seed))
        ends = [augmentation(frame) for _ in range(2)]
        assert np.array_equal(ends[0].image, ends[1].image)
        height, width = ends[0].image.shape[:2]
        assert min(height, width) in (16, 24) and max(height, width) <= 60
        assert ends[0].depth.shape == (height, width)
        boxes = ends[0].boxes_xyxy
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        sizes.add((height, width))
    assert len(sizes) > 3
