"""What DVC compares: one file for each stage of dvc.yaml, with the jobs of the stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.experiment.steps import Step, Steps
from fdta.files import write_text
from fdta.settings import mapping, named, read_yaml, to_plain

FOLDER = "plan"
STAGES = {
    "data": ("render", "data", "depth"),
    "models": ("detector", "train", "import"),
    "tracks": ("detect", "track", "baseline"),
    "scores": ("score", "similarity", "speed", "submission"),
}
"""Stage of each data set -> kinds of its jobs."""
LAST = {"tables": ("tables",), "report": ("figure", "report")}
"""Stage over all data sets -> kinds of its jobs."""


def dataset_of(step: Step) -> str:
    """Data set of a step."""
    job: Any = step.job
    found = job.dataset if hasattr(job, "dataset") else job.run.partition("/")[0]
    return str(found)


def stage_steps(steps: Steps, of_datasets: bool = False) -> dict[str, list[Step]]:
    """Steps of each stage, ``STAGE-DATASET`` or one of `LAST`; the latter not `of_datasets`."""
    found: dict[str, list[Step]] = {}
    for step in steps.all().values():
        for stage, kinds in STAGES.items():
            if step.job.kind in kinds:
                found.setdefault(f"{stage}-{dataset_of(step)}", []).append(step)
        for stage, kinds in () if of_datasets else LAST.items():
            if step.job.kind in kinds:
                found.setdefault(stage, []).append(step)
    return found


def write_plan(steps: Steps, root: Path) -> list[str]:
    """Write ``plan/STAGE.json`` of every stage; a file that is right is not changed. Names of those that were."""
    changed = []
    planned = {stage: _content(found) for stage, found in stage_steps(steps).items()}
    for stage, content in planned.items():
        path = root / FOLDER / f"{stage}.json"
        text = json.dumps(content, indent=1) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(stage)
    for path in (root / FOLDER).glob("*.json"):
        if path.stem not in planned:
            path.unlink()
            changed.append(path.stem)
    return changed


def check_pipeline(path: Path, steps: Steps) -> None:
    """Check that the data sets in the file dvc.yaml are those of the benchmark.

    Raises:
        InputError: they are others; the message names them.
    """
    variables: dict[str, Any] = {}
    for entry in read_yaml(path).get("vars", []):
        variables |= mapping(entry, "vars", path)
    stages = stage_steps(steps)
    tracked = [name.removeprefix("tracks-") for name in stages if name.startswith("tracks-")]
    starts = [name.removeprefix("data-") for name in stages if name.startswith("data-")]
    wanted: dict[str, Any] = {"datasets": tracked}
    wanted["start"] = next((name for name in starts if name not in tracked), None)
    for key, names in wanted.items():
        if variables.get(key) != names:
            shown = f"[{named(names)}]" if isinstance(names, list) else names
            raise InputError(f"{path}: vars: {key}: must be {shown}, as in the benchmark; not {variables.get(key)}")


def _content(steps: list[Step]) -> dict[str, Any]:
    return {step.job.outputs[0]: dict(_described(step)) for step in steps}


def _described(step: Step) -> Iterator[tuple[str, Any]]:
    """What decides the result, without what the document of a benchmark repeats."""
    for key, value in to_plain(step.job).items():
        if key == "settings":
            value = _unlike(value, to_plain(Settings()))
        if key not in ("inputs", "outputs", "record", "document"):
            yield key, value
    yield "key", step.job.key


def _unlike(value: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values that are not the defaults."""
    found = {}
    for key, item in value.items():
        if isinstance(item, dict):
            item = _unlike(item, defaults[key])
            if item:
                found[key] = item
        elif item != defaults[key]:
            found[key] = item
    return found
