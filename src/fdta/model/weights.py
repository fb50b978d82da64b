"""Published checkpoints: the names of FDTA's, MOTIP's and Deformable DETR's tensors, and the way to ours and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fdta.errors import InputError

PUBLISHED_DETECTOR = "detr."
"""What the names of the detector's tensors start with, except in files of a detector alone."""


@dataclass(frozen=True)
class _Rule:
    """A module's name here and there; "{}" stands for a number, the first of which is `offset` higher there.

    A module with several published names is one tensor under all of them.
    """

    ours: str
    published: tuple[str, ...]
    offset: int = 0

    def to_published(self, name: str) -> list[str]:
        return [new for template in self.published for new in _rename(name, self.ours, template, self.offset)]

    def from_published(self, name: str) -> list[str]:
        return [new for template in self.published for new in _rename(name, template, self.ours, -self.offset)]


def _rename(name: str, old: str, new: str, offset: int) -> list[str]:
    match = re.fullmatch(re.escape(old).replace(r"\{\}", r"(\d+)") + r"((?:\..+)?)", name)
    if not match:
        return []
    *numbers, rest = match.groups()
    if numbers:
        numbers[0] = int(numbers[0]) + offset
    return [new.format(*numbers) + rest]


def _rules(ours: str, published: str, parts: Mapping[str, str], offset: int = 0) -> list[_Rule]:
    return [_Rule(f"{ours}.{mine}", (f"{published}.{theirs}",), offset) for mine, theirs in parts.items()]


_ATTENTION = {
    "sampling_offsets": "sampling_offsets",
    "attention_weights": "attention_weights",
    "value": "value_proj",
    "output": "output_proj",
}
# Place in the branch of a bottleneck or basic block -> name in torchvision's ResNet.
_BLOCK = {
    "branch.0": "conv1",
    "branch.1": "bn1",
    "branch.3": "conv2",
    "branch.4": "bn2",
    "branch.6": "conv3",
    "branch.7": "bn3",
    "shortcut": "downsample",
}
_RULES = [
    *_rules("detector.backbone.stem", "detr.backbone.0.body", {"0": "conv1", "1": "bn1"}),
    *_rules("detector.backbone.stages.{}.{}", "detr.backbone.0.body.layer{}.{}", _BLOCK, offset=1),
    *_rules(
        "detector",
        "detr",
        {
            "projections": "input_proj",
            "level_embedding": "transformer.level_embed",
            "queries": "query_embed.weight",
            "reference_points": "transformer.reference_points",
            "class_heads": "class_embed",
        },
    ),
    *(
        _Rule(
            f"detector.box_heads.{{}}.{2 * layer}",
            (f"detr.bbox_embed.{{}}.layers.{layer}", f"detr.transformer.decoder.bbox_embed.{{}}.layers.{layer}"),
        )
        for layer in range(3)
    ),
    *_rules("detector.encoder.{}.attention", "detr.transformer.encoder.layers.{}.self_attn", _ATTENTION),
    *_rules(
        "detector.encoder.{}",
        "detr.transformer.encoder.layers.{}",
        {
            "attention_norm": "norm1",
            "feedforward.linear1": "linear1",
            "feedforward.linear2": "linear2",
            "feedforward.norm": "norm2",
        },
    ),
    *_rules("detector.decoder.{}.visual_attention", "detr.transformer.decoder.layers.{}.cross_attn", _ATTENTION),
    *_rules(
        "detector.decoder.{}",
        "detr.transformer.decoder.layers.{}",
        {
            "visual_norm": "norm1",
            "self_attention": "self_attn",
            "self_norm": "norm2",
            "depth_attention": "cross_attn_depth",
            "depth_norm": "norm_depth",
            "feedforward.linear1": "linear1",
            "feedforward.linear2": "linear2",
            "feedforward.norm": "norm3",
        },
    ),
    *_rules(
        "detector.spatial_adapter",
        "detr.depth_predictor",
        {
            "bin_values": "depth_bin_values",
            "fine": "proj",
            "coarse": "upsample",
            "extractor": "depth_head",
            "classifier": "depth_classifier",
            "encoder.self_attention": "depth_encoder.layers.0.self_attn",
            "encoder.norm1": "depth_encoder.layers.0.norm1",
            "encoder.linear1": "depth_encoder.layers.0.linear1",
            "encoder.linear2": "depth_encoder.layers.0.linear2",
            "encoder.norm2": "depth_encoder.layers.0.norm2",
            "position.table": "depth_pos_embed.weight",
        },
    ),
    *_rules(
        "temporal_adapter.layers.{}",
        "trajectory_embedding.trca.{}",
        {
            "attention": "self_attn",
            "attention_norm": "norm1",
            "linear1": "linear1",
            "linear2": "linear2",
            "feedforward_norm": "norm2",
        },
    ),
    *_rules(
        "trajectory_features",
        "trajectory_modeling",
        {"feedforward1": "adapter", "norm1": "norm", "feedforward2": "ffn", "norm2": "ffn_norm"},
    ),
    *_rules(
        "id_decoder",
        "id_decoder",
        {
            "time_bias": "rel_pos_embeds",
            "layers.{}.cross_attention": "cross_attn_layers.{}",
            "layers.{}.cross_norm": "cross_attn_norm_layers.{}",
            "layers.{}.feedforward": "ffn_layers.{}",
            "layers.{}.feedforward_norm": "ffn_norm_layers.{}",
        },
    ),
    # The first layer has no self-attention, and the published lists start with the second's.
    *_rules(
        "id_decoder",
        "id_decoder",
        {
            "layers.{}.self_attention": "self_attn_layers.{}",
            "layers.{}.self_norm": "self_attn_norm_layers.{}",
        },
        offset=-1,
    ),
    _Rule("identity_adapter", ("track_embed",)),
]
# The label embedding is published as a linear layer over one-hot labels.
_LABEL_EMBEDDING = "id_decoder.label_embedding.weight"
_PUBLISHED_LABEL_EMBEDDING = "id_decoder.word_to_embed.weight"
# The classifier is published once for each layer of the ID decoder.
_CLASSIFIER = "id_decoder.classifier.weight"
_PUBLISHED_CLASSIFIER = re.compile(r"id_decoder\.embed_to_word_layers\.\d+\.weight")


