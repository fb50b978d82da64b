"""Settings of the model: sizes and switches of its parts. Imports no torch."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal, Self

from pydantic import Field

from fdta.settings import Count, Positive, Share, require, settings


@settings
class BackboneSettings:
    """A ResNet; the defaults are ResNet-50 with frozen batch norm (docs/model.md, Detector)."""

    block: Literal["bottleneck", "basic"] = "bottleneck"
    norm: Literal["frozen-batch", "group"] = "frozen-batch"
    stem_width: Count = 64
    widths: tuple[Count, ...] = (64, 128, 256, 512)
    blocks: tuple[Count, ...] = (3, 4, 6, 3)
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    """How many of (stem, stage 1, ..., stage 4) are not trained."""

    def __post_init__(self) -> None:
        require(len(self.widths) == len(self.blocks) == 4, "widths and blocks need four numbers, one for each stage")


@settings
class DetectorSettings:
    """Deformable DETR (docs/model.md, Detector)."""

    width: Count = 256
    heads: Count = 8
    encoder_layers: Annotated[int, Field(ge=0, le=1000)] = 6
    decoder_layers: Count = 6
    levels: Annotated[int, Field(ge=3, le=16)] = 4
    """Feature maps, of the strides 8, 16, 32, ..."""
    encoder_points: Count = 4
    decoder_points: Count = 4
    feedforward: Count = 1024
    queries: Count = 300
    classes: Count = 1
    dropout: Share = 0.0
    norm_groups: Count = 32
    reference_initialization: Literal["uniform", "grid"] = "uniform"
    """Starting reference points: drawn with the weights, or spread over the image."""

    def __post_init__(self) -> None:
        require(self.width % self.heads == 0, f"width {self.width} is no multiple of heads {self.heads}")
        require(self.width % self.norm_groups == 0, f"width {self.width} is no multiple of norm_groups")
        require(self.width % 4 == 0, "width must be a multiple of 4")


@settings
class SpatialSettings:
    """Spatial Adapter (paper Sec. 3.2, B.1; docs/model.md, Spatial Adapter)."""

    enabled: bool = True
    placement: Literal["after", "between", "before", "none"] = "after"
    """Depth attention after the visual cross-attention, between self- and visual attention, before both, or none."""
    position_embedding: bool = True
    output_initialization: Literal["xavier", "zero"] = "xavier"
    """Starting weights of the depth attention's output: as published, or such that a detector trained without depth
    starts (but for one more layer norm) unchanged."""
    bins: Count = 150
    minimum: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    maximum: Positive = 256.0
    feedforward: Count = 256
    dropout: Share = 0.1

    def __post_init__(self) -> None:
        require(self.minimum < self.maximum, "minimum must be below maximum")


@settings
class TemporalSettings:
    """Temporal Adapter (paper Sec. 3.3; docs/model.md, Temporal Adapter)."""

    enabled: bool = True
    missing: Literal["mask", "zero-vector"] = "mask"
    layers: Count = 6
    heads: Count = 8
    feedforward: Count = 512
    dropout: Share = 0.1


@settings
class AssociationSettings:
    """Trajectory features and ID decoder (docs/model.md, Trajectory features and ID decoder)."""

    labels: Count = 50
    """K, the ID labels; "newborn" comes on top."""
    label_width: Count = 256
    layers: Count = 6
    heads: Count = 16
    feedforward_ratio: Count = 2
    initialization: Literal["xavier", "copy"] = "xavier"
    """Starting weights only: "copy" makes the untrained decoder look up the most similar history token's label."""


@settings
class IdentitySettings:
    """Identity Adapter (paper Sec. 3.4; docs/model.md, Identity Adapter)."""

    enabled: bool = True
    feature_extractor: bool = True
    quality_filter: bool = True
    """The paper's IoU filter: drop samples under `threshold` and weigh pairs by the harmonic mean of their quality."""
    quality: Literal["giou", "iou"] = "giou"
    threshold: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.5
    temperature: Positive = 0.1
    chunk: Count = 10
    """Frames whose matched predictions are contrasted with one another."""
    first_epoch: Annotated[int, Field(ge=0)] = 1
    """Epochs are counted from 0."""


@settings
class ModelSettings:
    """All that decides the shape of the model."""

    history: Annotated[int, Field(ge=2, le=10_000)] = 30
    """T: frames of a training clip, miss tolerance of the tracker, and length of the relative-time table."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    spatial: SpatialSettings = field(default_factory=SpatialSettings)
    temporal: TemporalSettings = field(default_factory=TemporalSettings)
    association: AssociationSettings = field(default_factory=AssociationSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)

    def unused_code(self) -> tuple[str, ...]:
        """Modules of the adapters that are off: the model does not use them."""
        adapters: dict[tuple[str, ...], SpatialSettings | TemporalSettings | IdentitySettings] = {
            ("fdta.model.spatial_adapter", "fdta.loss.depth", "fdta.depth"): self.spatial,
            ("fdta.model.temporal_adapter",): self.temporal,
            ("fdta.model.identity_adapter", "fdta.loss.contrastive"): self.identity,
        }
        return tuple(module for modules, adapter in adapters.items() if not adapter.enabled for module in modules)

    def with_defaults_for_unused(self) -> Self:
        """The same, with default values for the adapters that are off, which nothing reads."""
        spatial, temporal, identity = self.spatial, self.temporal, self.identity
        return replace(
            self,
            spatial=spatial if spatial.enabled else SpatialSettings(enabled=False),
            temporal=temporal if temporal.enabled else TemporalSettings(enabled=False, heads=1),
            identity=identity if identity.enabled else IdentitySettings(enabled=False),
        )

    def __post_init__(self) -> None:
        token = self.detector.width + self.association.label_width
        require(token % self.association.heads == 0, f"token width {token} is no multiple of association.heads")
        require(self.detector.width % self.temporal.heads == 0, "detector.width is no multiple of temporal.heads")
