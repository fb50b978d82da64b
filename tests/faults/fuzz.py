"""``make fuzz MINUTES=30``: malformed files for as long as one likes, in parallel; a summary by place of failure."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.malformed import KINDS, build, try_one

BYTES = 16 << 30
"""Address space of a process."""


def work(number: int, until: float, seed: int, only: list[str]) -> tuple[Counter[str], dict[str, str]]:
    """Tries until the time `until`; how many there were by kind, and by finding the seed of the first."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    tried: Counter[str] = Counter()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        templates = {name: Path(folder) / name for name in only or KINDS}
        for name, template in templates.items():
            build(KINDS[name], template)
        draw = Random(f"{seed} {number}")
        while time.time() < until:
            name, each = draw.choice(list(templates)), draw.randrange(2**32)
            wrong = try_one(KINDS[name], templates[name], Random(each))
            tried[name] += 1
            if wrong is not None:
                place = f"{name}: {re.sub(r'[0-9]+', 'N', wrong)[:110]}"
                found.setdefault(place, f"{wrong[:400]} (seed {each})")
                tried[f"! {place}"] += 1
    return tried, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=[], choices=list(KINDS), metavar="KIND")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    until = time.time() + 60 * options.minutes
    tried: Counter[str] = Counter()
    found: dict[str, str] = {}
    given = [(number, until, options.seed, options.only) for number in range(options.jobs)]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for counts, findings in pool.starmap(work, given):
            tried += counts
            found |= findings
    findings = sorted((count, name.removeprefix("! ")) for name, count in tried.items() if name.startswith("! "))
    for count, place in reversed(findings):
        print(f"{count:6d}  {place}\n        {found[place]}")
    by_kind = {name: count for name, count in tried.items() if not name.startswith("! ")}
    print(f"{sum(by_kind.values())} files tried: " + ", ".join(f"{n} {name}" for name, n in sorted(by_kind.items())))
    print(f"{len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
