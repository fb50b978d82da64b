"""Spatial Adapter: a depth branch beside the detector (paper Sec. 3.2, B.1; docs/model.md, Spatial Adapter)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.depth.bins import bin_values
from fdta.model.layers import Attention, GroupNorm, Linear
from fdta.model.settings import SpatialSettings


@dataclass
class SpatialOutput:
    """What the Spatial Adapter gives; h and w are the height and width at stride 8."""

    logits: Tensor
    """(B, D+1, h, w) of the depth bins."""
    depth: Tensor
    """(B, h, w) expected depth, in the units of the bins; larger is nearer."""
    memory: Tensor | None
    """(B, h*w, d) that the detector's decoder attends to; None where nothing does."""


class SpatialAdapter(nn.Module):
    """Depth of every cell, and features that carry it."""

    def __init__(self, width: int, heads: int, norm_groups: int, settings: SpatialSettings) -> None:
        super().__init__()
        self.register_buffer("bin_values", bin_values(settings))
        self.fine = nn.Sequential(nn.Conv2d(width, width, 1), GroupNorm(norm_groups, width))
        self.coarse = nn.Sequential(nn.Conv2d(width, width, 1), GroupNorm(norm_groups, width))
        self.extractor = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            GroupNorm(norm_groups, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            GroupNorm(norm_groups, width),
            nn.ReLU(),
        )
        self.classifier = nn.Conv2d(width, settings.bins + 1, 1)
        attended = settings.placement != "none"
        self.encoder = DepthEncoder(width, heads, settings.feedforward, settings.dropout) if attended else None
        has_position = attended and settings.position_embedding
        self.position = DepthPosition(width, settings.maximum) if has_position else None

    def forward(self, features: list[Tensor], positions: Tensor, padding: Tensor | None) -> SpatialOutput:
        """Estimate depth and encode it.

        No gradient passes from here to `features`, nor from the encoded features to the extractor except by the
        depth that the depth position is looked up with.

        Args:
            features: (B, d, h, w) projected features at strides 8, 16, 32.
            positions: (B, h*w, d) sine positions of stride 8.
            padding: (B, h*w) of stride 8, True where the image is padding; None: nowhere.
        """
        fine, *coarse = (feature.detach() for feature in features)
        convolution, norm = self.coarse
        maps = [self.fine(fine)]
        for feature in coarse:
            # A 1x1 convolution commutes with the interpolation, and the coarse map is smaller.
            feature = F.interpolate(convolution(feature), size=fine.shape[-2:], mode="bilinear", align_corners=False)
            maps.append(norm(feature))
        dense = self.extractor(torch.stack(maps).mean(0))
        logits = self.classifier(dense).to(self.bin_values.dtype)
        # In half precision the depth of 150 bins would be off by whole bins.
        with torch.autocast(logits.device.type, enabled=False):
            depth = torch.einsum("bdhw,d->bhw", logits.softmax(1), self.bin_values)
        memory = None
        if self.encoder is not None:
            memory = self.encoder(dense.detach().flatten(2).transpose(1, 2), positions, padding)
            if self.position is not None:
                memory = memory + self.position(depth).flatten(1, 2)
        return SpatialOutput(logits, depth, memory)


class DepthEncoder(nn.Module):
    """One post-norm transformer encoder layer; the position is added to query and key."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = Linear(width, feedforward)
        self.linear2 = Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """Tokens (B, S, d), positions (B, S, d), padding (B, S) or None -> (B, S, d)."""
        query = tokens + positions
        attended = self.self_attention(query, query, tokens, key_padding_mask=padding)
        tokens = self.norm1(tokens + self.dropout(attended))
        hidden = self.dropout(self.linear1(tokens, "relu"))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class DepthPosition(nn.Module):
    """Learned position of a depth, interpolated between whole depths (paper eq. 2)."""

    def __init__(self, width: int, maximum: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(math.floor(maximum) + 1, width))

    def forward(self, depth: Tensor) -> Tensor:
        """Depths (...) -> positions (..., d)."""
        depth = depth.clamp(0, len(self.table) - 1)
        floor = depth.floor().long()
        ceiling = (floor + 1).clamp(max=len(self.table) - 1)
        return torch.lerp(F.embedding(floor, self.table), F.embedding(ceiling, self.table), (depth - floor)[..., None])
