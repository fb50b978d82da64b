"""docs/notebooks/track_a_video.ipynb, cell by cell, with a small model; without the cell that plays the video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_video import FRAMES, SETTINGS, decoded, write_clip

from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA


def test_the_notebook_runs(repository: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    monkeypatch.chdir(tmp_path)
    write_clip(Path("street.mp4"))
    save_model(Path("model.pt"), FDTA(SETTINGS), SETTINGS, "dance/full/seed-0")
    notebook = json.loads((repository / "docs/notebooks/track_a_video.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    settings, *steps, player = ("".join(cell["source"]) for cell in cells)
    assert "IPython" in player
    names: dict[str, object] = {}
    for step in (settings.replace('"dancetrack"', '"model.pt"'), *steps):
        exec(step, names)
    assert f"{FRAMES} frames, 2.3 s" in capsys.readouterr().out
    tracked, ways = names["tracked"], names["ways"]
    assert isinstance(tracked, list) and isinstance(ways, dict)
    assert sum(map(len, ways.values())) == sum(len(tracks) for _, tracks in tracked) > 0
    trajectories, presence = (pyplot.figure(number) for number in pyplot.get_fignums())
    assert len(trajectories.axes[0].lines) == len(presence.axes[0].lines) == len(ways)
    assert len(decoded(Path("tracked.mp4"))) == FRAMES
    pyplot.close("all")
