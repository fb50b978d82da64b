"""What the objectives of the detector alone and of the whole model share (docs/model.md, Training)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fdta.data.clips import ClipBatch
from fdta.distributed import share
from fdta.loss.matching import Matching, match
from fdta.model.detector import DetectorOutput, LayerOutput
from fdta.train.settings import TrainingSettings

if TYPE_CHECKING:
    from fdta.experiment.settings import Settings


def autocast(batch: ClipBatch, settings: TrainingSettings) -> contextlib.AbstractContextManager[None]:
    """The block in which the networks compute in the precision of `settings`."""
    if settings.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(batch.images.device.type, getattr(torch, settings.precision))


def full(x: Tensor) -> Tensor:
    """`x` in float32, if it has half of that."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def in_full(output: DetectorOutput) -> DetectorOutput:
    """`output` as the losses read it, in `full`."""
    return DetectorOutput(
        full(output.logits),
        full(output.boxes_cxcywh),
        full(output.embeddings),
        [LayerOutput(full(x.logits), full(x.boxes_cxcywh), full(x.embeddings)) for x in output.auxiliary],
        None if output.depth_logits is None else full(output.depth_logits),
        None if output.depth is None else full(output.depth),
    )


def matched(output: DetectorOutput, batch: ClipBatch, settings: Settings) -> list[Matching]:
    """Matching of each decoder layer, the last layer's last."""
    layers: list[LayerOutput] = [*output.auxiliary, output]
    logits, boxes_cxcywh = [layer.logits for layer in layers], [layer.boxes_cxcywh for layer in layers]
    return match(logits, boxes_cxcywh, batch.targets, settings.loss)


def boxes_total(batch: ClipBatch) -> float:
    """Number of ground-truth boxes in the batch, averaged over the processes, whose sum is taken as at least 1."""
    boxes = sum(len(target.boxes_cxcywh) for target in batch.targets)
    return share(torch.tensor(float(boxes), dtype=torch.float64, device=batch.images.device)).item()
