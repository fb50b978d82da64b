"""Temporal Adapter: every object embedding gathers the history of its own trajectory (paper Sec. 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdta.model.layers import Attention, Linear
from fdta.model.settings import TemporalSettings


class TemporalAdapter(nn.Module):
    """Transformer encoder over the frames of each trajectory (paper eq. 3 and 4; docs/model.md, Temporal Adapter).

    Args:
        width: d of the object embeddings, a multiple of `settings.heads`.
        settings: number and size of the layers. `missing` says how absent frames are treated: "mask" hides them from
            the other frames (eq. 3), "zero-vector" shows them as zero features (Tab. 6).
    """

    def __init__(self, width: int, settings: TemporalSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.hide_missing = settings.missing == "mask"
        self.layers = nn.ModuleList(
            TemporalLayer(width, settings.heads, settings.feedforward, settings.dropout) for _ in range(settings.layers)
        )

    def forward(self, features: Tensor, missing: Tensor, times: Tensor) -> Tensor:
        """Refine the embeddings of N trajectories over T frames.

        Args:
            features: (..., T, N, d); values at missing frames are ignored.
            missing: (..., T, N) bool, True where the object is absent.
            times: (T,) or (..., T, N) long, frame index counted from 0 at the first frame of the window.

        Returns:
            (..., T, N, d). Frame t depends on frames 0..t alone; rows of missing frames mean nothing.
        """
        if features.numel() == 0:
            return features
        frames, width = features.shape[-3], features.shape[-1]
        by_trajectory = features.masked_fill(missing[..., None], 0).transpose(-3, -2)
        tokens = by_trajectory.reshape(-1, frames, width)
        positions = _sine(times + 1, width).to(features)
        if times.dim() > 1:
            positions = positions.transpose(-3, -2).expand_as(by_trajectory).reshape_as(tokens)
        hidden = torch.ones(frames, frames, dtype=torch.bool, device=features.device).triu(1)
        if self.hide_missing:
            # The diagonal stays visible, so that no query is left without a key.
            others = ~torch.eye(frames, dtype=torch.bool, device=features.device)
            hidden = hidden | (missing.transpose(-2, -1).reshape(-1, 1, frames) & others)
            hidden = hidden.repeat_interleave(self.heads, dim=0)
        for layer in self.layers:
            tokens = layer(tokens, positions, hidden)
        return tokens.reshape(by_trajectory.shape).transpose(-3, -2)


class TemporalLayer(nn.Module):
    """Post-norm transformer encoder layer that adds the positions to queries and keys only."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.linear1 = Linear(width, feedforward)
        self.linear2 = Linear(feedforward, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, hidden: Tensor) -> Tensor:
        """One layer.

        Args:
            tokens: (n, T, d).
            positions: (T, d) or (n, T, d).
            hidden: (T, T) or (n * heads, T, T) bool, True where a query (row) may not see a key (column).

        Returns:
            (n, T, d).
        """
        placed = tokens + positions
        attended = self.attention(placed, placed, tokens, attn_mask=hidden)
        tokens = self.attention_norm(tokens + self.dropout(attended))
        changed = self.linear2(self.dropout(self.linear1(tokens, "relu")))
        return self.feedforward_norm(tokens + self.dropout(changed))


def _sine(positions: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Sine (even channels) and cosine (odd channels) of positions of shape (...), as (..., width) float32."""
    channels = torch.arange(width, device=positions.device)
    periods = temperature ** (2 * (channels // 2) / width)
    angles = positions[..., None] / periods
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())
