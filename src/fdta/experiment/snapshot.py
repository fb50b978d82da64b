"""The experiment as a workflow read it at its start, for the processes that it starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fdta.errors import InputError
from fdta.experiment.jobs import FOLDER
from fdta.experiment.params import Experiment
from fdta.files import write_text
from fdta.provenance import job_key
from fdta.settings import read_json

VARIABLE = "FDTA_SNAPSHOT"
"""Environment variable with the path of the snapshot."""


def write_snapshot(experiment: Experiment, root: Path) -> None:
    """Write `experiment` to ``jobs/experiment-KEY.json``, and its path to the environment."""
    document = experiment.document()
    path = root / FOLDER / f"experiment-{job_key(document)}.json"
    if not path.is_file():
        write_text(path, json.dumps(document, indent=1) + "\n")
    os.environ[VARIABLE] = str(path.absolute())


def read_snapshot() -> Experiment:
    """The experiment of the workflow that started this process.

    Raises:
        InputError: no workflow did, or its snapshot is missing.
    """
    path = Path(os.environ.get(VARIABLE, ""))
    document = read_json(dict[str, Any], path) if path.is_file() else None
    if document is None:
        raise InputError(f"{VARIABLE}: no such file {str(path)!r}; start the workflow again")
    return Experiment.from_document(document, path)
