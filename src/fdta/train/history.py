"""The history of a training: one line of JSON per record, to which every save appends."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fdta.errors import InputError


@dataclass(frozen=True)
class Saved:
    """The part of a history that is on disk, as the saved state of the training names it."""

    length: int = 0
    """In bytes."""
    checksum: int = 0
    """CRC-32 of these bytes."""


NOTHING_SAVED = Saved()


class History:
    """Records of a training, in memory until `save` appends them to the file."""

    def __init__(self, path: Path, saved: Saved) -> None:
        """Continue a history after its part `saved`. The first `save` removes what follows that part.

        Args:
            path: ``history.jsonl``. A save that is killed may leave a part of a line at its end.
            saved: what a state has of it.

        Raises:
            InputError: the file does not start with that part.
        """
        self.path, self.saved = path, saved
        self._lines: list[str] = []
        if saved.length:
            start = b""
            if path.is_file():
                with path.open("rb") as file:
                    start = file.read(saved.length)
            if Saved(len(start), zlib.crc32(start)) != saved:
                raise InputError(
                    f"{path}: not the history of the training to resume; restore the file, or train from scratch with "
                    f"--again"
                )

    def add(self, record: dict[str, Any]) -> None:
        """Note `record` for the next save."""
        self._lines.append(json.dumps(record) + "\n")

    def save(self) -> None:
        """Append the records since the last save to the file, and wait until they are on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(self._lines).encode()
        with self.path.open("r+b" if self.saved.length else "wb") as file:
            file.truncate(self.saved.length)
            file.seek(self.saved.length)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.saved = Saved(self.saved.length + len(lines), zlib.crc32(lines, self.saved.checksum))
        self._lines = []
