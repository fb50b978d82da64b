from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from finished_project import PARAMS, write_project

from fdta.params import Params


@pytest.fixture
def params(tmp_path: Path) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return Params(path)


@pytest.fixture
def changed_params(tmp_path: Path) -> Callable[..., Params]:
    """Settings in which (old, new) pieces of text are replaced."""

    def change(*replacements: tuple[str, str]) -> Params:
        text = PARAMS
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return Params(path)

    return change


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write_project(root)
    return root
