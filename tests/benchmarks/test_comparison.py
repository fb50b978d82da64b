"""The comparison with the published code, with our model in the place of the published one."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import published
import pytest
import torch
from helpers.tiny_settings import tiny_settings
from torch import Tensor

from fdta.evaluate.timing import device_clock, drawn_model
from fdta.track.tracker import OnlineTracker

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("infer --size 64 64 --objects 2", "nowhere/configs/dancetrack.yaml: no such file"),
        ("train --size 64 64 --frames 2", "--frames 2: from 5, because 4 have a gradient, to 30"),
        ("infer --dtype float16 --device cpu", "float16"),
        ("infer --size 64 8", "--size 64 8: both sides from 64"),
        ("infer --size 64 100000", "to 8192"),
        ("infer --objects 0", "--objects 0: between 1 and 50"),
        ("train --objects 51", "--objects 51: between 1 and 50"),
        ("infer --repeats 0", "--repeats 0: measure at least once"),
        ("train --output .", "--output .: it is a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert published.main([*arguments.split(), "--reference", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fdta: ") and message in error and error.count("\n") == 1


def test_a_package_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/dancetrack.yaml").write_text("{}")
    assert published.main(["infer", "--size", "64", "64", "--objects", "2", "--reference", str(tmp_path)]) == 2
    assert "pip install torchvision einops" in capsys.readouterr().err


def test_inference_is_compared_on_the_same_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower reference with one output changed."""
    ours = drawn_model(tiny_settings(), CPU)

    def detect(images: Tensor) -> dict[str, Tensor | None]:
        time.sleep(0.1)
        output = ours.detector(images)
        names = {"pred_logits": output.logits + 1, "pred_boxes": output.boxes_cxcywh}
        return names | {"outputs": output.embeddings, "weighted_depth": output.depth}

    reference = SimpleNamespace(device=CPU, detect=detect, id_logits=OnlineTracker.scores_of(ours))
    measured = published.compare_inference(ours, reference, (64, 96), 4, 3, repeats=2)
    detector = measured["detector"]
    assert detector["published"]["milliseconds"] >= 100 and detector["ratio"]["median"] > 1
    assert detector["differences"]["logits"] > 0 == detector["differences"]["boxes"]
    assert measured["association"]["differences"] == {"logits": 0}
    assert (measured["size"], measured["objects"], measured["history"]) == ([64, 96], 3, 4)


def test_ratios_are_published_over_ours() -> None:
    def busy(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    measured, work = published.by_turns([lambda: busy(0.01), lambda: busy(0.04)], 3, device_clock(CPU))
    ratio = published.ratios(measured, work)
    assert len(measured[0]) == 3 and ratio["processor"] > 1 and ratio["median"] > 1
