"""Identity Adapter: the feature extractor of the contrastive loss, used in training only (paper Sec. 3.4)."""

from __future__ import annotations

from torch import Tensor, nn


class IdentityAdapter(nn.Module):
    """Three-layer MLP with ReLU that draws identity-consistent features from object embeddings of width `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n, d) object embeddings -> (n, d) features, not normalized."""
        first, second, last = self.layers
        return last(second(first(embeddings).relu()).relu())
