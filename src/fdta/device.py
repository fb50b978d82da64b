"""Where to compute."""

from __future__ import annotations

import cv2
import torch

from fdta.errors import InputError


def choose_device(name: str, threads: int) -> torch.device:
    """Device "cpu", "cuda" or "auto" (CUDA where there is any), with `threads` CPU threads.

    On CUDA, float32 is then float32 in convolutions too, as in the published trainer, where torch would use TF32.

    Raises:
        InputError: CUDA is asked for and absent, or `threads` is not above 0.
    """
    if threads < 1:
        raise InputError(f"--threads {threads}: give at least 1")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine or this build of torch has no CUDA; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)
