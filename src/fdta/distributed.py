"""Several processes that train together, one a GPU, as ``torchrun`` starts them. All functions do for one, too."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fdta.errors import InputError

PATIENCE = timedelta(hours=24)
"""How long a process waits for the others, who may be validating. Whoever starts them notices one that died."""


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of the machine, where `device` is CUDA and ``torchrun`` started us."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes of a ``torchrun`` while in the block: by NCCL on CUDA, else by gloo.

    Raises:
        InputError: they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the other processes of this training cannot be reached ({_first_line(error)}); start it with torchrun"
        ) from None
    yield
    # Not after an error: with a process of the group missing, it may wait for ever.
    dist.destroy_process_group()


@contextmanager
def failures_in_one_line(place: object, device: torch.device, memory: str) -> Iterator[None]:
    """Report a failure in the block in one line, which names this process if there are several.

    Args:
        place: what the line begins with.
        device: where this process computes.
        memory: settings to lower if the memory of `device` is too small.

    Raises:
        InputError: `device` is out of memory; or, of several processes, this one failed in any way. If it is not out of
            memory, its traceback is printed first.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise InputError(f"{place}: {_who()}out of memory on {device}; lower {memory}") from None
    except Exception as error:
        if isinstance(error, InputError) or world_size() == 1:
            raise
        traceback.print_exc()
        raise InputError(
            f"{place}: {_who()}{type(error).__name__}: {_first_line(error)}; the traceback above shows where"
        ) from None


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: Tensor) -> Tensor:
    """What a sum over the batch of one process is divided by: `count` averaged over the processes.

    The mean over the processes of such quotients is the sum over all batches divided by all counts, which are taken as
    at least 1: what one process would make of the batches as one (docs/model.md, Losses).

    Args:
        count: any shape, of this process's batch.
    """
    if not dist.is_initialized():
        return count.clamp(min=1)
    total = count.clone()
    _together(dist.all_reduce, total)
    return total.clamp(min=1) / dist.get_world_size()


def gather(value: Any) -> list[Any]:
    """`value` of every process, in order; small things on the CPU."""
    values = [value] * world_size()
    if dist.is_initialized():
        _together(dist.all_gather_object, values, value)
    return values


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over the processes; one that a process lacks counts as 0, unless all do."""
    if not dist.is_initialized():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    there = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
    there = there.to(trained[0].device)
    _together(dist.all_reduce, there, dist.ReduceOp.MAX)
    for parameter, anywhere in zip(trained, there.tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _together(dist.all_reduce, flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _together(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # "[pair.cc:553] Connection closed by peer [127.0.0.1]:5792. This is typically caused by ..."
        cause = re.sub(r"^\[\S+\] ", "", _first_line(error)).partition(". ")[0]
        raise InputError(
            f"{_who()}no exchange with another process of this training ({cause}); if it ended, its own line says why"
        ) from None


def _who() -> str:
    """Name of this process at the start of a message, if there are several."""
    return f"process {rank()} of {world_size()}: " if world_size() > 1 else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
