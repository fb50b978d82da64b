from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fdta.model import deformable_kernel
from fdta.model.deformable_attention import deformable_attention

SHAPES = [(4, 6), (2, 3)]
TOKENS = sum(height * width for height, width in SHAPES)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(
    deformable_kernel.triton is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton and CUDA, or TRITON_INTERPRET=1",
)


def arguments(dtype: torch.dtype, channels: int = 5, queries: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (some outside the image) and weights."""
    torch.manual_seed(0)
    value = torch.randn(2, TOKENS, 2, channels, dtype=dtype, device=DEVICE)
    locations = torch.rand(2, queries, 2, len(SHAPES), 3, 2, dtype=torch.double, device=DEVICE) * 1.6 - 0.3
    weights = torch.rand(2, queries, 2, len(SHAPES), 3, dtype=torch.double, device=DEVICE)
    wide = torch.promote_types(dtype, torch.float32)
    return value, locations.to(wide), weights.to(wide)


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
)
def test_kernel_equals_the_plain_form_in_double_precision(dtype: torch.dtype, tolerance: float) -> None:
    given = arguments(dtype)
    ours = [tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor.double().clone().requires_grad_() for tensor in given]
    actual = deformable_kernel.attend(ours[0], SHAPES, ours[1], ours[2])
    expected = deformable_attention(exact[0], SHAPES, exact[1], exact[2])
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)
    arriving = torch.randn_like(expected).to(dtype)
    actual.backward(arriving)
    expected.backward(arriving.double())
    for mine, theirs in zip(ours, exact, strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=tolerance * scale, rtol=tolerance)


@needs_triton
def test_no_queries() -> None:
    value, locations, weights = arguments(torch.float32, queries=0)
    assert deformable_kernel.attend(value, SHAPES, locations, weights).shape == (2, 0, 10)


@needs_triton
def test_kernel_is_used_where_it_works() -> None:
    assert deformable_kernel.usable(torch.zeros(1, device=DEVICE))


def test_a_cpu_takes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not deformable_kernel.usable(torch.zeros(1))


def test_without_triton_a_line_tells_and_the_plain_form_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deformable_kernel, "triton", None)
    monkeypatch.setattr(deformable_kernel, "_TRIED", {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with caplog.at_level("INFO", logger="fdta"):
        assert not deformable_kernel.usable(torch.zeros(1))
        assert not deformable_kernel.usable(torch.zeros(1))
    assert len(caplog.records) == 1
    assert "Triton is not installed" in caplog.text


@pytest.mark.skipif(
    deformable_kernel.triton is None or INTERPRETED, reason="needs Triton, and to be outside its interpreter"
)
def test_in_the_interpreter() -> None:
    """The tests above without a GPU: Triton decides when it is imported, hence in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__))]
    told = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    assert "8 passed" in told.stdout
