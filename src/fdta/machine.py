"""The machine that something was measured on."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path


def machine() -> str:
    """Processor, memory, torch and GPU of this machine, in one line."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, torch {torch.__version__}, {gpu}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> float:
    """Most memory (MiB) that this process, or one that it waited for, held so far."""
    unit = 1 if sys.platform == "darwin" else 2**10
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(which).ru_maxrss for which in processes) * unit / 2**20
