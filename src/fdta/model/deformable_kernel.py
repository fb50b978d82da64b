"""Multi-scale deformable attention on CUDA: Triton kernels, forward and backward.

The function is `fdta.model.deformable_attention.deformable_attention`. Each program serves one query and one head: it
reads the four cells around every sampling point and adds them up in single precision, so that no tensor of samples
exists. Where Triton is absent or fails on the first call, a line of the log says so and the plain form serves.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import os
from typing import Any

import torch
from torch import Tensor

Shapes = list[tuple[int, int]]
KEPT = 16
"""Shapes of levels, the last used ones, whose small tensors stay on their device. All layers of one pass share one."""

logger = logging.getLogger(__name__)

HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON:
    import triton
    import triton.language as tl


def attend(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """As `fdta.model.deformable_attention.deformable_attention`; result in the precision of `value`."""
    with torch.cuda.device_of(value):  # Triton launches on the current device.
        return _Attend.apply(value, locations, weights, cells_of_levels(tuple(shapes), value.device))


def usable(value: Tensor) -> bool:
    """Whether the kernels run where `value` is, in its precision; tried once a process."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if value.device.type != "cuda" and not interpreted:
        return False
    kind = value.device.type, value.dtype
    if kind not in _TRIED:
        _TRIED[kind] = _try(value.device, value.dtype)
    return _TRIED[kind]


_TRIED: dict[tuple[str, torch.dtype], bool] = {}


def _try(device: torch.device, dtype: torch.dtype) -> bool:
    if not HAS_TRITON:
        logger.info("deformable attention without a kernel, slower: Triton is not installed")
        return False
    try:
        with torch.enable_grad(), torch.inference_mode(False):
            # Four cells of 0, 1, 2 and 3, read in their middle with a weight of 2.
            value = torch.arange(4, dtype=dtype, device=device).view(1, 4, 1, 1).requires_grad_()
            place = torch.full((1, 1, 1, 1, 1, 2), 0.5, device=device, requires_grad=True)
            weight = torch.full((1, 1, 1, 1, 1), 2.0, device=device, requires_grad=True)
            attended = attend(value, [(2, 2)], place, weight)
            attended.sum().backward()
        given = (attended, value.grad, place.grad, weight.grad)
        found = [tensor.flatten().tolist() for tensor in given if tensor is not None]
    except Exception as error:  # Whatever the compiler or the driver raises, there is another way.
        logger.info("deformable attention without a kernel, slower: Triton fails (%s)", str(error).partition("\n")[0])
        return False
    if found != [[3.0], [0.5] * 4, [4.0, 8.0], [1.5]]:
        logger.info("deformable attention without a kernel, slower: Triton computes wrong numbers here")
        return False
    return True


