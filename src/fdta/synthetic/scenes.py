"""Choreographies: who stands where, turned how, in every frame of a rendered sequence."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np

from fdta.data.rendered import COLOURED
from fdta.synthetic import backdrops, bodies
from fdta.synthetic.backdrops import Backdrop, Ground
from fdta.synthetic.bodies import Costumes, Outlines, PersonPose
from fdta.synthetic.settings import RenderSettings

BIRD_SIZE = 0.5
"""Wing span of birds among people ("appearance"), as a share of a person's height."""
LEAD = 8
"""Frames before the first one, in which everybody starts to move."""
OFF_SCREEN = 1.6
"""Players of a sports scene for each one in view at the start."""
PAN = 0.6
"""How far the camera of a sports scene turns to either side, in image widths."""


@dataclass(frozen=True)
class Scene:
    """One sequence, ready to be painted: T frames, N bodies. Places are pixels of the image, y down."""

    outlines: Outlines
    inverse_depth: np.ndarray
    """(T, N); 1 is the nearest place of the stage."""
    shadows: np.ndarray | None
    """(T, N, 3): x and y of the ground under each figure, and half the width of its shadow."""
    costumes: Costumes
    backdrop: Backdrop
    pan: np.ndarray
    """(T,) column of the backdrop at the image's left border, pixels."""


@dataclass(frozen=True)
class _Cast:
    """Who takes part in a scene."""

    count: int
    """Figures in view at the start."""
    smallest: float
    """Height of the farthest, or wing span, pixels."""
    largest: float
    independent: bool
    """Whether the colours of their parts are independent, not those of a costume."""


def choreograph(settings: RenderSettings, generator: np.random.Generator) -> Scene:
    """Draw one sequence of the scene that `settings` names."""
    kind: str = settings.scene
    sizes: tuple[float, float] = settings.object_height
    if settings.scene == "appearance":
        kind = str(generator.choice(["dance", "sports", "flock"]))
        if kind == "flock":
            sizes = (sizes[0] * BIRD_SIZE, sizes[1] * BIRD_SIZE)
    count = int(generator.integers(settings.objects[0], settings.objects[1] + 1))
    cast = _Cast(count, float(sizes[0]), float(sizes[1]), settings.scene == "appearance")
    make = {"dance": _dance, "sports": _sports, "flock": _flock}[kind]
    scene = make(replace(settings, frames=settings.frames + LEAD), cast, generator)
    outlines = Outlines(*(array[LEAD:] for array in vars(scene.outlines).values()))
    shadows = None if scene.shadows is None else scene.shadows[LEAD:]
    return replace(
        scene, outlines=outlines, inverse_depth=scene.inverse_depth[LEAD:], shadows=shadows, pan=scene.pan[LEAD:]
    )


def _dance(settings: RenderSettings, cast: _Cast, generator: np.random.Generator) -> Scene:
    """Dancers in formations who change places, before and behind one another, on a stage."""
    width, height, frames, count = settings.width, settings.height, settings.frames, cast.count
    targets = _formations(settings, count, generator)
    places = _follow(targets, 0.48 * settings.speed, np.array([0.014, 0.03]) * settings.jerk, generator)
    x = places[..., 0] * width
    nearness = np.clip(places[..., 1], 0, 1)
    ground, inverse_depth, foot, size = _stand(x, nearness, settings, cast)

    velocity = np.gradient(x, axis=0) / size
    turn = np.clip(_smooth(velocity, 5) * 22, -1.2, 1.2)
    spin = _spins(frames, count, settings.speed, generator)
    pose = _dance_pose(velocity, settings.speed, generator)
    costumes = _costumes(count, settings.cue, _troupe(count, generator), cast.independent, generator)
    outlines = bodies.people(costumes, foot, size, turn + spin, pose, brim=True)
    backdrop = backdrops.stage(ground, width, height, generator)
    return Scene(outlines, inverse_depth, _shadows(foot, size), costumes, backdrop, np.zeros(frames))


