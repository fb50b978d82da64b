from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from fdta.cli import main
from fdta.data import images, motchallenge
from fdta.data.motchallenge import read_split
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.settings import read_settings
from fdta.train.loading import PARTS, drawn_data, measure_loading

CPU = torch.device("cpu")


@pytest.fixture
def settings() -> Settings:
    augmentation = {"flip": 1.0, "crop": 1.0, "crop_resize": [48], "crop_sides": [32, 40], "short_sides": [24]}
    return read_settings(Settings, {"history": 3, "augmentation": augmentation}, "", "test")


def test_drawn_data_can_be_read(settings: Settings) -> None:
    with drawn_data(settings, (64, 96), 4) as folder:
        (sequence,) = read_split(folder / "train")
        assert sequence.frames == 6 and sequence.image(1).shape == (64, 96, 3)
        assert sequence.depth(6).shape == (64, 96)
        assert (sequence.ground_truth().frames == 5).sum() == 4
    assert not folder.exists()


def test_parts_add_up(settings: Settings) -> None:
    with drawn_data(settings, (64, 96), 4) as folder:
        measured = measure_loading(folder, settings, CPU, workers=1, clips=4, step=1e-6)
    parts = measured["milliseconds"]
    assert parts.keys() == {*PARTS, "rest", "total"} and all(value > 0 for value in parts.values())
    assert sum(parts[name] for name in (*PARTS, "rest")) == pytest.approx(parts["total"])
    smallest, largest = measured["clip"]["spread"]
    assert 0 < smallest <= measured["clip"]["milliseconds"] <= largest
    assert measured["clips_a_second"].keys() == {"0", "1"} and min(measured["clips_a_second"].values()) > 0
    assert measured["step"]["workers"] > 100 and measured["apart"]["normalize"] > 0
    assert (measured["image"], measured["clip"]["frames"]) == ([96, 64], 3)
    assert json.loads(json.dumps(measured)) == measured


@pytest.mark.parametrize(
    ("module", "name", "part"), [(motchallenge, "_jpeg_size", "image"), (images, "resize", "resize")]
)
def test_a_slow_part_is_told(
    settings: Settings, module: object, name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = getattr(module, name)

    def slow(*arguments: object) -> object:
        time.sleep(0.05)
        return function(*arguments)

    with drawn_data(settings, (96, 128), 4) as folder:
        monkeypatch.setattr(module, name, slow)
        measured = measure_loading(folder, settings, CPU, workers=1, clips=4)
    parts = measured["milliseconds"]
    assert parts[part] >= 50 and parts["total"] - parts[part] < 50
    assert measured["clips_a_second"]["0"] < 1 / (3 * 0.05)
    assert "step" not in measured


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": 10**6}, {"clips": 3}, {"step": 0.0}, {"step": float("inf")}]
)
def test_impossible_numbers_are_refused(settings: Settings, wrong: dict[str, float], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"--{name}"):
        measure_loading(tmp_path, settings, CPU, **{"workers": 1, "clips": 4} | wrong)


def test_bench_load_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "load.json"
    options = [
        "--size",
        "64",
        "96",
        "--objects",
        "2",
        "--clips",
        "4",
        "--workers",
        "1",
        "--step",
        "1e-6",
        "--output",
        str(output),
    ]
    assert main(["bench", "load", *options]) == 0
    assert json.loads(output.read_text())["clip"]["frames"] == 30
    told = capsys.readouterr().out
    assert "image, reading and decoding" in told and f"written: {output}" in told
    assert "more than the" in told
    params = ["--params", str(Path(__file__).parents[2] / "params.yaml"), "--root", str(tmp_path)]
    assert main(["bench", "load", "--run", "dance/full/seed-0", *params]) == 2
    assert "no such folder" in capsys.readouterr().err