@functools.lru_cache(maxsize=KEPT)
def cells_of_levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(L, 3) int32: height, width and first cell of each level; kept, because a GPU would wait for them in every
    layer."""
    starts = itertools.accumulate((height * width for height, width in shapes), initial=0)
    rows = [(*shape, start) for shape, start in zip(shapes, starts, strict=False)]
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.int32).to(device)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, locations: Tensor, weights: Tensor, levels: Tensor) -> Tensor:
        value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
        batch, cells, heads, channels = value.shape
        queries, _, points = weights.shape[1], weights.shape[3], weights.shape[4]
        output = value.new_empty(batch, queries, heads * channels)
        if output.numel():
            _forward[(batch * queries * heads,)](
                value, locations, weights, levels, output, queries, cells,
                HEADS=heads, C=channels, BLOCK=triton.next_power_of_2(channels), LEVELS=len(levels), POINTS=points,
                DOUBLE=value.dtype == torch.float64, num_warps=1,
            )  # fmt: skip
        context.save_for_backward(value, locations, weights, levels)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, locations, weights, levels = context.saved_tensors
        batch, cells, heads, channels = value.shape
        queries, points = weights.shape[1], weights.shape[4]
        # Several programs add to one cell: in single precision at least.
        wide = torch.promote_types(value.dtype, torch.float32)
        value_gradient = torch.zeros(value.shape, dtype=wide, device=value.device)
        location_gradient, weight_gradient = torch.empty_like(locations), torch.empty_like(weights)
        if gradient.numel():
            _backward[(batch * queries * heads,)](
                value, locations, weights, levels, gradient.contiguous(), value_gradient, location_gradient,
                weight_gradient, queries, cells,
                HEADS=heads, C=channels, BLOCK=triton.next_power_of_2(channels), LEVELS=len(levels), POINTS=points,
                DOUBLE=value.dtype == torch.float64, num_warps=1,
            )  # fmt: skip
        return value_gradient.to(value.dtype), location_gradient, weight_gradient, None


if HAS_TRITON:

    @triton.jit
    def _cell(base, row, column, height, width, stride, channel, inside):
        """Addresses of a cell's channels, and where they may be read: nowhere outside the level."""
        # Blocks, because the interpreter makes numbers of truth values that it spreads over one.
        row, column = row + channel * 0, column + channel * 0
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return base + (row * width + column).to(tl.int64) * stride + channel, inside & seen

    @triton.jit
    def _forward(
        value, locations, weights, levels, output, queries, cells,
        HEADS: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
        DOUBLE: tl.constexpr,
    ):  # fmt: skip
        program = tl.program_id(0).to(tl.int64)
        head, image = program % HEADS, program // (HEADS * queries)
        channel = tl.arange(0, BLOCK)
        inside = channel < C
        wide = tl.float64 if DOUBLE else tl.float32
        attended = tl.zeros((BLOCK,), dtype=wide)
        for level in range(LEVELS):
            height, width = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1)
            start = tl.load(levels + 3 * level + 2)
            base = value + ((image * cells + start) * HEADS + head) * C
            for point in range(POINTS):
                sample = (program * LEVELS + level) * POINTS + point
                x = tl.load(locations + 2 * sample).to(wide) * width - 0.5
                y = tl.load(locations + 2 * sample + 1).to(wide) * height - 0.5
                # Far off it does not matter where; the numbers must only fit.
                x, y = tl.minimum(tl.maximum(x, -2.0), width + 1.0), tl.minimum(tl.maximum(y, -2.0), height + 1.0)
                left, top = tl.floor(x), tl.floor(y)
                fx, fy = x - left, y - top
                column, row = left.to(tl.int32), top.to(tl.int32)
                weight = tl.load(weights + sample).to(wide)
                for down in tl.static_range(2):
                    for right in tl.static_range(2):
                        share = (fy if down else 1 - fy) * (fx if right else 1 - fx)
                        place, seen = _cell(base, row + down, column + right, height, width, HEADS * C, channel, inside)
                        attended += weight * share * tl.load(place, mask=seen, other=0.0).to(wide)
        tl.store(output + program * C + channel, attended.to(output.dtype.element_ty), mask=inside)

    @triton.jit
    def _backward(
        value, locations, weights, levels, gradient, value_gradient, location_gradient, weight_gradient, queries, cells,
        HEADS: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
        DOUBLE: tl.constexpr,
    ):  # fmt: skip
        program = tl.program_id(0).to(tl.int64)
        head, image = program % HEADS, program // (HEADS * queries)
        channel = tl.arange(0, BLOCK)
        inside = channel < C
        wide = tl.float64 if DOUBLE else tl.float32
        arriving = tl.load(gradient + program * C + channel, mask=inside, other=0.0).to(wide)
        for level in range(LEVELS):
            height, width = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1)
            start = tl.load(levels + 3 * level + 2)
            offset = ((image * cells + start) * HEADS + head) * C
            for point in range(POINTS):
                sample = (program * LEVELS + level) * POINTS + point
                x = tl.load(locations + 2 * sample).to(wide) * width - 0.5
                y = tl.load(locations + 2 * sample + 1).to(wide) * height - 0.5
                x, y = tl.minimum(tl.maximum(x, -2.0), width + 1.0), tl.minimum(tl.maximum(y, -2.0), height + 1.0)
                left, top = tl.floor(x), tl.floor(y)
                fx, fy = x - left, y - top
                column, row = left.to(tl.int32), top.to(tl.int32)
                weight = tl.load(weights + sample).to(wide)
                of_x, of_y, of_weight = fx * 0, fx * 0, fx * 0
                for down in tl.static_range(2):
                    for right in tl.static_range(2):
                        by_y, by_x = (fy if down else 1 - fy), (fx if right else 1 - fx)
                        place, seen = _cell(
                            value + offset, row + down, column + right, height, width, HEADS * C, channel, inside
                        )
                        dot = tl.sum(arriving * tl.load(place, mask=seen, other=0.0).to(wide))
                        of_weight += by_y * by_x * dot
                        of_x += (by_y if right else -by_y) * dot
                        of_y += (by_x if down else -by_x) * dot
                        target, _ = _cell(
                            value_gradient + offset, row + down, column + right, height, width, HEADS * C, channel,
                            inside,
                        )  # fmt: skip
                        tl.atomic_add(target, weight * by_y * by_x * arriving, mask=seen)
                tl.store(weight_gradient + sample, of_weight.to(weight_gradient.dtype.element_ty))
                kind = location_gradient.dtype.element_ty
                tl.store(location_gradient + 2 * sample, (of_x * weight * width).to(kind))
                tl.store(location_gradient + 2 * sample + 1, (of_y * weight * height).to(kind))
