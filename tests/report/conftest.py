from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.finished_project import PARAMS, write_project

from fdta.experiment.params import Experiment


@pytest.fixture
def params(tmp_path: Path) -> Experiment:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return Experiment(path)


@pytest.fixture
def changed_params(tmp_path: Path) -> Callable[..., Experiment]:
    """Settings in which (old, new) pieces of text are replaced."""

    def change(*replacements: tuple[str, str]) -> Experiment:
        text = PARAMS
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return Experiment(path)

    return change


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write_project(root)
    return root
