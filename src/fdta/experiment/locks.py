"""Snakemake's lock of the project's folder, after a run that was killed."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from pathlib import Path

from fdta.files import write_text

_logger = logging.getLogger(__name__)


def release_stale_lock(project: Path) -> bool:
    """Remove Snakemake's lock of the folder `project` if the run that took it is gone; whether it did.

    A lock is stale if the last run was started on this machine and no Snakemake works in the folder any more. Of a lock
    taken on another machine, as on a cluster's shared disk, nobody can tell here: it stays.
    """
    folder, note = project / ".snakemake" / "locks", project / ".snakemake" / "host"
    host = socket.gethostname()
    locked = folder.is_dir() and any(folder.iterdir())
    if locked and (not note.is_file() or note.read_text() != host or _others(project)):
        return False
    if locked:
        shutil.rmtree(folder)
        _logger.warning("the last run was killed; its lock of this folder is removed")
    write_text(note, host)
    return locked


def _others(project: Path) -> list[int]:
    """Processes of Snakemake in the folder `project`, beside this one and those that started it."""
    import psutil

    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        told = process.info
        # Another user's folder cannot be seen: it may be this one.
        here = told["cwd"] is None or Path(told["cwd"]) == project.absolute()
        if told["pid"] not in own and here and any("snakemake" in part for part in told["cmdline"] or ()):
            found.append(told["pid"])
    return found
