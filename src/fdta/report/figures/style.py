"""One look for all figures, and how they become files.

Matplotlib is imported in the functions and drawn by Agg, without a display; the same drawing gives the same bytes.
Lengths are in inches: a figure is `WIDTH` wide and is read at about 900 pixels, so that its letters are 11 pixels high.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fdta.errors import InputError
from fdta.files import whole_file, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
DOTS_PER_INCH = 160
INK, PALE = "#222222", "#e4e4e4"
ERROR = "#d55e00"
"""Vermilion of the palette of Okabe and Ito; kept for identity errors."""
IDENTITIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442")
"""The rest of the palette, for identities."""
MARKERS = "osD^vP*X"
MODELS = {"detector": "#777777", "base": "#0072b2", "full": "#e69f00"}
DASHES = {"detector": ":", "base": "--", "full": "-"}
MAP = "cividis"
"""Colour map of depths, similarities and attention; dark is low."""


@dataclass(frozen=True)
class Drawing:
    """A figure and what is said of it."""

    figure: Figure
    title: str
    caption: str
    """What to see, with the numbers; pieces between backquotes are names."""
    alt: str
    """What the picture shows, for those who cannot see it."""


def write_drawing(drawing: Drawing, output: Path) -> None:
    """Write the picture to `output` (PNG or WebP), and its title, caption and alt text beside it, as .json."""
    with whole_file(output) as temporary:
        # Without Matplotlib's version in a PNG, so that the bytes tell of the drawing alone.
        metadata = {"Software": None} if output.suffix == ".png" else None
        drawing.figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")
    words = {"title": drawing.title, "caption": drawing.caption, "alt": drawing.alt}
    write_json(output.with_suffix(".json"), words)


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for the drawings made inside; whatever matplotlibrc says is left aside.

    Raises:
        InputError: Matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("Matplotlib is not installed; pip install matplotlib") from None
    matplotlib.use("Agg")
    settings: dict[str, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.labelsize": 8.5,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "text.color": INK,
        "axes.edgecolor": "#888888",
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.8,
        "figure.facecolor": "white",
    }
    parameters: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "agg", **settings}
    with matplotlib.rc_context(parameters):
        yield


def new_figure(height: float, rows: int, columns: int, **grid: Any) -> tuple[Figure, np.ndarray]:
    """Figure of `height`, `WIDTH` wide, and its (rows, columns) axes; `grid`: what ``Figure.subplots`` takes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def nothing_to_show(title: str, reason: str) -> Drawing:
    """Drawing that says why there is none."""
    figure, ((axes,),) = new_figure(1.4, 1, 1)
    axes.axis("off")
    text = textwrap.fill(f"Nothing to show: {reason}", 100)
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#555555", fontsize=10)
    return Drawing(figure, title, f"Nothing to show: {reason}", f"An empty figure that says: {reason}")


def say_in(axes: Axes, text: str) -> None:
    """Write why these axes are empty."""
    axes.set(xticks=[], yticks=[], xlabel="")
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, textwrap.fill(text, 24), ha="center", va="center", color="#555555", transform=axes.transAxes)


def show_image(axes: Axes, image: np.ndarray, shape: tuple[int, ...], **options: Any) -> Any:
    """Picture (h, w[, 3]) stretched over a frame of `shape` (H, W, ...), without ticks."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    options.setdefault("interpolation", "nearest" if image.shape[:2] != shape[:2] else "bicubic")
    return axes.imshow(image, extent=(0, shape[1], shape[0], 0), **options)


def row_label(axes: Axes, text: str) -> None:
    """Name of a row of axes, left of its first."""
    axes.set_ylabel(text, rotation=90, fontsize=9, fontweight="bold", labelpad=6)


def identity_style(index: int) -> dict[str, Any]:
    """Colour, line and marker of the identity with this number; all three together repeat after many."""
    turn = index // len(IDENTITIES)
    return {
        "color": IDENTITIES[index % len(IDENTITIES)],
        "linestyle": ("-", "--", ":", "-.")[turn % 4],
        "marker": MARKERS[turn % len(MARKERS)],
    }


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on `colour` (#rrggbb)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK


def listed(parts: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]])) if parts else ""
