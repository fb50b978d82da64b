"""A small project in which everything is trained and measured, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

PARAMS = """
benchmark: tiny
seeds: [0]
benchmarks:
  tiny:
    note: Made for a test.
    datasets:
      stills:
        title: stills
        splits: {train: 2, val: 1}
        test_split: val
        render: {scene: appearance, frames: 4}
        overrides: {loss.attributes: 0.5}
      dance:
        title: made dancers
        counterpart: DanceTrack
        splits: {train: 2, val: 1, test: 3}
        render: {scene: dance, frames: 10}
        detector_start: stills
    settings:
      history: 8
    variants:
      short-base: {history: 2}
      short-ta: {history: 2}
variants:
  full: {}
  base: {spatial.enabled: false, temporal.enabled: false, identity.enabled: false}
  ta: {spatial.enabled: false, identity.enabled: false}
  extra: {training_splits: [train, val]}
  short-base: {history: 5, spatial.enabled: false, temporal.enabled: false, identity.enabled: false}
  short-ta: {history: 5, spatial.enabled: false, identity.enabled: false}
tables:
  table-1:
    title: Comparison
    dataset: DanceTrack
    rows: {sort: sort, bot-sort: bot-sort, motip: base, ours: full, ours-extra: extra}
  table-3: {title: Comparison, dataset: BFT, rows: {ours: full}}
  table-4: {title: Adapters, dataset: DanceTrack, rows: {base: base, ta: ta, full: full}}
  table-8: {title: Speed, dataset: DanceTrack, rows: {detr: full, id-prediction: full, total: full}}
  table-11:
    title: History
    dataset: DanceTrack
    rows: {short-base: short-base, short-ta: short-ta, full-base: base, full-ta: ta}
"""
HOTA = {
    "full": (50.0, 62.0, 71.0),
    "base": (48.0, 60.0, 66.0),
    "ta": (49.0, 59.0, 70.0),
    "extra": (55.0, 63.0, 72.0),
    "short-base": (40.0, 50.0, 60.0),
    "short-ta": (42.0, 51.0, 63.0),
    "sort": (30.0, 40.0, 50.0),
    "bot-sort": (31.0, 41.0, 54.0),
}
"""Of the three test sequences, by variant or baseline."""


def write_scores(root: Path, measured_by: str, hota: tuple[float, ...], seed: int = 0) -> Path:
    def entry(value: float) -> dict[str, float]:
        return {"HOTA": value, "IDF1": value + 10, "AssA": value - 5, "MOTA": value + 20, "DetA": value + 5, "IDSW": 7}

    scores = {f"dance-test-{i:04d}": entry(value) for i, value in enumerate(hota, start=1)}
    scores["combined"] = entry(sum(hota) / len(hota))
    path = root / "scores" / "dance" / measured_by / f"seed-{seed}" / "test.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores))
    return path


def write_similarity(path: Path) -> None:
    histogram = {
        "edges": [round(-1 + i / 20, 10) for i in range(41)],
        "counts": [0] * 30 + [5] * 6 + [0] * 2 + [5] * 2,
    }
    similarity = {"threshold": 0.3, "pairs": 40, "mean": 0.7, "share_above_0.9": 0.25, "histogram": histogram}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(similarity))


def write_model(model: Path, history: Path) -> None:
    """A checkpoint and the history of two epochs of two steps."""
    records = []
    for step in range(1, 5):
        losses = {"total": 5.0 / step, "association": 1.0 / step}
        record = {"kind": "step", "step": step, "epoch": (step - 1) // 2, "losses": losses}
        records.append(record | {"learning_rate": 1e-3, "seconds": 9.0})
        if step % 2 == 0:
            scores = {"HOTA": 30.0} if step == 4 else {}
            records.append({"kind": "epoch", "epoch": step // 2 - 1, "seconds": 18.0, "scores": scores})
    history.parent.mkdir(parents=True, exist_ok=True)
    history.write_text("".join(json.dumps(record) + "\n" for record in records))
    model.write_bytes(b"weights")


def write_project(root: Path) -> None:
    """All files that the runs of `PARAMS` leave."""
    for measured_by, hota in HOTA.items():
        scores = write_scores(root, measured_by, hota)
        if "sort" in measured_by:
            continue
        write_similarity(scores.with_name("test-similarity.json"))
        folder = root / "models" / "dance" / measured_by / "seed-0"
        write_model(folder / "model.pt", folder / "history.jsonl")
    write_similarity(root / "scores" / "dance" / "detector" / "seed-0" / "test-similarity.json")
    for dataset in ("stills", "dance"):
        folder = root / "models" / dataset / "detector"
        write_model(folder / "model.pt", folder / "history.jsonl")
    (root / "data" / "dance").mkdir(parents=True)
    costs = {"a": {"seconds": 1800.0, "bytes": 10**9}, "b": {"seconds": None, "bytes": 5 * 10**8}}
    (root / "data" / "dance" / "depth-train.json").write_text(json.dumps(costs))
    milliseconds = {"detr": 30.0, "sa": 2.0, "ta": 3.0, "id-prediction": 10.0, "other": 5.0, "total": 50.0}
    speed = {"milliseconds": milliseconds, "image": [160, 96], "objects": 4.5, "machine": "a machine", "threads": 2}
    (root / "results").mkdir()
    (root / "scores" / "dance" / "speed.json").write_text(json.dumps(speed))
