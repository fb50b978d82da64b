"""Weights of the losses. Imports no torch."""

from __future__ import annotations

from typing import Literal

from fdta.settings import Share, Weight, settings


@settings
class LossSettings:
    """Weights of the losses, and Hungarian costs of the same names (docs/model.md, Losses)."""

    classification: Weight = 2.0
    l1: Weight = 5.0
    giou: Weight = 2.0
    depth: Weight = 1.0
    foreground_weight: Weight = 7.0
    """Weight of the pixels in a ground-truth box in the depth loss; the others weigh 1 (paper eq. 1)."""
    identity: Weight = 1.0
    association: Weight = 1.0
    attributes: Weight = 0.0
    """Weight of the appearance attributes in detector pre-training (rendered data only)."""
    focal_alpha: Share = 0.25
    focal_gamma: Weight = 2.0
    depth_smoothing: Weight = 0.0
    """What is added to every entry of the one-hot target of the depth loss; the published code adds 1e-6."""
    association_matching: Literal["last", "last-but-one"] = "last"
    """Decoder layer whose matching picks the embeddings of the ID branch; the published trainer, by an overwritten
    variable, uses the last but one (docs/reproducing.md, Where the published trainer and this one differ)."""
