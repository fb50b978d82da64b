"""Checkpoints from the published form to ours and back."""

from __future__ import annotations

import json
from pathlib import Path

from fdta.errors import InputError
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.published import CRITERION, OURS, Kind, PublishedCheckpoint, read_published, settings_of
from fdta.model.settings import ModelSettings
from fdta.model.weights import PUBLISHED_DETECTOR, to_published
from fdta.names import DETECTOR
from fdta.settings import flat, to_plain

COMPUTED = "bin_values"
"""End of the name of the depths of the bins, which settings tell too."""
IDENTITY_ADAPTER = "identity_adapter."
"""Start of the names of the Identity Adapter's parameters."""
_REMEDY = "name the right file under weights of the data set in params.yaml"


def import_checkpoint(
    path: Path, output: Path, kept_class: str | int | None = None, kinds: tuple[Kind, ...] | None = None
) -> PublishedCheckpoint:
    """Read a published checkpoint, check that it is a whole model, and write it to `output` in our format.

    Args:
        path: as of `read_published`.
        output: file to write, complete or not at all.
        kept_class: as of `read_published`.
        kinds: models that it may hold; None: any.

    Raises:
        InputError: as of `read_published`, or it has one class and not `kept_class`, or holds another model, or tensors
            are missing or do not fit each other.
    """
    found = read_published(path, kept_class)
    if found.classes == 1 and kept_class not in (None, 0):
        raise InputError(f"{path}: class {kept_class}: the file has one class alone; leave the class out")
    if kinds is not None and found.kind not in kinds:
        raise InputError(f"{path}: holds {found.kind}, expected is {' or '.join(kinds)}; correct its place")
    settings = found.settings
    model = (
        DeformableDetector(settings.backbone, settings.detector, settings.spatial)
        if found.detector_alone
        else FDTA(settings)
    )
    checkpoint.fill(model, found.state, path, new=(COMPUTED,))
    checkpoint.save_model(output, model, found.plain_settings, found.run)
    return found


def import_run(
    path: Path, output: Path, run: str, settings: ModelSettings, kept_class: int | None = None
) -> PublishedCheckpoint:
    """Make the model of `run` from the published checkpoint `path`, if it is of the architecture that `settings` name.

    Args:
        path: the checkpoint.
        output: file to write, in our format.
        run: name of the run; ends in ``/detector`` for a detector alone.
        settings: of its model. What shapes do not tell, such as the numbers of heads, is taken from here.
        kept_class: as of `read_published`.

    Raises:
        InputError: as of `read_published`, or the checkpoint is of another kind or architecture; the message names the
            first setting that differs.
    """
    found = read_published(path, kept_class)
    alone = run.endswith(f"/{DETECTOR}")
    adapters = settings.spatial.enabled or settings.temporal.enabled
    wanted = "Deformable DETR" if alone else "FDTA" if adapters else "MOTIP"
    told = f"{path}: holds {found.kind}, and {run} is {wanted}"
    if found.detector_alone != alone:
        raise InputError(f"{told}; {_REMEDY}")
    parts = settings.backbone, settings.detector, settings.spatial
    model = DeformableDetector(*parts) if alone else FDTA(settings)
    state = {name: tensor for name, tensor in found.state.items() if not name.startswith(IDENTITY_ADAPTER)}
    # Where the file has no depths of the bins, they are those of `settings`.
    own = {name: tensor for name, tensor in model.state_dict().items() if name in state or not name.endswith(COMPUTED)}
    prefix = "detector." if alone else ""
    needed, there = (
        flat(to_plain(settings_of({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, path)))
        for tensors in (own, state)
    )
    differing = [key for key in needed if needed[key] != there[key] and not key.startswith("identity.")]
    if differing:
        first, *others = differing
        values = f"{first} is {json.dumps(there[first])} in the file and {json.dumps(needed[first])} in the settings"
        more = f", and {len(others)} more differ" if others else ""
        place = f"{told}: " if found.kind != wanted else f"{path}: "
        raise InputError(f"{place}{values}{more}; {_REMEDY}, or correct the settings of {run}")
    checkpoint.fill(model, state, path, new=(COMPUTED,))
    checkpoint.save_model(output, model, settings, run)
    return found


def export_checkpoint(path: Path, output: Path) -> str:
    """Write a checkpoint of ours to `output` with the names and in the form of the published ones.

    The Identity Adapter, which the published code keeps in its criterion, comes in an entry of that name beside the
    model; settings and the run's name come beside it too, so that an import gives the same checkpoint again. The
    published code ignores both.

    Returns:
        Name of the run.

    Raises:
        InputError: `path` cannot be read, or is not a finished model.
    """
    value = checkpoint.load_model(path)
    for name, tensor in value["model"].items():
        checkpoint.check_tensor(name, tensor, path)
    detector_alone = value["run"].endswith(f"/{DETECTOR}")
    state = {f"detector.{name}" if detector_alone else name: tensor for name, tensor in value["model"].items()}
    names_of_criterion = {name for name in state if name.startswith(IDENTITY_ADAPTER)}
    model = to_published({name: tensor for name, tensor in state.items() if name not in names_of_criterion})
    if detector_alone:
        model = {name.removeprefix(PUBLISHED_DETECTOR): tensor for name, tensor in model.items()}
    criterion = to_published({name: state[name] for name in state if name in names_of_criterion})
    entries = {"model": model, "optimizer": None, "scheduler": None, "states": {}}
    if criterion:
        entries[CRITERION] = criterion
    entries[OURS] = {"run": value["run"], "settings": value["settings"]}
    checkpoint.save(output, entries)
    return value["run"]
