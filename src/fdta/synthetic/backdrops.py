"""Textured backgrounds of the rendered scenes, each with its depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Ground:
    """Where the ground lies: its inverse depth grows linearly from the horizon down the image."""

    horizon: float
    """Image row of inverse depth 0, pixels."""
    nearest: float
    """Image row of inverse depth 1."""
    edge: float
    """Image row where the ground ends and a wall, or the sky, begins."""

    def inverse_depth(self, row: np.ndarray) -> np.ndarray:
        """Of the ground seen in image row `row` (pixels)."""
        return (row - self.horizon) / (self.nearest - self.horizon)


@dataclass(frozen=True)
class Backdrop:
    """A background, wider than the image where the camera pans."""

    image: np.ndarray
    """(H, W', 3) uint8 RGB."""
    inverse_depth: np.ndarray
    """(H, W') float32, larger is nearer."""


def stage(ground: Ground, width: int, height: int, generator: np.random.Generator) -> Backdrop:
    """A stage: boards or tiles in perspective before a curtain or a panelled wall, with spots of light."""
    rows, columns = _pixels(width, height)
    wall_colour, floor_colour = _muted(generator, 0.25, 0.6), _muted(generator, 0.35, 0.75)
    unit = height / 96

    wall = 1 + 0.16 * _noise(width, height, generator, 4)
    if generator.random() < 0.5:
        period = generator.uniform(7, 13) * unit
        wall = wall + 0.2 * np.sin(2 * np.pi * columns / period + 2 * _noise(width, height, generator, 2))
    else:
        panel_width, panel_height = generator.uniform(16, 30) * unit, generator.uniform(12, 24) * unit
        tone = generator.uniform(0.8, 1.2, (64, 64))
        wall = wall * tone[(rows // panel_height).astype(int) % 64, (columns // panel_width).astype(int) % 64]

    near = np.maximum(ground.inverse_depth(rows), 1e-3)
    across, away = (columns - width / 2) / (height * near), 1 / near
    floor = 1 + 0.12 * _noise(width, height, generator, 5)
    tile = generator.uniform(0.09, 0.2)
    tone = generator.uniform(0.82, 1.15, (64, 64))
    lengthwise = 0.35 if generator.random() < 0.5 else 12.0
    floor = floor * tone[(away / lengthwise * 4).astype(int) % 64, np.floor(across / tile).astype(int) % 64]
    for _ in range(3):
        x, y = generator.uniform(0.1, 0.9) * width, generator.uniform(0.6, 1.0) * height
        spread = generator.uniform(15, 35) * unit
        floor = floor + 0.28 * np.exp(-(((columns - x) / spread) ** 2 + ((rows - y) / (spread / 3)) ** 2))

    ground_here = rows >= ground.edge
    image = np.where(ground_here[..., None], floor[..., None] * floor_colour, wall[..., None] * wall_colour)
    skirting = (rows < ground.edge) & (rows > ground.edge - 2.2 * unit)
    image = np.where(skirting[..., None], image * 0.6, image)
    return Backdrop(_to_image(image), _standing(ground, rows))


def pitch(ground: Ground, width: int, height: int, generator: np.random.Generator) -> Backdrop:
    """A playing field with mown strips or boards and lines, hoardings and a crowd behind it."""
    rows, columns = _pixels(width, height)
    unit = height / 96
    near = np.maximum(ground.inverse_depth(rows), 1e-3)
    across, away = (columns - width / 2) / (height * near), 1 / near
    grass = generator.random() < 0.6
    colour = np.array([70.0, 125, 60]) if grass else np.array([190.0, 145, 95])
    colour = colour * generator.uniform(0.7, 1.1) * generator.uniform(0.92, 1.08, 3)
    field = 1 + 0.1 * _noise(width, height, generator, 6)
    field = field * np.where(np.floor(across / (0.45 if grass else 0.12)) % 2 == 0, 1.07, 0.93)
    line = np.zeros((height, width), dtype=bool)
    nearest, farthest = 1.0, float(1 / ground.inverse_depth(np.array(ground.edge)))
    for mark in np.linspace(-2.4, 2.4, 7):
        line |= np.abs(across - mark) < 0.011
    for share in (0.12, 0.86):
        line |= np.abs(away - (nearest + share * (farthest - nearest))) < 0.006 * away**2 * farthest
    circle = np.hypot(across / 0.55, (away - (nearest + farthest) / 2) / (0.36 * (farthest - nearest)))
    line |= np.abs(circle - 1) < 0.035
    image = field[..., None] * colour
    image = np.where(line[..., None], 0.25 * image + 0.75 * 235, image)

    crowd = _crowd(width, height, unit, generator) * (0.6 + 0.12 * _noise(width, height, generator, 3))[..., None]
    boards = np.clip(generator.uniform(40, 230, (64, 3)), 0, 255)
    hoarding = (
        boards[(columns // (26 * unit)).astype(int) % 64]
        * (0.85 + 0.1 * _noise(width, height, generator, 5))[..., None]
    )
    top_of_boards = ground.edge - 7 * unit
    image = np.where((rows < ground.edge)[..., None], hoarding, image)
    image = np.where((rows < top_of_boards)[..., None], crowd, image)
    return Backdrop(_to_image(image), _standing(ground, rows))


def landscape(ground: Ground, width: int, height: int, generator: np.random.Generator) -> Backdrop:
    """Sky with clouds, ridges of hills, and a meadow or water below; the sky is infinitely far."""
    rows, _ = _pixels(width, height)
    share = rows / height
    zenith, haze = np.array([95.0, 150, 215]), np.array([205.0, 220, 230])
    tint = generator.uniform(0.78, 1.08, 3)
    sky = (zenith + (haze - zenith) * np.clip(share * 1.3, 0, 1)[..., None]) * tint
    clouds = np.clip(_noise(width, height, generator, 5, stretch=2.5) * 1.2 + generator.uniform(-0.3, 0.2), 0, 1)
    image = sky + (240 - sky) * 0.7 * clouds[..., None]
    inverse_depth = np.zeros((height, width))
    base = generator.uniform(0.5, 0.62)
    for ridge in range(3):
        crest = (base + 0.09 * ridge) * height + 0.08 * height * _ridge(width, generator)
        here = rows > crest
        colour = _muted(generator, 0.3, 0.6) * 0.5 + np.array([60.0, 95, 60]) * 0.6
        colour = colour + (haze * tint - colour) * (0.5 - 0.22 * ridge)
        texture = 1 + 0.18 * _noise(width, height, generator, 6)
        image = np.where(here[..., None], colour * texture[..., None], image)
        inverse_depth = np.where(here, 0.06 * (ridge + 1), inverse_depth)
    here = rows > ground.edge
    colour = np.array([90.0, 120, 60]) * generator.uniform(0.7, 1.1, 3)
    texture = 1 + 0.2 * _noise(width, height, generator, 5, stretch=3.0)
    image = np.where(here[..., None], colour * texture[..., None], image)
    inverse_depth = np.where(here, ground.inverse_depth(rows), inverse_depth)
    return Backdrop(_to_image(image), inverse_depth.astype(np.float32))


def _pixels(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel's centre, (H, W) each."""
    rows, columns = np.mgrid[0:height, 0:width]
    return rows + 0.5, columns + 0.5


def _standing(ground: Ground, rows: np.ndarray) -> np.ndarray:
    """Inverse depth of a ground with an upright wall at its far edge."""
    return ground.inverse_depth(np.maximum(rows, ground.edge)).astype(np.float32)


def _noise(width: int, height: int, generator: np.random.Generator, octaves: int, stretch: float = 1.0) -> np.ndarray:
    """(H, W) smooth noise, about -1..1; each octave is twice as fine and half as strong."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        columns = max(2, round(cells * width / height / stretch))
        grid = generator.uniform(-1, 1, (cells + 1, columns + 1)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total / 1.6


def _ridge(width: int, generator: np.random.Generator) -> np.ndarray:
    """(W,) heights of a skyline, about -1..1."""
    phases, turns = generator.uniform(0, 2 * np.pi, 6), np.array([1.0, 1.7, 3.1, 5.3, 9.7, 17.0])
    x = np.linspace(0, 2 * np.pi, width)
    return np.sum(np.sin(x[:, None] * turns + phases) / turns**0.8, axis=1) / 1.8


def _crowd(width: int, height: int, unit: float, generator: np.random.Generator) -> np.ndarray:
    """(H, W, 3) rows of spectators, seen from afar."""
    scale, bits = 2**4, 4
    image = np.empty((height, width, 3))
    image[:] = _muted(generator, 0.1, 0.25)
    for row in np.arange(2, height / unit, 4.4):
        for seat in np.arange(generator.uniform(0, 3), width / unit, 3.1):
            if generator.random() < 0.12:
                continue
            x, y = (np.array([seat, row]) + generator.uniform(-0.5, 0.5, 2)) * unit * scale
            coat, skin = _muted(generator, 0.2, 0.75), np.array([215.0, 170, 140]) * generator.uniform(0.5, 1.0)
            for colour, lower, radius in ((coat, 2.1, 1.5), (skin, 0.0, 0.85)):
                centre = (int(x), int(y + lower * unit * scale))
                cv2.circle(image, centre, int(radius * unit * scale), colour.tolist(), -1, cv2.LINE_8, bits)
    return cv2.blur(image, (3, 3))


def _muted(generator: np.random.Generator, darkest: float, brightest: float) -> np.ndarray:
    """(3,) RGB of low saturation."""
    grey = generator.uniform(darkest, brightest) * 255
    return np.clip(grey * generator.uniform(0.8, 1.15, 3), 0, 255)


def _to_image(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
