"""Where to compute."""

from __future__ import annotations

import cv2
import torch
from torch import nn

from fdta.errors import InputError
from fdta.machine import cores

SMALL = 2 * 10**9
"""Multiplications per image up to which a network is small.

The rendered benchmark's has 10**8 and the paper's 2 * 10**11; the best value between them was not measured.
"""
MEAN_STRIDE = 16


def is_small(network: nn.Module, pixels: int) -> bool:
    """Whether `network` computes so little on an image of so many pixels that starting its operations takes longer."""
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    return weights * pixels / MEAN_STRIDE**2 <= SMALL


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
