"""Settings of one training. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fdta.settings import Count, Positive, Weight, require, settings

Precision = Literal["float32", "bfloat16", "float16"]


@settings
class TrainingSettings:
    """One training: of the detector alone (clips of one frame) or of the whole."""

    epochs: Count = 13
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = (6, 9)
    schedule: Literal["steps", "cosine"] = "steps"
    """"steps" multiplies the rate by 0.1 at each milestone; "cosine" is flat until the first and then falls to 0."""
    warmup_epochs: Weight = 1.0
    """Epochs, or a part of one, in which the rate rises linearly to its full value."""
    clips_per_epoch: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """null: every frame of the training split starts one clip per epoch."""
    batch: Count = 1
    """Clips (for the detector alone: frames) at once through the model of each process."""
    accumulate: Count = 1
    """Batches per step and process. The gradient of a step is the mean over them, each normalized by its own number of
    boxes, as the published trainer has it."""
    precision: Precision = "float32"
    """Of the networks in training (torch.autocast); weights, matching and losses stay float32. The published trainer
    uses float32."""
    gradient_frames: Count = 4
    """Frames of a clip through which gradients reach the detector."""
    no_gradient_precision: Precision | None = None
    """Of the detector on the frames without gradient; null: as `precision`."""
    no_gradient_chunk: Count = 8
    """Frames at once through the detector without gradient; bounds memory."""
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 1e-4
    backbone_scale: Weight = 0.1
    projection_scale: Weight = 0.05
    """Of the rate, for sampling offsets and reference points."""
    head_scale: Weight = 1.0
    """Of the rate, for all that is not the detector."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Weight = 5e-4
    clip_norm: Positive = 0.1
    """Largest gradient norm, for the detector and for the rest apart. The Identity Adapter is not clipped."""
    checkpoint_seconds: Weight = 60.0
    """Seconds between the states from which a killed training resumes."""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Epochs between validations; 0: none."""
    validate_sequences: Count = 4

    def __post_init__(self) -> None:
        require(list(self.milestones) == sorted(self.milestones), "milestones must rise")
