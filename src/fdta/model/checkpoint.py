"""Checkpoints on disk: tensors and plain values, written whole and read without running anything in them."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fdta.errors import InputError
from fdta.files import whole_file
from fdta.model.settings import ModelSettings
from fdta.names import check_run_name
from fdta.settings import read_settings, to_plain

FORMAT = 1


def save(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path`, whole or not at all; the same value gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path) -> Any:
    """Tensors and plain values of a file of ``torch.save``, whoever wrote it; nothing in it is run.

    Besides plain values it may hold what trainers put beside their weights: numpy numbers, paths and
    `argparse.Namespace`.

    Raises:
        InputError: the file is absent, cut short, damaged (the records of the archive have checksums), of another form,
            no checkpoint, or wants to run code; then with the name of the code.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file; give a checkpoint")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; train one with `fdta train`, or check the path") from None
    form = _other_form(start)
    if form:
        raise InputError(f"{path}: {form}")
    _check_records(path)
    with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings(action="ignore"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # What is raised depends on the byte at which the file breaks.
            if isinstance(error, pickle.UnpicklingError):
                told = re.search(r"GLOBAL ([\w.]+)", str(error))
                names = [told[1]] if told else _unsafe_globals(path)
                if "Can only" in str(error):
                    names.append("what torch does not take with weights_only")
                if "Unsupported operand" in str(error):
                    names.append("what torch cannot check, as `torch.save` writes none")
                if names:
                    name = names[0].removeprefix("builtins.")
                    raise InputError(
                        f"{path}: rejected, because it would load or run {name}; nothing in it was run. {_CONVERT}"
                    ) from None
            raise InputError(f"{path}: broken or no checkpoint; make it or fetch it anew") from None


def load(path: Path, **entries: type) -> dict[str, Any]:
    """A checkpoint of this package.

    Args:
        path: the file.
        entries: name of an entry that must be there -> its type.

    Raises:
        InputError: as of `read`, or the checkpoint is not of this package or lacks an entry.
    """
    value = read(path)
    if not is_own(value):
        raise InputError(
            f"{path}: not a checkpoint of this package; make it with `fdta train`, or read a published one with "
            f"`fdta weights import`"
        )
    return checked(value, path, **entries)


def load_model(path: Path) -> dict[str, Any]:
    """A finished model: a checkpoint of this package with the entries run, settings and model.

    Raises:
        InputError: as of `load`, or the run has no plain name.
    """
    value = load(path, run=str, settings=dict, model=dict)
    check_run_name(value["run"], path)
    return value


def checked(value: dict[str, Any], path: Path, **entries: type) -> dict[str, Any]:
    """`value`, the content of the checkpoint `path`, if it has `entries`.

    Raises:
        InputError: it lacks one, or one is of another type.
    """
    for name, kind in entries.items():
        if not isinstance(value.get(name), kind):
            found = f"no {kind.__name__}" if name in value else "missing"
            raise InputError(
                f"{path}: its entry {name!r} is {found}; give a whole checkpoint, the model.pt of a finished training"
            )
    return value


def is_own(value: Any) -> bool:
    """Whether a file's value is a checkpoint of this package."""
    return isinstance(value, dict) and type(value.get("format")) is int and value["format"] == FORMAT


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
        InputError: names or shapes do not fit, or see `check_tensor`.
    """
    own = model.state_dict()
    for name, tensor in state.items():
        if name not in own:
            raise InputError(f"{path}: {name} has no place in this model; the checkpoint is of another model")
        check_tensor(name, tensor, path)
        if own[name].shape != tensor.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the settings ask for {tuple(own[name].shape)}; "
                f"train again or restore the settings"
            )
    missing = [name for name in own if name not in state and not any(part in name for part in new)]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing ({len(missing)} in all); the checkpoint is of another model")
    model.load_state_dict(state, strict=False)


def check_tensor(name: Any, tensor: Any, path: Path) -> None:
    """Refuse what cannot be weights.

    Raises:
        InputError: it is no dense tensor of finite real numbers, or says that it is larger than what the file holds.
    """
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise InputError(f"{path}: {str(name)[:60]} is a {type(tensor).__name__}, no tensor; make the file again")
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise InputError(
            f"{path}: {name} holds {str(tensor.dtype).removeprefix('torch.')}, weights are dense tensors of float "
            f"numbers; convert it back, or make the file again"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(
            f"{path}: {name} says that it has {tensor.numel()} numbers, and holds fewer; the file is broken"
        )
    if not torch.isfinite(tensor.float()).all():
        raise InputError(
            f"{path}: {name} holds nan or inf, or more than float32 can hold: the training diverged, or the file is "
            f"damaged; use another checkpoint"
        )


_CONVERT = (
    "If you trust it, convert it: load it with torch.load(FILE, weights_only=False) and save its state dict alone with "
    "torch.save"
)


def _other_form(start: bytes) -> str | None:
    """What a file is that begins with `start`, and how to convert it; None: perhaps a file of ``torch.save``."""
    if start[257:262] == b"ustar":
        return f"in torch's oldest form, a tar archive. {_CONVERT}"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return (
            "a safetensors file, which is not read here; convert it: load it with safetensors.torch.load_file and save "
            "what that gives with torch.save"
        )
    # An archive, or a pickle as torch wrote them before archives.
    if start and not start.startswith((b"PK", b"\x80")):
        return "broken or no checkpoint: it does not begin as files of torch.save do; give the file of the weights"
    return None


def _check_records(path: Path) -> None:
    """Compare the records of an archive of ``torch.save`` with their checksums, which torch does not.

    Raises:
        InputError: one differs, or it is an archive of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError(
                    f"{path}: a TorchScript archive; convert it: save torch.jit.load(FILE).state_dict() with torch.save"
                )
            # `torch.save` compresses nothing; a few compressed bytes can become more than the memory holds.
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise InputError(f"{path}: a compressed archive, which torch.save does not write; save it with that")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OSError):
        return  # Of the form before archives, or so broken that torch tells.
    if damaged:
        raise InputError(
            f"{path}: damaged, its record {damaged} has another checksum than when it was written; copy, fetch or make "
            f"it anew"
        )


def _harmless() -> list[Any]:
    """Classes and functions beyond torch's own that a file may name: building one of them does nothing else."""
    numbers = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    scalar = np.float64(0).__reduce__()[0]
    known: list[Any] = [argparse.Namespace, scalar, np.dtype, *numbers]
    known += [type(Path()), type(PurePosixPath())]
    if torch.__version__ >= (2, 6):  # type: ignore[operator]
        # Under the names that other versions of numpy and Python gave them.
        known += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
        known += [
            (kind, f"{module}.{name}")
            for module in ("pathlib", "pathlib._local")
            for name, kind in (("PosixPath", PurePosixPath), ("WindowsPath", PureWindowsPath))
        ]
    return known


def _unsafe_globals(path: Path) -> list[str]:
    """What torch refuses to load of a file that it wrote; nothing where it cannot tell, as torch 2.5 cannot."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (AttributeError, ValueError, RuntimeError, pickle.UnpicklingError):
        return []
