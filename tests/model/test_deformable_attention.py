from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdta.model import deformable_kernel
from fdta.model.deformable_attention import (
    CellTable,
    DeformableAttention,
    _sizes,
    _WithoutSamples,
    deformable_attention,
)

SHAPES = [(4, 6), (2, 3)]
TOKENS = sum(height * width for height, width in SHAPES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def arguments(queries: int = 5, heads: int = 2, channels: int = 3, points: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Value, sampling locations (some outside the image) and attention weights, in double precision."""
    value = torch.randn(2, TOKENS, heads, channels, dtype=torch.double)
    locations = torch.rand(2, queries, heads, len(SHAPES), points, 2, dtype=torch.double) * 1.6 - 0.3
    weights = torch.rand(2, queries, heads, len(SHAPES), points, dtype=torch.double)
    return value, locations, weights


def test_equals_a_sum_over_points_and_cells() -> None:
    value, locations, weights = arguments()
    expected = torch.zeros(2, 5, 2, 3, dtype=torch.double)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in weights.shape)).tolist():
        batch, query, head, level, _ = index
        height, width = SHAPES[level]
        start = sum(h * w for h, w in SHAPES[:level])
        x, y = (locations[tuple(index)] * torch.tensor([width, height]) - 0.5).tolist()
        for row in range(height):
            for column in range(width):
                near = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                cell = value[batch, start + row * width + column, head]
                expected[batch, query, head] += weights[tuple(index)] * near * cell
    actual = deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(actual, expected.flatten(2))


def test_gradients() -> None:
    value, locations, weights = (tensor.requires_grad_() for tensor in arguments(queries=2, channels=2, points=1))
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, SHAPES, p, w), (value, locations, weights))


@pytest.mark.parametrize("dtype", [torch.double, torch.float])
def test_gradients_without_samples_kept(dtype: torch.dtype) -> None:
    given = [tensor.to(dtype).requires_grad_() for tensor in arguments()]
    kept = deformable_attention(given[0], SHAPES, *given[1:])
    not_kept = _WithoutSamples.apply(given[0], SHAPES, *given[1:])
    torch.testing.assert_close(not_kept, kept)
    arriving = torch.randn_like(kept)
    gradients = [torch.autograd.grad(output, given, arriving) for output in (not_kept, kept)]
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected)


def test_untrained_heads_look_their_own_way_in_steps_of_a_cell() -> None:
    attention = DeformableAttention(width=16, heads=8, levels=2, points=3)
    offsets = attention.sampling_offsets(torch.randn(16)).view(8, 2, 3, 2)
    assert offsets[0, 1].tolist() == [[1, 0], [2, 0], [3, 0]]
    torch.testing.assert_close(offsets.abs().amax(-1), torch.tensor([1.0, 2.0, 3.0]).expand(8, 2, 3))
    angles = torch.atan2(offsets[..., 1], offsets[..., 0])[:, 0, 0] % (2 * math.pi)
    torch.testing.assert_close(angles, torch.arange(8) * math.pi / 4)


def test_offsets_are_in_cells_around_points_and_in_half_sizes_around_boxes() -> None:
    attention = DeformableAttention(width=4, heads=1, levels=1, points=2)
    shape = [(8, 8)]
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(torch.tensor([2.0, 0.0, 0.0, -2.0]))
        for linear in (attention.value, attention.output):
            linear.weight.copy_(torch.eye(4))
    # A memory that holds the place (x, y) of each cell, in cells; interpolation gives back the place sampled.
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    memory = torch.stack([columns, rows, torch.zeros(8, 8), torch.ones(8, 8)], -1).view(1, 64, 4)
    queries = torch.zeros(1, 1, 4)
    around_point = attention(queries, torch.full((1, 1, 1, 2), 0.5), memory, shape, None)
    torch.testing.assert_close(around_point[0, 0], torch.tensor([3.5 + 1.0, 3.5 - 1.0, 0.0, 1.0]))
    box = torch.tensor([0.5, 0.5, 0.25, 0.5]).view(1, 1, 1, 4)
    around_box = attention(queries, box, memory, shape, None)
    # The second of two points, offset 2, lies on the box's edge: half a width off; the mean of the two half of that.
    torch.testing.assert_close(around_box[0, 0], torch.tensor([3.5 + 0.5, 3.5 - 1.0, 0.0, 1.0]))


def test_padding_is_not_seen() -> None:
    attention = DeformableAttention(width=16, heads=4, levels=2, points=2)
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16)
    references = torch.rand(2, 5, 2, 2)
    padding = torch.rand(2, TOKENS) < 0.3
    changed = memory + padding[..., None] * torch.randn(2, TOKENS, 16)
    outputs = [attention(queries, references, m, SHAPES, padding) for m in (memory, changed)]
    torch.testing.assert_close(outputs[0], outputs[1])
    assert not torch.allclose(attention(queries, references, memory, SHAPES, None), outputs[0])


@pytest.mark.parametrize("shapes", [SHAPES, [(2, 3), (4, 6)], [(5, 2), (1, 9), (3, 3)]])
def test_table_equals_the_plain_form(shapes: list[tuple[int, int]]) -> None:
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(2, tokens, 3, 8)
    # Well outside of the image too, and on its very edges.
    locations = torch.rand(2, 40, 3, len(shapes), 2, 2) * 3 - 1
    locations[:, :4, :, :, 0] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [9.0, -9.0]])[:, None, None]
    sizes = torch.tensor([(width, height) for height, width in shapes])
    locations[:, 4] = (sizes[:, None] + 0.5) / sizes[:, None]  # one cell outside, right and below
    weights = torch.rand(2, 40, 3, len(shapes), 2)
    expected = deformable_attention(value, shapes, locations, weights)
    x, y = (locations * sizes[:, None] - 0.5).unbind(-1)
    actual = CellTable(value, shapes).attend(x.contiguous(), y.contiguous(), weights)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_table_passes_on_what_is_no_number() -> None:
    value, weights = torch.randn(1, TOKENS, 1, 8), torch.ones(1, 2, 1, len(SHAPES), 1)
    x, y = torch.zeros_like(weights), torch.zeros_like(weights)
    x[0, 0, 0, 0] = torch.nan
    attended = CellTable(value, SHAPES).attend(x, y, weights)
    assert attended[0, 0].isnan().all() and attended[0, 1].isfinite().all()


@pytest.mark.parametrize("coordinates", [2, 4])
def test_with_and_without_gradient(coordinates: int) -> None:
    attention = DeformableAttention(width=16, heads=4, levels=2, points=2)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    arguments = torch.randn(2, 9, 16), torch.rand(2, 9, 2, coordinates), torch.randn(2, TOKENS, 16), SHAPES
    padding = torch.rand(2, TOKENS) < 0.2
    recorded = attention(*arguments, padding)
    with torch.no_grad():
        read = attention(*arguments, padding)
    assert recorded.requires_grad and not read.requires_grad
    torch.testing.assert_close(read, recorded.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cached", [_sizes, deformable_kernel.cells_of_levels])
def test_tensors_of_the_last_sizes_alone_are_kept(cached: Any) -> None:
    attention = DeformableAttention(width=4, heads=1, levels=1, points=1)
    references = torch.rand(1, 3, 1, 2)
    for height in range(1, 101):
        memory = torch.randn(1, 2 * height, 4)
        attention(torch.randn(1, 3, 4), references, memory, [(height, 2)], None)
        deformable_kernel.cells_of_levels(((height, 2),), memory.device)
    assert cached.cache_info().currsize == deformable_kernel.KEPT < 100
