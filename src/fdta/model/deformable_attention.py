"""Multi-scale deformable attention (Deformable DETR, eq. 3): one function, and the ways to compute it.

On a CPU: weighted sums of table rows (`embedding_bag`), which make no tensor of samples, and for the gradient
`grid_sample`, level by level. On CUDA: a Triton kernel (`fdta.model.deformable_kernel`), where Triton is there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.model import deformable_kernel
from fdta.model.layers import Linear, linear, recorded

Shapes = list[tuple[int, int]]
SAMPLES = 2**21
"""Most sampled numbers in memory at once in the gradient on a CPU, about; those of one level and image at least."""


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
    value = value.to(sampling_locations.dtype)
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)
    weights = attention_weights.permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None]
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in shapes], 2)
    # One level at a time, so that the samples of one level alone are in memory when no gradient is wanted.
    attended = value.new_zeros(batch * heads, channels, queries)
    for level, shape, grid, weight in zip(levels, shapes, grids, weights, strict=True):
        samples = F.grid_sample(level.unflatten(2, shape), grid, padding_mode="zeros", align_corners=False)
        attended = attended + (samples * weight).sum(2)
    return attended.view(batch, heads * channels, queries).transpose(1, 2)


class CellTable:
    """The values of all levels as rows of one table, without gradient.

    The levels stand one below the other in a grid as wide as the widest, each with a border of zeros: so the four cells
    around a place are the same number of rows apart everywhere, and places outside read zeros.
    """

    def __init__(self, value: Tensor, shapes: Shapes) -> None:
        """Copy `value` (B, S, heads, c) of levels of `shapes`."""
        self.shapes = shapes
        batch, _, heads, channels = value.shape
        self.width = max(width for _, width in shapes) + 2
        # The border of the last level is two wide, for the right and lower neighbours of a place in it.
        self.height = sum(height + 2 for height, _ in shapes) + 2
        grid = value.new_zeros(batch, self.height, self.width, heads, channels)
        self.tops = [1]
        for (height, width), cells in zip(shapes, value.split([h * w for h, w in shapes], 1), strict=True):
            top = self.tops[-1]
            grid[:, top : top + height, 1 : width + 1] = cells.unflatten(1, (height, width))
            self.tops.append(top + height + 2)
        self.grid = grid

    def attend(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """As `deformable_attention`, with places (B, Q, heads, L, P) in cells: 0, 0 is the center of the first cell.

        `x` and `y` are overwritten.
        """
        batch, _, _, heads, channels = self.grid.shape
        limits = torch.tensor(self.shapes, dtype=x.dtype)
        # Not a number stays so and gives numbers that are none; its row must only be one of the table.
        lowest, rows = torch.full((len(limits), 1), -1.0), (self.height - 2) * self.width * heads
        x, y = (torch.clamp(place, lowest, limits[:, axis, None], out=place) for place, axis in ((x, 1), (y, 0)))
        left, top = x.floor(), y.floor()
        x, y = x.sub_(left), y.sub_(top)
        right, below = heads, self.width * heads
        first = (torch.tensor(self.tops[:-1]) * self.width + 1) * heads + torch.arange(heads)[:, None]
        row = (left.mul_(right).add_(top, alpha=below).to(torch.int32) + first.to(torch.int32)[..., None]).clamp_(
            0, rows - 1
        )
        if batch > 1:
            row += (torch.arange(batch, dtype=torch.int32) * self.grid[0, ..., 0].numel())[:, None, None, None, None]
        rights = weights * x
        lefts = weights - rights
        lower_right, lower_left = rights * y, lefts * y
        corners = (
            (0, lefts.sub_(lower_left)),
            (right, rights.sub_(lower_right)),
            (below, lower_left),
            (below + right, lower_right),
        )
        table, row = self.grid.view(-1, channels), row.flatten(3).flatten(0, 2)
        parts = (
            F.embedding_bag(
                row, table[offset:], per_sample_weights=share.flatten(3).flatten(0, 2).to(table.dtype), mode="sum"
            )
            for offset, share in corners
        )
        attended = next(parts)
        for part in parts:
            attended.add_(part)
        return attended.view(batch, -1, heads * channels)


@dataclass(frozen=True)
class Values:
    """What a `DeformableAttention` samples from."""

    shapes: Shapes
    """(height, width) of each of the L levels."""
    cells: Tensor | CellTable
    """(B, S, heads, c), or a table of them."""


class DeformableAttention(nn.Module):
    """Each query attends to a few points around its reference in every level."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = Linear(width, heads * levels * points * 2)
        self.attention_weights = Linear(width, heads * levels * points)
        self.value = Linear(width, width)
        self.output = Linear(width, width)
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
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

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
        return self.attend(queries, references, self.values(memory, shapes, padding))

    def values(self, memory: Tensor, shapes: Shapes, padding: Tensor | None) -> Values:
        """What `attend` reads of `memory`, for any number of queries; arguments as of `forward`."""
        value = self.value(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        value = value.unflatten(-1, (self.heads, -1))
        if value.device.type == "cpu" and not recorded(value, self.sampling_offsets.weight):
            return Values(shapes, CellTable(value, shapes))
        return Values(shapes, value)

    def attend(self, queries: Tensor, references: Tensor, values: Values) -> Tensor:
        """`forward` with what `values` gave."""
        if isinstance(values.cells, CellTable):
            return self.output(self._read(queries, references, values.cells))
        offsets = self.sampling_offsets(queries).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.heads, self.levels * self.points))
        weights = _precise(weights).softmax(-1).unflatten(-1, (self.levels, self.points))
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            sizes = _sizes(tuple(values.shapes), references.device).to(references.dtype)
            locations = references + offsets / sizes[:, None]
        else:
            locations = references[..., :2] + offsets * references[..., 2:] * (0.5 / self.points)
        attend: Callable[..., Tensor] = deformable_kernel.attend
        if not deformable_kernel.usable(values.cells):
            attend = _WithoutSamples.apply if values.cells.device.type == "cpu" else deformable_attention
        return self.output(attend(values.cells, values.shapes, locations, weights))

    def _read(self, queries: Tensor, references: Tensor, table: CellTable) -> Tensor:
        """Weighted sums of the table's rows, (B, Q, d)."""
        # One multiplication gives all x, all y and all weights, each in one piece.
        places = (self.heads * self.levels * self.points, 2)
        x_y = self.sampling_offsets.weight.unflatten(0, places), self.sampling_offsets.bias.unflatten(0, places)
        weight, bias = (
            torch.cat([pairs[:, 0], pairs[:, 1], logits])
            for pairs, logits in zip(x_y, (self.attention_weights.weight, self.attention_weights.bias), strict=True)
        )
        x, y, logits = _precise(linear(queries, weight, bias)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        weights = logits.softmax(-1).unflatten(-1, (self.levels, self.points))
        x, y = (offsets.unflatten(-1, (self.levels, self.points)) for offsets in (x, y))
        sizes = _sizes(tuple(table.shapes), references.device).to(references.dtype)
        centers = (references[..., :2] * sizes - 0.5)[:, :, None, :, None]
        if references.shape[-1] == 2:
            x, y = x + centers[..., 0], y + centers[..., 1]
        else:
            scales = (references[..., 2:] * sizes * (0.5 / self.points))[:, :, None, :, None]
            x, y = torch.addcmul(centers[..., 0], x, scales[..., 0]), torch.addcmul(centers[..., 1], y, scales[..., 1])
        return table.attend(x, y, weights)


class _WithoutSamples(torch.autograd.Function):
    """`deformable_attention` that keeps no samples: the gradient takes them anew, a level of a few images at a time."""

    @staticmethod
    def forward(context: Any, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        value = value.to(locations.dtype)
        context.save_for_backward(value, locations, weights)
        context.shapes = shapes
        x, y = (locations * _sizes(tuple(shapes), locations.device).to(locations.dtype)[:, None] - 0.5).unbind(-1)
        return CellTable(value, shapes).attend(x, y, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, locations, weights = context.saved_tensors
        of_value, of_locations, of_weights = (torch.empty_like(x) for x in (value, locations, weights))
        _, _, heads, channels = value.shape
        queries, points = weights.shape[1], weights.shape[-1]
        bilinear, zeros = 0, 0
        step = max(1, SAMPLES // (queries * heads * points * channels))
        for first in range(0, len(value), step):
            images = slice(first, first + step)
            # Images and heads, channels, (points,) queries: what is next to each other is read one after the other.
            arriving = gradient[images].transpose(1, 2).contiguous().view(-1, channels, 1, queries)
            shares = weights[images].permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None].contiguous()
            grids = (2 * locations[images] - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2).contiguous()
            start = 0
            for level, (height, width) in enumerate(context.shapes):
                cells = slice(start, start + height * width)
                table = value[images, cells].flatten(2).transpose(1, 2).contiguous().view(-1, channels, height, width)
                samples = F.grid_sample(table, grids[level], padding_mode="zeros", align_corners=False)
                of_share = (samples * arriving).sum(1)
                of_samples = torch.mul(arriving, shares[level], out=samples)
                of_table, of_grid = torch.ops.aten.grid_sampler_2d_backward(
                    of_samples, table, grids[level], bilinear, zeros, False, [True, True]
                )
                of_value[images, cells] = of_table.flatten(2).unflatten(0, (-1, heads)).permute(0, 3, 1, 2)
                of_weights[images, :, :, level] = of_share.unflatten(0, (-1, heads)).permute(0, 3, 1, 2)
                of_locations[images, :, :, level] = 2 * of_grid.unflatten(0, (-1, heads)).permute(0, 3, 1, 2, 4)
                start = cells.stop
        return of_value, None, of_locations, of_weights


def kept(shapes: Shapes, device: torch.device) -> tuple[Tensor, ...]:
    """Tensors that attention to levels of `shapes` on `device` reads, and that are kept for the last shapes only.

    Who captures a CUDA graph must hold them as long as the graph, which reads their memory.
    """
    return _sizes(tuple(shapes), device), deformable_kernel.cells_of_levels(tuple(shapes), device)


@functools.lru_cache(maxsize=deformable_kernel.KEPT)
def _sizes(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(L, 2) widths and heights; kept, because a GPU would wait for them in every layer."""
    with torch.inference_mode(False):
        return torch.tensor([(width, height) for height, width in shapes], dtype=torch.float64).to(device)


def _precise(tensor: Tensor) -> Tensor:
    """`tensor` in single precision at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
