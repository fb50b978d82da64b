"""Loss of the ID decoder (docs/model.md, Losses)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fdta.data.identities import IGNORED
from fdta.distributed import share


def association_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the ID labels, mean over the valid objects: a scalar, 0 if there are none.

    Where several processes train, the mean over them of their losses is the mean over the valid objects of all.

    Args:
        logits: (..., K + 1).
        labels: (...) long, in 0..K (K is newborn), or `IGNORED`.
    """
    losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return losses / share((labels != IGNORED).sum())
