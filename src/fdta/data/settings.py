"""Settings of clips and their augmentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fdta.settings import Count, Share, require, settings


@settings
class AugmentationSettings:
    """One augmentation for a whole clip (docs/model.md, Clips and augmentation). Sizes in pixels."""

    flip: Share = 0.5
    short_sides: Annotated[tuple[Count, ...], Field(min_length=1)] = tuple(range(480, 801, 32))
    long_side: Count = 1440
    crop: Share = 0.5
    """How often the clip is resized to one of `crop_resize`, cropped to `crop_sides`, and resized as above."""
    crop_resize: Annotated[tuple[Count, ...], Field(min_length=1)] = (400, 500, 600)
    crop_sides: tuple[Count, Count] = (384, 600)
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.2

    def __post_init__(self) -> None:
        require(self.crop_sides[0] <= self.crop_sides[1], "crop_sides is (smallest, largest)")


@settings
class ClipSettings:
    """How clips are drawn and what happens to their identities.

    See docs/model.md, Clips and augmentation, and docs/model.md, ID labels in training.
    """

    intervals: tuple[Count, Count] = (1, 4)
    """Smallest and largest step between the frames of a clip."""
    groups: Count = 6
    """Random assignments of ID labels to the identities of one clip."""
    occlusion: Share = 0.5
    """Probability, per trajectory, that a run of its frames becomes missing."""
    switch: Share = 0.5
    """Probability, per frame and per object, of taking part in a permutation of history embeddings."""
    stills: tuple[Annotated[str, Field(pattern=r"^[\w-]+/[\w-]+$")], ...] = ()
    """Splits of still images, DATASET/SPLIT, that are added to the training data: each image becomes a clip by repeated
    shifts (CrowdHuman in the published code; off by default)."""
    still_shift: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.06
    """Largest shift from frame to frame of such a clip, as a share of the image's sides."""

    uncounted_boxes: bool = True
    """Whether boxes are learned that scoring leaves out, whose 7th column in gt.txt is 0. The published code learns
    them, and its data sets have none. False by default where the catalogue's `form.classes` tells what counts."""
    cut_boxes: bool = False
    """Whether boxes that reach beyond the image are cut at its border before anything else. The published code keeps
    them as they are, unless the clip is cropped."""

    def __post_init__(self) -> None:
        require(self.intervals[0] <= self.intervals[1], "intervals is (smallest, largest), from 1")
