"""Each kind of file, changed at random: the command succeeds, or ends with one line that names the file.

`make fuzz MINUTES=30` does the same for as long as one likes.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from helpers.malformed import KINDS, build, try_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("templates")


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_malformed_file_ends_in_one_line(templates: Path, name: str, seed: int) -> None:
    template = templates / name
    if not template.exists():
        build(KINDS[name], template)
    assert try_one(KINDS[name], template, Random(seed)) is None
