from __future__ import annotations

import pytest
import torch
from helpers.golden_weights import names_and_shapes, seeded_state_dict

from fdta.errors import InputError
from fdta.model.weights import from_published, to_published

DECODER_BOXES = "detr.transformer.decoder.bbox_embed."


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Every published tensor; those tied in the published code are equal."""
    listed = names_and_shapes("bft") + names_and_shapes("bft", "criterion")
    filled = seeded_state_dict([(name, shape) for name, shape in listed if "backbone.0.body.layer" not in name], seed=1)
    for name in filled:
        if name.startswith(DECODER_BOXES):
            filled[name] = filled["detr.bbox_embed." + name.removeprefix(DECODER_BOXES)]
        elif name.startswith("id_decoder.embed_to_word_layers."):
            filled[name] = filled["id_decoder.embed_to_word_layers.5.weight"]
    return filled


def test_published_names_survive_the_way_there_and_back(published: dict[str, torch.Tensor]) -> None:
    again = to_published(from_published(published))
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in published.items())


def test_blocks_and_shortcuts_of_the_backbone() -> None:
    names = [name for name, _ in names_and_shapes("bft") if "backbone.0.body.layer" in name]
    tensors = {name: torch.tensor(float(index)) for index, name in enumerate(names)}
    ours = from_published(tensors)
    assert len(ours) == len(names)
    assert (
        ours["detector.backbone.stages.3.2.branch.7.running_var"]
        is tensors["detr.backbone.0.body.layer4.2.bn3.running_var"]
    )
    assert to_published(ours) == tensors


def test_label_embedding_is_transposed_and_self_attention_shifted(published: dict[str, torch.Tensor]) -> None:
    ours = from_published(published)
    assert ours["id_decoder.label_embedding.weight"].shape == (51, 256)
    expected = published["id_decoder.self_attn_layers.0.in_proj_weight"]
    assert ours["id_decoder.layers.1.self_attention.in_proj_weight"] is expected


def test_last_of_several_names_counts() -> None:
    first, last = torch.zeros(1), torch.ones(1)
    name = "bbox_embed.0.layers.0.bias"
    assert from_published({f"detr.transformer.decoder.{name}": first, f"detr.{name}": last}) == {
        "detector.box_heads.0.0.bias": last
    }


def test_detector_alone_and_one_of_its_classes(published: dict[str, torch.Tensor]) -> None:
    detector = {name.removeprefix("detr."): tensor for name, tensor in published.items() if name.startswith("detr.")}
    whole = from_published(published)
    alone = from_published(detector, class_index=1)
    assert alone.keys() == {name for name in whole if name.startswith("detector.")}
    assert torch.equal(alone["detector.class_heads.2.weight"], whole["detector.class_heads.2.weight"])
    detector["class_embed.2.weight"] = torch.randn(91, 256)
    expected = detector["class_embed.2.weight"][15:16]
    assert torch.equal(from_published(detector, class_index=15)["detector.class_heads.2.weight"], expected)
    with pytest.raises(InputError, match="class 91"):
        from_published(detector, class_index=91)


def test_unknown_tensor_is_refused() -> None:
    with pytest.raises(InputError, match=r"'detr\.roi_head\.weight'"):
        from_published({"detr.roi_head.weight": torch.zeros(1)})
