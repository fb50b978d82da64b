"""One random change for a whole clip, image, depth and boxes alike (docs/model.md, Clips and augmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from fdta.data import images
from fdta.data.images import resized_size
from fdta.data.settings import AugmentationSettings


@dataclass(frozen=True)
class Frame:
    """One frame with its ground truth."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    depth: np.ndarray | None
    """(H', W') uint8, larger is nearer; before `resize` it may have fewer pixels than the image."""
    boxes_xyxy: np.ndarray
    """(n, 4) pixels."""
    identities: np.ndarray
    """(n,) int64."""

    def select(self, keep: np.ndarray) -> Frame:
        """The frame with the objects that `keep` (n,) bool names."""
        return replace(self, boxes_xyxy=self.boxes_xyxy[keep], identities=self.identities[keep])


Change = Callable[[Frame], Frame]


@dataclass(frozen=True)
class Augmentation:
    """What happens to every frame of a clip."""

    enough: tuple[int, int]
    """Width and height in pixels; frames are made this small before anything is cut off or enlarged, so that they may
    be decoded at a reduced size as long as it is no less."""
    changes: tuple[Change, ...]

    def __call__(self, frame: Frame) -> Frame:
        """`frame`, changed; its boxes are in pixels of its image as it comes."""
        for change in self.changes:
            frame = change(frame)
        return frame


def resize_frame(frame: Frame, width: int, height: int) -> Frame:
    """`frame` at width x height pixels: bilinear, antialiased where it gets smaller, as images are for tracking."""
    old_height, old_width = frame.image.shape[:2]
    scale = np.array([width / old_width, height / old_height] * 2)
    return replace(
        frame,
        image=_resampled(frame.image, width, height),
        depth=None if frame.depth is None else _resampled(frame.depth, width, height),
        boxes_xyxy=frame.boxes_xyxy * scale,
    )


def _resampled(image: np.ndarray, width: int, height: int) -> np.ndarray:
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    if width * height < old_width * old_height:
        return images.resize(np.atleast_3d(image), width, height).reshape(height, width, *image.shape[2:])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def flip(frame: Frame) -> Frame:
    """`frame` mirrored left to right."""
    width = frame.image.shape[1]
    boxes = frame.boxes_xyxy
    return replace(
        frame,
        image=cv2.flip(frame.image, 1),
        depth=None if frame.depth is None else cv2.flip(frame.depth, 1),
        boxes_xyxy=np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1),
    )


def crop(frame: Frame, left: int, top: int, width: int, height: int) -> Frame:
    """The given part of `frame`; boxes are cut at its border, and those that leave it are dropped."""
    part = (slice(top, top + height), slice(left, left + width))
    boxes = frame.boxes_xyxy - np.array([left, top, left, top])
    boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    depth = None if frame.depth is None else frame.depth[part]
    return Frame(frame.image[part], depth, boxes, frame.identities).select(inside)


def jitter(frame: Frame, brightness: float, contrast: float, saturation: float, hue: float) -> Frame:
    """`frame` with its colours scaled by the first three factors and its hue turned by `hue` (-0.5..0.5 of a turn).

    Brightness is about black, contrast about the image's mean, saturation about each pixel's grey: together one linear
    map of the colours, rounded once.
    """
    mean = brightness * sum(cv2.mean(frame.image)[:3]) / 3
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    colours = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    image = cv2.transform(frame.image, np.column_stack([colours, np.full(3, (1 - contrast) * mean)]))
    if hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(round(hue * 256) % 256)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return replace(frame, image=image)


def pan(still: Frame, length: int, largest: float, generator: np.random.Generator) -> list[Frame]:
    """A still image as a clip: each frame cuts off of the last what one shift takes out of view, and fills the image.

    The shift is the same from frame to frame, in x and y at most the share `largest` of the sides; half of the clips
    run backwards. If a frame would be without objects, nothing moves (docs/model.md, Clips and augmentation). Every
    frame is resampled once, from the still; the published code resamples frame from frame.
    """
    height, width = still.image.shape[:2]
    still = resize_frame(still, width, height)
    shifts = [
        int(generator.integers(-math.ceil(largest * side), math.ceil(largest * side) + 1)) for side in (width, height)
    ]
    backwards = generator.random() < 0.5
    # Where the view starts and how much it holds, by axis, in shares of the still.
    start, extent = np.zeros(2), np.ones(2)
    share = np.array(shifts) / [width, height]
    frames = []
    for _ in range(length):
        left, top = np.round(start * [width, height]).astype(int)
        right, bottom = np.maximum(np.round((start + extent) * [width, height]).astype(int), [left + 1, top + 1])
        frames.append(resize_frame(crop(still, left, top, right - left, bottom - top), width, height))
        start, extent = start + np.maximum(share, 0) * extent, extent * (1 - np.abs(share))
    if not all(len(frame.identities) for frame in frames):
        return [still] * length
    return frames[::-1] if backwards else frames


def draw_augmentation(
    settings: AugmentationSettings, width: int, height: int, generator: np.random.Generator
) -> Augmentation:
    """Draw one augmentation for a clip of width x height pixels."""
    changes: list[Change] = []
    enough = None
    if generator.random() < settings.flip:
        changes.append(flip)
    if generator.random() < settings.crop:
        short = int(generator.choice(settings.crop_resize))
        enough = width, height = resized_size(width, height, short, 2**31)
        smallest, largest = settings.crop_sides
        part_width = int(generator.integers(min(smallest, width), min(largest, width) + 1))
        part_height = int(generator.integers(min(smallest, height), min(largest, height) + 1))
        left = int(generator.integers(0, width - part_width + 1))
        top = int(generator.integers(0, height - part_height + 1))
        changes.append(partial(resize_frame, width=width, height=height))
        changes.append(partial(crop, left=left, top=top, width=part_width, height=part_height))
        width, height = part_width, part_height
    short = int(generator.choice(settings.short_sides))
    size = width, height = resized_size(width, height, short, settings.long_side)
    changes.append(partial(resize_frame, width=width, height=height))
    brightness, contrast, saturation = (
        float(generator.uniform(1 - most, 1 + most))
        for most in (settings.brightness, settings.contrast, settings.saturation)
    )
    turn = float(generator.uniform(-settings.hue, settings.hue))
    if (brightness, contrast, saturation, turn) != (1, 1, 1, 0):
        changes.append(partial(jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=turn))
    return Augmentation(enough or size, tuple(changes))
