"""What makes a result stale, what does not, and what is there while it is made."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fdta.errors import InputError
from fdta.provenance import RECORD, Records, described, folder_digest, job_key, making, read_record
from fdta.settings import settings, to_plain


@settings(kw_only=True)
class Copy:
    """Joins the files of its inputs."""

    kind: str = "copy"
    code: str = "c0de"
    inputs: dict[str, str | None]
    outputs: tuple[str, ...]
    record: str
    times: int = 1

    @property
    def key(self) -> str:
        return job_key(to_plain(self))


FIRST = Copy(inputs={"own.txt": None}, outputs=("made/first",), record=f"made/first/{RECORD}")
SECOND = Copy(inputs={"made/first": FIRST.record}, outputs=("made/second.txt",), record=f"made/second.{RECORD}")


def make(root: Path, job: Copy, failing: bool = False, rest: str = "") -> None:
    with making(root, job, {"module": job.code}, {"device": "cpu"}) as made:
        text = "".join(
            "".join(sorted(path.read_text() for path in [root / name, *(root / name).glob("*.txt")] if path.is_file()))
            for name in job.inputs
        )
        target = made.path(job.outputs[0])
        if not Path(job.outputs[0]).suffix:
            target.mkdir(exist_ok=True)
            (target / f"{text[:1]}{rest}.txt").write_text(text * job.times)
        else:
            target.write_text(text * job.times)
        if failing:
            raise InputError("no")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with both results made."""
    (tmp_path / "own.txt").write_text("abc")
    make(tmp_path, FIRST)
    make(tmp_path, SECOND)
    return tmp_path


def reasons(root: Path, job: Copy) -> tuple[str, ...]:
    return Records(root).state(job).reasons


def test_what_was_made_is_fresh(root: Path):
    assert reasons(root, FIRST) == reasons(root, SECOND) == ()
    assert (root / "made/second.txt").read_text() == "abc"


def test_times_and_copies_change_nothing(root: Path, tmp_path_factory: pytest.TempPathFactory):
    copy = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert reasons(copy, FIRST) == reasons(copy, SECOND) == ()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: (root / "own.txt").write_text("abd"), "input own.txt changed"),
        (lambda root: (root / "own.txt").unlink(), "input own.txt is missing"),
        (lambda root: (root / FIRST.record).unlink(), "not made yet"),
        (lambda root: (root / FIRST.record).write_text("{"), "not made yet"),
        (lambda root: shutil.rmtree(root / "made/first"), "not made yet"),
    ],
)
def test_what_makes_a_folder_stale(root: Path, spoil: Callable[[Path], object], told: str):
    spoil(root)
    assert reasons(root, FIRST) == (told,)


def test_what_makes_a_file_stale(root: Path):
    (root / "made/second.txt").write_text("a")
    assert reasons(root, SECOND) == ("output made/second.txt is missing or incomplete",)


def test_a_changed_job_names_what_changed(root: Path):
    assert reasons(root, dataclasses.replace(FIRST, times=2)) == ("times: 1 -> 2",)
    assert reasons(root, dataclasses.replace(FIRST, code="0ther")) == ("code changed",)


def test_an_input_made_anew_alike_changes_nothing_and_another_does(root: Path):
    make(root, FIRST)
    assert reasons(root, SECOND) == ()
    make(root, dataclasses.replace(FIRST, times=2))
    assert reasons(root, SECOND) == ("input made/first changed",)


def test_files_of_an_earlier_result_do_not_survive(root: Path):
    make(root, FIRST, rest="-more")
    assert [path.name for path in sorted((root / "made/first").glob("[!.]*"))] == ["a-more.txt", RECORD]


def test_a_failed_step_keeps_the_earlier_result_and_its_own_work(root: Path):
    changed = dataclasses.replace(FIRST, times=2)
    with pytest.raises(InputError):
        make(root, changed, failing=True)
    assert reasons(root, FIRST) == ()
    assert (root / f"made/.first.{changed.key}/a.txt").read_text() == "abcabc"
    make(root, changed)
    assert not list(root.glob("made/.first*")) and reasons(root, changed) == ()


def test_work_of_outdated_jobs_goes_when_the_result_is_made(root: Path):
    for times in (3, 4):
        with pytest.raises(InputError):
            make(root, dataclasses.replace(FIRST, times=times), failing=True)
    assert len(list(root.glob("made/.first.*"))) == 2
    make(root, FIRST)
    assert not list(root.glob("made/.first.*"))


def test_a_step_that_writes_nothing_leaves_nothing(tmp_path: Path):
    (tmp_path / "own.txt").write_text("abc")
    with pytest.raises(InputError, match="did not write"), making(tmp_path, FIRST, {}, {}) as made:
        made.path("made/first")
    with pytest.raises(KeyboardInterrupt), making(tmp_path, FIRST, {}, {}) as made:
        made.path("elsewhere/first")
        raise KeyboardInterrupt
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / FIRST.record).exists()


def test_a_missing_input_is_named_with_the_remedy(tmp_path: Path):
    with pytest.raises(InputError, match=r"own\.txt: no such file or folder; put it there"):
        make(tmp_path, FIRST)
    with pytest.raises(InputError, match=r"first: not there; make it first, or run snakemake --cores all made/second"):
        make(tmp_path, SECOND)
    assert list(tmp_path.iterdir()) == []


def test_the_record_tells_everything(root: Path):
    record = read_record(root / SECOND.record)
    assert record is not None
    assert record.job == to_plain(SECOND) and record.key == SECOND.key and record.code == {"module": "c0de"}
    assert record.inputs["made/first"].digest == folder_digest(root / "made/first")
    assert record.outputs["made/second.txt"].bytes == 3 and record.conditions == {"device": "cpu"}
    told = "\n".join(described(record))
    assert "made/second.txt" in told and "commit unknown" in told and "torch" in told


def test_the_chain_begins_with_what_was_made_first(root: Path):
    assert list(Records(root).chain(SECOND.record)) == [FIRST.record, SECOND.record]
