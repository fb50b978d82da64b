"""CUDA graphs without CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from fdta.model import graphs


class Recorded:
    """What torch did in one call, to be repeated: numbers of Python stay, and memory is used again, as in a graph."""

    def __init__(
        self, call: Callable[..., Any], arguments: tuple[Tensor, ...], pool: Any, constants: Callable[[], object] | None
    ) -> None:
        call(*arguments)
        if constants:
            assert constants() is not None
        self.memory = [argument.clone() for argument in arguments]
        self.steps = make_fx(call)(*self.memory)
        self.result = self.steps(*self.memory)

    def __call__(self, arguments: tuple[Tensor, ...]) -> Any:
        for memory, argument in zip(self.memory, arguments, strict=True):
            memory.copy_(argument)
        for memory, new in zip(tree_leaves(self.result), tree_leaves(self.steps(*self.memory)), strict=True):
            memory.copy_(new)
        return self.result


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Graphed` record on a CPU as it captures on CUDA."""
    monkeypatch.setattr(graphs, "DEVICE", "cpu")
    monkeypatch.setattr(graphs, "_Captured", Recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
