from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.golden_weights import (
    CONFIGURATIONS,
    assert_close_to_golden,
    fill_seeded,
    golden_files,
    load_golden,
    names_and_shapes,
    published_settings,
)
from torch import Tensor

from fdta.data.identities import IGNORED
from fdta.experiment.settings import Settings
from fdta.loss.association import association_loss
from fdta.model.fdta import FDTA
from fdta.model.settings import (
    AssociationSettings,
    BackboneSettings,
    DetectorSettings,
    IdentitySettings,
    SpatialSettings,
    TemporalSettings,
)
from fdta.model.weights import to_published

SMALLEST_BACKBONE = BackboneSettings("basic", "group", stem_width=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
SMALL = Settings(
    history=8,
    backbone=SMALLEST_BACKBONE,
    detector=DetectorSettings(width=32, heads=4, encoder_layers=1, decoder_layers=1, queries=4, norm_groups=8),
    spatial=SpatialSettings(enabled=False),
    temporal=TemporalSettings(layers=1, heads=4, feedforward=32),
    association=AssociationSettings(labels=10, label_width=32, layers=2, heads=4),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def seeded_association(configuration: str, seed: int, device: torch.device) -> FDTA:
    """Published association with seeded weights, without its detector."""
    published = published_settings(configuration)
    small = dataclasses.replace(published.detector, encoder_layers=1, decoder_layers=1, queries=1)
    model = FDTA(dataclasses.replace(published, backbone=SMALLEST_BACKBONE, detector=small))
    model.detector = None
    fill_seeded(model, configuration, seed)
    return model.eval().to(device)


def golden(name: str, device: torch.device) -> tuple[FDTA, dict[str, np.ndarray], dict[str, Tensor]]:
    """Model, golden arrays, and the same as tensors."""
    arrays = load_golden(name)
    model = seeded_association(str(arrays["config"]), int(arrays["seed"]), device)
    return model, arrays, {key: torch.from_numpy(array).to(device) for key, array in arrays.items() if array.ndim}


@pytest.mark.parametrize("name", golden_files("id_inference*"))
def test_inference_equals_golden(name: str, device: torch.device) -> None:
    model, arrays, tensors = golden(name, device)
    features, missing, labels, times, current = (
        tensors[key] for key in ("features", "missing", "id_labels", "times", "current")
    )
    assert_close_to_golden(model.temporal_adapter(features, missing, times), arrays["temporal_adapter"])
    assert_close_to_golden(model.trajectories(features, missing, times), arrays["trajectory_features"])
    nothing_missing = torch.zeros(current.shape[:-1], dtype=torch.bool, device=device)
    now = torch.full(current.shape[:-1], times.shape[2], device=device)
    logits = model.id_logits(features, missing, labels, times, current, nothing_missing, now)
    assert_close_to_golden(logits, arrays["id_logits"])


@pytest.mark.parametrize("name", golden_files("id_training*"))
def test_training_equals_golden(name: str, device: torch.device) -> None:
    model, arrays, tensors = golden(name, device)
    times, missing = tensors["times"], tensors["unknown_missing"]
    logits = model.id_logits(
        tensors["trajectory_features"],
        tensors["trajectory_missing"],
        tensors["id_labels"],
        times,
        tensors["unknown_features"],
        missing,
        times,
    )
    assert_close_to_golden(logits, arrays["id_logits"])
    wanted = tensors["target_labels"].masked_fill(missing, IGNORED)
    wanted[:, :, 0] = IGNORED
    assert association_loss(logits, wanted).item() == pytest.approx(arrays["id_loss"].item(), rel=1e-5)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_shapes_equal_the_published(configuration: str) -> None:
    with torch.device("meta"):
        model = FDTA(published_settings(configuration))
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
