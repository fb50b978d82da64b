"""Tracks of base and full on the same frames, with their identity errors (paper Fig. 6 and 13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fdta.data.motchallenge import Sequence, read_split
from fdta.evaluate.matches import NONE
from fdta.experiment.params import Experiment
from fdta.experiment.plan import BASE, FULL
from fdta.names import Run
from fdta.report.figures.observed import ObservedTracks, cosines, read_tracked, read_tracks
from fdta.report.figures.style import (
    ERROR,
    INK,
    MAP,
    Drawing,
    identity_style,
    ink_on,
    listed,
    new_figure,
    nothing_to_show,
    row_label,
    say_in,
    show_image,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.patches import Patch

FRAMES = 4
"""Consecutive frames that are shown."""
BEFORE = 2
"""How many of them come before the error."""
LABEL = 0.125
"""Height of a label in the frame, share of the frame's."""
WRITTEN = 7
"""Most objects for which a matrix holds its numbers as text."""
NUMBERED = 10
"""Most objects for which the columns of a matrix have numbers too."""
VARIANTS = (BASE, FULL)


@dataclass(frozen=True)
class _Place:
    """Where the figure looks, and how often each run errs."""

    sequence: Sequence
    first: int
    """Frame, from 1."""
    errs: tuple[bool, bool]
    """Whether base and full switch an identity in these frames."""
    total: tuple[int, int]
    """Identity switches over the split."""
    alone: tuple[int, int]
    """Those with none of the other run in the frames around it."""


def tracks(params: Experiment, root: Path, datasets: tuple[str, ...]) -> Drawing:
    """Boxes and identities of base and full, errors marked, and the similarities of the objects under each frame."""
    title = f"Tracks: {listed(list(datasets))}"
    places = {dataset: _choose(params, root, dataset) for dataset in datasets}
    if all(place is None for place in places.values()):
        return nothing_to_show(title, f"every test sequence is shorter than {FRAMES} frames")
    figure, axes = new_figure(
        6.3 * len(datasets), 4 * len(datasets), FRAMES, height_ratios=[1.26, 1.42] * 2 * len(datasets)
    )
    told, drawn = [], None
    for block, (dataset, place) in zip(axes.reshape(-1, 4, FRAMES), places.items(), strict=True):
        if place is None:
            for panel in block.flat:
                say_in(panel, "sequences too short")
            continue
        for row, variant in enumerate(VARIANTS):
            tracked = read_tracked(root, Run(dataset, variant, params.benchmark.seeds[0]), place.sequence)
            names: dict[int, int] = {}
            for column in range(FRAMES):
                frame = place.first + column
                _frame(block[2 * row, column], tracked, place.sequence, frame, names)
                drawn = _matrix(block[2 * row + 1, column], tracked, frame, names) or drawn
            row_label(block[2 * row, 0], variant)
            row_label(block[2 * row + 1, 0], "similarity")
        told.append(_told(dataset, place))
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.35, aspect=30, pad=0.012)
        bar.set_label("cosine similarity")
    caption = (
        f"Tracks of base and full on the same {FRAMES} consecutive frames (paper Fig. 6 and 13): a colour and number is"
        " an identity that the tracker gave, in each row counted anew. Orange-red, with arrow: an identity switch (old"
        " and new number), where the object gets another identity than before, by the matching of CLEAR MOT at an IoU"
        " of 0.5. Under each frame: cosine similarity of the embeddings of the objects in it; an orange-red cell"
        f" compares the object with the one whose identity it took. {' '.join(told)}"
    )
    alt = f"Frames with boxes and identities of two trackers above each other. {' '.join(told)}".replace("`", "")
    return Drawing(figure, title, caption, alt)


