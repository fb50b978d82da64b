"""Where to compute."""

from __future__ import annotations

import cv2
import torch
from torch import nn

from fdta.errors import InputError
from fdta.machine import cores

SMALL = 2 * 10**9
"""Multiplications of an image up to which a network is small."""
PIXELS_A_PLACE = 16 * 16
"""Of an image, for each place at which a network's weights are used: between those of its first and last layers."""


def is_small(network: nn.Module, pixels: int) -> bool:
    """Whether `network` computes so little on an image of so many pixels that starting its operations takes longer."""
    weights = sum(parameter.numel() for parameter in network.parameters())
    return weights * pixels / PIXELS_A_PLACE <= SMALL


def suitable_threads(network: nn.Module, pixels: int) -> int:
    """CPU threads for `network` on images of so many pixels: one if it is small, else one per core."""
    return 1 if is_small(network, pixels) else cores()


def choose_device(name: str, threads: int) -> torch.device:
    """Device "cpu", "cuda" or "auto" (CUDA where there is any), with `threads` CPU threads.

    On CUDA, float32 is then float32 in convolutions too, as in the published trainer, where torch would use TF32.

    Raises:
        InputError: CUDA is asked for and absent, or `threads` is not above 0 or far beyond the number of cores.
    """
    # More than the cores are no faster, but each takes memory, and the system has so many only.
    most = max(64, 4 * cores())
    if not 1 <= threads <= most:
        raise InputError(f"--threads {threads}: give a number from 1 to {most}")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine or this build of torch has no CUDA; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)
