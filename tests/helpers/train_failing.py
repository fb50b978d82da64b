"""``fdta train`` of which the second process fails in its second step; run with torchrun by the tests of processes.

train_failing.py FAILURE ARGUMENTS...
"""

from __future__ import annotations

import itertools
import sys
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from fdta.cli import main
from fdta.distributed import rank
from fdta.train.tracker import TrackerObjective


def fail(*_: object) -> NoReturn:
    if failure == "defect":
        raise ValueError("these shapes\ndo not fit")
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def call(self: TrackerObjective, *arguments: Any) -> Any:
    if rank() == 1 and next(calls) == 1:
        if failure != "memory of an exchange":
            fail()
        dist.all_reduce = fail
    return original(self, *arguments)


failure, *given = sys.argv[1:]
calls = itertools.count()
original, TrackerObjective.__call__ = TrackerObjective.__call__, call
if __name__ == "__main__":
    raise SystemExit(main(given))
