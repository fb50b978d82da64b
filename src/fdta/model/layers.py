"""Layers that take the fastest way the machine has.

They are the modules of torch, with the names and numbers of these. A layer may have weights of lower precision than
what it is given, and then gives its own; what is added up or normalized stays in single precision. On a CPU, torch
multiplies float32 matrices by MKL, which on processors of other makers leaves half of the vector unit idle; oneDNN,
built into the same torch, does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCORES = 2**20
"""Attention scores at once on a CPU: as many as stay in its cache."""
SMALL = 2**21
"""Multiplications up to which a recorded linear layer is left to torch, which starts sooner."""
LONG = 1024
"""Keys from which on attention without a mask goes through `SCORES` scores at a time."""


def recorded(*tensors: Tensor | None) -> bool:
    """Whether what is computed from `tensors` is recorded for a gradient."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def one_dnn(tensor: Tensor) -> bool:
    """Whether oneDNN can be called for `tensor` directly."""
    return tensor.device.type == "cpu" and tensor.dtype in _ONE_DNN


_ONE_DNN: set[torch.dtype] = set()
if torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
):
    _ONE_DNN.add(torch.float32)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        _ONE_DNN.add(torch.bfloat16)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """`torch.nn.functional.linear` of (..., n) tokens in the weight's dtype, and then "none" or "relu"."""
    if tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        weight = weight.to(torch.get_autocast_dtype("cpu"))
        bias = None if bias is None else bias.to(weight.dtype)
    tokens = tokens.to(weight.dtype)
    if not one_dnn(tokens) or not tokens.numel():
        output = F.linear(tokens, weight, bias)
    elif not recorded(tokens, weight, bias):
        return _multiply(tokens, weight, bias, activation)
    elif tokens.numel() * len(weight) < SMALL:
        output = F.linear(tokens, weight, bias)
    else:
        return _RecordedLinear.apply(tokens, weight, bias, activation)
    return output if activation == "none" else output.relu()


def _multiply(tokens: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, activation, [], "")


