"""A trained run on a folder of sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.model.inference import optimized
from fdta.settings import read_settings
from fdta.track.sequence import Part, track_split

if TYPE_CHECKING:
    from fdta.experiment.jobs import TrackJob


def load_tracker(path: Path, device: torch.device) -> tuple[FDTA, Settings, str]:
    """Model, settings and name of the run in the checkpoint `path`.

    Args:
        path: a checkpoint of this package.
        device: where the model goes.

    Raises:
        InputError: no such checkpoint, or it cannot track.
    """
    state = checkpoint.load(path)
    if "run" not in state or state["run"].endswith("/detector"):
        raise InputError(f"{path}: a detector alone cannot track; give a run such as dance/full/seed-0")
    settings = read_settings(Settings, state["settings"], "settings", path)
    model = FDTA(settings)
    checkpoint.fill(model, state["model"], path)
    return model.to(device).eval(), settings, state["run"]


def track_run(
    job: TrackJob, root: Path, tracks: Path, detections: Path, device: torch.device, part: Part | None = None
) -> None:
    """Track a split with a run, to ``tracks/SEQUENCE.txt`` and ``detections/SEQUENCE.npz``.

    Sequences whose files are there are skipped, so that a killed step resumes with the next sequence and several
    processes, also on several machines, can share the sequences: each tracks its `part`.

    Raises:
        InputError: the model, the split or an image cannot be read.
    """
    model, settings, _ = load_tracker(root / "models" / job.run / "model.pt", device)
    settings = replace(settings, tracker=job.tracker)
    folder = root / "data" / job.run.partition("/")[0] / job.split
    track_split(optimized(model, torch.float32), folder, tracks, detections, settings, device, part, resume=True)
