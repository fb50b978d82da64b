from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_settings import tiny_settings

from fdta.cli import main
from fdta.data.motchallenge import Sequence, read_sequence
from fdta.errors import InputError
from fdta.evaluate.speed import _as_tracked, measure_inference, measure_pipeline
from fdta.evaluate.timing import drawn_frames
from fdta.model.fdta import FDTA

CPU = torch.device("cpu")
COMPONENTS = ("detr", "sa", "ta", "id-prediction", "other")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def sequence(tmp_path: Path) -> Sequence:
    folder = tmp_path / "s"
    (folder / "img1").mkdir(parents=True)
    random = np.random.default_rng(0)
    for frame in range(1, 4):
        cv2.imwrite(str(folder / "img1" / f"{frame:08d}.jpg"), random.integers(0, 256, (80, 120, 3), dtype=np.uint8))
    (folder / "seqinfo.ini").write_text("[Sequence]\nname=s\nseqLength=3\nimWidth=120\nimHeight=80\n")
    return read_sequence(folder)


def slowed(function: Callable, seconds: float) -> Callable:
    def slow(*arguments: object, **named: object) -> object:
        time.sleep(seconds)
        return function(*arguments, **named)

    return slow


def test_components_add_up_to_the_total(sequence: Sequence) -> None:
    settings = tiny_settings()
    measured = measure_inference(FDTA(settings), sequence, settings, CPU, repeats=3)
    assert all(measured["milliseconds"][component] > 0 for component in COMPONENTS)
    assert sum(measured["milliseconds"][component] for component in COMPONENTS) == pytest.approx(
        measured["milliseconds"]["total"]
    )
    assert len(measured["passes"]) == 3
    assert measured["milliseconds"]["total"] == sorted(measured["passes"])[1]
    assert (measured["sequence"], measured["frames"], measured["image"]) == ("s", 3, [96, 64])
    assert measured["objects"] == 6
    assert json.loads(json.dumps(measured)) == measured
    for component, (smallest, largest) in measured["spread"].items():
        assert 0 < smallest <= measured["milliseconds"][component] <= largest
    assert measured["apart"]["decode"] > 0
    assert 0 < measured["apart"]["preprocessing"] < max(measured["passes"])
    assert measured["peak_mebibytes"] > 10


@pytest.mark.parametrize(
    ("component", "part", "calls"),
    [
        ("detr", "detector.backbone", 1),
        ("sa", "detector.spatial_adapter.classifier", 1),
        ("sa", "detector.decoder.1.depth_attention", 1),
        ("ta", "temporal_adapter.layers.0", 1),
        ("id-prediction", "trajectory_features", 1),
        ("id-prediction", "id_decoder", 1),
    ],
)
def test_a_slow_part_counts_for_its_component(sequence: Sequence, component: str, part: str, calls: int) -> None:
    settings = tiny_settings()
    model = FDTA(settings)
    module = model.get_submodule(part)
    module.forward = slowed(module.forward, 0.1)
    measured = measure_inference(model, sequence, settings, CPU, repeats=1)
    assert measured["milliseconds"][component] >= 100 * calls
    assert measured["milliseconds"]["total"] - measured["milliseconds"][component] < 100 * calls


def test_without_adapters_they_take_no_time(sequence: Sequence) -> None:
    settings = tiny_settings(spatial={"enabled": False}, temporal={"enabled": False})
    measured = measure_inference(FDTA(settings), sequence, settings, CPU, repeats=1)
    assert measured["milliseconds"]["sa"] == measured["milliseconds"]["ta"] == 0
    assert measured["milliseconds"]["detr"] > 0 and measured["milliseconds"]["id-prediction"] > 0


def test_time_as_tracked_follows_one_tracker(sequence: Sequence) -> None:
    """What is measured on CUDA besides the components, here without CUDA."""
    settings = tiny_settings()
    model = FDTA(settings)
    model.id_decoder.forward = slowed(model.id_decoder.forward, 0.1)
    arguments = sequence, settings, CPU, (96, 64), 3
    measured = _as_tracked(model.eval(), *arguments, wanted=4, repeats=2)
    # There is a history in every frame that counts.
    assert 100 <= measured["spread"][0] <= measured["milliseconds"] <= measured["spread"][1]
    assert "as_tracked" not in measure_inference(FDTA(settings), sequence, settings, CPU, repeats=1)


