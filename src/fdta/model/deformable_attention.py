"""Multi-scale deformable attention in plain PyTorch (Deformable DETR, eq. 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = list[tuple[int, int]]


def deformable_attention(
    value: Tensor, shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of values sampled bilinearly from every level; outside a level the value is 0.

    Args:
        value: (B, S, heads, c), the levels' cells one after the other, row by row.
        shapes: (height, width) of each of the L levels; S is the sum of their products.
        sampling_locations: (B, Q, heads, L, P, 2), x and y in 0..1 of the level's width and height.
        attention_weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * c).
    """
    batch, _, heads, channels = value.shape
    queries = attention_weights.shape[1]
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)
    weights = attention_weights.permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None]
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in shapes], 2)
    # One level at a time, so that the samples of one level alone are in memory when no gradient is wanted.
    attended = value.new_zeros(batch * heads, channels, queries)
    for level, shape, grid, weight in zip(levels, shapes, grids, weights, strict=True):
        samples = F.grid_sample(level.unflatten(2, shape), grid, padding_mode="zeros", align_corners=False)
        attended = attended + (samples * weight).sum(2)
    return attended.view(batch, heads * channels, queries).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Each query attends to a few points around its reference in every level."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.initialize()

    def initialize(self) -> None:
        """Start with equal weights and each head looking its own way, its points 1, 2, ... cells off."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * steps[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, queries: Tensor, references: Tensor, memory: Tensor, shapes: Shapes, padding: Tensor | None
    ) -> Tensor:
        """Attend from `queries` to `memory`.

        Args:
            queries: (B, Q, d), positions added.
            references: (B, Q, L, 2) points or (B, Q, L, 4) boxes (cx, cy, w, h), in 0..1 of the padded level.
            memory: (B, S, d).
            shapes: (height, width) of each level.
            padding: (B, S), True where memory is padding; None: nowhere.

        Returns:
            (B, Q, d).
        """
        value = self.value(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        value = value.unflatten(-1, (self.heads, -1))
        offsets = self.sampling_offsets(queries).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.heads, self.levels * self.points))
        weights = weights.softmax(-1).unflatten(-1, (self.levels, self.points))
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            sizes = offsets.new_tensor([(width, height) for height, width in shapes])
            locations = references + offsets / sizes[:, None]
        else:
            locations = references[..., :2] + offsets * references[..., 2:] * (0.5 / self.points)
        return self.output(deformable_attention(value, shapes, locations, weights))
