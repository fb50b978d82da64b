"""Layers that take the fastest way the machine has.

They are the modules of torch, with the names and numbers of these. A layer may have weights of lower precision than
what it is given, and then gives its own; what is added up or normalized stays in single precision. On a CPU, torch
multiplies float32 matrices by MKL, which on processors of other makers leaves half of the vector unit idle; oneDNN,
built into the same torch, does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCORES = 2**20
"""Most attention scores at once without gradient on a CPU: as many as stay in its cache."""
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
if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _ONE_DNN.add(torch.float32)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        _ONE_DNN.add(torch.bfloat16)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """`torch.nn.functional.linear` of (..., n) tokens in the weight's dtype, and then "none" or "relu"."""
    tokens = tokens.to(weight.dtype)
    if not one_dnn(tokens) or not tokens.numel():
        output = F.linear(tokens, weight, bias)
    elif not recorded(tokens, weight, bias):
        return _multiply(tokens, weight, bias, activation)
    elif tokens.numel() * len(weight) < SMALL:
        output = F.linear(tokens, weight, bias)
    else:
        output = _RecordedLinear.apply(tokens, weight, bias)
    return output if activation == "none" else output.relu()


def _multiply(tokens: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, activation, [], "")


class _RecordedLinear(torch.autograd.Function):
    """`torch.nn.functional.linear` by oneDNN, with its gradients."""

    @staticmethod
    def forward(context: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(tokens, weight)
        context.has_bias = bias is not None
        return _multiply(tokens, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = context.saved_tensors
        of_tokens, of_weight, of_bias = context.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _multiply(gradient.contiguous(), weight.t()) if of_tokens else None,
            _multiply(rows.t(), tokens.reshape(-1, tokens.shape[-1]).t()) if of_weight else None,
            rows.sum(0) if context.has_bias and of_bias else None,
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

    def forward(
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
        if mask is None and one_dnn(q) and k.shape[2] >= LONG and not dropout and not recorded(q, k, v):
            attended = _attend_long(q, k, v)
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


def _attend_long(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (B, heads, Q or S, c) without a mask, as (B, Q, heads * c); `SCORES` scores at a time."""
    batch, heads, queries, channels = q.shape
    q = q * channels**-0.5
    attended = q.new_empty(batch, queries, heads, channels)
    rows = max(16, SCORES // k.shape[2])
    for image in range(batch):
        for head in range(heads):
            keys, values = k[image, head].contiguous(), v[image, head].t().contiguous()
            for start in range(0, queries, rows):
                part = slice(start, start + rows)
                scores = linear(q[image, head, part].contiguous(), keys, None)
                attended[image, part, head] = linear(scores.float().softmax(-1), values, None)
    return attended.flatten(2)
