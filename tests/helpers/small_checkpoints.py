"""Small models in the published form: names and nesting as published, widths that a test can afford."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fdta.model.fdta import FDTA
from fdta.model.settings import (
    AssociationSettings,
    BackboneSettings,
    DetectorSettings,
    IdentitySettings,
    ModelSettings,
    SpatialSettings,
    TemporalSettings,
)
from fdta.model.weights import to_published

# As published in all that shapes do not tell: eight heads, 32 groups, frozen batch norm.
SMALL = ModelSettings(
    history=7,
    backbone=BackboneSettings(stem_width=8, widths=(4, 6, 8, 10), blocks=(1, 2, 1, 1)),
    detector=DetectorSettings(
        width=64, encoder_layers=1, decoder_layers=2, encoder_points=1, decoder_points=3, feedforward=48, queries=9
    ),
    spatial=SpatialSettings(bins=11, maximum=99.5, feedforward=24),
    temporal=TemporalSettings(layers=2, feedforward=40),
    association=AssociationSettings(labels=12, label_width=32, layers=3, heads=6, feedforward_ratio=3),
    identity=IdentitySettings(feature_extractor=False),
)
BASE = dataclasses.replace(
    SMALL,
    spatial=SpatialSettings(enabled=False),
    temporal=TemporalSettings(enabled=False),
    identity=IdentitySettings(enabled=False, feature_extractor=False),
)


def published(settings: ModelSettings) -> dict[str, Tensor]:
    """Published state dict of a new model, none of whose tensors is constant."""
    model = FDTA(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return to_published(model.state_dict())


def detector_alone(state: dict[str, Tensor], classes: int = 1) -> dict[str, Tensor]:
    """Deformable DETR of a published state dict, with several classes if asked."""
    alone = {name.removeprefix("detr."): tensor for name, tensor in state.items() if name.startswith("detr.")}
    if classes > 1:
        for name in alone:
            if name.startswith("class_embed."):
                alone[name] = torch.randn(classes, *alone[name].shape[1:])
    return alone
