"""Checkpoints on disk: tensors and plain values, written whole and read without running anything in them."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fdta.errors import InputError
from fdta.files import whole_file
from fdta.model.settings import ModelSettings
from fdta.settings import read_settings, to_plain

FORMAT = 1


def save(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path`, whole or not at all; the same value gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path, allowed: Iterable[type] = ()) -> Any:
    """Tensors and plain values of a file of ``torch.save``, whoever wrote it; nothing in it is run.

    Args:
        path: the file.
        allowed: further classes that its values may have.

    Raises:
        InputError: the file is absent, truncated, no checkpoint, or wants to run code; then with the name of the code.
    """
    with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings(action="ignore"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise InputError(f"{path}: no such checkpoint; train one with `fdta train`, or check the path") from None
        except Exception as error:
            # What else is raised depends on the byte at which the file breaks.
            if isinstance(error, pickle.UnpicklingError):
                told = re.search(r"GLOBAL ([\w.]+)", str(error))
                names = [told[1]] if told else _unsafe_globals(path)
                if "Unsupported operand" in str(error):
                    names.append("what torch cannot check, as `torch.save` writes none")
                if names:
                    name = names[0].removeprefix("builtins.")
                    raise InputError(
                        f"{path}: refused, it wants to load or run {name}; nothing in it was run"
                    ) from None
            raise InputError(f"{path}: broken or no checkpoint; make it or fetch it anew") from None


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of this package.

    Raises:
        InputError: as of `read`, or the checkpoint is not of this package.
    """
    value = read(path)
    if not is_own(value):
        raise InputError(
            f"{path}: not a checkpoint of this package; make it with `fdta train`, or read a published one with "
            f"`fdta weights import`"
        )
    return value


def is_own(value: Any) -> bool:
    """Whether a file's value is a checkpoint of this package."""
    return isinstance(value, dict) and value.get("format") == FORMAT


def save_model(
    path: Path, model: nn.Module, settings: ModelSettings | Mapping[str, Any], run: str, origin: str | None = None
) -> None:
    """Write a finished model with the settings that build it, and with the `origin` of its training, if any."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    plain = to_plain(settings) if isinstance(settings, ModelSettings) else settings
    plain = json.loads(json.dumps(plain))  # pickle writes equal strings that are one object differently
    save(path, {"format": FORMAT, "run": run, "settings": plain, "model": state})


def model_settings(value: Any, path: Path) -> ModelSettings:
    """Settings that build a model, of the plain settings of its run in the checkpoint `path`.

    Raises:
        ParamsError: a key or value does not fit.
    """
    names = {field.name for field in dataclasses.fields(ModelSettings)}
    own = {key: item for key, item in value.items() if key in names} if isinstance(value, dict) else value
    return read_settings(ModelSettings, own, "settings", path)


def fill(model: nn.Module, state: dict[str, Tensor], path: Path, new: tuple[str, ...] = ()) -> None:
    """Load `state` into `model`; only parameters whose name contains a part of `new` may keep their starting values.

    Raises:
        InputError: names or shapes do not fit.
    """
    own = model.state_dict()
    for name, tensor in state.items():
        if name not in own:
            raise InputError(f"{path}: {name} has no place in this model; the checkpoint is of another model")
        if own[name].shape != tensor.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the settings ask for {tuple(own[name].shape)}; "
                f"train again or restore the settings"
            )
    missing = [name for name in own if name not in state and not any(part in name for part in new)]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing ({len(missing)} in all); the checkpoint is of another model")
    model.load_state_dict(state, strict=False)


def _unsafe_globals(path: Path) -> list[str]:
    """What torch refuses to load of a file that it wrote; nothing where it cannot tell, as torch 2.5 cannot."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (AttributeError, ValueError, RuntimeError, pickle.UnpicklingError):
        return []
