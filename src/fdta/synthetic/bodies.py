"""Articulated people and birds, as outlines ready to be painted.

A figure is a skeleton in three dimensions whose bones are tapered capsules. It is turned about the vertical, seen from
slightly above, and its parts are listed from far to near. Arrays have the axes T frames, N figures, P parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fdta.data.rendered import ATTRIBUTES, COLOUR_BINS, COLOURED, STRIPE_BINS

OUTLINE = 12
"""Corners of a capsule's outline."""


@dataclass(frozen=True)
class Costumes:
    """How the N figures of a sequence look."""

    colours: dict[str, np.ndarray]
    """Part -> (N, 3) RGB in 0..255: those of `COLOURED`, "skin" and "shoe"."""
    stripe_height: np.ndarray
    """(N,) in 0..1: of the band, from hip to shoulder; of a bird's bar, from shoulder to wing tip."""

    def attributes(self, figure: int) -> dict[str, int]:
        """Class of each of `ATTRIBUTES` of one figure."""
        classes = [
            min(int(value) * COLOUR_BINS // 256, COLOUR_BINS - 1)
            for part in COLOURED
            for value in self.colours[part][figure]
        ]
        classes.append(min(int(self.stripe_height[figure] * STRIPE_BINS), STRIPE_BINS - 1))
        return dict(zip(ATTRIBUTES, classes, strict=True))


@dataclass(frozen=True)
class Outlines:
    """Figures as convex polygons in image pixels (x right, y down, the image's corner is 0, 0)."""

    polygons: np.ndarray
    """(T, N, P, OUTLINE, 2)."""
    colours: np.ndarray
    """(T, N, P, 3) RGB in 0..255."""
    order: np.ndarray
    """(T, N, P) parts from far to near."""

    def boxes_xyxy(self) -> np.ndarray:
        """(T, N, 4) extent of the whole figures, also outside the image and behind others."""
        corners = self.polygons.reshape(*self.polygons.shape[:2], -1, 2)
        return np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)


@dataclass(frozen=True)
class PersonPose:
    """Joint angles in radians, each (T, N) or, of limbs, (T, N, 2): left and right. All 0: upright, limbs hanging."""

    arm_out: np.ndarray
    arm_forward: np.ndarray
    elbow: np.ndarray
    leg_out: np.ndarray
    leg_forward: np.ndarray
    knee: np.ndarray
    lean: np.ndarray
    """To the side."""
    crouch: np.ndarray
    """Forward."""
    hop: np.ndarray
    """Height above ground, in body heights."""


_SIDES = np.array([-1.0, 1.0])


