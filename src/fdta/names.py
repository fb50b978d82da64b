"""Names of runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from fdta.settings import ParamsError

DETECTOR = "detector"
"""Name of the detector alone, among the variants."""
BASELINES = ("sort", "bytetrack", "oc-sort", "bot-sort")
"""Tracking-by-detection methods, run on the detections of the variant `full`."""


@dataclass(frozen=True)
class Run:
    """One run, ``DATASET/VARIANT/seed-N``; the variant `detector` is the detector alone (``DATASET/detector``)."""

    dataset: str
    variant: str
    seed: int = 0

    PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"([\w-]+)/([\w-]+)/seed-(\d+)")

    @classmethod
    def parse(cls, text: str) -> Run:
        """Run of the name `text`.

        Raises:
            ParamsError: the name has another form.
        """
        name = text.strip("/")
        if re.fullmatch(rf"[\w-]+/{DETECTOR}", name):
            return cls(name.partition("/")[0], DETECTOR)
        match = cls.PATTERN.fullmatch(name)
        if match:
            return cls(match[1], match[2], int(match[3]))
        raise ParamsError(f"run {text!r}: a run is named DATASET/VARIANT/seed-N, for example dance/full/seed-0")

    def __str__(self) -> str:
        return f"{self.dataset}/{self.variant}/seed-{self.seed}"
