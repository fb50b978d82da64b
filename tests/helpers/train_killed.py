"""Gives a training again and again and ends it at random moments; run by tests/train/test_interruption.py.

    python train_killed.py SEED ENDS ARGUMENTS...

Forks, so that torch is loaded once. Prints the signals that ended a process, and the exit status of the last one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

from fdta.cli import main
from fdta.train import loop


def start(arguments: list[str]) -> int:
    """Process of a training that has begun."""
    begins, writes = os.pipe()
    process = os.fork()
    if process == 0:
        torch.set_num_threads(1)
        remove = loop._remove_unfinished
        loop._remove_unfinished = lambda *place: (remove(*place), os.write(writes, b"."))
        try:
            status = main(arguments)
        except SystemExit as error:
            status = error.code
        os._exit(status)
    os.close(writes)
    os.read(begins, 1)
    os.close(begins)
    return process


# What torch loads where it is first used.
torch.optim.AdamW([torch.zeros(1)])
moments = random.Random(int(sys.argv[1]))
ended = []
for number in range(int(sys.argv[2])):
    process = start(sys.argv[3:])
    time.sleep(moments.uniform(0.0, 0.4))
    os.kill(process, signal.SIGKILL if number % 2 else signal.SIGTERM)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print(*ended, os.waitstatus_to_exitcode(os.waitpid(start(sys.argv[3:]), 0)[1]))
