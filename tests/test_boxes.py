from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fdta.boxes import cxcywh_to_xyxy, giou, iou, pairwise_giou, pairwise_iou


def random_boxes_xyxy(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.rand(2, *shape, 2, generator=generator, dtype=torch.float64)
    return torch.cat([low, low + size + 0.01], dim=-1)


def test_formats() -> None:
    assert cxcywh_to_xyxy(torch.tensor([3.0, 5.0, 2.0, 4.0])).tolist() == [2, 3, 4, 7]


@pytest.mark.parametrize(
    ("a", "b", "expected_iou", "expected_giou"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        ((0, 0, 2, 2), (0, 0, 2, 2), 1, 1),
        ((0, 0, 4, 4), (1, 1, 2, 3), 2 / 16, 2 / 16),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0, -1 / 3),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0, 0),
        ((0, 0, 1, 1), (1000, 1000, 1001, 1001), 0, -1 + 2 / 1001**2),
    ],
)
def test_overlap_of_two_boxes(a: tuple, b: tuple, expected_iou: float, expected_giou: float) -> None:
    a, b = torch.tensor([a, b], dtype=torch.float64)
    for first, second in ((a, b), (b, a)):
        assert iou(first, second).item() == pytest.approx(expected_iou)
        assert giou(first, second).item() == pytest.approx(expected_giou)


def test_pairwise_is_every_pair() -> None:
    a, b = random_boxes_xyxy(2, 3), random_boxes_xyxy(2, 5, seed=1)
    for pairwise, paired in ((pairwise_iou, iou), (pairwise_giou, giou)):
        table = pairwise(a, b)
        assert table.shape == (2, 3, 5)
        for frame in range(2):
            for i in range(3):
                for j in range(5):
                    assert table[frame, i, j] == paired(a[frame, i], b[frame, j])


def test_gradient() -> None:
    boxes = random_boxes_xyxy(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pairwise_giou(x, random_boxes_xyxy(3, seed=1)), boxes)
    assert torch.autograd.gradcheck(lambda x: pairwise_iou(x, random_boxes_xyxy(3, seed=1)), boxes)


def test_boxes_without_area_are_finite() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    overlap = giou(boxes, boxes.detach()) + iou(boxes, boxes.detach())
    overlap.sum().backward()
    assert overlap.item() == 0
    assert torch.isfinite(boxes.grad).all()
