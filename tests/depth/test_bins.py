from __future__ import annotations

import math

import pytest
import torch

from fdta.depth.bins import bin_index, bin_values
from fdta.model.settings import SpatialSettings

SETTINGS = SpatialSettings(bins=4, minimum=1.0, maximum=21.0)  # bins 2, 4, 6 and 8 wide


def test_values_are_the_lower_ends_of_bins_that_widen_linearly() -> None:
    torch.testing.assert_close(bin_values(SETTINGS), torch.tensor([1.0, 3.0, 7.0, 13.0, 21.0]))


def test_published_bins() -> None:
    values = bin_values(SpatialSettings())
    assert values.shape == (151,)
    step = 2 * (256 - 1e-3) / (150 * 151)
    assert values[1] - values[0] == pytest.approx(step, rel=1e-3)
    assert values[150] - values[149] == pytest.approx(150 * step, rel=1e-5)


@pytest.mark.parametrize(
    ("depth", "index"),
    [(1.0, 0), (2.9, 0), (3.1, 1), (6.9, 1), (7.1, 2), (12.9, 2), (13.1, 3), (20.9, 3), (21.0, 4)],
)
def test_index_of_a_depth(depth: float, index: int) -> None:
    assert bin_index(torch.tensor(depth), SETTINGS).item() == index


@pytest.mark.parametrize("depth", [0.5, -3.0, 1e9, math.inf, -math.inf, math.nan])
def test_depth_outside_the_range_belongs_to_the_last_bin(depth: float) -> None:
    assert bin_index(torch.tensor([depth, 2.0]), SETTINGS).tolist() == [4, 0]
