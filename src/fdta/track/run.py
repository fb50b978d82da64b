"""A trained run on a folder of sequences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from fdta.data.motchallenge import sequence_map_path
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.files import digest, write_json
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.names import Run
from fdta.settings import read_settings, to_plain
from fdta.sources import code_digest
from fdta.track.sequence import Part, Unfinished, track_split

UNFINISHED = ".unfinished.json"
"""Record among the tracks of a run that has not come to its end."""


def part_record(part: Part) -> str:
    """Name of the record of a part, among the tracks; it is there when the part is finished."""
    return f".unfinished-{part.number}-of-{part.count}.json"


def load_run(
    weights: str, root: Path, params: Path, benchmark: str | None, device: torch.device
) -> tuple[FDTA, Settings, str]:
    """Model, settings and name of a run or checkpoint file.

    A run is tracked with the tracker settings of the params file, a checkpoint file with those it was trained with.

    Args:
        weights: ``DATASET/VARIANT/seed-N``, or the path of a checkpoint.
        root: folder of models/.
        params: settings file, read for runs only.
        benchmark: of the settings file, or None for the one that it names.
        device: where the model goes.

    Raises:
        InputError: no such checkpoint, or it is not of this model.
    """
    path = Path(weights)
    if path.is_file() or path.suffix:
        state = checkpoint.load(path)
        settings = read_settings(Settings, state["settings"], "settings", path)
    else:
        run = Run.parse(weights)
        path = root / "models" / str(run) / "model.pt"
        settings = Experiment(params, benchmark).settings(run.dataset, run.variant)
        state = checkpoint.load(path)
    if "run" not in state or state["run"].endswith("/detector"):
        raise InputError(f"{path}: a detector alone cannot track; give a run such as dance/full/seed-0")
    model = FDTA(settings)
    checkpoint.fill(model, state["model"], path)
    return model.to(device).eval(), settings, state["run"]


def track_folder(
    model: FDTA,
    settings: Settings,
    name: str,
    folder: Path,
    root: Path,
    output: Path | None,
    device: torch.device,
    part: Part | None = None,
) -> None:
    """Track the sequences of `folder` to ``tracks/RUN/SPLIT`` and ``detections/RUN/SPLIT``, or to `output` instead.

    A killed run goes on with the next sequence. ``summary.json`` beside the tracks is written last and stands for them:
    it has their digest.

    Several processes, also on several machines, may share the sequences: each tracks its `part`, and a last call
    without a part finds all of them finished and writes the summary.
    """
    tracks = output or root / "tracks" / name / folder.name
    detections = output / "detections" if output else root / "detections" / name / folder.name
    record = tracks / (UNFINISHED if part is None else part_record(part))
    others = [path for path in tracks.glob(".unfinished*.json") if path != record]
    unfinished = Unfinished(record, _origin(model, settings, folder, device), others)
    track_split(model, folder, tracks, detections, settings, device, unfinished, part)
    if part is not None:
        unfinished.keep()
        return
    summary = {"run": name, "folder": str(folder), "assignment": settings.tracker.assignment}
    summary |= {"tracks": digest(tracks, "*.txt"), "detections": digest(detections, "*.npz")}
    write_json(tracks / "summary.json", summary)
    unfinished.end()


def _origin(model: FDTA, settings: Settings, folder: Path, device: torch.device) -> str:
    """What tracks are made of: weights, settings, data, code and kind of device."""
    found = hashlib.sha256(json.dumps(to_plain(settings)).encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype}".encode())
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    split = sequence_map_path(folder).with_suffix(".json")
    data = split.read_text() if split.is_file() else ""
    found.update(f"{folder.absolute()} {data} {code_digest(('fdta.track.run',))} {device.type}".encode())
    return found.hexdigest()