def to_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of an `FDTA`, or of a part of it, under the published names.

    Tensors tied in the published model appear under each of their names. The identity adapter, which the published
    code keeps in its criterion, comes under the criterion's names.
    """
    published: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name == _LABEL_EMBEDDING:
            published[_PUBLISHED_LABEL_EMBEDDING] = tensor.T
        elif name == _CLASSIFIER:
            for layer in range(len(state_dict["id_decoder.time_bias"])):
                published[f"id_decoder.embed_to_word_layers.{layer}.weight"] = tensor
        else:
            published |= dict.fromkeys((new for rule in _RULES for new in rule.to_published(name)), tensor)
    return published


def from_published(state_dict: Mapping[str, Tensor], class_index: int | None = None) -> dict[str, Tensor]:
    """State dict under our names of a published FDTA, MOTIP or Deformable DETR model.

    Args:
        state_dict: name -> tensor. Where tied tensors differ, the last one counts.
        class_index: the class to keep where the class heads tell several apart (COCO's 91: 1 is person, 15 is bird);
            None keeps them as they are.

    Raises:
        InputError: a tensor that none of these models has, or no such class; the file is for the caller to name.
    """
    detector_alone = any(name.startswith("transformer.") for name in state_dict)
    ours: dict[str, Tensor] = {}
    for published_name, tensor in state_dict.items():
        name = f"{PUBLISHED_DETECTOR}{published_name}" if detector_alone else published_name
        if name == _PUBLISHED_LABEL_EMBEDDING:
            ours[_LABEL_EMBEDDING] = tensor.T
        elif _PUBLISHED_CLASSIFIER.fullmatch(name):
            ours[_CLASSIFIER] = tensor
        else:
            new_names = [new for rule in _RULES for new in rule.from_published(name)]
            if not new_names:
                raise InputError(
                    f"tensor {published_name!r} is of no published FDTA, MOTIP or Deformable DETR model; "
                    "use one of those, or a checkpoint of this project"
                )
            ours[new_names[0]] = tensor
    if class_index is not None:
        for name, tensor in ours.items():
            if name.startswith("detector.class_heads.") and len(tensor) > 1:
                if class_index >= len(tensor):
                    raise InputError(f"class {class_index} is not among its {len(tensor)} classes")
                ours[name] = tensor[class_index : class_index + 1]
    return ours
