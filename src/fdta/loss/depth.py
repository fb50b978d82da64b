"""Depth loss with foreground weighting (docs/model.md, Losses; paper eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fdta.boxes import cxcywh_to_xyxy
from fdta.data.targets import Targets
from fdta.depth.bins import bin_index
from fdta.loss.settings import LossSettings
from fdta.model.settings import SpatialSettings


def depth_loss(
    logits: Tensor,
    depth: Tensor,
    padding: Tensor,
    targets: Sequence[Targets],
    spatial: SpatialSettings,
    settings: LossSettings,
    boxes_total: float,
) -> Tensor:
    """Softmax focal loss of the depth bins, averaged over the pixels of the frames, summed over these: a scalar.

    Padding neither weighs nor counts.

    Args:
        logits: (B, D + 1, h, w) of the bins, at stride 8.
        depth: (B, H, W) teacher's depth in 0..255, larger is nearer; any number type.
        padding: (B, H, W) bool, True where the image is padded.
        targets: B frames; pixels in their boxes weigh `settings.foreground_weight`, the others 1.
        spatial: the bins.
        settings: weight and focal parameters.
        boxes_total: what the sum is divided by: the number of boxes in the batch, at least 1.
    """
    size = logits.shape[-2], logits.shape[-1]
    resized = F.interpolate(depth[:, None].to(logits.dtype), size, mode="bilinear", align_corners=False)[:, 0]
    cross_entropy = F.cross_entropy(logits, bin_index(resized, spatial), reduction="none")
    focal = settings.focal_alpha * (1 - (-cross_entropy).exp()) ** settings.focal_gamma * cross_entropy
    if settings.depth_smoothing:
        surprise = -logits.log_softmax(dim=1)
        everywhere = (1 - (-surprise).exp()) ** settings.focal_gamma * surprise
        focal = focal + settings.depth_smoothing * settings.focal_alpha * everywhere.sum(dim=1)
    inside = F.interpolate((~padding)[:, None].to(logits.dtype), size)[:, 0]
    foreground = foreground_mask(targets, padding, size).to(logits.dtype)
    weights = inside * (1 + (settings.foreground_weight - 1) * foreground)
    return (weights * focal).sum() / inside.sum() * len(logits) / boxes_total


def foreground_mask(targets: Sequence[Targets], padding: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells of a coarser grid that a ground-truth box touches.

    Args:
        targets: B frames.
        padding: (B, H, W) bool, True where the image is padded (right and below).
        size: rows and columns of the grid, which covers the padded image.

    Returns:
        (B, rows, columns) bool.
    """
    boxes_cxcywh = pad_sequence([frame.boxes_cxcywh for frame in targets], batch_first=True)
    inside = (~padding).float()
    columns = size[1] * inside.amax(dim=1).mean(dim=1)
    rows = size[0] * inside.amax(dim=2).mean(dim=1)
    boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh * torch.stack([columns, rows, columns, rows], dim=1)[:, None])
    left, top = boxes_xyxy[..., :2, None].floor().unbind(-2)
    right, bottom = boxes_xyxy[..., 2:, None].ceil().unbind(-2)
    y, x = (torch.arange(length, device=padding.device) for length in size)
    in_columns, in_rows = (x >= left) & (x < right), (y >= top) & (y < bottom)
    # Product of the boxes' row and column masks, summed over the boxes of a frame.
    return in_rows.float().transpose(1, 2) @ in_columns.float() > 0