def draw_objects(panel: Axes, objects: list[tuple[np.ndarray, int, int | None]], shape: tuple[int, ...]) -> None:
    """Draw boxes with their numbers.

    Args:
        panel: axes in pixels of the frame.
        objects: box x, y, w, h; number; and the number before where the identity switched.
        shape: height and width of the frame, and more.
    """
    height, width = shape[:2]
    taken: list[tuple[float, float, float]] = []
    # Errors choose their place first.
    for (x, y, w, h), number, before in sorted(objects, key=lambda item: item[2] is None):
        switched = before is not None
        style, depth = identity_style(number - 1), 3 if switched else 2
        corners = [x, x + w, x + w, x, x], [y, y, y + h, y + h, y]
        panel.plot(
            *corners, lw=1.8, color=style["color"], linestyle=style["linestyle"], solid_joinstyle="miter", zorder=depth
        )
        text, back = f"{number}", style["color"]
        if switched:
            panel.plot(*corners, lw=1.8, color=ERROR, linestyle=(0, (2, 1.5)), zorder=depth)
            text, back = f"{before}→{number}", ERROR
        half, line = 0.022 * width * (1 + len(text)), LABEL * height
        middle, foot = float(np.clip(x + w / 2, half, width - half)), max(y - 1, line)
        # The nearest free line above, else below, else where it is.
        lines = [foot - i * line for i in range(3) if foot - i * line >= line] + [foot + i * line for i in (1, 2, 3)]
        free = (f for f in lines if all(abs(m - middle) >= half + r or abs(f - g) >= line for m, g, r in taken))
        foot = next(free, foot)
        taken.append((middle, foot, half))
        box = {"boxstyle": "square,pad=0.15", "facecolor": back, "edgecolor": "white", "linewidth": 0.5}
        font = {"fontsize": 7.5, "fontweight": "bold", "color": ink_on(back), "ha": "center", "va": "bottom"}
        panel.text(middle, foot, text, fontdict=font, bbox=box, zorder=depth + 2)
        if switched:
            tip, tail = (foot - 1.1 * line, -1) if foot > 2.6 * line else (y + h, 1)
            taken += [(middle, tip + tail * i * line, 0.02 * width) for i in (0, 1)]
            arrow = {"arrowstyle": "-|>", "color": ERROR, "lw": 2, "shrinkA": 0, "shrinkB": 0, "zorder": 4}
            panel.annotate("", (middle, tip), (middle, max(0, tip + tail * 1.6 * line)), arrowprops=arrow)


def _told(dataset: str, place: _Place) -> str:
    base, full = place.errs
    if base and not full:
        why = "where base errs and full does not, the clearest such place of the split, and so not typical"
    elif base:
        why = "where base errs; there is no place where it errs and full does not"
    elif full:
        why = "where full errs; base does not err anywhere"
    else:
        why = "for want of an error: neither errs anywhere"
    return (
        f"`{dataset}`: {place.sequence.name} from frame {place.first}, {why}. Over the whole split base switches"
        f" {place.total[0]} identities and full {place.total[1]}; {place.alone[0]} of base's have no switch of full"
        f" around them, {place.alone[1]} of full's none of base."
    )


def _choose(params: Experiment, root: Path, dataset: str) -> _Place | None:
    """The clearest window in which base errs and full does not; None where no sequence has so many frames.

    Among those, by preference one in which base saw the object right before its switch, then with the fewest objects
    without a track and tracks without an object, then an exchange; the first of equals.
    """
    split = root / "data" / dataset / params.dataset(dataset).test_split
    runs = [Run(dataset, variant, params.benchmark.seeds[0]) for variant in VARIANTS]
    total, alone = np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    best: tuple[tuple[bool, bool, bool, int, int], _Place] | None = None
    for sequence in read_split(split):
        if sequence.frames < FRAMES:
            continue
        found = [read_tracks(root, run, sequence) for run in runs]
        objects = _count(sequence.ground_truth().frames, sequence)
        followed = [_count(boxes.frames[matches.identities != NONE], sequence) for boxes, matches in found]
        astray = [_count(boxes.frames[matches.identities == NONE], sequence) for boxes, matches in found]
        defects = sum(objects - seen + wrong for seen, wrong in zip(followed, astray, strict=True))
        switches = np.stack([_count(boxes.frames[matches.switched], sequence) for boxes, matches in found])
        total += switches.sum(axis=1)
        boxes, matches = found[0]
        seen = set(zip(boxes.frames.tolist(), matches.identities.tolist(), strict=True))
        in_sight = {
            int(boxes.frames[row])
            for row in np.flatnonzero(matches.switched)
            if (boxes.frames[row] - 1, matches.identities[row]) in seen
        }
        for frame in [1, *np.flatnonzero(switches.any(axis=0)).tolist()]:
            first = min(max(1, frame - BEFORE), sequence.frames - FRAMES + 1)
            window = slice(first, first + FRAMES)
            base, full = switches[:, window].sum(axis=1).tolist()
            alone += switches[:, frame] * (np.array([full, base]) == 0)
            rank = base > 0 and not full, base > 0, frame in in_sight, -int(defects[window].sum()), min(base, 2)
            if best is None or rank > best[0]:
                best = rank, _Place(sequence, first, (base > 0, full > 0), (0, 0), (0, 0))
    return best and replace(best[1], total=tuple(total.tolist()), alone=tuple(alone.tolist()))


