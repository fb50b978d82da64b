"""CUDA graphs: a network's kernels launched as one, because a CPU takes longer to launch them than a GPU to run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda"
"""Kind of device that has graphs."""
KEPT = 4
"""Shapes of arguments that a `Graphed` has a graph of, those used last; so many others it remembers."""

logger = logging.getLogger(__name__)


class Graphed:
    """A function without gradient that is captured as a CUDA graph for each shape of its arguments.

    Off CUDA, and with shapes met for the first time, the function itself is called; shapes that come again are
    captured. Where that fails, a line of the log says so, and the function itself is called from then on.

    The graph repeats the kernels of one call, on the same memory: numbers of Python that the function reads stay as
    they were, and tensors that it reads besides its arguments (weights, a state) may change in place alone. **What a
    call returned is overwritten by the next call.** An object serves one thread.
    """

    def __init__(
        self, call: Callable[..., Any], name: str, constants: Callable[[], object] | None = None, enabled: bool = True
    ) -> None:
        """Capture nothing yet.

        Args:
            call: takes tensors on one device, and never waits for that device.
            name: of the function, for the log.
            constants: gives, after a call, what that call read and a later one may replace; kept with the graph.
            enabled: False: the function itself is always called.
        """
        self._call, self._name, self._constants = call, name, constants
        self._enabled = enabled
        self._pool: Any = None
        self._met: list[tuple[object, ...]] = []
        self._captured: dict[tuple[object, ...], _Captured] = {}  # the last used one last

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> Any:
        """What the function returns of `arguments`."""
        if not self._enabled or arguments[0].device.type != DEVICE:
            return self._call(*arguments)
        key = tuple((argument.shape, argument.dtype, argument.device) for argument in arguments)
        captured = self._captured.pop(key, None)
        if captured is None:
            if key not in self._met:
                self._met = [*self._met, key][-KEPT:]
                return self._call(*arguments)
            captured = self._capture(arguments)
            if captured is None:
                return self._call(*arguments)
        self._captured[key] = captured
        if len(self._captured) > KEPT:  # Never the last one, so that their pool of memory stays.
            del self._captured[next(iter(self._captured))]
        return captured(arguments)

    def _capture(self, arguments: tuple[Tensor, ...]) -> _Captured | None:
        try:
            # One pool for all shapes: no result outlives the next call.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            return _Captured(self._call, arguments, self._pool, self._constants)
        except Exception as error:  # Whatever cannot be captured, there is another way.
            told = str(error).partition("\n")[0]
            logger.info("%s without a CUDA graph, slower: it cannot be captured (%s)", self._name, told)
            self._enabled = False
            self._captured.clear()
            return None


class _Captured:
    """One graph, with the memory of its arguments and its result."""

    def __init__(
        self, call: Callable[..., Any], arguments: tuple[Tensor, ...], pool: Any, constants: Callable[[], object] | None
    ) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        device = arguments[0].device
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                call(*self._arguments)  # Libraries and caches allocate here what they keep.
            torch.cuda.current_stream().wait_stream(aside)
            self._constants = constants() if constants else None
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, which read images ahead, may use the device meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                self._result = call(*self._arguments)

    def __call__(self, arguments: tuple[Tensor, ...]) -> Any:
        for memory, argument in zip(self._arguments, arguments, strict=True):
            memory.copy_(argument)
        self._graph.replay()
        return self._result
