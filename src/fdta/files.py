"""Files appear whole or not at all, and stay whole if the machine stops."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fdta.errors import InputError

OWN = ".made-by-fdta"
"""Empty file in a folder that was made here: such a folder may be replaced, no other."""
TEMPORARY = "fdta-"
"""In the names of temporary files and folders, behind the name of what they become: no user's file is called so."""
LEFT_SECONDS = 60
"""Age from which a temporary file that nobody writes may be removed."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path next to `path`. On success it replaces `path` and is on disk; on failure it is removed.

    Where `path` is a link, what it leads to is written, and the link stays.

    Raises:
        InputError: see `check_replaceable`.
    """
    path = Path(path)
    check_replaceable(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.stem[:100]}.{TEMPORARY}{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        with _naming(path, temporary), temporary.open("xb") as held:
            _lock(held.fileno())
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what `whole_file` or `whole_folder` made for `path` if its process was killed: nobody holds its lock."""
    name = re.compile(rf"\.{re.escape(path.stem[:100])}\.{TEMPORARY}[0-9a-f]{{8}}{re.escape(path.suffix)}")
    with os.scandir(path.parent) as entries:
        found = [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
    for temporary in found:
        try:
            # One that another process has just made may not be locked yet.
            if time.time() - temporary.lstat().st_mtime < LEFT_SECONDS:
                continue
            with _opened(temporary) as number:
                if _lock(number):
                    shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
        except OSError:
            # Removed meanwhile, or another user's.
            continue


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file or folder, open to be locked."""
    number = os.open(path, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)


def _lock(number: int) -> bool:
    """Lock the open file until it is closed, or its process ends in whatever way; False: another has it, or there are
    no locks here."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_replaceable(path: Path) -> None:
    """Refuse to write a file to `path` where something else is.

    Raises:
        InputError: there is a folder, a device, a pipe or a socket, or a link to one, or a link in a circle.
    """
    if Path(os.path.realpath(path)).is_symlink():
        raise InputError(f"{path}: its links form a circle; remove them or choose another name")
    if path.is_file() or not path.exists():
        return
    kinds = ((path.is_dir(), "folder"), (path.is_fifo(), "pipe"), (path.is_socket(), "socket"))
    kind = next((name for found, name in kinds if found), "device")
    raise InputError(f"{path}: is a {kind}, which is not replaced; give the name of a file")


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | str | None]) -> None:
    """Reject outputs of a command that would replace its inputs or each other.

    Args:
        outputs: files and folders to write; None is left out.
        inputs: files and folders to read. Nothing may be written into a folder of them.

    Raises:
        InputError: an output is an input or in one, by whatever name or link, or two outputs are the same file.
    """
    read = {Path(os.path.realpath(path)): path for path in inputs if path is not None}
    written: set[Path] = set()
    for output in outputs:
        if output is None:
            continue
        place = Path(os.path.realpath(output))
        if place in written:
            raise InputError(f"{output}: two outputs have this name; they must be different files, rename one")
        written.add(place)
        if place in read:
            raise InputError(f"{output}: is an input; input and outputs must be different files, rename the output")
        within = next((read[parent] for parent in place.parents if parent in read), None)
        if within is not None:
            raise InputError(f"{output}: is in the folder {within}, which is an input; write it to another folder")


def check_beside(output: Path, *beside: Path) -> None:
    """Refuse to replace files beside `output` that were not made with it.

    Args:
        output: a file to write, chosen by the user.
        beside: what is written with it, under names that the user did not choose.

    Raises:
        InputError: there is no `output` yet, but one of `beside`.
    """
    there = [] if output.exists() else [path for path in beside if path.exists()]
    if there:
        raise InputError(
            f"{there[0]}: would be replaced, and was not made with {output}, which is not there; choose another folder "
            f"or move it away"
        )


def check_own_folder(path: Path) -> None:
    """Refuse to replace a folder that was not made here (`OWN`).

    Raises:
        InputError: `path` is a file or a link, or a folder of somebody else's with something in it.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: a file or link stands where a folder is needed; choose another place or remove it")
    if path.is_dir() and not (path / OWN).is_file() and any(path.iterdir()):
        raise InputError(
            f"{path}: the folder is there and not made by fdta, which would replace it; choose another place or move "
            f"it away"
        )


@contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Tell of a full disk or a broken one which file or folder was being written, which the system does not, and of
    others the name that the user knows."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in DISK_ERRORS
        if unnamed or (temporary is not None and error.filename == str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def place(made: Path, target: Path) -> None:
    """Put the file or folder `made` at `target`, which it replaces; both must be in one file system.

    A folder that was there is set aside until the new one is in its place (`restore_folder`). The new one is marked as
    made here (`OWN`).
    """
    restore_folder(target)
    if target.is_dir() and not made.is_dir():
        raise InputError(f"{target}: is a folder, where a file belongs; remove it or move it away")
    try:
        if made.is_dir():
            (made / OWN).touch()
        _sync(made)
        if target.is_dir():
            # Marked, so that it is known for ours where it is set aside.
            (target / OWN).touch()
            os.replace(target, _aside(target))
        os.replace(made, target)
        _sync(target.parent)
    finally:
        restore_folder(target)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder next to `path`. On success it replaces `path`; on failure it is removed.

    The folder that was there is set aside until the new one is in its place, and is brought back if that fails. If the
    process is killed in between, `restore_folder` brings it back; the next call starts with that.

    The names in the two folders are on disk at the end. The contents of the files are not: waiting for thousands of
    images would take too long, and a folder can be made again.

    Raises:
        InputError: see `check_own_folder`.
    """
    path = Path(path)
    check_own_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(path)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.stem[:100]}.{TEMPORARY}{uuid.uuid4().hex[:8]}{path.suffix}")
    temporary.mkdir()
    try:
        with _naming(path), _opened(temporary) as number:
            _lock(number)
            yield temporary
            place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of `path` against other processes; the system releases it when its holder is killed.

    Where the file system has no locks, nothing is held.

    Args:
        path: need not be there; the lock is its hidden neighbour.
        waiting: called once if another process holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()


def restore_folder(path: Path) -> None:
    """Bring back the folder that `whole_folder` set aside for a new one, or remove it if the new one is in its place.

    Does nothing if no folder of ours is set aside.
    """
    aside = _aside(path)
    if not (aside / OWN).is_file():
        return
    if path.exists():
        shutil.rmtree(aside)
    else:
        os.replace(aside, path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _sync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems cannot do this for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def digest(folder: Path, pattern: str) -> str:
    """Digest of the names and contents of the files of `folder` that fit `pattern`."""
    found = hashlib.sha256()
    for path in sorted(Path(folder).glob(pattern)):
        found.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Make `target` the same file as `source` where the file system can, else a copy.

    Sharing is safe for files that are replaced and never changed in place, as ours are.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
