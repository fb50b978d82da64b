"""Archives, unpacked without trust: nothing leaves the folder, no links, no more bytes than the disk has room for."""

from __future__ import annotations

import errno
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from fdta.acquire.catalogue import is_inside
from fdta.acquire.download import check_room
from fdta.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, OverflowError),
)
"""What the readers raise for files that are cut, broken, encrypted or of another kind."""


def is_archive(path: Path) -> bool:
    """Whether the name of the file `path` is that of an archive that `unpack` reads."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def unpack(archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda path: True) -> int:
    """Unpack the files of `archive` whose path in it is `wanted` into `folder`; how many they are.

    Files that the Finder adds (``__MACOSX/``, ``._NAME``) are left out. On an error the folder holds what was unpacked
    until then: give a temporary one.

    Raises:
        InputError: the file is no archive, broken, cut or encrypted; it holds a link, a device, a path that would leave
            `folder`, or a file twice; the disk has no room for it.
    """
    with _members(archive) as members:
        chosen: Iterable[_Member] = (member for member in members if _is_wanted(archive, member[0], wanted))
        total = None
        if isinstance(members, list):
            chosen = list(chosen)
            total = sum(size for _, size, _ in chosen)
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder, total or 0, f"unpacking {archive.name}")
        count = 0
        with tqdm(total=total, desc=archive.name, unit="B", unit_scale=True, disable=None) as bar:
            for name, size, open_member in chosen:
                check_room(folder, size, f"unpacking {archive.name}")
                target = folder / name
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open_member() as source, target.open("xb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                except (FileExistsError, NotADirectoryError):
                    raise InputError(f"{archive}: {name!r} is in it twice; do not use this archive") from None
                count += 1
                bar.update(size)
    return count


def _is_wanted(archive: Path, name: str, wanted: Callable[[PurePosixPath], bool]) -> bool:
    if not is_inside(name):
        raise InputError(f"{archive}: {name!r} would be written outside its folder; do not use this archive")
    path = PurePosixPath(name)
    added = any(part == "__MACOSX" or part.startswith("._") for part in path.parts)
    return not added and wanted(path)


_Member = tuple[str, int, Callable[[], IO[bytes]]]


@contextmanager
def _members(archive: Path) -> Iterator[Iterable[_Member]]:
    """Name, declared size and opener of each file in `archive`; a list where the archive has a table of them."""
    if not archive.is_file():
        raise InputError(f"{archive}: no such file; an archive is expected there")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield list(_zip_members(archive, opened))
        else:
            with tarfile.open(archive) as tar:
                yield _tar_members(archive, tar)
    except (*_BROKEN, OSError) as error:
        # A broken table leads the reader to a place before the file's start.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{archive}: no whole zip or tar archive ({what}); remove it and get it again") from None


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        if not info.filename:
            raise InputError(f"{archive}: a file in it has no name, the archive is damaged; remove it and get it again")
        kind = stat.S_IFMT(info.external_attr >> 16)
        # Archives made on Windows tell no kind at all.
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive}: {info.filename!r} is a link or device; do not use this archive")
        if not info.is_dir():
            yield info.filename, info.file_size, partial(opened.open, info)


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        if not (info.isreg() or info.isdir()):
            raise InputError(f"{archive}: {info.name!r} is a link or device; do not use this archive")
        if info.isreg():
            yield info.name, info.size, partial(_open_regular, opened, info)


def _open_regular(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(info)
    assert file is not None
    return file
