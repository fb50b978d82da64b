"""One random change for a whole clip, image, depth and boxes alike (docs/model.md, Clips and augmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from fdta.data import images
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
    return replace(
        frame,
        image=cv2.flip(frame.image, 1),
        depth=None if frame.depth is None else cv2.flip(frame.depth, 1),
        boxes_xyxy=_mirrored(frame.boxes_xyxy, frame.image.shape[1]),
    )


def _mirrored(boxes: np.ndarray, width: float) -> np.ndarray:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def crop(frame: Frame, left: int, top: int, width: int, height: int) -> Frame:
    """The given part of `frame`; boxes are cut at its border, and those that leave it are dropped."""
    part = (slice(top, top + height), slice(left, left + width))
    boxes, inside = _cut(frame.boxes_xyxy, left, top, width, height)
    depth = None if frame.depth is None else frame.depth[part]
    return Frame(frame.image[part], depth, boxes, frame.identities).select(inside)


def _cut(boxes: np.ndarray, left: int, top: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """`boxes` (n, 4) as they are in a part of the image, and (n,) bool, True for those that have an area there."""
    boxes = np.clip(boxes - np.array([left, top, left, top]), 0, np.array([width, height, width, height]))
    return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def proportional_size(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """(width, height) whose short side is `short`, or less where the long side would exceed `long`, all in pixels.

    Unlike in tracking (`resized_size`), the long side is rounded to the nearest pixel, as published.
    """
    smaller, larger = sorted((width, height))
    if larger / smaller * short > long:
        short = max(1, long * smaller // larger)
    longer = round(short * larger / smaller)
    return (short, longer) if width <= height else (longer, short)


def jitter(frame: Frame, adjustments: Iterable[tuple[str, float]]) -> Frame:
    """`frame` with its colours adjusted step by step, each rounded to whole levels.

    Args:
        frame: whose image is adjusted.
        adjustments: pairs of a name and a number, in their order. "brightness", "contrast" and "saturation" multiply
            the distance from black, from the mean grey of the image and from the grey of each pixel by a factor; "hue"
            turns the hue by -0.5..0.5 of a full turn.
    """
    image = frame.image
    for name, amount in adjustments:
        image = _ADJUSTMENTS[name](image, amount)
    return replace(frame, image=image)


def _blended(image: np.ndarray, grey: float, factor: float) -> np.ndarray:
    """Every level moved to `factor` times its distance from `grey`, rounded down."""
    levels = (grey + factor * (np.arange(256) - grey)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, levels))


def _contrasted(image: np.ndarray, factor: float) -> np.ndarray:
    return _blended(image, math.floor(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5), factor)


def _saturated(image: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    # OpenCV rounds to the nearest level; less a half, that is down, as in the other steps.
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, -0.499))


def _turned(image: np.ndarray, turn: float) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


_ADJUSTMENTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brightness": lambda image, factor: _blended(image, 0, factor),
    "contrast": _contrasted,
    "saturation": _saturated,
    "hue": _turned,
}


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
    settings: AugmentationSettings,
    width: int,
    height: int,
    boxes_xyxy: Sequence[np.ndarray],
    generator: np.random.Generator,
) -> Augmentation:
    """Draw one augmentation for a clip (docs/model.md, Clips and augmentation).

    Args:
        settings: sizes and probabilities.
        width: of its frames, in pixels.
        height: the same.
        boxes_xyxy: (n, 4) pixels, of each frame; a crop that leaves a frame without a box is not made.
        generator: source of all randomness.
    """
    changes: list[Change] = []
    enough = None
    flipped = generator.random() < settings.flip
    if flipped:
        changes.append(flip)
    if generator.random() < settings.crop:
        short = int(generator.choice(settings.crop_resize))
        scale = np.array([width, height] * 2)
        enough = width, height = proportional_size(width, height, short, 2**31)
        smallest, largest = settings.crop_sides
        part_width = int(generator.integers(min(smallest, width), min(largest, width) + 1))
        part_height = int(generator.integers(min(smallest, height), min(largest, height) + 1))
        left = int(generator.integers(0, width - part_width + 1))
        top = int(generator.integers(0, height - part_height + 1))
        changes.append(partial(resize_frame, width=width, height=height))
        scale = np.array([width, height] * 2) / scale
        resized = [(_mirrored(boxes, width / scale[0]) if flipped else boxes) * scale for boxes in boxes_xyxy]
        if all(_cut(boxes, left, top, part_width, part_height)[1].any() for boxes in resized):
            changes.append(partial(crop, left=left, top=top, width=part_width, height=part_height))
            width, height = part_width, part_height
    short = int(generator.choice(settings.short_sides))
    size = width, height = proportional_size(width, height, short, settings.long_side)
    changes.append(partial(resize_frame, width=width, height=height))
    most = {name: getattr(settings, name) for name in _ADJUSTMENTS}
    drawn = {name: float(generator.uniform(-limit, limit)) for name, limit in most.items()}
    amounts = {name: amount if name == "hue" else 1 + amount for name, amount in drawn.items()}
    names = [list(_ADJUSTMENTS)[place] for place in generator.permutation(len(_ADJUSTMENTS))]
    adjustments = tuple((name, amounts[name]) for name in names if most[name])
    if adjustments:
        changes.append(partial(jitter, adjustments=adjustments))
    return Augmentation(enough or size, tuple(changes))
