"""Trainings that are stopped, killed, or run out of disk lose nothing."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training_data import CHOICE, ROOT, RUN, read_history, without_times, work

from fdta.cli import main
from fdta.files import whole_file
from fdta.model import checkpoint
from fdta.train import loop
from fdta.train.interruption import StopRequest
from fdta.train.optimizer import rate_factor

LONGER = {"clips_per_epoch": 12, "batch": 2, "checkpoint_seconds": 0.0, "validate_every": 1}


def test_training_ended_at_random_moments_ends_with_the_same_bytes(root, params_with):
    choice = params_with(training=LONGER)
    arguments = ["train", RUN, "--root", str(root), *choice]
    command = [sys.executable, str(ROOT / "tests/helpers/train_killed.py"), "0", "8", *arguments]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    *ended, last = map(int, done.stdout.split())
    assert last == 0
    # How many were ended on their way depends on the machine's speed.
    assert ended.count(-signal.SIGKILL) >= 2 and ended.count(143) >= 2, done.stdout
    assert set(ended) <= {-signal.SIGKILL, -signal.SIGTERM, 143, 0}
    told = [line for line in done.stderr.splitlines() if "stopped by SIGTERM" in line]
    assert len(told) == ended.count(143) and "Traceback" not in done.stderr
    folder = root / "models" / RUN
    interrupted = (folder / "model.pt").read_bytes()
    assert {path.name for path in folder.glob("[!.]*")} == {"model.pt", "history.jsonl", "record.json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [record["step"] for record in read_history(folder, "step")] == list(range(1, 13))
    assert [record["epoch"] for record in read_history(folder, "epoch")] == [0, 1]
    records = without_times(folder)
    assert main([*arguments, "--again"]) == 0
    assert (folder / "model.pt").read_bytes() == interrupted
    assert without_times(folder) == records


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["step", "validation"])
def test_signal_saves_the_state_and_ends_in_one_line(root, finished, capsys, monkeypatch, number, status, moment):
    where = {"step": "fdta.train.loop.average_gradients", "validation": "fdta.train.validation.track_sequence"}[moment]
    module, _, name = where.rpartition(".")
    function = getattr(sys.modules[module], name)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            os.kill(os.getpid(), number)
        return function(*arguments)

    arguments = ["train", RUN, "--root", str(root), *CHOICE]
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupted)
        with pytest.raises(SystemExit) as left:
            main(arguments)
    assert left.value.code == status
    step = 1 if moment == "step" else 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fdta: ") and f"stopped by {number.name} after step {step} of 4" in last
    assert checkpoint.load(work(root) / "resume.pt")["step"] == step
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main(arguments) == 0
    assert (root / "models" / RUN / "model.pt").read_bytes() == finished


def test_second_signal_ends_at_once():
    # A shell starts its background jobs with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("full_from", [2, 3])
def test_full_disk_ends_in_one_line_and_keeps_the_earlier_state(root, params_with, capsys, monkeypatch, full_from):
    """Steps 1 and 2 are saved, or fail to be; the finished model is the third large file or the second."""
    choice = params_with(training={"epochs": 1, "validate_every": 0, "clips_per_epoch": 4, "checkpoint_seconds": 0.0})
    arguments = ["train", RUN, "--root", str(root), *choice]
    folder = root / "models" / RUN
    written = []

    def write_bytes(self: Path, data: memoryview) -> int:
        written.append(self)
        with self.open("wb") as file:
            if len(written) >= full_from:
                file.write(bytes(data)[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fdta: ")]
    assert "No space left" in line and "free some room" in line
    assert checkpoint.load(work(root) / "resume.pt")["step"] == full_from - 1
    assert not folder.exists() and list(work(root).glob(".*")) == []
    assert main(arguments) == 0
    assert [record["step"] for record in read_history(folder, "step")] == [1, 2]


def test_saves_append_to_the_history_and_do_not_grow(root, params_with, monkeypatch):
    choice = params_with(training={**LONGER, "batch": 1, "validate_every": 0})
    saves = []
    save = checkpoint.save

    def noted(path, state):
        save(path, state)
        history = path.with_name("history.jsonl")
        if path.name == "resume.pt" and history.exists():
            saves.append((path.stat().st_size, history.stat().st_ino, history.read_text()))

    monkeypatch.setattr(checkpoint, "save", noted)
    assert main(["train", RUN, "--root", str(root), *choice]) == 0
    sizes, inodes, texts = zip(*saves, strict=True)
    # A record has about 300 bytes.
    assert len(sizes) >= 22 and max(sizes) - min(sizes) < 100
    assert len(set(inodes)) == 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_a_training_whose_history_is_lost_does_not_resume(root, params_with, capsys, monkeypatch):
    choice = params_with(training={"epochs": 1, "validate_every": 0, "checkpoint_seconds": 0.0, "batch": 1})
    arguments = ["train", RUN, "--root", str(root), *choice]
    with monkeypatch.context() as patch:
        patch.setattr("fdta.train.loop.rate_factor", _interrupt_at(2))
        assert main(arguments) == 130
    history = work(root) / "history.jsonl"
    assert [record["step"] for record in read_history(work(root), "step")] == [1, 2]
    history.unlink()
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"fdta: {history}: not the history of the training to resume; restore the file, or train from scratch with "
        f"--again\n"
    )
    assert main([*arguments, "--again"]) == 0
    folder = root / "models" / RUN
    assert [record["step"] for record in read_history(folder, "step")] == [1, 2, 3, 4]
    assert len(read_history(folder, "epoch")) == 1


def _interrupt_at(step):
    def factor(number, *rest):
        if number == step:
            raise KeyboardInterrupt
        return rate_factor(number, *rest)

    return factor


def test_what_a_kill_in_the_midst_of_writing_left_is_removed(root):
    folder = root / "models" / RUN
    with whole_file(folder / "resume.pt") as other:
        left = [other, folder / other.name.replace("resume", "model")]
        for path in left:
            path.write_bytes(b"")
    left[0].write_bytes(b"")
    loop._remove_unfinished(folder)
    assert [path.exists() for path in left] == [False, True]
