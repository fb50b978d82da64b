"""Attribute pre-training: appearance classes that make the detector's embeddings tell objects apart.

Not of the paper, whose detector gets there by COCO's classes. Rendered objects have appearance attributes instead
(colours, positions of stripes); linear heads on the decoder's embeddings learn them, and are dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdta.data.targets import Targets
from fdta.distributed import share
from fdta.loss.detection import layer_suffixes
from fdta.loss.matching import Matching

if TYPE_CHECKING:
    from fdta.model.detector import DetectorOutput

UNKNOWN = -1
"""Target of an attribute that cannot be seen."""


class AttributeHeads(nn.Module):
    """One linear layer per decoder layer, with the logits of all attributes.

    Args:
        width: d of the embeddings.
        attributes: number of classes of each attribute, in the order of `Targets.attributes`.
        decoder_layers: L.
    """

    def __init__(self, width: int, attributes: Mapping[str, int], decoder_layers: int) -> None:
        super().__init__()
        self.classes = tuple(attributes.values())
        self.layers = nn.ModuleList(nn.Linear(width, sum(self.classes)) for _ in range(decoder_layers))

    def forward(self, embeddings: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Logits per decoder layer and attribute, (n, classes), of one (n, d) embeddings a layer."""
        return [layer(x).split(self.classes, dim=-1) for layer, x in zip(self.layers, embeddings, strict=True)]


def attribute_loss(
    heads: AttributeHeads, output: DetectorOutput, targets: Sequence[Targets], matchings: Sequence[Matching]
) -> dict[str, Tensor]:
    """Unweighted terms of every decoder layer, ``attributes`` (the last), ``attributes_0`` and so on.

    Each is the sum over the attributes of the softmax cross-entropy, mean over the matched queries whose object's
    attribute is known (of all processes that train, see `fdta.distributed.share`).

    Args:
        heads: see there.
        output: of B frames.
        targets: B frames, all with attributes.
        matchings: one a decoder layer, the last layer's last.
    """
    truth = torch.cat([frame.attributes for frame in targets if frame.attributes is not None])
    layers = (*output.auxiliary, output)
    logits = heads([layer.embeddings[m.frames, m.queries] for layer, m in zip(layers, matchings, strict=True)])
    classes = [truth[m.targets] for m in matchings]
    known = share(torch.stack([(wanted != UNKNOWN).sum(dim=0) for wanted in classes]))
    return {
        f"attributes{suffix}": sum(
            F.cross_entropy(x, y, ignore_index=UNKNOWN, reduction="sum") / count
            for x, y, count in zip(by_attribute, wanted.unbind(-1), counts, strict=True)
        )
        for suffix, by_attribute, wanted, counts in zip(
            layer_suffixes(len(output.auxiliary)), logits, classes, known, strict=True
        )
    }
