"""What rendered sequences bring in addition to frames and boxes: appearance attributes and exact depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fdta.errors import InputError

COLOUR_BINS = 6
STRIPE_BINS = 4
COLOURED = ("hat", "stripe", "top", "leg")
"""Parts whose colour is an attribute. Of a bird: its head, the bar on its wings, its body, its wings."""
ATTRIBUTES: dict[str, int] = {
    f"{part}_{channel}": COLOUR_BINS for part in COLOURED for channel in ("red", "green", "blue")
}
ATTRIBUTES["stripe_height"] = STRIPE_BINS
"""Appearance attributes of a rendered figure and their numbers of classes."""


def read_true_depth(folder: Path) -> np.ndarray:
    """Inverse depth (T, H, W) float16 of the rendered sequence in `folder`, larger is nearer.

    Raises:
        InputError: the sequence was not rendered.
    """
    path = Path(folder) / "truth" / "depth.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such file; only rendered sequences bring their depth, render them again")
    with np.load(path) as arrays:
        return arrays["inverse_depth"]
