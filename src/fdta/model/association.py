"""Trajectory features and the ID decoder: tracking as in-context prediction of ID labels, as in MOTIP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdta.model.layers import Attention, Linear
from fdta.model.settings import AssociationSettings


class MLP(nn.Module):
    """Two linear layers with GELU, `ratio` times as wide in between; (..., d) -> (..., d)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.linear1 = Linear(width, width * ratio)
        self.linear2 = Linear(width * ratio, width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(features)))


class TrajectoryFeatures(nn.Module):
    """Two residual feed-forward blocks on history embeddings (docs/model.md, Trajectory features and ID decoder)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.feedforward1 = MLP(width, ratio)
        self.norm1 = nn.LayerNorm(width)
        self.feedforward2 = MLP(width, ratio)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        features = self.norm1(features + self.feedforward1(features))
        return self.norm2(features + self.feedforward2(features))


class IDDecoder(nn.Module):
    """Reads the ID label of each current object out of the labelled history.

    See docs/model.md, Trajectory features and ID decoder.

    A token is [feature ; label embedding]: history tokens carry the label of their trajectory, current tokens the
    "newborn" label, whose index is K, the last.

    Args:
        width: d of the features; d + `settings.label_width` is a multiple of `settings.heads`.
        history: length of the relative-time table; the distances 1..history - 1 have a bias of their own.
        settings: labels, size of the layers and their starting weights.
    """

    def __init__(self, width: int, history: int, settings: AssociationSettings) -> None:
        super().__init__()
        token = width + settings.label_width
        self.label_width = settings.label_width
        self.label_embedding = nn.Embedding(settings.labels + 1, settings.label_width)
        self.layers = nn.ModuleList(
            IDDecoderLayer(token, settings.heads, settings.feedforward_ratio, self_attention=index > 0)
            for index in range(settings.layers)
        )
        self.time_bias = nn.Parameter(torch.zeros(settings.layers, history, settings.heads))
        self.classifier = Linear(settings.label_width, settings.labels + 1, bias=False)
        nn.init.xavier_uniform_(self.label_embedding.weight)
        nn.init.xavier_uniform_(self.classifier.weight)
        if settings.initialization == "copy":
            self._start_as_lookup(width)

    def forward(
        self,
        history_features: Tensor,
        history_missing: Tensor,
        history_labels: Tensor,
        history_times: Tensor,
        current_features: Tensor,
        current_missing: Tensor,
        current_times: Tensor,
    ) -> Tensor:
        """Label logits of S frames of M current objects, each frame seeing the strictly earlier history.

        In training the T history frames are the current frames too (S = T); online S = 1.

        Args:
            history_features: (B, G, T, N, d) trajectory features of B clips in G label assignments.
            history_missing: (B, G, T, N) bool, True where there is no such token.
            history_labels: (B, G, T, N) long in 0..K.
            history_times: (B, G, T, N) long frame indices.
            current_features: (B, G, S, M, d) object embeddings.
            current_missing: (B, G, S, M) bool, True where there is no such object.
            current_times: (B, G, S, M) long frame indices; farther from a history token than the relative-time table
                reaches, it uses the table's last row.

        Returns:
            (B, G, S, M, K + 1) logits, the last for "newborn"; finite also where nothing of the history is visible,
            meaningless where the current object is missing.
        """
        batch = current_features.shape[:2]
        newborn = self.label_embedding.weight[-1].expand(*current_features.shape[:-1], -1)
        current = torch.cat([current_features, newborn], dim=-1).flatten(0, 1)
        history = torch.cat([history_features, self.label_embedding(history_labels)], dim=-1)
        history = history.flatten(0, 1).flatten(1, 2)

        distances = current_times.flatten(0, 1).flatten(1)[:, :, None] - history_times.flatten(0, 1).flatten(1)[:, None]
        hidden = (distances <= 0) | history_missing.flatten(0, 1).flatten(1)[:, None]
        rows = distances.clamp(0, self.time_bias.shape[1] - 1)
        for layer, table in zip(self.layers, self.time_bias, strict=True):
            bias = F.embedding(rows, table).permute(0, 3, 1, 2).masked_fill(hidden[:, None], -torch.inf)
            current = layer(current, current_missing.flatten(0, 1), history, bias)
        return self.classifier(current[..., -self.label_width :]).unflatten(0, batch)

    @torch.no_grad()
    def _start_as_lookup(self, width: int) -> None:
        """Starting weights with which two or more layers copy the label of the most similar history tokens.

        Each head compares features in a random orthogonal projection and passes its part of the token on; the
        classifier compares with the label embeddings, which are orthogonal where they fit in their width.
        """
        labels = self.label_embedding.weight
        if labels.shape[0] <= labels.shape[1]:
            nn.init.orthogonal_(labels)
        else:
            labels.copy_(F.normalize(torch.randn_like(labels), dim=-1))
        self.classifier.weight.copy_(2 * labels)
        # In the token the label then has the scale of the normalized features; of unit length it would be lost.
        labels.mul_(self.label_width**0.5)
        layer: Any
        for layer in self.layers:
            attention = layer.cross_attention
            query, key, value = attention.in_proj_weight.chunk(3)
            query.zero_()
            for head in query[:, :width].split(attention.head_dim):
                nn.init.orthogonal_(head)
            key.copy_(query)
            nn.init.eye_(value)
            nn.init.eye_(attention.out_proj.weight)


class IDDecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention within a frame (not in the first layer), cross-attention, feed-forward.

    Both attentions append a zero key with a zero value, so a query that sees nothing else keeps its token.
    """

    def __init__(self, width: int, heads: int, ratio: int, self_attention: bool) -> None:
        super().__init__()
        self.self_attention: Attention | None = None
        if self_attention:
            self.self_attention = _attention(width, heads)
            self.self_norm = nn.LayerNorm(width)
        self.cross_attention = _attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.feedforward = MLP(width, ratio)
        self.feedforward_norm = nn.LayerNorm(width)

    def forward(self, current: Tensor, current_missing: Tensor, history: Tensor, bias: Tensor) -> Tensor:
        """One layer.

        Args:
            current: (n, S, M, D) tokens of the current objects.
            current_missing: (n, S, M) bool, True where there is no such object.
            history: (n, L, D) tokens of the history.
            bias: (n, heads, S * M, L) added to the attention scores, -inf where the token may not be seen.

        Returns:
            (n, S, M, D).
        """
        if self.self_attention is not None:
            frame = current.flatten(0, 1)
            missing = current_missing.flatten(0, 1)
            attended = self.self_attention(frame, frame, frame, key_padding_mask=missing)
            current = self.self_norm(current + attended.view_as(current))
        queries = current.flatten(1, 2)
        attended = self.cross_attention(queries, history, history, attn_mask=bias.flatten(0, 1))
        current = self.cross_norm(current + attended.view_as(current))
        return self.feedforward_norm(current + self.feedforward(current))


def _attention(width: int, heads: int) -> Attention:
    attention = Attention(width, heads, zero_key=True)
    nn.init.xavier_uniform_(attention.out_proj.weight)
    return attention