def _sports(settings: RenderSettings, cast: _Cast, generator: np.random.Generator) -> Scene:
    """Two teams that run after a ball, followed by the camera; players leave the image and come back."""
    width, height, frames, speed = settings.width, settings.height, settings.frames, settings.speed
    count = round(cast.count * OFF_SCREEN)
    ball = np.zeros((frames, 1, 2))
    start = 0
    side = generator.choice([-1.0, 1.0])
    while start < frames:
        stop = start + int(generator.integers(8, 18) / speed) + 1
        ball[start:stop, 0, 0] = 0.5 + side * generator.uniform(0.1, PAN)
        side = -side if generator.random() < 0.6 else side
        start = stop
    ball[0] = 0.5
    camera = np.clip(_follow(ball, 0.2 * speed, np.zeros(2), generator)[:, 0, 0] - 0.5, -PAN, PAN)

    spread = np.concatenate([np.linspace(-0.4, 0.4, cast.count), generator.uniform(-1.1, 1.1, count)])[:count]
    role = np.stack([spread, generator.permutation(np.linspace(0.05, 0.95, count))], axis=1)
    targets = np.empty((frames, count, 2))
    for player in range(count):
        start = 0
        while start < frames:
            stop = start + int(generator.integers(5, 13) / speed) + 1
            run = generator.normal(0, [0.22, 0.3]) * (start > 0)
            chase = ball[start, 0, 0] if start > 0 else 0.5
            targets[start:stop, player, 0] = chase * 0.65 + 0.175 + role[player, 0] + run[0]
            targets[start:stop, player, 1] = np.clip(role[player, 1] + run[1], 0, 1)
            start = stop
    places = _follow(targets, 0.32 * speed, np.array([0.012, 0.03]) * settings.jerk, generator)
    world = places[..., 0] * width
    x = world - camera[:, None] * width
    ground, inverse_depth, foot, size = _stand(x, np.clip(places[..., 1], 0, 1), settings, cast)

    velocity = np.gradient(world, axis=0) / size
    toward = np.gradient(foot[..., 1], axis=0) / size * 2.5
    yaw = np.unwrap(np.arctan2(_smooth(velocity, 5), _smooth(toward, 5) + 0.012), axis=0)
    pose = _running_pose(np.hypot(velocity, toward), generator)
    costumes = _costumes(count, settings.cue, _teams(count, generator), cast.independent, generator)
    outlines = bodies.people(costumes, foot, size, _smooth(yaw, 3), pose, brim=False)
    backdrop = backdrops.pitch(ground, round(width * (1 + 2 * PAN)) + 2, height, generator)
    return Scene(outlines, inverse_depth, _shadows(foot, size), costumes, backdrop, (camera + PAN) * width)


def _flock(settings: RenderSettings, cast: _Cast, generator: np.random.Generator) -> Scene:
    """Two groups of birds that cross one another or fly side by side, with birds changing slots."""
    width, height, frames, speed = settings.width, settings.height, settings.frames, settings.speed
    time, count = np.arange(frames), cast.count
    groups = np.arange(count) % 2
    heading = generator.choice([-1.0, 1.0]) * np.array([1.0, -1.0 if generator.random() < 0.7 else 1.0])
    leader = np.empty((frames, 2, 2))
    for group in (0, 1):
        pace, turn = generator.uniform(0.005, 0.012) * speed, generator.uniform(0, 2 * np.pi)
        leader[:, group, 0] = 0.5 + heading[group] * (pace * time - 0.2) + 0.06 * np.sin(0.2 * speed * time + turn)
        leader[:, group, 1] = 0.42 + 0.1 * np.sin(0.13 * speed * time + turn * 2)
    rank = np.arange(count) // 2 - (count // 2 - 1) / 2
    slot = np.stack([rank * 0.16, (rank % 2 - 0.5) * 0.22 + generator.uniform(-0.2, 0.2, count)], axis=1)
    targets = np.empty((frames, count, 2))
    for bird in range(count):
        start, place = 0, bird  # Its slot.
        while start < frames:
            stop = start + int(generator.integers(9, 20) / speed) + 1
            offset = slot[place] + generator.normal(0, [0.03, 0.06])
            targets[start:stop, bird] = leader[start:stop, groups[bird]] + offset
            if generator.random() < 0.5:
                place = int(generator.integers(count))
            start = stop
    places = _follow(targets, 0.23 * speed, np.array([0.008, 0.016]) * settings.jerk, generator)
    x, y = places[..., 0] * width, np.clip(places[..., 1], -0.05, 0.9) * height
    drift = generator.uniform(0, 1, count) + 0.3 * np.sin(
        generator.uniform(0.05, 0.15, count) * speed * time[:, None] + generator.uniform(0, 6, count)
    )
    span = cast.smallest + (cast.largest - cast.smallest) * np.clip(drift, 0, 1)

    forward = _smooth(np.gradient(x, axis=0), 7) / span
    yaw = np.clip(forward * 30, -0.95, 0.95) + generator.uniform(-0.2, 0.2, count)
    beat = generator.uniform(0.55, 0.75, count)
    flap = np.cumsum(np.broadcast_to(beat, (frames, count)), axis=0) + generator.uniform(0, 2 * np.pi, count)
    # A bird is small: its cues are larger to be seen as well.
    costumes = _costumes(count, 1.5 * settings.cue, _plumage(count, generator), cast.independent, generator)
    outlines = bodies.birds(costumes, np.stack([x, y], axis=-1), span, yaw, flap)
    ground = Ground(horizon=0.6 * height, nearest=1.6 * height, edge=0.86 * height)
    backdrop = backdrops.landscape(ground, width, height, generator)
    return Scene(outlines, span / cast.largest, None, costumes, backdrop, np.zeros(frames))


