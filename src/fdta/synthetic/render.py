"""Rendered data sets: frames, boxes, exact depth and appearance attributes, drawn from nothing but settings.

`fdta.synthetic.scenes` decides who is where, `bodies` what they look like, `backdrops` before what; here they
are painted from far to near and written in the MOTChallenge layout.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fdta.boxes import xyxy_to_xywh
from fdta.data.motchallenge import Sequence, write_image, write_seqinfo
from fdta.files import whole_folder, write_json
from fdta.settings import to_plain
from fdta.synthetic.scenes import Scene, choreograph
from fdta.synthetic.settings import RenderSettings

RATE = 20
"""Frames a second."""
JPEG_QUALITY = 93
MINIMUM_SIDE = 3.0
"""Boxes of which less, in pixels, is left within the image are dropped."""

_SUPERSAMPLING = 2
_SHIFT = 4
"""Fractional bits of the corners given to OpenCV."""


@dataclass(frozen=True)
class Painting:
    """A painted sequence of T frames with N figures."""

    images: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    inverse_depth: np.ndarray
    """(T, H, W) float16: of one surface a pixel, sampled a quarter of a pixel off its centre; larger is nearer."""
    boxes_xyxy: np.ndarray
    """(T, N, 4) pixels: the whole figure, hidden parts included, cut at the image's border."""
    visibility: np.ndarray
    """(T, N) share of the figure's area that is in the image and not covered."""


def render_split(settings: RenderSettings, split: str, sequences: int, folder: Path) -> None:
    """Write `sequences` sequences to `folder`; those that are there are skipped, so that a killed call resumes.

    A sequence depends on settings, split and its number alone. ``attributes.json`` in it holds the class of each of
    `ATTRIBUTES` by identity, ``truth/depth.npz`` the inverse depth as (T, H, W) float16 under "inverse_depth",
    ``truth/settings.json`` the settings.
    """
    for number in range(1, sequences + 1):
        name = f"{settings.scene}-{split}-{number:04d}"
        if (folder / name).is_dir():
            continue
        generator = np.random.default_rng([settings.seed, zlib.crc32(split.encode()), number])
        scene = choreograph(settings, generator)
        with whole_folder(folder / name) as temporary:
            _write_sequence(temporary, name, settings, scene)
            write_json(temporary / "truth" / "settings.json", to_plain(settings))


def paint(settings: RenderSettings, scene: Scene) -> Painting:
    """Paint every frame of `scene`, from far to near, at twice the size and then reduced."""
    width, height, scale = settings.width, settings.height, _SUPERSAMPLING
    frames, count = scene.inverse_depth.shape
    backdrop = cv2.resize(scene.backdrop.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    extents = scene.outlines.boxes_xyxy()
    # OpenCV's coordinates are 0 in the middle of the first pixel.
    corners = np.round((scene.outlines.polygons * scale - 0.5) * 2**_SHIFT).astype(np.int32)
    colours = scene.outlines.colours.round().tolist()
    order = scene.outlines.order.tolist()
    far_to_near = np.argsort(scene.inverse_depth, axis=1, kind="stable")

    images = np.empty((frames, height, width, 3), dtype=np.uint8)
    depth = np.empty((frames, height, width), dtype=np.float16)
    visibility = np.zeros((frames, count))
    for frame in range(frames):
        left = round(scene.pan[frame] * scale)
        canvas = backdrop[:, left : left + width * scale].copy()
        if scene.shadows is not None:
            _shade(canvas, scene.shadows[frame] * scale)
        owner: np.ndarray = np.zeros(canvas.shape[:2], dtype=np.uint16)
        whole = np.ones(count)
        for figure in far_to_near[frame].tolist():
            x1, y1, x2, y2 = extents[frame, figure] * scale
            # The figure's own mask, also beyond the image's border.
            x0, y0 = int(x1) - 2, int(y1) - 2
            rows, columns = int(y2) - y0 + 3, int(x2) - x0 + 3
            mask = np.zeros((rows, columns), dtype=np.uint8)
            parts: np.ndarray = corners[frame, figure]
            moved = parts - np.array([x0, y0], dtype=np.int32) * 2**_SHIFT
            for part in order[frame][figure]:
                cv2.fillConvexPoly(canvas, parts[part], colours[frame][figure][part], cv2.LINE_8, _SHIFT)
                cv2.fillConvexPoly(mask, moved[part], 1, cv2.LINE_8, _SHIFT)
            whole[figure] = cv2.countNonZero(mask)
            top, bottom = max(y0, 0), min(y0 + rows, owner.shape[0])
            start, stop = max(x0, 0), min(x0 + columns, owner.shape[1])
            if top < bottom and start < stop:
                inside = mask[top - y0 : bottom - y0, start - x0 : stop - x0]
                owner[top:bottom, start:stop][inside > 0] = figure + 1
        visibility[frame] = np.bincount(owner.ravel(), minlength=count + 1)[1:] / whole
        images[frame] = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
        seen = owner[::scale, ::scale]
        left = round(scene.pan[frame])
        background = scene.backdrop.inverse_depth[:, left : left + width]
        surfaces = np.concatenate([[0], scene.inverse_depth[frame]])
        depth[frame] = np.where(seen > 0, surfaces[seen], background)
    boxes = np.clip(extents, 0, [width, height, width, height])
    return Painting(images, depth, boxes, visibility)


def _shade(canvas: np.ndarray, shadows: np.ndarray) -> None:
    """Darken the ground under each figure."""
    light: np.ndarray = np.full(canvas.shape[:2], 255, dtype=np.uint8)
    for x, y, radius in shadows.tolist():
        centre = (round(x), round(y))
        cv2.ellipse(light, centre, (max(1, int(radius)), max(1, int(radius * 0.3))), 0, 0, 360, 150, -1)
    light = cv2.blur(light, (5, 5))
    cv2.multiply(canvas, cv2.merge([light] * 3), canvas, 1 / 255)


def _write_sequence(folder: Path, name: str, settings: RenderSettings, scene: Scene) -> None:
    painting = paint(settings, scene)
    for sub in ("img1", "gt", "truth"):
        (folder / sub).mkdir()
    for index, image in enumerate(painting.images):
        path = folder / "img1" / f"{index + 1:08d}.jpg"
        write_image(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG_QUALITY)
    boxes_xywh = xyxy_to_xywh(painting.boxes_xyxy)
    present = (painting.visibility >= settings.minimum_visible) & (boxes_xywh[..., 2:] >= MINIMUM_SIDE).all(axis=-1)
    lines = []
    for frame, figure in np.argwhere(present).tolist():
        x, y, w, h = boxes_xywh[frame, figure]
        share = painting.visibility[frame, figure]
        lines.append(f"{frame + 1},{figure + 1},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1,1,{share:.3f}\n")
    (folder / "gt" / "gt.txt").write_text("".join(lines))
    write_seqinfo(Sequence(name, folder, settings.frames, settings.width, settings.height, RATE))
    attributes = {str(i + 1): scene.costumes.attributes(i) for i in range(scene.inverse_depth.shape[1])}
    write_json(folder / "attributes.json", attributes)
    np.savez_compressed(folder / "truth" / "depth.npz", inverse_depth=painting.inverse_depth)
