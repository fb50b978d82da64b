"""Ground truth as the losses read it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Ground truth of one frame with n objects. All objects are of class 0, the first of the logits."""

    boxes_cxcywh: Tensor
    """(n, 4) in 0..1 of the frame itself, without the padding that a batch adds.

    The detector's boxes are in the same unit, because its reference points are scaled by the valid share of the
    padded image before they sample features.
    """
    identities: Tensor
    """(n,) long, unique within the frame; equal in two frames of one clip where the object is the same."""
    attributes: Tensor | None = None
    """(n, A) long, class of each appearance attribute, -1 where unknown. Only for attribute pre-training."""

    def to(self, device: torch.device) -> Targets:
        """The same on `device`."""
        attributes = None if self.attributes is None else self.attributes.to(device)
        return Targets(self.boxes_cxcywh.to(device), self.identities.to(device), attributes)
