"""Settings of a rendered data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fdta.settings import Count, Positive, Share, Weight, require, settings


@settings
class RenderSettings:
    """One rendered data set. Lengths in pixels, times in frames."""

    scene: Literal["dance", "sports", "flock", "appearance"]
    """"appearance" mixes the other three with independently coloured parts, for pre-training the detector."""
    width: Annotated[int, Field(ge=1, le=10_000)] = 160
    height: Annotated[int, Field(ge=1, le=10_000)] = 96
    frames: Count = 40
    objects: tuple[Count, Count] = (4, 6)
    """Smallest and largest number of objects in view at the start."""
    object_height: tuple[Count, Count] = (37, 57)
    """Height of the farthest and of the nearest figure; of flock: their wing span. In "appearance" birds are half as
    large."""
    speed: Positive = 1.0
    jerk: Weight = 0.3
    cue: Weight = 1.0
    """How far the individual cues (hat, stripe, tint) differ: 0 is identical costumes, 3 strong."""
    minimum_visible: Share = 0.12
    """Objects of which a smaller share is visible have no box."""
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        for name in ("objects", "object_height"):
            smallest, largest = getattr(self, name)
            require(smallest <= largest, f"{name} is (smallest, largest)")
