from __future__ import annotations

import numpy as np
import pytest

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


def test_jitter_without_change_keeps_the_image(frame):
    assert np.array_equal(jitter(frame, 1, 1, 1, 0).image, frame.image)


def test_jitter_changes_what_it_says():
    image = np.full((4, 4, 3), (200, 40, 40), np.uint8)
    frame = Frame(image, None, np.zeros((0, 4)), np.zeros(0, np.int64))
    assert jitter(frame, 0.5, 1, 1, 0).image[0, 0].tolist() == [100, 20, 20]
    grey = jitter(frame, 1, 1, 0, 0).image[0, 0]
    assert grey.max() - grey.min() <= 1
    turned = jitter(frame, 1, 1, 1, 1 / 3).image[0, 0]
    assert turned.argmax() == 1 and turned.max() == pytest.approx(200, abs=6)


def test_jitter_is_one_step_after_the_other():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    changed = jitter(Frame(image, None, np.zeros((0, 4)), np.zeros(0, np.int64)), 1.2, 0.7, 1.3, 0).image
    bright = image * 1.2
    contrasted = (bright - bright.mean()) * 0.7 + bright.mean()
    grey = contrasted @ [0.299, 0.587, 0.114]
    expected = ((contrasted.T - grey.T) * 1.3 + grey.T).T.clip(0, 255)
    assert np.abs(changed - expected).max() < 1


def test_depth_with_fewer_pixels_comes_to_the_size_of_the_image(frame):
    smaller = Frame(frame.image, frame.depth[::2, ::2], frame.boxes_xyxy, frame.identities)
    assert flip(smaller).depth.shape == (10, 15)
    for size in ((30, 20), (24, 16), (60, 40)):
        assert resize_frame(smaller, *size).depth.shape == size[::-1] == resize_frame(smaller, *size).image.shape[:2]
    assert pan(smaller, 3, 0.1, np.random.default_rng(1))[-1].depth.shape == (20, 30)


def test_enough_is_what_comes_before_the_first_cut():
    cropped = AugmentationSettings(crop=1.0, crop_resize=(400,), short_sides=(800,))
    assert draw_augmentation(cropped, 1920, 1080, np.random.default_rng(0)).enough == (711, 400)
    plain = AugmentationSettings(crop=0.0, short_sides=(480,))
    assert draw_augmentation(plain, 1920, 1080, np.random.default_rng(0)).enough == (853, 480)


def test_one_draw_fits_every_frame_of_a_clip(frame):
    settings = AugmentationSettings(
        short_sides=(16, 24), long_side=60, crop=1.0, crop_resize=(20, 30), crop_sides=(10, 18)
    )
    sizes = set()
    for seed in range(30):
        augmentation = draw_augmentation(settings, 30, 20, np.random.default_rng(seed))
        ends = [augmentation(frame) for _ in range(2)]
        assert np.array_equal(ends[0].image, ends[1].image)
        height, width = ends[0].image.shape[:2]
        assert min(height, width) in (16, 24) and max(height, width) <= 60
        assert ends[0].depth.shape == (height, width)
        boxes = ends[0].boxes_xyxy
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        sizes.add((height, width))
    assert len(sizes) > 3
