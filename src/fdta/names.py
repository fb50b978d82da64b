"""Names of runs, and the check of every name that comes out of a file and becomes a part of a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fdta.errors import InputError
from fdta.settings import ParamsError

DETECTOR = "detector"
"""Name of the detector alone, among the variants."""
BASELINES = ("sort", "bytetrack", "oc-sort", "bot-sort")
"""Tracking-by-detection methods, run on the detections of the variant `full`."""


MOST_SEED = 2**31
"""The largest seed of a run."""


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
        if match and len(match[3]) <= len(str(MOST_SEED)) and int(match[3]) <= MOST_SEED:
            return cls(match[1], match[2], int(match[3]))
        if match:
            raise ParamsError(f"run {text[:60]!r}: a seed is at most {MOST_SEED}")
        raise ParamsError(f"run {text!r}: a run is named DATASET/VARIANT/seed-N, for example dance/full/seed-0")

    def __str__(self) -> str:
        return f"{self.dataset}/{self.variant}/seed-{self.seed}"


def check_file_name(name: str, what: str, source: Path) -> str:
    """`name`, if it can only name a file or folder right in the folder that it is joined to.

    Args:
        name: as it stands in a file.
        what: it names, for the message: "sequence".
        source: the file.

    Raises:
        InputError: it is empty, longer than 200 characters, starts with a dot, or holds a slash, a backslash, a
            control character or what is no Unicode.
    """
    if not re.fullmatch(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]{0,199}", name):
        raise InputError(f"{source}: {name[:60]!r} cannot name a {what}; it must be a plain name, without / and not ..")
    return name


def check_run_name(name: str, source: Path) -> str:
    """`name`, the run of the checkpoint `source`, if each of its parts between slashes is a plain name.

    Raises:
        InputError: see `check_file_name`.
    """
    for part in name.split("/"):
        check_file_name(part, f"run ({name[:60]!r}, the checkpoint's entry run)", source)
    return name
