from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_settings import tiny_settings

import fdta
from fdta.boxes import iou, xywh_to_xyxy
from fdta.cli import main
from fdta.data.motchallenge import read_boxes
from fdta.errors import InputError
from fdta.model import onnx as exporting
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.synthetic.render import render_split
from fdta.synthetic.settings import RenderSettings
from fdta.track.exported import Exported

onnx = pytest.importorskip("onnx", reason="exporting needs onnx, pip install 'fdta[onnx]'")
for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"exported trackers need {package}, pip install 'fdta[onnx]'")

RUN = "dance/full/seed-0"
FRAMES = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """model.pt, its export for the rendered images, and those: sequences/dance-test-0001."""
    folder = tmp_path_factory.mktemp("exported")
    render_split(RenderSettings("dance", width=96, height=64, frames=FRAMES), "test", 1, folder / "sequences")
    thresholds = {"detection_threshold": 0.3, "newborn_threshold": 0.4, "record_threshold": 0.1}
    settings = tiny_settings(
        detector={"levels": 3, "decoder_layers": 1, "queries": 12},
        # The other kinds of layers are those of tests/model/test_onnx.py.
        backbone={"block": "bottleneck", "norm": "frozen-batch", "widths": [4] * 4},
        spatial={"enabled": False},
        temporal={"enabled": False},
        association={"initialization": "copy", "layers": 2},
        tracker=thresholds,
    )
    torch.manual_seed(0)
    model = FDTA(settings)
    with torch.no_grad():  # Scores of any kind, so that objects come and go.
        model.detector.class_heads[0].weight *= 8
        model.detector.class_heads[0].bias.zero_()
    save_model(folder / "model.pt", model, settings, RUN)
    options = ("--format", "onnx", "--size", "64x96", "--sampling", "grid_sample")
    assert run("export", folder / "model.pt", "--output", folder / "onnx", *options) == 0
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_folder(place):
    names = {"detector.onnx", "association.onnx", "settings.json", ".made-by-fdta"}
    assert {path.name for path in (place / "onnx").iterdir()} == names
    described = json.loads((place / "onnx/settings.json").read_text())
    assert described["run"] == RUN and described["size"] == [64, 96] and described["format"] == 1
    exported = Exported.read(place / "onnx")
    graph = onnx.load_from_string(exported.detector).graph
    # Of three levels, in one encoder and one decoder layer.
    assert [node.op_type for node in graph.node].count("GridSample") == 6
    assert exported.settings.detector.levels == 3 and exported.small
    for name, file in (("detector.onnx", exported.detector), ("association.onnx", exported.association)):
        network, told = exporting.session(file), described["files"][name]
        assert [one.name for one in network.get_inputs()] == list(told["inputs"])
        assert [one.name for one in network.get_outputs()] == list(told["outputs"])


def test_both_engines_track_the_same(place, tmp_path, capsys):
    sequence = next(path for path in (place / "sequences").iterdir() if path.is_dir())
    engines = {"torch": place / "model.pt", "onnxruntime": place / "onnx"}
    rows = []
    for engine, weights in engines.items():
        options = ("--engine", engine, "--threads", 2) if engine == "onnxruntime" else ()
        assert run("track", sequence, "--weights", weights, "--output", tmp_path / f"{engine}.txt", *options) == 0
        rows.append(read_boxes(tmp_path / f"{engine}.txt", FRAMES))
        split = tmp_path / engine
        assert run("track", place / "sequences", "--weights", weights, "--output", split, *options) == 0
        assert (split / f"{sequence.name}.txt").read_text() == (tmp_path / f"{engine}.txt").read_text()
    ours, theirs = rows
    assert len(ours.frames) > 3 * FRAMES and ours.identities.max() > ours.frames.tolist().count(1)
    place_of = {key: row for row, key in enumerate(zip(theirs.frames, theirs.identities, strict=True))}
    pairs = [
        (row, place_of[key])
        for row, key in enumerate(zip(ours.frames, ours.identities, strict=True))
        if key in place_of
    ]
    corners = [xywh_to_xyxy(boxes.boxes_xywh[chosen]) for boxes, chosen in zip(rows, np.array(pairs).T, strict=True)]
    overlaps = iou(*corners)
    assert (overlaps > 0.99).sum() >= 0.995 * max(len(ours.frames), len(theirs.frames))

    tracker, other = fdta.exported_tracker(place / "onnx", threads=1), fdta.Tracker.from_checkpoint(place / "model.pt")
    assert tracker.threads == 1 and tracker.device == torch.device("cpu")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for _ in range(2):
        np.testing.assert_allclose(tracker.update(image).boxes_xyxy, other.update(image).boxes_xyxy, atol=1e-2)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: (folder / "settings.json").unlink(), "no exported tracker, settings.json is missing; make it"),
        (lambda folder: (folder / "settings.json").write_text("{"), "settings.json: no JSON; export again"),
        (lambda folder: (folder / "settings.json").write_text("[]"), "its format is None, not 1; export again"),
        (
            lambda folder: (folder / "detector.onnx").open("ab").write(b"x"),
            "detector.onnx: changed since it was exported",
        ),
        (lambda folder: edit_settings(folder, "association", labels=5), "association.onnx: is not the network that"),
        (lambda folder: edit_settings(folder, "detector", width=128), "detector.onnx: is not the network that"),
        (lambda folder: edit(folder, size="dynamic"), "detector.onnx: is not the network that settings.json describes"),
        (lambda folder: (folder / "settings.json").write_text("[" * 100_000), "settings.json: no JSON; export again"),
        (lambda folder: (folder / "association.onnx").unlink(), "association.onnx: missing, or no file; export again"),
        (lambda folder: edit(folder, size="any"), "settings.json: size 'any' is neither dynamic nor two sides"),
        (lambda folder: edit(folder, small=None), "settings.json: run or small is missing; export again"),
        (lambda folder: edit(folder, run="../x"), "settings.json"),
        (lambda folder: edit(folder, settings={"history": 0}), "settings.json: settings.history"),
        (lambda folder: edit(folder, files={}), "settings.json: the sha256 of detector.onnx is missing; export again"),
    ],
)
def test_changed_folder(place, tmp_path, capsys, change, message):
    shutil.copytree(place / "onnx", tmp_path / "onnx")
    change(tmp_path / "onnx")
    output = tmp_path / "tracks.txt"
    assert (
        run("track", place / "sequences", "--weights", tmp_path / "onnx", "--engine", "onnxruntime", "--output", output)
        == 2
    )
    assert message in told(capsys)
    assert not output.exists()


