from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.golden_weights import (
    TOLERANCE,
    assert_close_to_golden,
    fill_seeded,
    golden_files,
    load_golden,
    published_settings,
    root_mean_square_to_golden,
)
from torch import Tensor, nn

from fdta.model.backbone import ResNet
from fdta.model.detector import DeformableDetector, sine_positions
from fdta.model.fdta import FDTA
from fdta.model.inference import optimized
from fdta.model.settings import BackboneSettings, DetectorSettings, SpatialSettings

BACKBONE = BackboneSettings("basic", "group", stem_width=16, widths=(16, 24, 32, 48), blocks=(1, 1, 1, 1))
DETECTOR = DetectorSettings(
    width=32, heads=4, encoder_layers=1, decoder_layers=2, feedforward=64, queries=10, norm_groups=8
)
SPATIAL = SpatialSettings(bins=10, feedforward=32, dropout=0.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(detector: DetectorSettings = DETECTOR, spatial: SpatialSettings = SPATIAL) -> DeformableDetector:
    return DeformableDetector(BACKBONE, detector, spatial)


def batch(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) in a batch as large as the largest, and its padding mask."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batched = torch.zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    for index, image in enumerate(images):
        batched[index, :, : image.shape[1], : image.shape[2]] = image
        padding[index, : image.shape[1], : image.shape[2]] = False
    return batched, padding


def reached(module: nn.Module) -> bool:
    return any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters())


# Largest and root mean square difference, in standard deviations: twice the largest of ten seeds (docs/benchmarks.md).
BFLOAT16 = {
    "pred_logits": (0.58, 0.19),
    "pred_boxes": (0.12, 0.043),
    "embeddings": (0.15, 0.027),
    "depth": (0.36, 0.088),
    "depth_logits": (0.18, 0.031),
    "auxiliary": (0.81, 0.81),
}


@pytest.mark.parametrize("path", ["gradient", "no-gradient", "optimized", "bfloat16"])
@pytest.mark.parametrize("name", golden_files("detr_*"))
def test_published_detector(name: str, path: str, device: torch.device) -> None:
    golden = load_golden(name)
    config, seed = str(golden["config"]), int(golden["seed"])
    model = FDTA(published_settings(config)).eval()
    fill_seeded(model.detector, config, seed, "detector.")
    if path in ("optimized", "bfloat16"):
        model = optimized(model, torch.bfloat16 if path == "bfloat16" else torch.float32)
    images = [
        torch.from_numpy(np.random.default_rng([seed, index]).standard_normal((3, *size), np.float32))
        for index, size in enumerate(golden["sizes"])
    ]
    with torch.set_grad_enabled(path == "gradient"):
        output = model.detector.to(device)(*(tensor.to(device) for tensor in batch(images)))
    outputs = {
        "pred_logits": output.logits,
        "pred_boxes": output.boxes_cxcywh,
        "embeddings": output.embeddings,
        "depth": output.depth,
        "depth_logits": output.depth_logits[:, ::10],
    }
    for key, actual in outputs.items():
        largest, root_mean_square = BFLOAT16[key] if path == "bfloat16" else (TOLERANCE, TOLERANCE)
        assert_close_to_golden(actual, golden[key], largest)
        assert root_mean_square_to_golden(actual, golden[key]) <= root_mean_square
    assert len(output.auxiliary) == len(model.detector.decoder) - 1
    compared = 0
    for layer, auxiliary in enumerate(output.auxiliary):
        for key, actual in (("logits", auxiliary.logits), ("boxes", auxiliary.boxes_cxcywh)):
            if f"aux{layer}_{key}" in golden:
                tolerance = BFLOAT16["auxiliary"][0] if path == "bfloat16" else TOLERANCE
                assert_close_to_golden(actual, golden[f"aux{layer}_{key}"], tolerance)
                compared += 1
    assert compared == sum(key.startswith("aux") for key in golden) > 0


def test_geometry_follows_the_size_of_the_images() -> None:
    model = small().eval()
    images = [torch.randn(1, 3, 64, 96), torch.randn(1, 3, 96, 64), torch.randn(2, 3, 64, 96)]
    with torch.inference_mode():
        first = [model(image).embeddings for image in images]
    # What was kept in inference mode serves training.
    model(images[2]).embeddings.sum().backward()
    for image, expected in zip(images, first, strict=True):
        nowhere = torch.zeros_like(image[:, 0], dtype=torch.bool)
        torch.testing.assert_close(model(image, nowhere).embeddings, expected, atol=1e-5, rtol=1e-4)


def test_outputs_of_every_layer() -> None:
    model = small(replace(DETECTOR, classes=3, levels=5))
    output = model(torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool))
    assert len(output.auxiliary) == 1
    for layer in (output, *output.auxiliary):
        assert layer.logits.shape == (2, 10, 3)
        assert layer.boxes_cxcywh.shape == (2, 10, 4)
        assert layer.embeddings.shape == (2, 10, 32)
    assert output.depth_logits.shape == (2, 11, 8, 12)
    assert output.depth.shape == (2, 8, 12)
    assert not torch.equal(output.embeddings, output.auxiliary[0].embeddings)


def test_an_image_alone_and_beside_smaller_ones() -> None:
    """Without padding the detector takes a shorter way; it must give what the way with masks gives."""
    model = small().eval()
    image, other = torch.randn(3, 64, 96), torch.randn(3, 48, 70)
    alone, beside = model(*batch([image])), model(*batch([image, other]))
    for name in ("logits", "boxes_cxcywh", "embeddings", "depth"):
        torch.testing.assert_close(getattr(alone, name)[0], getattr(beside, name)[0], atol=1e-5, rtol=1e-4)