def _stand(
    x: np.ndarray, nearness: np.ndarray, settings: RenderSettings, cast: _Cast
) -> tuple[Ground, np.ndarray, np.ndarray, np.ndarray]:
    """Ground, and inverse depth (T, N), feet (T, N, 2) and height in pixels (T, N) of people at `nearness` 0..1."""
    farthest = min(cast.smallest / cast.largest, 0.97)
    nearest_row, farthest_row = 0.955 * settings.height, 0.7 * settings.height
    horizon = nearest_row - (nearest_row - farthest_row) / (1 - farthest)
    ground = Ground(horizon, nearest_row, edge=farthest_row - 0.06 * settings.height)
    inverse_depth = farthest + nearness * (1 - farthest)
    foot = np.stack([x, horizon + inverse_depth * (nearest_row - horizon)], axis=-1)
    return ground, inverse_depth, foot, inverse_depth * cast.largest


def _shadows(foot: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([foot, 0.17 * size[..., None]], axis=-1)


def _follow(targets: np.ndarray, stiffness: float, noise: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Places (T, N, 2) of bodies on critically damped springs to moving `targets` (T, N, 2).

    `stiffness` is the springs' angular frequency (per frame); `noise` (2,) the deviation of random accelerations, with
    rare ones six times as strong.
    """
    frames, count, _ = targets.shape
    push = generator.normal(0, 1, targets.shape) * noise
    push *= np.where(generator.random((frames, count, 1)) < 0.05, 6.0, 1.0)
    place, velocity = targets[0].copy(), np.zeros((count, 2))
    steps = 1 + math.ceil(2 * stiffness)  # Fewer would be unstable.
    places = np.empty(targets.shape)
    for frame in range(frames):
        places[frame] = place
        for _ in range(steps):
            pull = stiffness**2 * (targets[frame] - place) - 2 * stiffness * velocity + push[frame]
            velocity += pull / steps
            place = place + velocity / steps
    return places


def _formations(settings: RenderSettings, count: int, generator: np.random.Generator) -> np.ndarray:
    """Targets (T, N, 2) of dancers: across 0..1 and near 0..1. They change places, before or behind one another."""
    targets = np.empty((settings.frames, count, 2))
    slots = _formation(count, generator)
    seat = generator.permutation(count)
    start = 0
    while start < settings.frames:
        stop = start + int(generator.integers(6, 11) / settings.speed) + 1
        targets[start:stop] = slots[seat]
        start = stop
        before, change = seat.copy(), generator.random()
        if change < 0.55:
            # Some pairs of neighbours exchange places.
            by_place = np.argsort(slots[seat, 0])
            first = int(generator.integers(0, 2))
            for a, b in zip(by_place[first::2], by_place[first + 1 :: 2], strict=False):
                if generator.random() < 0.75:
                    seat[a], seat[b] = seat[b], seat[a]
        elif change < 0.8:
            by_place = np.argsort(slots[seat, 0])
            seat[by_place] = np.roll(seat[by_place], int(generator.choice([-1, 1])))
        else:
            slots = _formation(count, generator)
            seat = generator.permutation(count)
        # On the way each passes nearer or farther than the straight line; a feint leads back half-way.
        way = max(2, round(4 / settings.speed))
        middle = slots[seat].copy()
        middle[:, 1] = np.clip(middle[:, 1] + generator.choice([-0.5, 0.5], count), 0, 1)
        targets[start : start + way] = middle
        start = min(start + way, settings.frames)
        if generator.random() < settings.jerk:
            seat = before
    return targets


def _formation(count: int, generator: np.random.Generator) -> np.ndarray:
    """(N, 2) places: a line, a wedge, two rows or a ring."""
    share = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    near: np.ndarray
    kind = generator.integers(4)
    if kind == 0:
        near = generator.uniform(0.3, 0.7) + generator.uniform(-0.25, 0.25) * (share - 0.5)
    elif kind == 1:
        near = 0.1 + 1.6 * np.abs(share - 0.5)
        near = near if generator.random() < 0.5 else 1 - near
    elif kind == 2:
        near = 0.15 + 0.7 * (np.arange(count) % 2)
    else:
        near = 0.5 + 0.45 * np.sin(2 * np.pi * share * (count - 1) / count)
    across = share - 0.5 if kind != 3 else -0.5 * np.cos(2 * np.pi * share * (count - 1) / count)
    across = generator.uniform(0.4, 0.6) + min(0.76, count * generator.uniform(0.07, 0.125)) * across
    return np.stack([across, near], axis=1) + generator.uniform(-0.04, 0.04, (count, 2))


def _spins(frames: int, count: int, speed: float, generator: np.random.Generator) -> np.ndarray:
    """(T, N) turns about the own axis: once in a while each dancer whirls round in about nine frames."""
    start = generator.uniform(0, max(frames * 1.3, 30), count)
    share = np.clip((np.arange(frames)[:, None] - start) * speed / 9, 0, 1)
    return 2 * np.pi * share**2 * (3 - 2 * share) * generator.choice([-1, 1], count)


def _dance_pose(velocity: np.ndarray, speed: float, generator: np.random.Generator) -> PersonPose:
    """Poses that all hold together, nearly in time, and steps as fast as the dancers travel."""
    frames, count = velocity.shape
    beats = frames // 5 + 6
    keys: dict[str, np.ndarray] = {
        "arm_out": np.where(generator.random((beats, 1)) < 0.6, 0.15, 1.0) * generator.uniform(0.5, 2.6, (beats, 2)),
        "arm_forward": generator.uniform(-0.3, 0.9, (beats, 2)),
        "elbow": generator.uniform(0.2, 1.8, (beats, 2)),
        "leg_out": generator.uniform(0.02, 0.42, (beats, 2)),
        "leg_forward": generator.uniform(-0.3, 0.5, (beats, 2)),
        "knee": generator.uniform(0.0, 0.7, (beats, 2)),
        "lean": generator.uniform(-0.22, 0.22, beats),
        "hop": np.maximum(generator.uniform(-0.15, 0.06, beats), 0),
    }
    time = np.arange(frames)[:, None] * speed / 5 + 1 + generator.uniform(-0.25, 0.25, count)
    beat = np.floor(time).astype(int)
    share: np.ndarray = np.clip(time % 1 * 1.5, 0, 1)
    share = share * share * (3 - 2 * share)
    amount = generator.uniform(0.85, 1.15, (count,))

    def at(name: str) -> np.ndarray:
        values = keys[name]
        weight = share[..., None] if values.ndim == 2 else share
        mixed = values[beat % beats] * (1 - weight) + values[(beat + 1) % beats] * weight
        return mixed * (amount[:, None] if values.ndim == 2 else amount)

    stride, phase = _gait(np.abs(velocity), 1.6)
    sides = np.array([1.0, -1.0]) * np.sin(phase)[..., None] * stride[..., None]
    lift = np.maximum(np.array([1.0, -1.0]) * np.cos(phase)[..., None], 0) * stride[..., None]
    calm = 1 - 0.8 * np.clip(stride * 1.5, 0, 1)[..., None]
    return PersonPose(
        arm_out=at("arm_out"),
        arm_forward=at("arm_forward") - 0.3 * sides,
        elbow=at("elbow"),
        leg_out=at("leg_out") * calm,
        leg_forward=at("leg_forward") * calm + sides,
        knee=at("knee") * calm + 1.3 * lift,
        lean=at("lean"),
        crouch=np.full((frames, count), 0.05),
        hop=at("hop"),
    )


def _running_pose(velocity: np.ndarray, generator: np.random.Generator) -> PersonPose:
    """Walking to sprinting, by velocity (T, N) in body heights a frame."""
    frames, count = velocity.shape
    stride, phase = _gait(_smooth(velocity, 3), 1.9)
    phase = phase + generator.uniform(0, 2 * np.pi, count)
    swing = np.array([1.0, -1.0]) * np.sin(phase)[..., None]
    lift = np.maximum(np.array([1.0, -1.0]) * np.cos(phase)[..., None], 0)
    stride = stride[..., None] * 1.05
    rest = np.zeros((frames, count, 2))
    return PersonPose(
        arm_out=rest + 0.28,
        arm_forward=-0.9 * swing * stride,
        elbow=0.35 + 1.3 * np.clip(stride, 0, 1) + rest,
        leg_out=rest + 0.07,
        leg_forward=swing * stride + 0.1 * stride,
        knee=0.12 + 1.5 * lift * stride,
        lean=rest[..., 0],
        crouch=0.25 * stride[..., 0],
        hop=0.03 * np.abs(np.cos(phase)) * stride[..., 0],
    )


def _gait(velocity: np.ndarray, pace: float) -> tuple[np.ndarray, np.ndarray]:
    """Swing of the legs in radians and phase of the steps, (T, N) each, at `velocity` in body heights a frame."""
    stride = 0.75 * np.clip(velocity / 0.09, 0, 1)
    phase = np.cumsum(0.25 + pace * np.clip(velocity / 0.12, 0, 0.65), axis=0)
    return stride, phase


def _smooth(values: np.ndarray, frames: int) -> np.ndarray:
    """Moving average over time, the first axis."""
    padded = np.pad(values, ((frames // 2, frames // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, frames, axis=0).mean(axis=-1)


_SPREAD = {"hat": 62.0, "stripe": 62.0, "top": 12.0, "leg": 12.0, "skin": 10.0, "hair": 12.0, "shoe": 10.0}
"""How far each part's red, green and blue may lie from the costume's at cue 1."""
_INDEPENDENT_SPREAD = 42.0
"""The same from mid-grey: at cue 3 all colours occur."""


def _costumes(
    count: int, cue: float, base: dict[str, np.ndarray], independent: bool, generator: np.random.Generator
) -> Costumes:
    """Costumes around `base` (part -> (N, 3)); if `independent`, hat, stripe, top and leg are not."""
    colours = {}
    for part, spread in _SPREAD.items():
        middle = base[part]
        if independent and part in COLOURED:
            middle, spread = np.full((count, 3), 127.5), _INDEPENDENT_SPREAD
        colours[part] = np.clip(middle + cue * spread * generator.uniform(-1, 1, (count, 3)), 12, 243)
    middle = 0.5 + min(cue, 1.0) * (generator.permutation(np.arange(count) % 4) / 4 - 0.375)
    return Costumes(colours, middle + generator.uniform(-0.06, 0.06, count) * min(cue, 1.0))


def _troupe(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    hue = generator.uniform(0.14, 0.98)  # Not that of skin.
    return _repeat(
        count,
        generator,
        top=_colour(hue, generator.uniform(0.4, 0.8), generator.uniform(0.35, 0.8)),
        leg=_colour(hue + generator.choice([0.0, 0.5]), 0.4, generator.uniform(0.15, 0.45)),
        hat=_colour(generator.random(), 0.5, 0.6),
        stripe=_colour(generator.random(), 0.4, 0.75),
    )


def _teams(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    hue = generator.random()
    teams = [
        _repeat(
            count,
            generator,
            top=_colour(hue + 0.5 * team, 0.75 - 0.5 * team * bright, (0.55, 0.95)[team] if bright else 0.7),
            leg=_colour(hue + 0.5 * team, 0.5, (0.9, 0.2)[team]),
            hat=_colour(0.08, 0.6, 0.4),
            stripe=_colour(generator.random(), 0.3, (0.85, 0.35)[team]),
        )
        for bright in [generator.random() < 0.5]
        for team in (0, 1)
    ]
    second = (generator.permutation(count) % 2 == 1)[:, None]
    return {part: np.where(second, teams[1][part], teams[0][part]) for part in teams[0]}


def _plumage(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    dark = generator.random() < 0.6
    grey = generator.uniform(25, 70) if dark else generator.uniform(200, 240)
    return _repeat(
        count,
        generator,
        top=np.array([grey, grey, grey]) * generator.uniform(0.9, 1.1, 3),
        leg=np.array([grey, grey, grey]) * generator.uniform(0.75, 1.0),
        hat=_colour(generator.random(), 0.5, 0.6),
        stripe=_colour(generator.random(), 0.4, 0.6),
        skin=np.array([235.0, 160, 50]),
    )


def _repeat(count: int, generator: np.random.Generator, **parts: np.ndarray) -> dict[str, np.ndarray]:
    """Each part's colour for `count` figures, with skin, hair and shoes where they are not given."""
    tone = generator.uniform(0.75, 1.0)
    natural = {"skin": np.array([225.0, 175, 145]) * tone, "hair": np.array([55.0, 40, 30]), "shoe": np.full(3, 45.0)}
    return {part: np.repeat(colour[None], count, axis=0) for part, colour in (natural | parts).items()}


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255
