"""The tracker of a run, of a checkpoint file or of a published tracker's name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch

from fdta.acquire.pretrained import Pretrained, pretrained
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import model_path
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.names import Run
from fdta.settings import NAME, read_settings, suggestion


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


def find_weights(weights: str, params: Path) -> Run | Path | Pretrained:
    """The run, the checkpoint file or the published tracker that `weights` means.

    A name of the catalogue means the published tracker, also where a file of that name is; ``./NAME`` is the file.

    Args:
        weights: ``DATASET/VARIANT/seed-N``, the path of a checkpoint, or a name such as ``dancetrack``.
        params: settings file that may add to the catalogue; it need not be there.

    Raises:
        InputError: it is none of them.
    """
    path = Path(weights)
    if re.fullmatch(NAME, weights):
        known = pretrained(params)
        if weights in known:
            return known[weights]
        if not path.is_file():
            raise InputError(
                f"{weights}: neither a file nor a published tracker; {suggestion(weights, known)} A run is named "
                f"DATASET/VARIANT/seed-N"
            )
    return path if path.is_file() or path.suffix else Run.parse(weights)


def load_run(
    weights: str, root: Path, device: torch.device, params: Path | None = None, benchmark: str | None = None
) -> tuple[FDTA, Settings, str]:
    """Model, settings and name of a run, a checkpoint file or a published tracker; that one's is ``pretrained/NAME``.

    A checkpoint holds its settings. Of a run, those of the tracker are the ones in `params`, if there is such a file.

    Args:
        weights: as of `find_weights`. A published tracker is downloaded if it is not in the cache folder.
        root: the project's folder.
        device: where the model goes.
        params: settings file; None: params.yaml in `root`.
        benchmark: of the settings file, or None for the one that it names.

    Raises:
        InputError: no such checkpoint, or it is not of this model; a benchmark for what has its own settings; see
            `Pretrained.get`.
    """
    params = params or root / "params.yaml"
    found = find_weights(weights, params)
    if benchmark is not None and not isinstance(found, Run):
        raise InputError(f"--benchmark {benchmark}: {weights} has its own settings; leave it out")
    if isinstance(found, Path):
        return load_tracker(found, device)
    if isinstance(found, Pretrained):
        return *load_tracker(found.get(), device)[:2], f"pretrained/{found.name}"
    # First, because it knows the names.
    planned = Experiment(params, benchmark).settings(found.dataset, found.variant) if params.is_file() else None
    model, settings, name = load_tracker(model_path(root, found), device)
    if planned is not None:
        settings = replace(settings, tracker=planned.tracker)
    return model, settings, name