def test_positions_measure_the_image_without_its_padding() -> None:
    padding = torch.ones(2, 6, 8, dtype=torch.bool)
    padding[0, :3, :4] = False
    padding[1] = False
    padded, whole = sine_positions(padding, 8).view(2, 6, 8, 8)
    angles = torch.tensor([(0.5 / 3) * 2 * math.pi, (2.5 / 4) * 2 * math.pi])  # of row 0 and of column 2
    expected = [f(angle * scale) for angle in angles for scale in (1, 0.01) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(padded[0, 2], torch.stack(expected), atol=1e-5, rtol=0)
    half = sine_positions(padding[1:, :3, :4], 8).view(3, 4, 8)
    torch.testing.assert_close(padded[:3, :4], half)
    assert not torch.allclose(padded[:3, :4], whole[:3, :4])


def test_depth_loss_does_not_reach_the_detector() -> None:
    model = small()
    output = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    output.depth_logits.square().sum().backward()
    assert reached(model.spatial_adapter)
    others = (model.backbone, model.projections, model.encoder, model.decoder, model.class_heads, model.box_heads)
    assert not any(reached(module) for module in others)


def test_detection_loss_reaches_backbone_and_depth() -> None:
    model = small()
    for layer in model.decoder:
        nn.init.xavier_uniform_(layer.depth_attention.out_proj.weight)
    output = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    output.embeddings[..., 0].sum().backward()
    adapter = model.spatial_adapter
    for module in (model.backbone, model.projections, model.encoder, adapter.encoder, adapter.position):
        assert reached(module)
    assert reached(adapter.classifier)  # by the depth that the position is looked up with


def test_references_are_detached_between_layers() -> None:
    model = small()
    output = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    output.boxes_cxcywh.sum().backward()
    assert reached(model.box_heads[1]) and not reached(model.box_heads[0])


@pytest.mark.parametrize(
    ("placement", "order"),
    [("after", "self visual depth"), ("between", "self depth visual"), ("before", "depth self visual")],
)
def test_placement_of_the_depth_attention(placement: str, order: str) -> None:
    model = small(spatial=replace(SPATIAL, placement=placement))
    called: list[str] = []
    for name in ("self", "visual", "depth"):
        attention = getattr(model.decoder[0], f"{name}_attention")
        attention.register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    assert called == order.split()


def test_depth_without_attention_and_no_depth_at_all() -> None:
    images, padding = torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    supervised = small(spatial=replace(SPATIAL, placement="none"))
    assert supervised(images, padding).depth_logits is not None
    without = small(spatial=replace(SPATIAL, enabled=False))
    assert without(images, padding).depth_logits is None and without(images, padding).depth is None
    for model in (supervised, without):
        assert not any("depth" in name for name, _ in model.decoder.named_parameters())


@pytest.mark.parametrize("placement", ["after", "between"])
def test_detector_without_depth_is_a_start(placement: str) -> None:
    without = small(spatial=replace(SPATIAL, enabled=False))
    model = small(spatial=replace(SPATIAL, placement=placement, output_initialization="zero"))
    missing, unexpected = model.load_state_dict(without.state_dict(), strict=False)
    assert not unexpected
    assert all("depth" in name or name.startswith("spatial_adapter") for name in missing)
    images, padding = torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    expected, actual = without(images, padding), model(images, padding)
    torch.testing.assert_close(actual.embeddings, expected.embeddings, atol=1e-3, rtol=0)


@pytest.mark.parametrize("queries", [20, 10, 300])
def test_references_start_on_a_grid(queries: int) -> None:
    model = small(replace(DETECTOR, queries=queries, reference_initialization="grid"))
    points = model.reference_points(model.queries[:, :32]).sigmoid()
    rows = math.isqrt(queries)
    for row, members in enumerate(torch.arange(queries).tensor_split(rows)):
        assert points[members, 1].tolist() == pytest.approx([(row + 0.5) / rows] * len(members), abs=1e-4)
    # Every part of the image as large as a cell of the grid, and a little larger for uneven rows, has a point.
    places = torch.cartesian_prod(torch.linspace(0, 1, 20), torch.linspace(0, 1, 20))
    distances = (places[:, None] - points).abs().amax(-1).amin(1)
    assert distances.max() <= 0.5 / rows + 1e-4
    assert model.queries[:, :32].std() < 1.5  # the positions are still close to as drawn


def test_untrained_predictions() -> None:
    model = small()
    output = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
    start = model.reference_points(model.queries[:, :32]).sigmoid()
    for layer in (output, *output.auxiliary):
        torch.testing.assert_close(layer.boxes_cxcywh[0, :, :2], start)
        torch.testing.assert_close(layer.boxes_cxcywh[0, :, 2:], torch.full((10, 2), -2.0).sigmoid())
    assert 0.001 < output.logits.sigmoid().mean() < 0.05


def test_resnet_50() -> None:
    backbone = ResNet(BackboneSettings())
    assert backbone.widths == [512, 1024, 2048]
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"1", "2", "3"}  # not the stem, not stage 0
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 23_454_912
    assert not any("norm" in name or "running" in name for name, _ in backbone.named_parameters())


def test_small_resnet() -> None:
    backbone = ResNet(replace(BACKBONE, frozen_stages=1, blocks=(1, 2, 1, 1)))
    features = backbone(torch.randn(2, 3, 70, 100))
    assert [tuple(feature.shape) for feature in features] == [(2, 24, 9, 13), (2, 32, 5, 7), (2, 48, 3, 4)]
    assert backbone.widths == [24, 32, 48]
    assert len(backbone.stages[1]) == 2
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad} == {"stem"}
