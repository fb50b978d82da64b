"""What happens to an image on its way to the network, in training and in tracking alike."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Of the red, green and blue values (0..1) of ImageNet."""
IMAGE_STD = (0.229, 0.224, 0.225)


def resized_size(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """(width, height) in pixels whose short side is `short`, or less where the long side would exceed `long`.

    The sides are proportional and rounded down (docs/model.md, Online tracker; as torchvision's `Resize` has it).
    """
    smaller, larger = sorted((width, height))
    new_smaller, new_larger = short, short * larger // smaller
    if new_larger > long:
        new_smaller, new_larger = max(1, long * new_smaller // new_larger), long
    return (new_smaller, new_larger) if width <= height else (new_larger, new_smaller)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` (H, W, 3) uint8 as (height, width, 3) uint8, bilinear and antialiased (docs/model.md, Online tracker)."""
    if image.shape[:2] == (height, width):
        return image
    # On 8-bit values torch rounds as Pillow does, and is several times faster than on floats.
    channels_first = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = interpolate(channels_first, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def to_tensor(image: np.ndarray) -> Tensor:
    """`image` (H, W, 3) uint8 RGB as the network reads it: (3, H, W) float32, ImageNet's mean 0 and deviation 1."""
    scale = np.array(IMAGE_STD, dtype=np.float32) * 255
    shift = np.array(IMAGE_MEAN, dtype=np.float32) * 255
    return torch.from_numpy((image - shift) / scale).permute(2, 0, 1).contiguous()


def to_network(images: list[np.ndarray], size: tuple[int, int], device: torch.device) -> Tensor:
    """`images`, each (H, W, 3) uint8 RGB, as the network reads them: (n, 3, height, width) float32 on `device`.

    The numbers are those of `resize` and `to_tensor`. To a GPU the bytes travel, while the CPU goes on, and are resized
    and normalized there, which may change a byte by one level. An image in pinned memory (`pin`) is not copied before.

    Args:
        images: of one size.
        size: width and height in the network.
        device: where the result goes.
    """
    scale, shift = statistics(device)
    if device.type == "cuda":
        arrived = torch.stack([_pinned(image).to(device, non_blocking=True) for image in images])
        resized = resize_on_device(arrived, size)
        return resized.sub_(shift[:, None, None]).div_(scale[:, None, None])
    stacked = torch.from_numpy(np.stack([resize(image, *size) for image in images])).to(device)
    return stacked.float().sub_(shift).div_(scale).permute(0, 3, 1, 2)


def resize_on_device(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W, 3) uint8 as (n, 3, height, width) float32 in whole numbers 0..255, within one level of `resize`."""
    levels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if levels.shape[2:] == (size[1], size[0]):
        return levels
    return interpolate(levels, size=(size[1], size[0]), mode="bilinear", antialias=True).round_()


def pin(image: np.ndarray) -> np.ndarray:
    """`image` in memory that a GPU reads while the CPU goes on; needs CUDA."""
    return _pinned(image).numpy()


def _pinned(image: np.ndarray) -> Tensor:
    """`image` in pinned memory; copied unless it is there."""
    if image.flags.carray and (tensor := torch.from_numpy(image)).is_pinned():
        return tensor
    pinned = torch.empty(image.shape, dtype=torch.uint8, pin_memory=True)
    np.copyto(pinned.numpy(), image)
    return pinned


@functools.lru_cache(maxsize=4)
def statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Deviation and mean (3,) of a byte's values; kept, because a GPU would wait for them in every frame."""
    with torch.inference_mode(False):
        scale, shift = (torch.tensor(values) * 255 for values in (IMAGE_STD, IMAGE_MEAN))
        return scale.to(device), shift.to(device)