def _count(frames: np.ndarray, sequence: Sequence) -> np.ndarray:
    """How often each frame of `sequence` is in `frames`; index 0 is no frame."""
    return np.bincount(frames, minlength=sequence.frames + 1)


def _number(names: dict[int, int], track: int) -> int:
    """Number of `track` in a row of the figure, from 1 in the order in which tracks are seen."""
    return names.setdefault(track, len(names) + 1)


def _frame(panel: Axes, tracked: ObservedTracks, sequence: Sequence, frame: int, names: dict[int, int]) -> None:
    image = sequence.image(frame)
    show_image(panel, image, image.shape)
    rows = tracked.rows(frame)
    objects = []
    for row in rows:
        before = tracked.matches.previous[row]
        old = _number(names, int(before)) if tracked.matches.switched[row] else None
        objects.append((tracked.tracks.boxes_xywh[row], _number(names, int(tracked.tracks.identities[row])), old))
    draw_objects(panel, objects, image.shape)
    wrong = int(tracked.matches.switched[rows].sum())
    text = f"frame {frame}" + (f": {wrong} switch{'es' if wrong > 1 else ''}" if wrong else "")
    panel.set_title(text, fontsize=8.5, color=ERROR if wrong else INK, fontweight="bold" if wrong else "normal")
    panel.set(xlim=(0, sequence.width), ylim=(sequence.height, 0))


def _matrix(panel: Axes, tracked: ObservedTracks, frame: int, names: dict[int, int]) -> AxesImage | None:
    rows = tracked.rows(frame)
    if not len(rows):
        say_in(panel, "no object")
        return None
    numbers = np.array([names[int(track)] for track in tracked.tracks.identities[rows]])
    rows, numbers = rows[np.argsort(numbers)], np.sort(numbers)
    similarity = cosines(tracked.embeddings[rows])
    drawn = panel.imshow(similarity, cmap=MAP, vmin=0, vmax=1, interpolation="nearest")
    ticks = np.arange(len(rows))
    panel.set(xticks=ticks, yticks=ticks, xticklabels=numbers, yticklabels=numbers)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, pad=3)
    size = min(7, 84 / len(rows))
    if len(rows) > NUMBERED:
        panel.set_xticks([])
    for labels in filter(None, (panel.get_xticklabels(), panel.get_yticklabels())):
        for label, number, row in zip(labels, numbers, rows, strict=True):
            colour = ERROR if tracked.matches.switched[row] else identity_style(number - 1)["color"]
            label.set(color=ink_on(colour), fontsize=size, fontweight="bold")
            label.set_bbox({"boxstyle": "square,pad=0.12", "facecolor": colour, "edgecolor": "none"})
    if len(rows) <= WRITTEN:
        for i, j in np.ndindex(similarity.shape):
            colour = "white" if similarity[i, j] < 0.55 else INK
            text = f"{similarity[i, j]:.2f}".replace("0.", ".") if i != j else "1"
            panel.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    for i, row in enumerate(rows):
        j = _taken_from(tracked, row, rows)
        for a, b in ((i, j), (j, i)) if j is not None else ():
            panel.add_patch(_outline(a, b))
    return drawn


def _taken_from(tracked: ObservedTracks, row: int, rows: np.ndarray) -> int | None:
    """Place in `rows` of the object that last had the identity which the object of `row` took; None: not in sight."""
    if not tracked.matches.switched[row]:
        return None
    track, frame = tracked.tracks.identities[row], tracked.tracks.frames[row]
    earlier = (tracked.tracks.identities == track) & (tracked.tracks.frames < frame) & (tracked.matches.identities >= 0)
    owners = tracked.matches.identities[earlier]
    if not len(owners) or owners[-1] == tracked.matches.identities[row]:
        return None
    found = np.flatnonzero(tracked.matches.identities[rows] == owners[-1])
    return int(found[0]) if len(found) else None


def _outline(row: int, column: int) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ERROR, linewidth=2.2)