def test_measuring_leaves_the_model_as_it_was(sequence: Sequence) -> None:
    settings = tiny_settings()
    model = FDTA(settings)
    measure_inference(model, sequence, settings, CPU, repeats=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_no_pass_is_refused(sequence: Sequence) -> None:
    settings = tiny_settings()
    with pytest.raises(InputError, match="--repeats 0"):
        measure_inference(FDTA(settings), sequence, settings, CPU, repeats=0)


def test_reading_counts_apart(sequence: Sequence) -> None:
    settings = tiny_settings()
    slow = dataclasses.replace(sequence)
    object.__setattr__(slow, "image", slowed(sequence.image, 0.1))
    measured = measure_inference(FDTA(settings), slow, settings, CPU, repeats=1)
    assert measured["apart"]["decode"] >= 100
    assert measured["milliseconds"]["total"] < 100


def test_drawn_frames_with_a_number_of_objects() -> None:
    settings = tiny_settings(tracker={"detection_threshold": 0.3, "newborn_threshold": 0.6, "record_threshold": 0.1})
    with drawn_frames((64, 96), 3) as frames:
        assert frames.image(1).shape == (64, 96, 3)
        assert not (frames.image(1) == frames.image(2)).all()
        measured = measure_inference(FDTA(settings), frames, settings, CPU, repeats=1, objects=4)
        pipeline = measure_pipeline(FDTA(settings).eval(), settings, CPU, str(frames.folder), repeats=2, objects=4)
    assert (measured["objects"], measured["image"]) == (4, [96, 64])
    assert (pipeline["frames"], pipeline["objects"], pipeline["image"]) == (3, 4, [96, 64])
    assert 0 < pipeline["spread"][0] <= pipeline["milliseconds"] <= pipeline["spread"][1]
    assert not frames.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("infer --size 64 64 --weights model.pt", "neither"),
        ("infer data --weights model.pt --objects 3", "--objects is of drawn frames"),
        ("infer --size 64 8", "--size 64 8"),
        ("infer --size 64 100000", "to 8192"),
        ("infer --repeats 0", "--repeats 0"),
        ("infer --frames 0", "--frames 0"),
        ("infer --params other.yaml", "other.yaml: no such file"),
        ("infer --output .", "fdta: .: is a folder"),
        ("load --run dance/full/seed-0 --size 64 64", "--size is of drawn frames"),
        ("pipeline --objects 51", "--objects 51"),
        ("train --frames 4", "--frames 4: from 5"),
        ("train --benchmark smoke", "--run"),
        ("train --dtype float16 --device cpu", "float16"),
        ("infer --dtype float16 --device cpu", "float16"),
    ],
)
def test_bench_refuses(arguments: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments.split()]) == 2
    message = capsys.readouterr().err
    assert told in message and message.count("\n") == 1


def test_bench_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "speed.json"
    command = ["bench", "train", "--run", "dance/full/seed-0", "--size", "64", "96", "--objects", "2"]
    params = ["--params", str(Path(__file__).parents[2] / "params.yaml"), "--repeats", "1", "--output", str(output)]
    assert main([*command, *params, "--no-gradient-dtype", "bfloat16"]) == 0
    written = json.loads(output.read_text())
    assert written["size"] == [64, 96] and written["device"] == "cpu"
    assert (written["dtype"], written["no_gradient_dtype"]) == ("float32", "bfloat16")
    told = capsys.readouterr().out
    assert "milliseconds a step" in told and "this code" in told and f"written: {output}" in told
    pipeline = ["bench", "pipeline", "--size", "64", "96", "--frames", "2", "--repeats", "1", "--objects", "2"]
    assert main(pipeline) == 0
    told = capsys.readouterr().out
    assert "96 x 64, 2.0 objects" in told and "frames a second" in told
    assert main(["bench", "infer", *pipeline[2:], "--output", str(output)]) == 0
    told = capsys.readouterr().out
    (total,) = (line.split()[1] for line in told.splitlines() if line.startswith("total"))
    assert float(total) == pytest.approx(json.loads(output.read_text())["milliseconds"]["total"], rel=1e-3)
    assert all(component in told for component in COMPONENTS if component != "id-prediction")
