from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model import inference
from fdta.model.backbone import FrozenBatchNorm
from fdta.model.fdta import FDTA
from fdta.model.inference import FusedBlock, optimized, optimized_detector, precision
from fdta.settings import read_settings

CPU = torch.device("cpu")


def tiny(**backbone: Any) -> Settings:
    return read_settings(
        Settings,
        {
            "history": 4,
            "backbone": {"stem_width": 8, "widths": [8] * 4, "blocks": [2, 1, 1, 1], **backbone},
            "detector": {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16}
            | {"queries": 6, "norm_groups": 4},
            "spatial": {"bins": 5, "feedforward": 16},
            "temporal": {"layers": 1, "heads": 2, "feedforward": 16},
            "association": {"labels": 8, "label_width": 16, "layers": 1, "heads": 2},
        },
        "",
        "test",
    )


def model(settings: Settings) -> FDTA:
    torch.manual_seed(0)
    built = FDTA(settings).eval()
    for module in built.modules():
        if isinstance(module, FrozenBatchNorm):
            for buffer in (module.weight, module.bias, module.running_mean):
                buffer.normal_()
            module.running_var.uniform_(0.5, 2)
    for head in built.detector.box_heads:
        nn.init.normal_(head[-1].weight, std=0.1)
    return built


@pytest.mark.parametrize("block", ["bottleneck", "basic"])
@pytest.mark.parametrize("norm", ["frozen-batch", "group"])
@pytest.mark.parametrize("one_dnn", [True, False])
def test_copy_computes_the_same(block: str, norm: str, one_dnn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not one_dnn:
        monkeypatch.setattr(inference, "one_dnn", lambda features: False)
    whole = model(tiny(block=block, norm=norm))
    images, padding = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    padding[1, :, 70:] = True
    with torch.no_grad():
        expected, actual = whole.detector(images, padding), optimized(whole).detector(images, padding)
    for name in ("logits", "boxes_cxcywh", "embeddings", "depth"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), atol=1e-4, rtol=1e-4)
    fused = any(isinstance(module, FusedBlock) for module in optimized(whole).modules())
    assert fused == (norm == "frozen-batch")


def test_the_model_itself_stays() -> None:
    whole = model(tiny())
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    optimized(whole, torch.bfloat16)
    after = whole.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(parameter.requires_grad for parameter in whole.parameters())


def test_copy_of_a_training_detector_drops_out_as_it_does() -> None:
    detector = model(tiny(norm="group")).detector
    images = torch.randn(1, 3, 64, 96)

    def twice() -> bool:
        copied = optimized_detector(detector)
        return torch.equal(copied(images).embeddings, copied(images).embeddings)

    with torch.no_grad():
        assert twice()
        detector.train()
        nn.init.normal_(detector.decoder[0].depth_attention.out_proj.weight)
        assert not twice()
    assert not any(parameter.requires_grad for parameter in optimized_detector(detector).parameters())


def test_lower_precision_is_of_the_detector_and_not_of_its_boxes() -> None:
    whole = optimized(model(tiny()), torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in whole.state_dict().items()}
    assert dtypes["detector.encoder.0.feedforward.linear1.weight"] == torch.bfloat16
    assert dtypes["detector.backbone.stages.0.0.branch.0.weight"] == torch.bfloat16
    assert dtypes["detector.encoder.0.attention_norm.weight"] == torch.float32
    wide = ("detector.box_heads", "detector.class_heads", "detector.reference_points", "temporal", "id_decoder")
    assert all(dtype == torch.float32 for name, dtype in dtypes.items() if name.startswith(wide))
    output = whole.detector(torch.randn(1, 3, 64, 96))
    for field in dataclasses.fields(output):
        if isinstance(value := getattr(output, field.name), torch.Tensor):
            assert value.dtype == torch.float32, field.name


def test_precision() -> None:
    assert precision("bfloat16", CPU) == torch.bfloat16
    assert precision("float16", torch.device("cuda")) == torch.float16
    with pytest.raises(InputError, match="float16 is for CUDA"):
        precision("float16", CPU)
    with pytest.raises(InputError, match="int8"):
        precision("int8", CPU)
