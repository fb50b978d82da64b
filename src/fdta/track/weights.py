"""The tracker of a run or of a checkpoint file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import model_path
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.names import Run
from fdta.settings import read_settings


def load_tracker(path: Path, device: torch.device) -> tuple[FDTA, Settings, str]:
    """Model, settings and name of the run in the checkpoint `path`.

    Args:
        path: a checkpoint of this package.
        device: where the model goes.

    Raises:
        InputError: no such checkpoint, or it cannot track.
    """
    state = checkpoint.load_model(path)
    if state["run"].endswith("/detector"):
        raise InputError(f"{path}: a detector alone cannot track; give a run such as dance/full/seed-0")
    settings = read_settings(Settings, state["settings"], "settings", path)
    model = FDTA(settings)
    checkpoint.fill(model, state["model"], path)
    return model.to(device).eval(), settings, state["run"]


def load_run(
    weights: str, root: Path, device: torch.device, params: Path | None = None, benchmark: str | None = None
) -> tuple[FDTA, Settings, str]:
    """Model, settings and name of a run or checkpoint file.

    A checkpoint holds its settings. Of a run, those of the tracker are the ones in `params`, if there is such a file.

    Args:
        weights: ``DATASET/VARIANT/seed-N``, or the path of a checkpoint.
        root: the project's folder.
        device: where the model goes.
        params: settings file; None: params.yaml in `root`.
        benchmark: of the settings file, or None for the one that it names.

    Raises:
        InputError: no such checkpoint, or it is not of this model.
    """
    path = Path(weights)
    if path.is_file() or path.suffix:
        return load_tracker(path, device)
    run = Run.parse(weights)
    params = params or root / "params.yaml"
    # First, because it knows the names.
    planned = Experiment(params, benchmark).settings(run.dataset, run.variant) if params.is_file() else None
    model, settings, name = load_tracker(model_path(root, run), device)
    if planned is not None:
        settings = replace(settings, tracker=planned.tracker)
    return model, settings, name
