"""The script for a GPU, as far as a CPU can tell."""

from __future__ import annotations

import sys
from pathlib import Path

import gpu

MEASURED = {
    "peak": {
        "teraflops": {"float32": 50.0, "bfloat16": 800.0},
        "terabytes": 4.0,
        "frame_teraflop": 0.8,
        "size": [800, 1422],
        "machine": "a card",
        "seconds": 3.0,
    },
    "tests": {"error": "one failed", "seconds": 1.0},
    "precision": {
        "distances": {"float32": {"logits": [1e-5, 1e-6], "boxes": [2e-5, 2e-6], "embeddings": [3e-5, 3e-6]}},
        "seconds": 1.0,
    },
    "infer-bfloat16": {
        "milliseconds": {"detr": 8.0, "total": 12.0},
        "as_tracked": {"milliseconds": 10.0},
        "peak_mebibytes": 900.0,
        "seconds": 1.0,
    },
    "train-bfloat16-4": {
        "parts": {"loss": 100.0, "gradients": 200.0, "optimizer": 5.0},
        "ours": {"milliseconds": 305.0, "peak_mebibytes": 20000.0},
        "seconds": 1.0,
    },
}


def test_tables() -> None:
    text = gpu.markdown(MEASURED)
    # 0.8 TFLOP in 10 ms are 80 TFLOP/s, a tenth of the card's best.
    assert "| bfloat16 | 8 | 12 | 10 | 10 | 900 |" in text
    assert "| bfloat16, clips 4 | 100 | 200 | 5 | 305 | 20000 |" in text
    assert "| float32 | 1e-05 | 1e-06 | 2e-05 | 2e-06 | 3e-05 | 3e-06 |" in text
    assert text.endswith("tests failed.\n")


def test_parts_that_succeed_fail_and_hang(tmp_path: Path) -> None:
    def run(code: str, limit: float = 30) -> dict[str, object]:
        return gpu.run([sys.executable, "-c", code], limit, tmp_path / "part.json")

    assert run("print('first'); print('{\"a\": 1}')")["a"] == 1
    assert "ValueError" in str(run("raise ValueError")["error"])
    assert "not finished in 1 s" in str(run("import time; time.sleep(60)", 1)["error"])


def test_every_part_is_a_command_of_the_package(tmp_path: Path) -> None:
    found = gpu.run([sys.executable, "-m", "fdta", "bench", "infer", "--size", "8", "8"], 60, tmp_path / "part.json")
    assert "--size 8 8" in str(found["error"])