class _RecordedLinear(torch.autograd.Function):
    """`linear` by oneDNN, with its gradients."""

    @staticmethod
    def forward(context: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
        output = _multiply(tokens, weight, bias, activation)
        context.save_for_backward(tokens, weight, output if activation == "relu" else None)
        context.has_bias = bias is not None
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight, output = context.saved_tensors
        of_tokens, of_weight, of_bias, _ = context.needs_input_grad
        if output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _multiply(gradient.contiguous(), weight.t()) if of_tokens else None,
            _multiply(rows.t(), tokens.reshape(-1, tokens.shape[-1]).t()) if of_weight else None,
            rows.sum(0) if context.has_bias and of_bias else None,
            None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, tokens: Tensor, activation: str = "none") -> Tensor:
        return linear(tokens, self.weight, self.bias, activation)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` in the precision of its weights."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.to(self.weight.dtype))


class Attention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` of batch-first tensors, which gives no attention weights.

    One multiplication serves query and key, or key and value, where they are one tensor. Heads times queries times keys
    are never in memory at once; on a CPU without gradient, long sequences go through piece by piece.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, zero_key: bool = False) -> None:
        super().__init__(width, heads, dropout, add_zero_attn=zero_key, batch_first=True)

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from `query` (B, Q, d) to `key` and `value` (B, S, d).

        Args:
            query: where from.
            key: what is compared with.
            value: what is gathered.
            key_padding_mask: (B, S) bool, True on keys that no query sees.
            attn_mask: (Q, S) or (B * heads, Q, S); bool, True where a query may not see a key, or numbers added to the
                scores.

        Returns:
            (B, Q, d).
        """
        width, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k = linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, -1)
            v = linear(value, weight[2 * width :], bias[2 * width :])
        elif key is value:
            q = linear(query, weight[:width], bias[:width])
            k, v = linear(key, weight[width:], bias[width:]).chunk(2, -1)
        else:
            parts = zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
            q, k, v = (linear(*part) for part in parts)
        q, k, v = (tensor.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tensor in (q, k, v))
        mask = self._mask(key_padding_mask, attn_mask, q)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            mask = mask if mask is None else F.pad(mask, (0, 1), value=mask.dtype == torch.bool)
        dropout = self.dropout if self.training else 0.0
        in_pieces = mask is None and one_dnn(q) and k.shape[2] >= LONG
        if in_pieces and (dropout or not recorded(q, k, v)):
            attended = _LongAttention.apply(q, k, v, dropout)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2)
        return linear(attended, self.out_proj.weight, self.out_proj.bias)

    def _mask(self, padding: Tensor | None, mask: Tensor | None, q: Tensor) -> Tensor | None:
        """Both masks as one that broadcasts to (B, heads, Q, S): bool, True where a key is seen, or added numbers."""
        if mask is not None:
            mask = mask.unflatten(0, (-1, self.num_heads)) if mask.dim() == 3 else mask
            mask = ~mask if mask.dtype == torch.bool else mask.to(q.dtype)
        if padding is None:
            return mask
        seen = ~padding[:, None, None]
        if mask is None:
            return seen
        return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)


class _LongAttention(torch.autograd.Function):
    """Attention of (B, heads, Q or S, c) without a mask, as (B, Q, heads * c); about `SCORES` scores at a time.

    The gradient computes scores and dropout once more, so that neither is kept.
    """

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        batch, heads, queries, _ = q.shape
        seed = int(torch.randint(2**62, ())) if dropout else 0
        context.dropout, context.seed, drops = dropout, seed, _Drops(dropout, seed)
        # oneDNN is a hundred times slower on rows that lie apart.
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        attended = q.new_empty(batch, queries, heads, v.shape[-1])
        for image, head in itertools.product(range(batch), range(heads)):
            keys, values = _packed(k[image, head]), _packed(v[image, head].t())
            for part in _parts(queries, k.shape[2], dropout):
                shares = drops.applied(_shares(q[image, head, part], keys, v.dtype))
                attended[image, part, head] = _multiply(shares, values)
        attended = attended.flatten(2).div_(1 - dropout)
        context.save_for_backward(q, k, v, attended)
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, attended = context.saved_tensors
        batch, heads, queries, width = q.shape
        drops, scale = _Drops(context.dropout, context.seed), width**-0.5
        # How far each query's shares as a whole would move, which their sum of 1 forbids.
        common = (gradient * attended).unflatten(-1, (heads, -1)).sum(-1, dtype=torch.float32)
        gradient = gradient.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for image, head in itertools.product(range(batch), range(heads)):
            packed = (_packed(matrix) for matrix in (k[image, head], k[image, head].t(), v[image, head]))
            keys, keys_transposed, values = packed
            for part in _parts(queries, k.shape[2], context.dropout):
                asking, arriving = q[image, head, part], gradient[image, head, part] / (1 - context.dropout)
                shares, of_shares = _shares(asking, keys, torch.float32), _multiply(arriving, values).float()
                kept = drops.drawn(shares)
                used = shares if kept is None else shares * kept
                of_shares = of_shares if kept is None else of_shares.mul_(kept)
                of_v[image, head] += _multiply(used.t().to(v.dtype), arriving.t().contiguous())
                of_scores = of_shares.sub_(common[image, part, head, None]).mul_(shares).mul_(scale).to(q.dtype)
                of_q[image, head, part] = _multiply(of_scores, keys_transposed)
                of_k[image, head] += _multiply(of_scores.t(), asking.t().contiguous())
        return of_q, of_k, of_v, None


def _packed(matrix: Tensor) -> Tensor:
    """`matrix` as oneDNN lays it out in every multiplication with it, which thus does not."""
    return torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous())


def _parts(queries: int, keys: int, dropout: float) -> Iterator[slice]:
    """Queries of each piece of about `SCORES` scores, or half as many with dropout, which has more matrices of them."""
    rows = max(16, SCORES // (2 if dropout else 1) // keys)
    return (slice(start, start + rows) for start in range(0, queries, rows))


def _shares(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention (rows, S) in `dtype` of queries (rows, c) to packed keys (S, c)."""
    scores = _multiply(queries * queries.shape[-1] ** -0.5, keys).to(dtype)
    return torch.softmax(scores, -1, out=scores)  # In new memory it takes up to three times as long.


class _Drops:
    """Dropout of attention, the same again for the same seed."""

    def __init__(self, dropout: float, seed: int) -> None:
        self._dropout, self._bits = dropout, np.random.SFC64(seed)
        self._limit = round(dropout * 2**16) - 2**15

    def drawn(self, shares: Tensor) -> Tensor | None:
        """1 or, where one of the next `shares` is dropped, 0; None: nowhere."""
        if not self._dropout:
            return None
        # Four numbers of 16 bits out of each; torch's own take ten times as long.
        bits = self._bits.random_raw(-(-shares.numel() // 4)).view(np.int16)[: shares.numel()]
        return torch.ge(torch.from_numpy(bits), self._limit, out=torch.empty(shares.numel())).view_as(shares)

    def applied(self, shares: Tensor) -> Tensor:
        """`shares`, changed, without those that are dropped."""
        kept = self.drawn(shares)
        return shares if kept is None else shares.mul_(kept)
