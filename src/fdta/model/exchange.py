"""Checkpoints from the published form to ours and back."""

from __future__ import annotations

from pathlib import Path

from fdta.errors import InputError
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.published import CRITERION, OURS, Kind, PublishedCheckpoint, read_published
from fdta.model.weights import PUBLISHED_DETECTOR, to_published
from fdta.names import DETECTOR


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
        InputError: as of `read_published`, or it holds another model, or tensors are missing or do not fit each other.
    """
    found = read_published(path, kept_class)
    if kinds is not None and found.kind not in kinds:
        raise InputError(f"{path}: holds {found.kind}, expected is {' or '.join(kinds)}; correct its place")
    settings = found.settings
    model = (
        DeformableDetector(settings.backbone, settings.detector, settings.spatial)
        if found.detector_alone
        else FDTA(settings)
    )
    checkpoint.fill(model, found.state, path, new=("bin_values",))
    checkpoint.save_model(output, model, found.plain_settings, found.run)
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
    names_of_criterion = {name for name in state if name.startswith("identity_adapter.")}
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
