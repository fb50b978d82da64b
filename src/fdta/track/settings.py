"""Settings of the online tracker. Imports no torch."""

from __future__ import annotations

from typing import Literal

from fdta.settings import Count, Share, require, settings


@settings
class TrackerSettings:
    """Online tracker (docs/model.md, Online tracker)."""

    short_side: Count = 800
    long_side: Count = 1440
    detection_threshold: Share = 0.3
    newborn_threshold: Share = 0.6
    id_threshold: Share = 0.2
    assignment: Literal["object-max", "hungarian", "id-max"] = "object-max"
    record_threshold: Share = 0.1
    """Detections above it are written to detections/, for the baselines and the similarity statistic."""

    def __post_init__(self) -> None:
        require(self.record_threshold <= self.detection_threshold, "record_threshold is above detection_threshold")
