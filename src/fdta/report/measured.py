"""Reading what was measured, and at which commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from fdta.errors import InputError


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of `path`, or None where there is no such file.

    Raises:
        InputError: the file is no JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: broken JSON ({error}); remove the file and make it anew") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; remove the file and make it anew")
    return value


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a training, in order; empty where there is no such file.

    Raises:
        InputError: a line is no JSON object; the message gives its number.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            raise InputError(f"{path}:{number}: no record of a training; remove the file and train again")
        records.append(record)
    return records


def commit(root: Path) -> str:
    """Commit that `root` stands on, "+ changes" where tracked files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(root)]
    try:
        found = subprocess.run([*command, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    if found.returncode:
        return "unknown"
    return found.stdout.strip() + (" + changes" if changed.stdout.strip() else "")
