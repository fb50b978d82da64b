from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fdta.model import deformable_kernel
from fdta.model.deformable_attention import deformable_attention

SHAPES = [(4, 6), (2, 3)]
TOKENS = sum(height * width for height, width in SHAPES)
TRITON = (0, 0) if deformable_kernel.triton is None else tuple(map(int, version("triton").split(".")[:2]))
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.cuda] if torch.cuda.is_available() else []
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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_kernel_is_used_where_it_works(dtype: torch.dtype) -> None:
    assert deformable_kernel.usable(torch.zeros(1, dtype=dtype, device=DEVICE))


def test_a_cpu_takes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not deformable_kernel.usable(torch.zeros(1))


def test_without_triton_a_line_tells_and_the_plain_form_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deformable_kernel, "HAS_TRITON", False)
    monkeypatch.setattr(deformable_kernel, "_TRIED", {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with caplog.at_level("INFO", logger="fdta"):
        assert not deformable_kernel.usable(torch.zeros(1))
        assert not deformable_kernel.usable(torch.zeros(1))
    assert len(caplog.records) == 1
    assert "Triton is not installed" in caplog.text


def test_a_kernel_that_computes_wrong_numbers_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def twice(*given: Any) -> Tensor:
        return 2 * deformable_attention(*given)

    monkeypatch.setattr(deformable_kernel, "triton", "there")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for attend, right in ((deformable_attention, True), (twice, False)):
        monkeypatch.setattr(deformable_kernel, "_TRIED", {})
        monkeypatch.setattr(deformable_kernel, "attend", attend)
        with caplog.at_level("INFO", logger="fdta"):
            assert deformable_kernel.usable(torch.zeros(1)) == right
    assert [record.getMessage() for record in caplog.records] == [
        "deformable attention without a kernel, slower: Triton computes wrong numbers here"
    ]


without_interpreter = pytest.mark.skipif(
    TRITON < (3, 3) or INTERPRETED, reason="needs Triton 3.3 or later, and to be outside its interpreter"
)


@without_interpreter
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("number", ["fp16", "bf16", "fp32", "fp64"])
def test_kernels_compile_for_a_gpu_that_is_not_there(
    number: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton import compile as compile_kernel
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    wide = "fp64" if number == "fp64" else "fp32"
    types = dict.fromkeys(("value", "output", "gradient"), f"*{number}")
    types |= dict.fromkeys(("locations", "weights"), f"*{wide}") | {"levels": "*i32", "queries": "i32", "cells": "i32"}
    types |= {f"{name}_gradient": f"*{wide}" for name in ("value", "location", "weight")}
    fixed = {"HEADS": 8, "C": 32, "BLOCK": 32, "LEVELS": 4, "POINTS": 4, "DOUBLE": number == "fp64"}
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    for kernel in (deformable_kernel._forward, deformable_kernel._backward):
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in fixed.items()})
        compiled = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
        assert compiled.asm["cubin"]


@without_interpreter
def test_in_the_interpreter() -> None:
    """The tests above without a GPU: Triton decides when it is imported, hence in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(Path(__file__))]
    told = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    assert "12 passed" in told.stdout
