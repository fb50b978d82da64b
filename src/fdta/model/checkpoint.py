"""Checkpoints on disk: tensors and plain values, written whole and read without running anything in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fdta.errors import InputError
from fdta.files import whole_file
from fdta.params import Settings, settings_from_dict, settings_to_dict

FORMAT = 1


def save(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path`, whole or not at all; the same value gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values of `path`; nothing in it is run.

    Raises:
        InputError: the file is absent, truncated, no checkpoint of this package, or wants to run code.
    """
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; train one with `fdta train`") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: refused, it holds more than tensors and plain values ({reason})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError):
        raise InputError(f"{path}: broken or no checkpoint; make it anew") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of this package; make it with `fdta train`")
    return value


def save_model(path: Path, model: nn.Module, settings: Settings, run: str) -> None:
    """Write a finished model with the settings that build it."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save(path, {"format": FORMAT, "run": run, "settings": settings_to_dict(settings), "model": state})


def load_settings(checkpoint: dict[str, Any], path: Path) -> Settings:
    """Settings that build the model of a loaded checkpoint."""
    return settings_from_dict(checkpoint["settings"], str(path))


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
