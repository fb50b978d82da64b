"""Depth of a video of any length by a network that sees 32 frames at once (docs/model.md, Pseudo depth and depth bins).

Each window repeats ten inputs of the one before: two key frames far back, on which its scale and shift are fitted, and
the last eight, over which the two windows are blended. One window is held at a time, however long the video is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fdta.depth.video_depth_anything import PATCH, WINDOW, VideoDepthAnything

INPUT_SIZE = 518
"""Short side of the network's input in pixels."""
OVERLAP = 10
KEY_FRAMES = (0, 12, 24, 25, 26, 27, 28, 29, 30, 31)
"""Inputs of a window that are the first `OVERLAP` of the next one."""
BLENDED = 8
"""Frames that two windows share and blend; the other key frames align them."""

_ALIGNED = OVERLAP - BLENDED
_WIDEST = 1.78
"""Ratio of sides from which on the input is made smaller, so that its area stays that of 16:9."""
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def video_depth(
    network: VideoDepthAnything,
    image: Callable[[int], np.ndarray],
    frames: int,
    device: torch.device,
    input_size: int = INPUT_SIZE,
) -> Iterator[np.ndarray]:
    """Inverse depth (H, W) float32 of each frame, in order; not negative, one scale for the whole video.

    Args:
        network: on `device`; computes in half precision on CUDA.
        image: gives frame i, counted from 0, as (H, W, 3) uint8 RGB; called once a frame, in order.
        frames: length of the video, at least 1.
        device: where to compute.
        input_size: short side of the network's input in pixels.
    """
    windows = _windows(network, image, frames, device, input_size)
    return islice(_align(windows), frames)


def scale_and_shift(source: np.ndarray, target: np.ndarray) -> tuple[np.float32, np.float32]:
    """Least-squares (scale, shift) that take `source` to `target`, of one shape; (1, 0) where `source` is constant."""
    x, y = source.astype(np.float64).ravel(), target.astype(np.float64).ravel()
    variance = np.mean((x - x.mean()) ** 2)
    if variance == 0:
        return np.float32(1), np.float32(0)
    scale = np.mean((x - x.mean()) * (y - y.mean())) / variance
    return np.float32(scale), np.float32(y.mean() - scale * x.mean())


def input_shape(height: int, width: int, input_size: int = INPUT_SIZE) -> tuple[int, int]:
    """(height, width) of the network's input for frames of `height` x `width` pixels: multiples of `PATCH`."""
    ratio = max(height, width) / min(height, width)
    if ratio > _WIDEST:
        input_size = round(int(input_size * 1.777 / ratio) / PATCH) * PATCH
    scale = input_size / min(height, width)
    shape = []
    for side in (height, width):
        patches = round(scale * side / PATCH)
        shape.append(PATCH * (patches if patches * PATCH >= input_size else -(-input_size // PATCH)))
    return shape[0], shape[1]


def _align(windows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Depth of each frame from that of the windows."""
    window = next(windows)
    held = list(window)
    reference = [window[k] for k in KEY_FRAMES[:_ALIGNED]]
    for window in windows:
        yield from held[:-BLENDED]
        held = held[-BLENDED:]
        scale, shift = scale_and_shift(window[:_ALIGNED], np.stack(reference))
        window = np.maximum(window * scale + shift, 0)
        for i, weight in enumerate(np.linspace(0, 1, BLENDED, dtype=np.float32)):
            held[i] = held[i] * (1 - weight) + window[_ALIGNED + i] * weight
        held += list(window[OVERLAP:])
        # The first key frame is handed from window to window and keeps its first depth.
        reference[1:] = [window[k] for k in KEY_FRAMES[1:_ALIGNED]]
    yield from held


def _windows(
    network: VideoDepthAnything,
    image: Callable[[int], np.ndarray],
    frames: int,
    device: torch.device,
    input_size: int,
) -> Iterator[np.ndarray]:
    """Depth (32, H, W) of each window in its own scale; the last frame is repeated to fill the last window."""
    inputs: list[Tensor] = []
    given = 0
    for _ in range(0, frames, WINDOW - OVERLAP):
        inputs = [inputs[k] for k in KEY_FRAMES] if inputs else []
        while len(inputs) < WINDOW:
            if given < frames:
                picture = image(given)
                newest = _normalized(picture, input_size)
                given += 1
            inputs.append(newest)
        yield _depth(network, torch.stack(inputs).to(device), picture.shape[:2])


@torch.inference_mode()
def _depth(network: VideoDepthAnything, inputs: Tensor, size: tuple[int, int]) -> np.ndarray:
    with torch.autocast(inputs.device.type, dtype=torch.float16, enabled=inputs.device.type == "cuda"):
        depth = network(inputs[None])[0]
    return F.interpolate(depth.float()[:, None], size, mode="bilinear", align_corners=True)[:, 0].cpu().numpy()


def _normalized(picture: np.ndarray, input_size: int) -> Tensor:
    height, width = input_shape(picture.shape[0], picture.shape[1], input_size)
    resized = cv2.resize(picture.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy((resized - _MEAN) / _DEVIATION).permute(2, 0, 1).contiguous()
