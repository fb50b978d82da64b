"""What the workflow asks of the settings; imports nothing heavy.

What each rule depends on besides its input files, resolved settings and code, lies in files of ``settings/`` that the
rules have among their inputs. Who changes one of these re-runs what it sets, and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.files import write_json, write_text
from fdta.names import DETECTOR
from fdta.settings import to_plain
from fdta.sources import code_digest

TRAINING_PARTS = ("history", "backbone", "detector", "spatial", "temporal", "association", "identity", "loss")
TRAINING_PARTS += ("augmentation", "clip", "training_splits", "validation")
DETECTOR_PARTS = ("backbone", "detector", "loss", "augmentation", "training_splits", "detector_training", "validation")

SETTINGS = ("settings", "experiment", "acquire.catalogue", "errors", "files")
"""Modules whose say in a result is the resolved settings, or none."""
TRACKER_PARTS = ("model.fdta", "model.temporal_adapter", "model.association", "model.identity_adapter")
TRACKER_PARTS += ("loss.association", "loss.contrastive", "data.identities")
"""Modules that the training of a detector alone imports but does not use."""
ADAPTERS = {
    "spatial": ("model.spatial_adapter", "depth", "loss.depth"),
    "temporal": ("model.temporal_adapter",),
    "identity": ("model.identity_adapter", "loss.contrastive"),
}
"""Modules of each adapter: a variant without it does not use them."""

OUTPUTS = ("data/*/seqmaps/*.*", "data/*/depth-*.json", "pretrained/*", "models/**/*.pt", "models/**/*.jsonl")
OUTPUTS += ("tracks/**/summary.json", "detections/**/summary.json", "scores/**/*.json", "results/**/*.*")
OUTPUTS += ("settings/**/*.json",)
"""Files whose times Snakemake looks at."""

LOCAL = Path("settings/.written-here")
"""File that is not versioned; without it the workspace came from elsewhere."""


def write_resolved_settings(params: Experiment, folder: Path) -> None:
    """Write the settings and the digest of the code that each rule depends on; a file that is right is left alone.

    ``DATASET/{data,depth,detector}.json``, ``DATASET/VARIANT/{train,track}.json``, ``DATASET/detector/track.json``, and
    for all alike ``{baseline,score,similarity,speed,tables,figures,page}.json``.
    """
    for path, value in _resolved(params).items():
        _update(folder / path, value)


def settle_restored_files(root: Path) -> None:
    """Give `OUTPUTS` of a workspace that came from elsewhere (`git clone`, `dvc pull`) one and the same time.

    Snakemake holds a result for stale that is older than an input, but the times of restored files say when they came.
    They belong together, as git and DVC vouch; what differs from the settings in ``params.yaml`` is found afterwards,
    when `write_resolved_settings` writes the file anew. Does nothing in a workspace where it ran before.
    """
    if (root / LOCAL).is_file():
        return
    now = time.time()
    for path in {path for pattern in OUTPUTS for path in root.glob(pattern)}:
        os.utime(path, (now, now))
    write_text(root / LOCAL, "The settings in this folder were written, or taken over, in this workspace.\n")


def note_absent_inputs(output: Path, inputs: list[Path], note: Path) -> None:
    """Renew `note`, an input of the rule that writes `output`, where `output` is there but some of `inputs` are not.

    The rule is then out of date, and so Snakemake makes what is absent. Otherwise the note stays as it is.
    """
    absent = [str(path) for path in inputs if not path.is_file()] if output.is_file() else []
    if absent or not note.is_file():
        write_json(note, {"absent": absent, "noticed": time.time() if absent else None})


def _resolved(params: Experiment) -> dict[str, dict[str, Any]]:
    """Content of every file, by its path in the folder."""
    files: dict[str, dict[str, Any]] = {
        "baseline.json": {"code": _code("track.baselines")},
        "score.json": {"code": _code("evaluate.score")},
        "similarity.json": {"code": _code("evaluate.similarity")},
        "speed.json": {"code": _code("evaluate.speed", without=("report",))},
    }
    processes = max(1, params.benchmark.gpus)
    for dataset, data in params.benchmark.datasets.items():
        source = params.source(dataset)
        origin = {"render": data.render, "source": source}
        files[f"{dataset}/data.json"] = {
            "splits": data.splits,
            **{name: to_plain(value) for name, value in origin.items() if value is not None},
            "code": _code("synthetic.render" if data.render else "acquire.splits"),
        }
        teacher: dict[str, Any] = {"teacher": data.teacher}
        if data.teacher != "rendered":
            teacher |= {"size": data.teacher_size, "weights": data.teacher_weights}
            teacher |= {"input_size": data.teacher_input_size}
        files[f"{dataset}/depth.json"] = teacher | {"code": _code("depth.teacher")}
        settings = params.settings(dataset, DETECTOR)
        start: dict[str, Any] = {"start": data.detector_start, "validation_split": data.validation_split}
        if data.detector_start not in (None, *params.benchmark.datasets):
            start["class"] = data.detector_class
        code = _training_code(settings, TRACKER_PARTS)
        files[f"{dataset}/detector.json"] = start | _parts(settings, DETECTOR_PARTS) | {"processes": processes} | code
        tracker = _parts(settings, ("tracker",))
        files[f"{dataset}/{DETECTOR}/track.json"] = tracker | {"code": _code("track.detect")}
        for variant in params.variants:
            settings = params.settings(dataset, variant)
            training = _parts(settings, (*TRAINING_PARTS, "training"))
            training |= {"validation_split": data.validation_split, "processes": processes}
            files[f"{dataset}/{variant}/train.json"] = training | _training_code(settings)
            files[f"{dataset}/{variant}/track.json"] = {
                **_parts(settings, ("tracker",)),
                "code": _code("track.run", without=_unused(settings)),
            }
    tables = {name: to_plain(table) for name, table in params.tables.items()}
    benchmark = {"benchmark": params.benchmark.name, "seeds": params.benchmark.seeds}
    files["tables.json"] = benchmark | tables | {"code": _code("report.tables")}
    files["figures.json"] = {"code": _code("report.figures")}
    files["page.json"] = {"code": _code("report.page")}
    return files


def _parts(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    values = to_plain(settings)
    return {name: values[name] for name in names}


def _unused(settings: Settings) -> tuple[str, ...]:
    """Modules of the adapters that are off."""
    return tuple(
        module for name, modules in ADAPTERS.items() if not getattr(settings, name).enabled for module in modules
    )


def _training_code(settings: Settings, without: tuple[str, ...] = ()) -> dict[str, str]:
    """What validates a training while it runs has no say in its weights."""
    return {"code": _code("train.run", without=("evaluate", "track", *_unused(settings), *without))}


def _code(entry: str, without: tuple[str, ...] = ()) -> str:
    return code_digest((f"fdta.{entry}",), tuple(f"fdta.{name}" for name in (*SETTINGS, *without)))


def _update(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1) + "\n"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)