def edit(folder: Path, **values: object) -> None:
    described = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(described | values))


def edit_settings(folder: Path, part: str, **values: object) -> None:
    settings = json.loads((folder / "settings.json").read_text())["settings"]
    edit(folder, settings=settings | {part: settings[part] | values})


@pytest.mark.parametrize(
    "options, message",
    [
        (("--engine", "torch"), "onnx: a folder of `fdta export`; add --engine onnxruntime"),
        (
            ("--engine", "onnxruntime", "--dtype", "bfloat16"),
            "--dtype bfloat16: exported networks are float32; leave it",
        ),
        (("--engine", "onnxruntime", "--benchmark", "paper"), "--params and --benchmark are of a run;"),
        (("--engine", "onnxruntime", "--params", __file__), "--params and --benchmark are of a run;"),
        (("--engine", "onnxruntime", "--threads", "0"), "--threads 0: give a number from 1 to"),
    ],
)
def test_options_that_do_not_fit(place, tmp_path, capsys, options, message):
    given = ("--weights", place / "onnx", "--output", tmp_path / "tracks")
    assert run("track", place / "sequences", *given, *options) == 2
    assert message in told(capsys)


def test_weights_that_are_not_exported(place, tmp_path, capsys):
    given = ("--weights", place / "model.pt", "--engine", "onnxruntime", "--output", tmp_path / "tracks")
    assert run("track", place / "sequences", *given) == 2
    assert "--engine onnxruntime needs a folder of `fdta export`; give fdta export" in told(capsys)


def test_images_of_another_size(place):
    tracker = fdta.exported_tracker(place / "onnx")
    with pytest.raises(
        InputError,
        match=rf"made for images of 64x96 in the network, these have 64x80; give fdta export {RUN} .* --size 64x80 ",
    ):
        tracker.update(np.zeros((64, 80, 3), np.uint8))


def test_onnxruntime_is_not_installed(place, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    line = "fdta: this needs the package onnxruntime; give pip install 'fdta[onnx]'"
    given = ("--weights", place / "onnx", "--engine", "onnxruntime", "--output", tmp_path / "tracks")
    assert run("track", place / "sequences", *given) == 2
    assert told(capsys) == line
    assert run("export", place / "model.pt", "--output", tmp_path / "onnx") == 2
    assert told(capsys) == line
    assert not (tmp_path / "onnx").exists()


def test_networks_that_differ_from_torch_are_not_written(place, tmp_path, capsys, monkeypatch):
    other = Exported.read(place / "onnx")
    torch.manual_seed(1)
    save_model(tmp_path / "other.pt", FDTA(other.settings), other.settings, RUN)
    monkeypatch.setattr(exporting, "_exported", lambda *_: other.detector)
    assert run("export", tmp_path / "other.pt", "--output", tmp_path / "onnx", "--size", "64x96") == 2
    assert "detector at 64 x 96: scores of onnxruntime differ from torch by" in told(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]


def test_outputs_and_sizes_of_export(place, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/note.txt").write_text("mine")
    assert run("export", place / "model.pt", "--output", tmp_path / "mine") == 2
    assert "the folder is there and not made by fdta" in told(capsys)
    assert run("export", place / "model.pt", "--output", tmp_path / "onnx", "--size", "8x96") == 2
    assert "--size 8x96: both sides from 16 to 8192" in told(capsys)
    with pytest.raises(SystemExit, match="2"):
        run("export", place / "model.pt", "--output", tmp_path / "onnx", "--size", "64*96")
    assert "'64*96' is no height and width, such as 800x1422" in told(capsys)
    assert run("export", place / "missing.pt", "--output", tmp_path / "onnx") == 2
    assert "no such checkpoint" in told(capsys)
    assert not (tmp_path / "onnx").exists()