class _Capsules:
    """Collects parts of figures; body coordinates are (aside, up, forward) in units of the figure's size."""

    def __init__(self) -> None:
        self.ends: list[tuple[np.ndarray, np.ndarray]] = []
        self.radii: list[tuple[float, float]] = []
        self.parts: list[str] = []
        self.bias: list[float] = []
        self.shading: list[float] = []
        self.bands: list[int] = []

    def add(
        self,
        part: str,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        end_radius: float,
        bias: float = 0.0,
        shading: float = 0.16,
    ) -> None:
        """Add a bone from `start` to `end`, (T, N, 3) each; `bias` moves it nearer in the order of painting."""
        self.ends.append((start, end))
        self.radii.append((radius, end_radius))
        self.parts.append(part)
        self.bias.append(bias)
        self.shading.append(shading)

    def outlines(
        self,
        costumes: Costumes,
        place: np.ndarray,
        size: np.ndarray,
        yaw: np.ndarray,
        pitch: float,
        band_width: float = 0.0,
    ) -> Outlines:
        """Project at `place` (T, N, 2) pixels of the body's origin, `size` (T, N) pixels, `yaw` (T, N), 0 frontal."""
        ends = np.stack([np.stack(np.broadcast_arrays(*pair)) for pair in self.ends], axis=3)
        cos, sin = np.cos(yaw)[..., None], np.sin(yaw)[..., None]
        aside, up, forward = ends[..., 0], ends[..., 1], ends[..., 2]
        x = aside * cos + forward * sin
        near = forward * cos - aside * sin
        y = near * np.sin(pitch) - up * np.cos(pitch)
        nearness = (near * np.cos(pitch) + up * np.sin(pitch)).mean(axis=0)
        for part in self.bands:
            middle, half = x[..., part].mean(axis=0), np.abs(x[0, ..., part] - x[1, ..., part]) / 2 + band_width
            x[..., part] = np.stack([middle - half, middle + half])
        points = np.stack([x, y], axis=-1) * size[..., None, None] + place[..., None, :]
        radii = np.array(self.radii).T[:, None, None, :] * size[..., None]

        axis = points[1] - points[0]
        angle = np.arctan2(axis[..., 1], axis[..., 0])[..., None]
        turn = np.linspace(np.pi / 2, 3 * np.pi / 2, OUTLINE // 2)
        arcs = [
            points[end][..., None, :]
            + radii[end][..., None, None]
            * np.stack([np.cos(angle + turn + end * np.pi), np.sin(angle + turn + end * np.pi)], axis=-1)
            for end in (0, 1)
        ]
        base = np.stack([costumes.colours[part] for part in self.parts], axis=1)
        light = 1 + np.array(self.shading) * np.clip(near.mean(axis=0) * 5, -1, 1)
        order = np.argsort(nearness + np.array(self.bias), axis=-1, kind="stable")
        return Outlines(np.concatenate(arcs, axis=-2), np.clip(base * light[..., None], 0, 255), order)


def people(
    costumes: Costumes, foot: np.ndarray, height: np.ndarray, yaw: np.ndarray, pose: PersonPose, brim: bool
) -> Outlines:
    """People standing at `foot` (T, N, 2) pixels, `height` (T, N) pixels tall, turned by `yaw` (T, N), 0 frontal."""
    zero = np.zeros_like(yaw)
    hip = _vector(zero[..., None] + 0.07 * _SIDES, zero[..., None], zero[..., None])
    knee = hip + 0.225 * _limb(pose.leg_out, pose.leg_forward)
    ankle = knee + 0.215 * _limb(pose.leg_out * 0.6, pose.leg_forward - pose.knee)
    toe = ankle + np.array([0.0, -0.012, 0.075])
    raised = 0.035 - ankle[..., 1].min(axis=-1) + pose.hop
    lift = _vector(zero, raised, zero)[..., None, :]
    hip, knee, ankle, toe = hip + lift, knee + lift, ankle + lift, toe + lift

    spine = _vector(np.sin(pose.lean), np.cos(pose.lean) * np.cos(pose.crouch), np.sin(pose.crouch))
    pelvis = _vector(zero, raised, zero)
    chest = pelvis + 0.25 * spine
    head = chest + 0.15 * spine
    shoulder = chest[..., None, :] + np.array([[-0.115, 0.01, 0.0], [0.115, 0.01, 0.0]])
    elbow = shoulder + 0.17 * _limb(pose.arm_out, pose.arm_forward)
    hand = elbow + 0.17 * _limb(pose.arm_out + pose.elbow * 0.5, pose.arm_forward + pose.elbow)

    body = _Capsules()
    for side in (0, 1):
        body.add("shoe", ankle[..., side, :], toe[..., side, :], 0.034, 0.026)
        body.add("leg", knee[..., side, :], ankle[..., side, :], 0.046, 0.034)
        body.add("leg", hip[..., side, :], knee[..., side, :], 0.064, 0.048)
    for side in (0, 1):
        body.add("top", hip[..., side, :], shoulder[..., side, :], 0.056, 0.046, shading=0.0)
    body.add("top", pelvis + np.array([0, 0.01, 0]), chest, 0.075, 0.085, 0.001, shading=0.0)
    share = (0.1 + 0.72 * costumes.stripe_height)[..., None, None]
    low, high = hip, shoulder
    band = low + share * (high - low)
    body.bands.append(len(body.parts))
    body.add("stripe", band[..., 0, :], band[..., 1, :], 0.036, 0.036, 0.03)
    body.add("skin", chest, head, 0.036, 0.036, 0.01)
    for side in (0, 1):
        body.add("top", shoulder[..., side, :], elbow[..., side, :], 0.046, 0.038, 0.035)
        body.add("skin", elbow[..., side, :], hand[..., side, :], 0.034, 0.032, 0.036)
    body.add("hair", head, head, 0.078, 0.078, 0.012)
    body.add("skin", head + np.array([0, -0.014, 0.03]), head + np.array([0, -0.03, 0.026]), 0.064, 0.056, 0.014)
    body.add("hat", head + np.array([0, 0.034, -0.01]), head + np.array([0, 0.05, 0]), 0.078, 0.066, 0.03)
    if brim:
        body.add("hat", head + np.array([0, 0.03, 0.05]), head + np.array([0, 0.025, 0.12]), 0.03, 0.022, 0.04)
    return body.outlines(costumes, foot, height, yaw, pitch=0.16, band_width=0.03)


def birds(costumes: Costumes, centre: np.ndarray, span: np.ndarray, yaw: np.ndarray, flap: np.ndarray) -> Outlines:
    """Birds at `centre` (T, N, 2) pixels with wings of `span` (T, N) pixels, flying to `yaw` (T, N), 0 frontal.

    `flap` (T, N) is the phase of the wing beat in radians.
    """
    zero = np.zeros_like(yaw)
    shoulder = _vector(zero[..., None] + 0.045 * _SIDES, zero[..., None] + 0.03, zero[..., None] + 0.03)
    inner, outer = 0.2 + 0.55 * np.sin(flap), 0.1 + 0.65 * np.sin(flap - 0.9)
    wrist = shoulder + 0.2 * _wing(inner, 0.15)
    tip = wrist + 0.27 * _wing(outer, -0.35)
    origin = _vector(zero, zero, zero)

    body = _Capsules()
    body.add("top", origin + np.array([0, 0, -0.14]), origin + np.array([0, 0.005, -0.29]), 0.036, 0.052, -0.01)
    body.add("top", origin + np.array([0, 0, -0.13]), origin + np.array([0, 0.01, 0.1]), 0.055, 0.085)
    body.add("skin", origin + np.array([0, 0.03, 0.24]), origin + np.array([0, 0.02, 0.33]), 0.03, 0.008, 0.01)
    body.add("hat", origin + np.array([0, 0.02, 0.13]), origin + np.array([0, 0.045, 0.2]), 0.062, 0.068, 0.02)
    along = costumes.stripe_height[..., None]
    for side in (0, 1):
        root, middle, end = shoulder[..., side, :], wrist[..., side, :], tip[..., side, :]
        body.add("leg", middle, end, 0.072, 0.02, 0.015)
        body.add("leg", root, middle, 0.09, 0.074, 0.016)
        bar = root + (0.25 + 0.75 * along) * (middle - root) + 0.45 * along * (end - middle)
        bar_end = bar + 0.05 * (end - middle) / 0.27
        body.add("stripe", bar, bar_end, 0.07, 0.066, 0.018)
    return body.outlines(costumes, centre, span, yaw, pitch=0.5)


def _vector(aside: np.ndarray, up: np.ndarray, forward: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(aside, up, forward), axis=-1)


def _limb(out: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 2, 3) of a left and a right limb raised sideways by `out` and forward by `forward`."""
    return _vector(_SIDES * np.sin(out), -np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward))


def _wing(raised: np.ndarray, forward: float) -> np.ndarray:
    """Unit vectors (..., 2, 3) along a left and a right wing."""
    raised = raised[..., None]
    return _vector(_SIDES * np.cos(raised) * np.cos(forward), np.sin(raised), np.sin(forward) + 0 * raised)
