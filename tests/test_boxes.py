from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fdta.boxes import (
    cxcywh_to_xyxy,
    giou,
    iou,
    pairwise_giou,
    pairwise_iou,
    xywh_to_cxcywh,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)


def random_boxes_xyxy(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.rand(2, *shape, 2, generator=generator, dtype=torch.float64)
    return torch.cat([low, low + size + 0.01], dim=-1)


FORMATS = {"cxcywh": [3.0, 5.0, 2.0, 4.0], "xywh": [2.0, 3.0, 2.0, 4.0], "xyxy": [2.0, 3.0, 4.0, 7.0]}
"""One box in each format."""
CONVERSIONS = [cxcywh_to_xyxy, xyxy_to_cxcywh, xywh_to_xyxy, xyxy_to_xywh, xywh_to_cxcywh]


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_formats(convert: Callable, kind: Callable) -> None:
    given, wanted = convert.__name__.split("_to_")
    converted = convert(kind([[FORMATS[given]] * 2]))
    assert type(converted) is type(kind([0.0]))
    assert converted.tolist() == [[FORMATS[wanted]] * 2]


@pytest.mark.parametrize("function", [*CONVERSIONS, iou, giou, pairwise_iou, pairwise_giou])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_and_tensors_give_the_same_bits(function: Callable, dtype: torch.dtype) -> None:
    boxes = random_boxes_xyxy(2, 50).to(dtype)
    tensors = [boxes] if function in CONVERSIONS else list(boxes)
    expected = function(*tensors).numpy()
    actual = function(*(tensor.numpy() for tensor in tensors))
    assert actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()


def test_scores_need_no_torch() -> None:
    code = "import sys, fdta.boxes, fdta.evaluate.score, fdta.evaluate.matches; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


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
