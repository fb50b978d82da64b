from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from golden_weights import GOLDEN, assert_close_to_golden, names_and_shapes, seeded_state_dict
from torch import Tensor

from fdta.model.fdta import FDTA
from fdta.model.weights import from_published, to_published
from fdta.params import (
    AssociationSettings,
    BackboneSettings,
    DetectorSettings,
    IdentitySettings,
    Settings,
    SpatialSettings,
    TemporalSettings,
)

# Association as published, behind a detector that is as small as it gets.
PUBLISHED_ASSOCIATION = Settings(
    backbone=BackboneSettings("basic", "group", stem_width=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1)),
    detector=DetectorSettings(encoder_layers=1, decoder_layers=1, queries=4),
    spatial=SpatialSettings(enabled=False),
)
SMALL = dataclasses.replace(
    PUBLISHED_ASSOCIATION,
    history=8,
    detector=DetectorSettings(width=32, heads=4, encoder_layers=1, decoder_layers=1, queries=4, norm_groups=8),
    temporal=TemporalSettings(layers=1, heads=4, feedforward=32),
    association=AssociationSettings(labels=10, label_width=32, layers=2, heads=4),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> FDTA:
    return FDTA(PUBLISHED_ASSOCIATION).eval()


def golden(model: FDTA, name: str) -> dict[str, np.ndarray]:
    """Golden arrays, after filling the association of `model` with their weights."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        loaded = dict(arrays)
    published = seeded_state_dict(names_and_shapes(str(loaded["config"])), int(loaded["seed"]))
    ours = from_published({name: tensor for name, tensor in published.items() if not name.startswith("detr.")})
    absent, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.startswith(("detector.", "identity_adapter.")) for name in absent)
    return loaded


@pytest.mark.parametrize("name", ["id_inference", "id_inference_long"])
def test_inference_equals_golden(model: FDTA, name: str) -> None:
    arrays = golden(model, name)
    features, missing, labels, times, current = (
        torch.from_numpy(arrays[key]) for key in ("features", "missing", "id_labels", "times", "current")
    )
    assert_close_to_golden(model.temporal_adapter(features, missing, times), arrays["temporal_adapter"])
    assert_close_to_golden(model.trajectories(features, missing, times), arrays["trajectory_features"])
    nothing_missing = torch.zeros(current.shape[:-1], dtype=torch.bool)
    now = torch.full(current.shape[:-1], times.shape[2])
    logits = model.id_logits(features, missing, labels, times, current, nothing_missing, now)
    assert_close_to_golden(logits, arrays["id_logits"])


def test_training_equals_golden(model: FDTA) -> None:
    arrays = golden(model, "id_training")

    def tensor(key: str) -> Tensor:
        return torch.from_numpy(arrays[key])

    times = tensor("times")
    logits = model.id_logits(
        tensor("trajectory_features"),
        tensor("trajectory_missing"),
        tensor("id_labels"),
        times,
        tensor("unknown_features"),
        tensor("unknown_missing"),
        times,
    )
    assert_close_to_golden(logits, arrays["id_logits"])


@pytest.mark.parametrize(
    ("configuration", "history", "bins"), [("dancetrack", 30, 150), ("sportsmot", 60, 150), ("bft", 20, 120)]
)
def test_shapes_equal_the_published(configuration: str, history: int, bins: int) -> None:
    with torch.device("meta"):
        model = FDTA(Settings(history=history, spatial=SpatialSettings(bins=bins)))
    ours = {name: tuple(tensor.shape) for name, tensor in to_published(model.state_dict()).items()}
    assert ours == dict(names_and_shapes(configuration) + names_and_shapes(configuration, "criterion"))


def test_parts_follow_the_settings() -> None:
    whole = FDTA(SMALL)
    assert whole.temporal_adapter is not None and whole.identity_adapter is not None
    assert whole.id_decoder.time_bias.shape == (2, 8, 4)
    without = {"temporal": TemporalSettings(enabled=False), "identity": IdentitySettings(feature_extractor=False)}
    bare = FDTA(dataclasses.replace(SMALL, **without))
    assert bare.temporal_adapter is None and bare.identity_adapter is None
    assert FDTA(dataclasses.replace(SMALL, identity=IdentitySettings(enabled=False))).identity_adapter is None


def test_trajectories_without_temporal_adapter_see_one_frame_each() -> None:
    features, missing, times = torch.randn(1, 2, 5, 3, 32), torch.zeros(1, 2, 5, 3, dtype=torch.bool), torch.arange(5)
    changed = features.clone()
    changed[:, :, 0] += torch.randn(32)
    for settings, sees_history in (
        (SMALL, True),
        (dataclasses.replace(SMALL, temporal=TemporalSettings(False)), False),
    ):
        model = FDTA(settings).eval()
        before, after = (model.trajectories(value, missing, times)[:, :, 1:] for value in (features, changed))
        assert torch.equal(before, after) != sees_history


def test_id_logits_use_trajectories() -> None:
    model = FDTA(SMALL).eval()
    shape = (1, 2, 5, 3)
    embeddings, missing = torch.randn(*shape, 32), torch.rand(shape) < 0.3
    labels, times = torch.arange(3).expand(shape), torch.arange(5)[:, None].expand(shape)
    decoded = model.id_decoder(
        model.trajectories(embeddings, missing, times), missing, labels, times, embeddings, missing, times
    )
    logits = model.id_logits(embeddings, missing, labels, times, embeddings, missing, times)
    assert torch.equal(logits, decoded)
    assert not torch.allclose(logits, model.id_decoder(embeddings, missing, labels, times, embeddings, missing, times))


def test_identity_adapter_is_an_mlp_of_three_layers() -> None:
    adapter = FDTA(SMALL).identity_adapter
    x = torch.randn(5, 32)
    expected = x
    for index, layer in enumerate(adapter.layers):
        expected = expected @ layer.weight.T + layer.bias
        if index < 2:
            expected = expected.clamp(min=0)
    assert index == 2
    assert torch.allclose(adapter(x), expected, atol=1e-6)
