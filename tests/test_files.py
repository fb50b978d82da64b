"""Files and folders appear whole or not at all, also if the process is killed or the machine stops."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fdta import files
from fdta.acquire.splits import _held
from fdta.errors import InputError
from fdta.files import OWN, restore_folder, whole_file, whole_folder


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each fsync and each rename, with the inode that it is about."""
    seen: list[tuple[str, int]] = []

    def noted(name: str, inode: Callable[..., int]) -> None:
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given: (seen.append((name, inode(*given))), call(*given))[1])

    noted("fsync", lambda number: os.fstat(number).st_ino)
    noted("replace", lambda source, _: os.stat(source).st_ino)
    return seen


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_file_is_on_disk_before_it_replaces_the_old_one_and_its_name_after(tmp_path: Path, events: list) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    assert events == [("fsync", inode(path)), ("replace", inode(path)), ("fsync", inode(tmp_path))]


def test_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.b.txt"
    killed = (
        "import os, pathlib, sys; from fdta.files import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as path: path.write_text('x'); os._exit(9)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed, str(path)]).returncode == 9
    left = list(tmp_path.iterdir())
    assert len(left) == 2
    others = [tmp_path / name for name in (".a.b.0123456x.txt", ".a.b.01234567.json", ".a.01234567.txt", ".a.b.txt")]
    for other in others:
        other.write_text("kept")
    for old in (left[0], *others):
        os.utime(old, (0, 0))
    with whole_file(path) as first:
        # Old as it is, this one is in use.
        os.utime(first, (0, 0))
        with whole_file(path) as second:
            assert first.exists() and second != first and not left[0].exists() and left[1].exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, left[1], *others])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_system_without_fsync_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == inode(tmp_path):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def written(folder: Path, content: str) -> None:
    with whole_folder(folder) as temporary:
        for number in range(3):
            (temporary / f"{number}").write_text(content)


def read(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir()) if path.name != OWN]


def test_folder_is_replaced_and_its_files_are_not_waited_for(tmp_path: Path, events: list) -> None:
    folder = tmp_path / "set"
    written(folder, "old")
    events.clear()
    written(folder, "new")
    assert read(folder) == ["new"] * 3 and list(tmp_path.iterdir()) == [folder]
    synced = [number for name, number in events if name == "fsync"]
    assert synced == [inode(folder), inode(tmp_path)]


@pytest.mark.parametrize("failing", [1, 2])
def test_folder_whose_replacement_fails_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Of the two renames, the first sets the old folder aside and the second puts the new one in its place."""
    folder = tmp_path / "set"
    written(folder, "old")
    renames, replace = [], os.replace

    def failed(*paths: Path) -> None:
        renames.append(paths)
        if len(renames) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(*paths)

    monkeypatch.setattr(os, "replace", failed)
    with pytest.raises(OSError, match="error"):
        written(folder, "new")
    assert read(folder) == ["old"] * 3 and list(tmp_path.iterdir()) == [folder]


KILLED = """
import os, shutil, sys
from pathlib import Path
from fdta.files import whole_folder

folder, moment = Path(sys.argv[1]), sys.argv[2]
replace, renames = os.replace, []

def rename(*paths):
    renames.append(paths)
    if moment == f"rename {len(renames)}":
        os._exit(9)
    replace(*paths)

def remove(path, **_):
    os.unlink(Path(path) / "0")
    os._exit(9)

os.replace, shutil.rmtree = rename, remove
with whole_folder(folder) as temporary:
    for number in range(3):
        (temporary / f"{number}").write_text("new")
"""


@pytest.mark.parametrize(("moment", "expected"), [("rename 1", "old"), ("rename 2", "old"), ("remove", "new")])
@pytest.mark.parametrize("then", ["restored", "not replaced", "replaced", "held"])
def test_kill_in_the_midst_leaves_the_old_folder_or_the_new_one(
    tmp_path: Path, moment: str, expected: str, then: str
) -> None:
    folder = tmp_path / "set"
    written(folder, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), moment]).returncode == 9
    if then == "restored":
        restore_folder(folder)
    elif then == "not replaced":
        with pytest.raises(KeyboardInterrupt), whole_folder(folder):
            raise KeyboardInterrupt
    elif then == "replaced":
        written(folder, "newer")
        expected = "newer"
    else:
        with _held(folder):
            pass
    assert read(folder) == [expected] * 3
    assert not (tmp_path / ".set.before").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_file_or_link_is_not_replaced_by_a_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set"
    if kind == "file":
        path.write_text("kept")
    else:
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError), whole_folder(path):
        pytest.fail("begun in vain")
    assert path.is_symlink() == (kind == "link") and path.exists()


def test_an_empty_folder_that_others_made_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", "new")
    assert read(tmp_path / "set") == ["new"] * 3 and list(tmp_path.iterdir()) == [tmp_path / "set"]
