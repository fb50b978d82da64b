from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fdta.depth.bins import bin_index
from fdta.loss.depth import depth_loss, foreground_mask
from fdta.loss.matching import Targets
from fdta.loss.settings import LossSettings
from fdta.model.settings import SpatialSettings

BINS = SpatialSettings(bins=6)
SETTINGS = LossSettings(foreground_weight=4.0)


def frame(*boxes_cxcywh: tuple[float, float, float, float]) -> Targets:
    boxes = torch.tensor(boxes_cxcywh, dtype=torch.float64).reshape(-1, 4)
    return Targets(boxes, torch.arange(len(boxes)))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, list[Targets]]:
    """Logits, depth, padding and targets of two frames of 5 x 4 cells, the second padded to the right and below."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 4, 5, generator=generator, dtype=torch.float64)
    depth = torch.randint(0, 256, (2, 32, 40), generator=generator, dtype=torch.uint8)
    padding = torch.zeros(2, 32, 40, dtype=torch.bool)
    padding[1, 24:] = padding[1, :, 16:] = True
    return logits, depth, padding, [frame((0.5, 0.5, 0.3, 0.4)), frame((0.25, 0.3, 0.2, 0.1), (0.75, 0.9, 0.4, 0.1))]


def test_golden(golden) -> None:
    # The published focal loss adds 1e-6 to the one-hot target.
    assert golden.depth_loss.item() == pytest.approx(golden.losses["e1_loss_depth_map"], rel=5e-4)


def test_is_a_weighted_focal_loss(batch) -> None:
    logits, depth, _, _ = batch
    # At stride 8 the bilinear sample is the mean of a block's four central pixels.
    resized = depth.double().unfold(1, 8, 8).unfold(2, 8, 8)[..., 3:5, 3:5].mean(dim=(3, 4))
    bins = bin_index(resized, BINS)
    foreground = [
        [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]],
        [[1, 0], [1, 0], [0, 1]],
    ]
    expected, cells = 0.0, 0
    for b, rows, columns in ((0, 4, 5), (1, 3, 2)):
        for y in range(rows):
            for x in range(columns):
                p = logits[b, :, y, x].softmax(0)[bins[b, y, x]].item()
                expected -= (4 if foreground[b][y][x] else 1) * 0.25 * (1 - p) ** 2 * math.log(p)
                cells += 1
    loss = depth_loss(*batch, BINS, SETTINGS, 3)
    assert loss.item() == pytest.approx(expected / cells * 2 / 3)


def test_foreground_weight_of_one_is_no_weight(batch) -> None:
    logits, depth, padding, targets = batch
    unweighted = LossSettings(foreground_weight=1.0)
    nothing = [frame(), frame()]
    without_objects = depth_loss(logits, depth, padding, nothing, BINS, SETTINGS, 1)
    torch.testing.assert_close(depth_loss(logits, depth, padding, targets, BINS, unweighted, 1), without_objects)
    assert depth_loss(logits, depth, padding, targets, BINS, SETTINGS, 1) > without_objects


def test_falls_on_the_way_to_the_target(batch) -> None:
    logits, depth, padding, targets = batch
    constant = torch.full_like(depth, 100)
    wanted = bin_index(torch.tensor(100.0), BINS).item()
    losses = []
    for step in (0, 2, 4, 8):
        moved = logits.clone()
        moved[:, wanted] += step
        losses.append(depth_loss(moved, constant, padding, targets, BINS, SETTINGS, 1).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 10


def test_padding_counts_for_nothing(batch) -> None:
    logits, depth, padding, targets = batch
    second = [x[1:] for x in (logits, depth, padding)]
    cropped = [logits[1:, :, :3, :2], depth[1:, :24, :16], padding[1:, :24, :16]]
    alone = depth_loss(*cropped, targets[1:], BINS, SETTINGS, 1)
    torch.testing.assert_close(depth_loss(*second, targets[1:], BINS, SETTINGS, 1), alone)


@pytest.mark.parametrize("padded", [False, True])
def test_foreground_mask_by_loops(padded: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    targets = [frame(*(torch.rand(n, 4, generator=generator) * 0.5 + 0.25).tolist()) for n in (0, 1, 4)]
    padding = torch.zeros(3, 64, 96, dtype=torch.bool)
    columns, rows = [12.0] * 3, [8.0] * 3
    if padded:
        padding[1, :, 40:] = padding[2, 52:] = True
        columns[1], rows[2] = 5.0, 6.5
    expected = torch.zeros(3, 8, 12, dtype=torch.bool)
    for b, target in enumerate(targets):
        for cx, cy, w, h in target.boxes_cxcywh.tolist():
            x1, x2 = math.floor((cx - w / 2) * columns[b]), math.ceil((cx + w / 2) * columns[b])
            y1, y2 = math.floor((cy - h / 2) * rows[b]), math.ceil((cy + h / 2) * rows[b])
            expected[b, max(y1, 0) : y2, max(x1, 0) : x2] = True
    mask = foreground_mask(targets, padding, (8, 12))
    assert mask.equal(expected)
    assert 0 < mask.sum() < mask.numel()


def test_gradient(batch) -> None:
    logits, *rest = batch
    assert torch.autograd.gradcheck(lambda x: depth_loss(x, *rest, BINS, SETTINGS, 3), logits.requires_grad_())
    depth_loss(logits, *rest, BINS, SETTINGS, 3).backward()
    assert (logits.grad[1, :, :, 2:] == 0).all()
    assert (logits.grad[1, :, :3, :2] != 0).all()
