"""What the tests of training share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fdta.data.clips import ClipBatch, ClipDataset, collate

ROOT = Path(__file__).parents[2]
CHOICE = ["--params", str(ROOT / "params.yaml"), "--benchmark", "smoke"]
RUN = "smoke-dance/full/seed-0"


def first_batch(data: ClipDataset, clips: int = 1) -> ClipBatch:
    """The first clips of the first epoch, as the model reads them."""
    drawn = [data.clip(0, i, *clip) for i, clip in enumerate(data.sampler.epoch(0)[:clips])]
    return collate(drawn).to(torch.device("cpu"))


def work(root: Path, run: str = RUN) -> Path:
    """Folder in which a run is trained until it is finished."""
    folder = root / "models" / run
    found = list(folder.parent.glob(f".{folder.name}.*"))
    assert len(found) == 1, found
    return found[0]


def without_times(folder: Path) -> list[dict[str, Any]]:
    """All records of a run's history, without what was measured."""
    records = map(json.loads, (folder / "history.jsonl").open())
    return [{key: value for key, value in record.items() if key not in ("seconds", "waited")} for record in records]


def read_history(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind of a run's history."""
    return [record for record in map(json.loads, (folder / "history.jsonl").open()) if record["kind"] == kind]
