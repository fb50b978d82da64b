from __future__ import annotations

from pathlib import Path

import pytest

from fdta.errors import InputError
from fdta.report.results import read_history
from fdta.train.history import NOTHING_SAVED, History, Saved

STEP = {"kind": "step", "epoch": 0, "losses": {"total": 1.0}, "learning_rate": 0.1, "seconds": 1.0, "waited": 0.0}


def begin(folder: Path, saved: Saved = NOTHING_SAVED) -> History:
    return History(folder / "history.jsonl", saved)


def add(history: History, *numbers: int) -> Saved:
    for number in numbers:
        history.add(STEP | {"step": number})
    history.save()
    return history.saved


def steps(folder: Path) -> list[int]:
    return [record.step for record in read_history(folder / "history.jsonl")]


def test_records_after_the_saved_ones_are_removed_on_resuming(tmp_path: Path) -> None:
    first = begin(tmp_path)
    saved = add(first, 1, 2)
    add(first, 3, 4)
    resumed = begin(tmp_path, saved)
    assert steps(tmp_path) == [1, 2, 3, 4]
    later = add(resumed, 3)
    assert steps(tmp_path) == [1, 2, 3]
    add(begin(tmp_path, later), 4)
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_line_that_a_kill_cut_is_no_record_and_is_removed_on_resuming(tmp_path: Path) -> None:
    saved = add(begin(tmp_path), 1, 2)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert steps(tmp_path) == [1, 2]
    add(begin(tmp_path, saved), 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_history_from_scratch_replaces_an_earlier_one(tmp_path: Path) -> None:
    add(begin(tmp_path), 1, 2, 3)
    (tmp_path / "history.jsonl").unlink()
    add(begin(tmp_path), 1)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("content", [None, "", '{"kind": "step", "step": 1}\n', '{"kind": "step", "step": 2}\n' * 2])
def test_other_history_than_the_saved_one_is_an_error(tmp_path: Path, content: str | None) -> None:
    saved = add(begin(tmp_path), 1, 2)
    (tmp_path / "history.jsonl").unlink()
    if content is not None:
        (tmp_path / "history.jsonl").write_text(content)
    with pytest.raises(InputError, match="not the history of the training to resume; restore the file, or train from"):
        begin(tmp_path, saved)
