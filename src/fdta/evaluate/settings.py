"""Settings of scoring."""

from __future__ import annotations

from typing import Literal

Preprocessing = Literal["none", "MOT16", "MOT17", "MOT20"]
"""The benchmark whose preprocessing comes before counting (`fdta.evaluate.preprocessing`)."""
