from __future__ import annotations

import pytest
import torch

from fdta.evaluate.detection import average_precision

TRUTH = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
MISS = torch.tensor([[0.5, 0.1, 0.05, 0.05]])


def _ap(scores: list[float], boxes: torch.Tensor) -> float:
    return average_precision([torch.tensor(scores)], [boxes], [TRUTH])


def test_perfect_detections():
    assert _ap([0.9, 0.8], TRUTH) == pytest.approx(100)


def test_half_found():
    assert _ap([0.9], TRUTH[:1]) == pytest.approx(50)


def test_a_better_scored_false_detection_costs_precision():
    assert _ap([0.9, 0.8, 0.7], torch.cat([MISS, TRUTH])) == pytest.approx(100 * (2 / 3))
    assert _ap([0.1, 0.8, 0.7], torch.cat([MISS, TRUTH])) == pytest.approx(100)


def test_an_object_is_found_once():
    # Hit, double, hit: precisions 1 and 2/3.
    assert _ap([0.9, 0.8, 0.7], TRUTH[[0, 0, 1]]) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_nothing_detected():
    assert _ap([], torch.zeros(0, 4)) == 0
