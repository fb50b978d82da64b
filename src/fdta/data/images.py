"""What happens to an image on its way to the network, in training and in tracking alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Of the red, green and blue values (0..1) of ImageNet."""
IMAGE_STD = (0.229, 0.224, 0.225)


def resized_size(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """(width, height) in pixels whose short side is `short`, or less where the long side would exceed `long`.

    The sides are proportional and rounded down (MODEL.md, Online tracker; as torchvision's `Resize` has it).
    """
    smaller, larger = sorted((width, height))
    new_smaller, new_larger = short, short * larger // smaller
    if new_larger > long:
        new_smaller, new_larger = max(1, long * new_smaller // new_larger), long
    return (new_smaller, new_larger) if width <= height else (new_larger, new_smaller)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` (H, W, 3) uint8 as (height, width, 3) uint8, bilinear and antialiased (MODEL.md, Online tracker)."""
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


def to_network(images: list[np.ndarray], device: torch.device) -> Tensor:
    """`images`, each (H, W, 3) uint8 RGB, as the network reads them: (n, 3, H, W) float32 on `device`.

    The numbers are those of `to_tensor`. To a GPU the bytes travel, while the CPU goes on, and are normalized there.
    """
    stacked = torch.from_numpy(np.stack(images))
    if device.type == "cuda":
        stacked = stacked.pin_memory().to(device, non_blocking=True)
    scale = torch.tensor(IMAGE_STD, device=device) * 255
    shift = torch.tensor(IMAGE_MEAN, device=device) * 255
    return stacked.float().sub_(shift).div_(scale).permute(0, 3, 1, 2)
