"""Weights and inputs that anyone can rebuild from a seed (tests/golden/README.md)."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fdta.experiment.settings import Settings
from fdta.model.published import settings_of
from fdta.model.weights import from_published

GOLDEN = Path(os.environ.get("FDTA_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
CONFIGURATIONS = ("dancetrack", "sportsmot", "bft")
TOLERANCE = 1e-4
"""Largest difference, in standard deviations of the golden array."""
DRAWN_AS_IS = ("query_embed.weight", "level_embed", "depth_pos_embed.weight", "rel_pos_embeds")


def golden_files(pattern: str) -> list[str]:
    """Names, without ".npz", of the golden files that `pattern` matches."""
    names = sorted(path.stem for path in GOLDEN.glob(f"{pattern}.npz"))
    assert names, f"{GOLDEN} holds no {pattern}.npz"
    return names


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def names_and_shapes(configuration: str, part: str = "model") -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the published state dict of `configuration`; `part` is "model" or "criterion"."""
    listed = json.loads((GOLDEN / f"state_dict_{configuration}.json").read_text())[part]
    return [(name, tuple(shape)) for name, shape in listed]


def seeded_state_dict(names_and_shapes: Iterable[tuple[str, Sequence[int]]], seed: int) -> dict[str, Tensor]:
    """State dict of the given (published) names and shapes, in their order, filled by the rule of the golden numbers.

    `depth_bin_values` keeps its constructed value and is left out. Tied tensors are not tied here: of several names of
    one tensor, the last one's value counts.
    """
    return {
        name: torch.from_numpy(_seeded_array(name, tuple(shape), seed))
        for name, shape in names_and_shapes
        if not name.endswith("depth_bin_values")
    }


def fill_video_depth_anything(network: nn.Module, seed: int) -> None:
    """Fill all of a `VideoDepthAnything` but its position tables with seeded tensors."""
    filled = {
        name: torch.from_numpy(_seeded_depth_array(name, tuple(value.shape), seed))
        for name, value in network.state_dict().items()
        if not name.endswith(".pe")
    }
    network.load_state_dict(filled, strict=False)


def published_settings(configuration: str) -> Settings:
    """Settings that the names and shapes of `configuration` tell."""
    listed = names_and_shapes(configuration) + names_and_shapes(configuration, "criterion")
    shapes = {name: torch.empty(shape, device="meta") for name, shape in listed if not name.endswith("bin_values")}
    found = settings_of(from_published(shapes), GOLDEN)
    return Settings(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})


def fill_seeded(model: nn.Module, configuration: str, seed: int, part: str = "") -> None:
    """Fill all of `model` but the bin values with the published tensors of `configuration`.

    Args:
        model: an `FDTA`, or a part of it.
        configuration: one of the published.
        seed: of the weights.
        part: what the names in `FDTA` start with where `model` is a part of it, such as "detector.".
    """
    listed = names_and_shapes(configuration) + names_and_shapes(configuration, "criterion")
    own = {f"{part}{name}" for name in model.state_dict()}
    wanted = [item for item in listed if own & from_published({item[0]: torch.empty(0, 0)}).keys()]
    filled = from_published(seeded_state_dict(wanted, seed))
    absent, unexpected = model.load_state_dict({name.removeprefix(part): filled[name] for name in filled}, strict=False)
    assert not unexpected
    assert [name for name in absent if not name.endswith("bin_values")] == []


def _seeded_array(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    a = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return np.float32(0.5) + np.float32(0.5) * np.abs(a)
    if name.endswith(DRAWN_AS_IS):
        return a
    if len(shape) >= 2:
        return (a / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if name.endswith(("bias", "running_mean")):
        return np.float32(0.1) * a
    return np.float32(1) + np.float32(0.1) * a


def _seeded_depth_array(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith(("cls_token", "pos_embed", "mask_token", "gamma")):
        a = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
        return np.float32(0.5) + np.float32(0.1) * a if name.endswith("gamma") else np.float32(0.5) * a
    return _seeded_array(name, shape, seed)


def assert_close_to_golden(actual: Tensor, golden: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Largest absolute difference at most `tolerance` standard deviations of the golden array."""
    assert actual.shape == golden.shape
    difference = np.abs(actual.detach().cpu().numpy().astype(np.float64) - golden).max()
    assert difference <= tolerance * golden.std(), f"differs by {difference:.2e}, std {golden.std():.2e}"


def root_mean_square_to_golden(actual: Tensor, golden: np.ndarray) -> float:
    """Root mean square of the differences, in standard deviations of the golden array."""
    assert actual.shape == golden.shape
    difference = actual.detach().cpu().numpy().astype(np.float64) - golden
    return float(np.sqrt((difference**2).mean()) / golden.std())
