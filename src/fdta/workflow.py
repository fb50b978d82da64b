"""What the Snakefile asks of the settings; imports nothing heavy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fdta.files import write_json, write_text
from fdta.params import DETECTOR, Params, settings_to_dict

TRAINING_PARTS = ("history", "backbone", "detector", "spatial", "temporal", "association", "identity", "loss")
TRAINING_PARTS += ("augmentation", "clip", "training_splits")
DETECTOR_PARTS = ("backbone", "detector", "loss", "augmentation", "training_splits", "detector_training")


def write_resolved_settings(params: Params, folder: Path) -> None:
    """Write the settings that each rule depends on, one file a rule and run; a file that is right is left alone.

    ``DATASET/render.json``, ``DATASET/depth.json``, ``DATASET/detector.json``, ``DATASET/VARIANT/train.json``,
    ``DATASET/VARIANT/track.json``, ``DATASET/detector/track.json`` and ``tables.json``.
    """
    for dataset, data in params.benchmark.datasets.items():
        detector = settings_to_dict(params.settings(dataset, DETECTOR))
        _update(folder / dataset / "render.json", {"render": _plain(data.render), "splits": data.splits})
        teacher = {"teacher": data.teacher}
        if data.teacher != "rendered":
            teacher |= {"size": data.teacher_size, "weights": data.teacher_weights}
        _update(folder / dataset / "depth.json", teacher)
        start: dict[str, Any] = {"start": data.detector_start, "validation_split": data.validation_split}
        if data.detector_start not in (None, *params.benchmark.datasets):
            start["class"] = data.detector_class
        _update(folder / dataset / "detector.json", start | {part: detector[part] for part in DETECTOR_PARTS})
        _update(folder / dataset / DETECTOR / "track.json", {"tracker": detector["tracker"]})
        for variant in params.variants:
            settings = settings_to_dict(params.settings(dataset, variant))
            parts = {part: settings[part] for part in (*TRAINING_PARTS, "training")}
            _update(folder / dataset / variant / "train.json", {"validation_split": data.validation_split} | parts)
            _update(folder / dataset / variant / "track.json", {"tracker": settings["tracker"]})
    tables = {name: settings_to_dict(table) for name, table in params.tables.items()}
    _update(folder / "tables.json", {"benchmark": params.benchmark.name, "seeds": params.benchmark.seeds} | tables)


def note_absent_inputs(output: Path, inputs: list[Path], note: Path) -> None:
    """Renew `note`, an input of the rule that writes `output`, where `output` is there but some of `inputs` are not.

    The rule is then out of date, and so Snakemake makes what is absent. Otherwise the note stays as it is.
    """
    absent = [str(path) for path in inputs if not path.is_file()] if output.is_file() else []
    if absent or not note.is_file():
        write_json(note, {"absent": absent, "noticed": time.time()})


def _plain(settings: Any) -> Any:
    return None if settings is None else settings_to_dict(settings)


def _update(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1) + "\n"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)
