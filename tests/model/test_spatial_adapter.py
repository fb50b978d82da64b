from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fdta.model.settings import SpatialSettings
from fdta.model.spatial_adapter import DepthEncoder, DepthPosition, SpatialAdapter

WIDTH = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def adapter(**changes: object) -> SpatialAdapter:
    return SpatialAdapter(WIDTH, heads=4, norm_groups=4, settings=SpatialSettings(bins=10, feedforward=32, **changes))


def features() -> list[Tensor]:
    """Projected features at strides 8, 16, 32 of an image of 40 x 64."""
    return [torch.randn(2, WIDTH, *shape, requires_grad=True) for shape in ((5, 8), (3, 4), (2, 2))]


def reached(module: nn.Module) -> bool:
    gradients = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters()]
    assert all(gradients) or not any(gradients)
    return gradients[0]


def test_depth_is_the_expectation_of_the_bins() -> None:
    output = adapter()(features(), torch.randn(1, 40, WIDTH), None)
    assert output.logits.shape == (2, 11, 5, 8)
    assert output.memory.shape == (2, 40, WIDTH)
    delta = 2 * (256 - 1e-3) / (10 * 11)
    values = [(i + 0.5) ** 2 * delta / 2 - delta / 8 + 1e-3 for i in range(10)] + [256.0]
    expected = sum(p * v for p, v in zip(output.logits.softmax(1).unbind(1), values, strict=True))
    torch.testing.assert_close(output.depth, expected)


def test_depth_loss_trains_the_extractor_alone() -> None:
    model, inputs = adapter(), features()
    model(inputs, torch.randn(1, 40, WIDTH), None).logits.square().sum().backward()
    assert [feature.grad for feature in inputs] == [None, None, None]
    assert reached(model.fine) and reached(model.coarse) and reached(model.extractor) and reached(model.classifier)
    assert not reached(model.encoder) and not reached(model.position)


def test_detection_trains_the_encoder_and_the_extractor_by_its_depth_only() -> None:
    for position_embedding in (True, False):
        model, inputs = adapter(position_embedding=position_embedding), features()
        model(inputs, torch.randn(1, 40, WIDTH), None).memory[..., 0].sum().backward()
        assert [feature.grad for feature in inputs] == [None, None, None]
        assert reached(model.encoder)
        assert reached(model.extractor) == reached(model.classifier) == position_embedding
        assert model.position is None if not position_embedding else reached(model.position)


def test_position_is_added_to_the_encoded_features() -> None:
    model, inputs, positions = adapter(dropout=0.0), features(), torch.randn(1, 40, WIDTH)
    with_position = model(inputs, positions, None)
    position = model.position(with_position.depth).flatten(1, 2)
    model.position = None
    torch.testing.assert_close(model(inputs, positions, None).memory, with_position.memory - position)


def test_depth_that_nothing_attends_to_is_not_encoded() -> None:
    model = adapter(placement="none")
    output = model(features(), torch.randn(1, 40, WIDTH), None)
    assert output.memory is None and model.encoder is None and model.position is None
    assert output.depth.shape == (2, 5, 8)


def test_coarse_features_share_their_projection() -> None:
    model, (fine, middle, coarse) = adapter(), features()
    swapped = [fine, coarse.detach(), middle.detach()]
    positions = torch.randn(1, 40, WIDTH)
    torch.testing.assert_close(
        model([fine, middle, coarse], positions, None).depth, model(swapped, positions, None).depth
    )


def test_encoder_does_not_see_padding() -> None:
    encoder = DepthEncoder(WIDTH, heads=4, feedforward=32, dropout=0.0)
    tokens, positions = torch.randn(2, 6, WIDTH), torch.randn(1, 6, WIDTH)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    changed = tokens.clone()
    changed[:, 4:] += 1
    before, after = encoder(tokens, positions, padding), encoder(changed, positions, padding)
    torch.testing.assert_close(before[1, :4], after[1, :4])
    assert not torch.allclose(before[0, :4], after[0, :4])


def test_position_is_interpolated_between_whole_depths() -> None:
    position = DepthPosition(WIDTH, maximum=256.0)
    table = position.table.detach()
    assert table.shape == (257, WIDTH)
    depths = torch.tensor([[0.0, 7.0], [7.25, 256.0], [300.0, -1.0]])
    expected = torch.stack([table[0], table[7], 0.75 * table[7] + 0.25 * table[8], table[256], table[256], table[0]])
    torch.testing.assert_close(position(depths), expected.view(3, 2, WIDTH))
