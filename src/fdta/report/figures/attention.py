"""Attention weights of a model, taken on demand: the model itself never computes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def attention_weights(modules: Iterable[nn.MultiheadAttention]) -> Iterator[list[Tensor]]:
    """Inside, every call of `modules` adds its weights to the list: (batch, queries, keys), mean over the heads.

    Watched calls cost twice their time; outside nothing is left of the watching.
    """
    weights: list[Tensor] = []

    def watch(module: nn.MultiheadAttention, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        # torch's own forward: ours gives no weights, and a call would be watched again.
        found: Any
        _, found = nn.MultiheadAttention.forward(module, *arguments, **{**options, "need_weights": True})
        weights.append(found)

    hooks = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in modules]
    try:
        with torch.inference_mode():
            yield weights
    finally:
        for hook in hooks:
            hook.remove()
