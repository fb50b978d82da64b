"""The comparison of engines, with torch in the place of onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import engines
import pytest
import torch
from helpers.tiny_settings import tiny_settings

from fdta.track.pipeline import Networks


def test_both_engines_are_measured_by_turns(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[object, ...]] = []
    calls: list[int] = []

    def networks(_: str, threads: int) -> Networks:
        model, settings, *_ = written[0]
        calls.append(threads)
        return Networks.of(model, settings)

    monkeypatch.setattr(engines, "Settings", tiny_settings)
    monkeypatch.setattr(engines, "write_exported", lambda *given: written.append(given))
    monkeypatch.setattr(engines, "Exported", SimpleNamespace(read=lambda _: SimpleNamespace(networks=networks)))
    before, output = torch.get_num_threads(), tmp_path / "speed.json"
    given = ["--size", "64", "96", "--objects", "3", "--repeats", "2", "--threads", "1", "--fixed"]
    try:
        assert engines.main([*given, "--output", str(output)]) == 0
    finally:
        torch.set_num_threads(before)
    assert calls == [1] and written[0][-1] == (64, 96)
    measured = json.loads(output.read_text())
    assert measured["image"] == [96, 64] and list(measured["threads"]) == ["1"]
    for of in measured["threads"]["1"].values():
        low, high = of["wall"]["ratio"]["spread"]
        assert 0 < low <= of["wall"]["ratio"]["milliseconds"] <= high
    assert capsys.readouterr().out.count("torch / onnxruntime") == 4


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in (
        (["--size", "64", "8"], "both sides from 64"),
        (["--repeats", "0"], "measure at least once"),
    ):
        assert engines.main(given) == 2
        error = capsys.readouterr().err
        assert error.startswith("fdta: ") and message in error and error.count("\n") == 1
