"""`snakemake --lint` has one kind of complaint: no rule has an environment of its own (docs/architecture.md)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("snakemake")
ROOT = Path(__file__).parents[2]


def test_lint_finds_nothing_else(tmp_path: Path):
    command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(ROOT / "Snakefile")]
    result = subprocess.run([*command, "--directory", str(tmp_path)], capture_output=True, text=True)
    found = set(re.findall(r"^    \* (.+)", result.stderr + result.stdout, re.MULTILINE))
    assert found == {"Specify a conda environment or container for each rule.:"}, result.stderr
