"""Linear-increasing discretization (LID) of depth.

See the paper, Sec. B.1.2, eq. 11 and 12, and docs/model.md, Pseudo depth and depth bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fdta.model.settings import SpatialSettings


def bin_values(settings: SpatialSettings) -> Tensor:
    """Depths (D+1,) of the bins; the last, for depths outside the range, stands at `settings.maximum`."""
    index = torch.arange(settings.bins, dtype=torch.get_default_dtype())
    delta = _delta(settings)
    values = (index + 0.5) ** 2 * (delta / 2) - delta / 8 + settings.minimum
    return torch.cat([values, values.new_tensor([settings.maximum])])


def bin_index(depth: Tensor, settings: SpatialSettings) -> Tensor:
    """Bin 0..D of each depth (any shape), long; depths outside the range or not finite belong to bin D."""
    index = -0.5 + 0.5 * torch.sqrt(1 + 8 * (depth - settings.minimum) / _delta(settings))
    inside = (index >= 0) & (index <= settings.bins)
    return torch.where(inside, index, settings.bins).long()


def _delta(settings: SpatialSettings) -> float:
    return 2 * (settings.maximum - settings.minimum) / (settings.bins * (settings.bins + 1))
