"""``make kill N=50``: kill the smoke workflow at random moments until it is through; compare with an undisturbed run.

Either Snakemake with all of its jobs is killed, as by a scheduler or a power cut, or Snakemake alone, whose jobs go on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]
COMMAND = ("snakemake", "--cores", "all", "--quiet", "reason", "--config", "benchmark=smoke", "--", "results/tables.md")
COMPARED = (
    *("data/*/*/*/gt/gt.txt", "data/*/*/*/img1/*.jpg", "data/*/depth/**/*.png", "models/**/model.pt"),
    *("tracks/**/*.txt", "detections/**/*.npz", "scores/*/*/*/*.json"),
)
"""Results that hold no times. Records hold some."""


def copy_project(folder: Path) -> None:
    folder.mkdir()
    for name in ("Snakefile", "workflow", "profiles", "params.yaml", "server-scores.yaml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    with log.open("ab") as out:
        out.write(f"== {folder.name}, start\n".encode())
        out.flush()
        return subprocess.Popen(COMMAND, cwd=folder, stdout=out, stderr=out, env=environment, start_new_session=True)


def results(folder: Path) -> dict[str, str]:
    """Digest of every result by path."""
    paths = {path for pattern in COMPARED for path in folder.glob(pattern) if path.name != "record.json"}
    paths = {path for path in paths if not path.name.endswith(".record.json")}
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def left_behind(folder: Path) -> list[str]:
    """Hidden files and folders that no later command removed."""
    kept = (".snakemake", ".made-by-fdta")
    paths = (
        path for top in ("data", "models", "tracks", "detections", "scores") for path in (folder / top).rglob(".*")
    )
    return sorted(str(path.relative_to(folder)) for path in paths if path.name not in kept and path.suffix != ".lock")


def kill_until_done(folder: Path, log: Path, random: Random, kills: int, longest: float) -> int:
    """Start the workflow again and again; how often it was killed before it was through."""
    for number in range(kills):
        process = start(folder, log)
        try:
            status = process.wait(random.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            all_of_it = random.random() < 0.5
            with log.open("a") as out:
                out.write(f"== kill {'all' if all_of_it else 'snakemake alone'}\n")
            if all_of_it:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        else:
            if status:
                raise SystemExit(f"the workflow failed by itself after {number} kills; see {log}")
            return number
    if start(folder, log).wait():
        raise SystemExit(f"the workflow failed after {kills} kills; see {log}")
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--longest", type=float, default=20, help="seconds between a start and a kill")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    random, top = Random(options.seed), Path(tempfile.mkdtemp(prefix="kill."))
    log = top / "log"
    copy_project(top / "undisturbed")
    if start(top / "undisturbed", log).wait():
        raise SystemExit(f"the undisturbed workflow failed; see {log}")
    wanted, done, rounds = results(top / "undisturbed"), 0, 0
    while done < options.kills:
        folder, rounds = top / f"killed-{rounds}", rounds + 1
        copy_project(folder)
        done += kill_until_done(folder, log, random, options.kills - done, options.longest)
        found = results(folder)
        different = [path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)]
        if different or left_behind(folder):
            print(f"{folder}: other than the undisturbed one: {sorted(different)[:9]}; left: {left_behind(folder)[:9]}")
            return 1
        print(f"{done} kills, {len(wanted)} results equal", flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # Orphans may still write there.
    shutil.rmtree(top, ignore_errors=True)
    print(f"{done} kills in {rounds} runs of the workflow: every result is that of an undisturbed run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
