"""Several processes train as one with all their clips would."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers.train_exactly import equal_sequence
from helpers.train_in_two import gradients
from helpers.training_data import CHOICE, ROOT, RUN, read_history, work

from fdta.cli import main
from fdta.data.clips import ClipBatch, ClipDataset, ClipSampler, collate
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.model import checkpoint
from fdta.model.detector import DeformableDetector
from fdta.train.batches import Plan, load_batches
from fdta.train.detector import DetectorObjective
from fdta.train.tracker import TrackerObjective

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def jobs(rendered):
    """By objective, settings and two clips of one size with different numbers of boxes."""
    full = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "full")
    plain = dataclasses.replace(full.augmentation, crop=0.0)
    # All pairs count, whatever the boxes of random weights.
    identity = dataclasses.replace(full.identity, threshold=-1.0, quality="iou", chunk=5)
    full = dataclasses.replace(full, augmentation=plain, identity=identity)
    detector = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "detector")
    detector = dataclasses.replace(
        detector, augmentation=plain, loss=dataclasses.replace(detector.loss, attributes=0.25)
    )
    jobs = {}
    for kind, settings, length in (("detector", detector, 1), ("full", full, full.history)):
        data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, length, kind == "full", False, 8, 0)
        batches = [collate([data.clip(0, i, *clip)]) for i, clip in enumerate(data.sampler.epoch(0))]
        counts = [sum(len(target.identities) for target in batch.targets) for batch in batches]
        other = next(i for i, count in enumerate(counts) if count != counts[0])
        jobs[kind] = settings, [_exact(batches[0]), _exact(batches[other])]
    return jobs


def _exact(batch: ClipBatch) -> ClipBatch:
    """The batch in float64, with attributes of which some are unknown."""
    batch = batch.to(torch.device("cpu"))
    targets = [
        dataclasses.replace(
            t, boxes_cxcywh=t.boxes_cxcywh.double(), attributes=t.identities[:, None] % torch.tensor([4, 3]) - 1
        )
        for t in batch.targets
    ]
    return dataclasses.replace(batch, images=batch.images.double(), targets=targets)


def _joined(batches: list[ClipBatch]) -> ClipBatch:
    """Batches as one, as `collate` has it."""
    offsets, offset = [], 0
    for batch in batches:
        offsets.append(offset)
        offset += max(int(t.identities.max()) for t in batch.targets) + 1
    return ClipBatch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.padding for batch in batches]),
        None if batches[0].depth is None else torch.cat([batch.depth for batch in batches]),
        [
            dataclasses.replace(t, identities=t.identities + start)
            for batch, start in zip(batches, offsets, strict=True)
            for t in batch.targets
        ],
        tuple(seed for batch in batches for seed in batch.seeds),
    )


def test_gradients_are_those_of_one_process_with_both_clips(jobs, tmp_path):
    torch.save(jobs, tmp_path / "jobs.pt")
    command = [
        *TORCHRUN,
        str(ROOT / "tests/helpers/train_in_two.py"),
        str(tmp_path / "jobs.pt"),
        str(tmp_path / "found.pt"),
    ]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for kind, (settings, batches) in jobs.items():
        one = gradients(kind, settings, _joined(batches))
        assert found[kind]["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            error = (found[kind]["gradients"][name] - gradient).norm()
            assert error <= 1e-9 * gradient.norm() + 1e-15, (kind, name)
        assert all(term > 0 for term in one["terms"].values())
        # The mean of what each makes of its own clip is something else: the counts differ.
        alone = [gradients(kind, settings, batch)["gradients"] for batch in batches]
        name = "detector.class_heads.0.weight"
        mean = (alone[0][name] + alone[1][name]) / 2
        assert (mean - one["gradients"][name]).norm() > 1e-4 * mean.norm()


def test_two_processes_train_as_one_that_accumulates_two_batches(tmp_path):
    equal_sequence(tmp_path / "data/train/a", frames=12)
    script = str(ROOT / "tests/helpers/train_exactly.py")
    weights = {}
    for how, command, accumulate in (
        ("two", TORCHRUN, 1),
        ("one", [sys.executable], 2),
        ("other", [sys.executable], 1),
    ):
        call = [*command, script, str(tmp_path / "data"), str(accumulate), str(tmp_path / how)]
        subprocess.run(call, env=ENVIRONMENT, check=True, capture_output=True)
        weights[how] = torch.load(tmp_path / how / "weights.pt", weights_only=True)

    def distance(how: str) -> float:
        pairs = [(weights[how][name], tensor) for name, tensor in weights["one"].items() if tensor.is_floating_point()]
        return max(float((found - wanted).norm() / wanted.norm().clamp(min=1e-6)) for found, wanted in pairs)

    assert all(tensor.dtype == torch.float64 for tensor in weights["one"].values() if tensor.is_floating_point())
    assert distance("two") < 1e-9
    assert distance("other") > 1e-3


@pytest.mark.parametrize(
    ("clips", "batch", "accumulate", "world"), [(7, 2, 1, 2), (9, 1, 3, 4), (1, 1, 1, 4), (8, 2, 2, 2)]
)
def test_clips_are_dealt_to_processes_as_one_would_have_them(clips, batch, accumulate, world):
    sampler = ClipSampler([np.ones(30, bool)], 2, (1, 1), clips, seed=0)
    plans = [Plan(sampler, batch, accumulate, rank, world) for rank in range(world)]
    one = Plan(sampler, batch * world, accumulate)
    assert {plan.steps_per_epoch for plan in plans} == {one.steps_per_epoch}
    dealt = [plan.epoch(3) for plan in plans]
    for number, expected in enumerate(one.epoch(3)):
        shares = [own[number] for own in dealt]
        # As many for each, or they would wait for one another.
        assert len({len(share) for share in shares}) == 1 and shares[0]
        together = [clip for share in shares for clip in share]
        assert together[: len(expected)] == expected
        assert len(together) - len(expected) == -len(expected) % world
        assert set(together[len(expected) :]) <= {clip for first in one.epoch(3) for clip in first}
    assert sum(plans[0].batches_of_step(step) for step in range(plans[0].steps_per_epoch)) == len(dealt[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_go_on_where_a_training_was_stopped(rendered, settings, workers):
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 3, 0)
    plan = Plan(data.sampler, 1, 2)
    cpu = torch.device("cpu")
    whole = list(load_batches(data, plan, range(2), 0, 0, cpu))
    rest = list(load_batches(data, plan, range(2), 1, workers, cpu))
    assert len(whole) == 6 and len(rest) == 4
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[2:], rest, strict=True))


def test_two_processes_stop_and_go_on_and_train_as_one(root, params_with, capfd):
    """Stopped by SIGTERM and run again; compared with one process of batch 2."""
    training = {"clips_per_epoch": 8, "checkpoint_seconds": 0.0, "warmup_epochs": 1.0}
    choice = params_with(training={**training, "batch": 1}, augmentation={"crop": 0.0})
    command = [*TORCHRUN, "-m", "fdta", "train", RUN, "--root", str(root), *choice]
    folder = root / "models" / RUN
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(folder.parent.glob(".*/resume.pt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    (line,) = [line for line in process.communicate()[1].splitlines() if line.startswith("fdta: ")]
    assert "stopped by SIGTERM" in line
    saved = checkpoint.load(work(root) / "resume.pt")["step"]
    assert 0 < saved < 8

    again = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert again.stderr.count("HOTA") == 1
    two = read_history(folder, "step")
    assert [record["step"] for record in two] == list(range(1, 9)) and not (folder / "resume.pt").exists()
    assert json.loads((folder / "record.json").read_text())["job"]["processes"] == 2
    choice = params_with(training={**training, "batch": 2}, augmentation={"crop": 0.0})
    assert main(["train", RUN, "--root", str(root), *choice]) == 0
    assert "from scratch" not in capfd.readouterr().err
    one = read_history(folder, "step")
    assert len(one) == len(two)
    # Later, float32 lets the two part (test_two_processes_train_as_one_that_accumulates_two_batches is in float64).
    for ours, theirs in zip(two[:3], one[:3], strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)


def test_process_that_fails_brings_the_others_down(root, params_with):
    broken = root / "broken"
    subprocess.run(["cp", "-rL", str(root / "data"), str(broken)], check=True)
    (root / "data").unlink()
    broken.rename(root / "data")
    image = sorted((root / "data/smoke-dance/train").glob("*/img1/00000006.jpg"))[1]
    image.write_bytes(image.read_bytes()[:400])
    choice = params_with(training={"clips_per_epoch": 8, "batch": 1})
    command = [*TORCHRUN, "-m", "fdta", "train", RUN, "--root", str(root), *choice]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    told = [line for line in done.stderr.splitlines() if line.startswith("fdta: ")]
    assert done.returncode == 1
    assert [line for line in told if "another process" not in line] == [
        f"fdta: {image}: cut short; copy the sequence again"
    ]
    assert not (root / "models" / RUN / "model.pt").exists()


MEMORY = "out of memory on cpu; lower training.batch or training.no_gradient_chunk"


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("memory", MEMORY),
        ("memory of an exchange", MEMORY),
        ("defect", "ValueError: these shapes; the traceback above shows where"),
    ],
)
def test_process_that_fails_names_itself_and_its_cause(root, params_with, failure, told):
    choice = params_with(training={"clips_per_epoch": 8, "batch": 1})
    helper = str(ROOT / "tests/helpers/train_failing.py")
    command = [*TORCHRUN, helper, failure, "train", RUN, "--root", str(root), *choice]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("fdta: ")]
    assert f"fdta: {root / 'models' / RUN}: process 1 of 2: {told}" in lines
    others = [line for line in lines if "process 1 of 2" not in line]
    assert len(lines) == 1 + len(others) and len(others) <= 1
    assert all(line.startswith("fdta: process 0 of 2: no exchange with another process") for line in others)
    # torchrun names the process that failed first, and its exit code.
    assert done.returncode == 1 and re.search(r"rank +: 1 .*\n +exitcode +: 2 ", done.stderr)
    assert ("ValueError: these shapes\ndo not fit\n" in done.stderr) == (failure == "defect")


@pytest.mark.parametrize(
    ("run", "told"),
    [(RUN, MEMORY), ("smoke-dance/detector", "out of memory on cpu; lower detector_training.batch")],
)
def test_single_process_out_of_memory_ends_in_one_line(root, monkeypatch, capsys, run, told):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    for objective in (DetectorObjective, TrackerObjective):
        monkeypatch.setattr(objective, "__call__", fail)
    checkpoint.save_model(root / "models/smoke-appearance/detector/model.pt", *_appearance())
    assert main(["train", run, "--root", str(root), *CHOICE]) == 2
    assert capsys.readouterr().err == f"fdta: {root / 'models' / run}: {told}\n"


def _appearance() -> tuple[DeformableDetector, Settings, str]:
    """The detector that the other data sets' detectors start from."""
    settings = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-appearance", "detector")
    return DeformableDetector(settings.backbone, settings.detector, settings.spatial), settings, "smoke-appearance"
