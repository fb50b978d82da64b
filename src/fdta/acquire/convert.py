"""From the forms in which data sets are published to the one that everything here reads (`fdta.data.motchallenge`)."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from fdta.acquire.catalogue import Form, Source
from fdta.acquire.check import header_size
from fdta.data.motchallenge import (
    Sequence,
    check_counting,
    check_file,
    image_names,
    is_image_name,
    read_seqinfo,
    write_seqinfo,
)
from fdta.errors import InputError
from fdta.settings import named

_LOG = logging.getLogger(__name__)
_UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
"""Errors of hard links where a copy may still do: other file systems, and those that have none."""
_DEPTH = 6
"""How many folders deep sequences are looked for."""


class PublishedFolders:
    """A split of a data set in its published form, somewhere below some folders.

    Args:
        source: what the catalogue tells.
        split: its name.
        trees: where to look: unpacked archives, or folders of the user.
    """

    def __init__(self, source: Source, split: str, trees: Iterable[Path]) -> None:
        self._form = source.form
        self._split = split
        self._trees = [Path(tree) for tree in trees]
        self._below = [list(_folders_below(tree, self._is_sequence)) for tree in self._trees]
        self.sequences = self._find(source)
        """Folder of each sequence by name, sorted; empty: the split is not there."""

    def write(self, folder: Path) -> None:
        """Write the split to the folder `folder` in our form, with hard links to the images.

        Copies where they lie on another file system. Depth maps beside the frames (``depth/``) come along.

        Raises:
            InputError: a sequence has no frames, or none of the right name; its ground truth cannot be found; it has no
                seqinfo.ini and the catalogue tells no rate.
        """
        linker = _Linker()
        for name, sequence in self.sequences.items():
            self._write_sequence(name, sequence, folder / name, linker)

    def _find(self, source: Source) -> dict[str, Path]:
        # Users have often joined train1 and train2 as train: the split's own name does too.
        for wanted in (source.splits[self._split].folders, (self._split,)):
            found: dict[str, Path] = {}
            for folder in [path for name in wanted for path in self._folders(name)]:
                for sequence in self._sequences(folder):
                    if found.setdefault(sequence.name, sequence) != sequence:
                        raise InputError(
                            f"{sequence}: this sequence is also in {found[sequence.name].parent}; remove one of them"
                        )
            if found:
                return dict(sorted(found.items()))
        return {}

    def within(self, folder: Path) -> PublishedFolders:
        """Take `folder` for the folder of the sequences, whatever its name."""
        self.sequences = {path.name: path for path in sorted(self._sequences(folder))}
        self._trees = [folder, *self._trees]
        return self

    def _folders(self, name: str) -> Iterator[Path]:
        """The folders called `name`, a path of one or more parts, that hold sequences; the nearest to the top."""
        parts = PurePosixPath(name).parts
        for below in self._below:
            for path in below:
                if _ends(path, parts) and next(self._sequences(path), None) is not None:
                    yield path
                    break

    def _sequences(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.glob(self._form.sequences)):
            if path.is_dir() and not path.name.startswith(".") and self._is_sequence(path):
                yield path

    def _is_sequence(self, folder: Path) -> bool:
        return self._images(folder) is not None

    def _images(self, folder: Path) -> Path | None:
        """Folder of the frames of the sequence `folder`; frames that were already moved to img1 are found too."""
        return next((path for path in (folder / self._form.images, folder / "img1") if _has_image(path)), None)

    def _annotation(self, name: str, sequence: Path) -> Path | None:
        within = sequence / "gt" / "gt.txt"
        if "{sequence}" not in self._form.annotation:
            path = sequence / self._form.annotation
            return path if path.is_file() else None
        if within.is_file():
            return within
        wanted = self._form.annotation.format(split=self._split, sequence=name)
        above = [path / wanted for tree in self._trees for path in (tree, *tree.absolute().parents[:2])]
        *parts, file = PurePosixPath(wanted).parts
        below = [path / file for folders in self._below for path in folders if _ends(path, tuple(parts))]
        return next((path for path in (*above, *below) if path.is_file()), None)

    def _write_sequence(self, name: str, sequence: Path, target: Path, linker: _Linker) -> None:
        images = self._images(sequence)
        assert images is not None
        names = image_names(images)
        check_counting(images, names)
        digits = {len(Path(image).stem) for image in names.values()}
        if self._form.digits is not None and digits != {self._form.digits}:
            raise InputError(
                f"{images}: names of {named(sorted(digits))} digits instead of {self._form.digits}; is this another "
                f"data set? Otherwise correct form.digits in the catalogue"
            )
        for image in names.values():
            linker.link(images / image, target / "img1" / image)
        for path in sorted((sequence / "depth").glob("*")):
            linker.link(path, target / "depth" / path.name)
        annotation = self._annotation(name, sequence)
        if annotation is not None:
            (target / "gt").mkdir(parents=True)
            (target / "gt" / "gt.txt").write_bytes(_in_our_form(annotation.read_bytes(), self._form))
        if (sequence / "seqinfo.ini").is_file():
            told = read_seqinfo(sequence)
            if told.image_folder == "img1":
                shutil.copyfile(sequence / "seqinfo.ini", target / "seqinfo.ini")
                return
            rate = told.rate
        elif self._form.rate is None:
            raise InputError(
                f"{sequence}: no seqinfo.ini, and the catalogue tells no frame rate; write form.rate, frames a second, "
                f"or the file"
            )
        else:
            rate = self._form.rate
        first = names[min(names)]
        width, height = header_size(images / first)
        write_seqinfo(Sequence(name, target, max(names), width, height, rate, image_extension=Path(first).suffix))


def is_part_of(source: Source, split: str, path: PurePosixPath) -> bool:
    """Whether the file `path` of an archive may belong to `split`; others need not be unpacked."""
    form, parts = source.form, path.parts[:-1]
    for name in (*source.splits[split].folders, split):
        after = _after(parts, PurePosixPath(name).parts)
        if after is not None and (not after or fnmatch(after[0], form.sequences)):
            return True
    if "{sequence}" not in form.annotation:
        return False
    folder = PurePosixPath(form.annotation.format(split=split, sequence="")).parent.parts
    return _after(parts, folder) is not None


def _after(parts: tuple[str, ...], folder: tuple[str, ...]) -> tuple[str, ...] | None:
    """What comes after the first occurrence of `folder` in `parts`; None: there is none."""
    for start in range(len(parts) - len(folder) + 1):
        if parts[start : start + len(folder)] == folder:
            return parts[start + len(folder) :]
    return None


class _Linker:
    """Hard links, or copies where there can be none; the first copy is told."""

    def __init__(self) -> None:
        self._copies = False

    def link(self, path: Path, target: Path) -> None:
        check_file(path, "replace it or remove it")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._copies:
            try:
                os.link(os.path.realpath(path), target)
                return
            except OSError as error:
                if error.errno not in _UNLINKABLE:
                    raise
                self._copies = True
                _LOG.warning("%s: %s; its files are copied, not linked", path.parent, os.strerror(error.errno))
        shutil.copyfile(path, target)


def _in_our_form(text: bytes, form: Form) -> bytes:
    """Lines of an annotation with what scoring needs in column 7; line by line, so that the numbers of lines stay.

    A 7th column of -1, or none, says that there is no confidence (BFT): the box counts, class 1, wholly visible. Of
    several classes those of `form.classes` count. Lines that are not understood stay as they are, for `check_split`.
    """
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        columns = [column.strip() for column in line.strip().split(b",")]
        if form.classes and len(columns) >= 8 and _whole(columns[7]) is not None:
            if _whole(columns[7]) not in form.classes:
                lines[number] = b",".join([*columns[:6], b"0", *columns[7:]])
        elif len(columns) >= 6 and (len(columns) == 6 or _whole(columns[6]) == -1):
            lines[number] = b",".join([*columns[:6], b"1", b"1", b"1"])
    return b"\n".join(lines)


def _whole(column: bytes) -> int | None:
    try:
        return int(float(column))
    except (ValueError, OverflowError):
        return None


def _has_image(folder: Path) -> bool:
    return folder.is_dir() and any(is_image_name(path) for path in folder.iterdir())


def _ends(path: Path, parts: tuple[str, ...]) -> bool:
    return path.parts[max(0, len(path.parts) - len(parts)) :] == parts


def _folders_below(top: Path, closed: Callable[[Path], bool]) -> Iterator[Path]:
    """`top` and the folders below it, the nearest first; those for which `closed` holds are not entered."""
    level = [top] if top.is_dir() else []
    for _ in range(_DEPTH):
        yield from level
        level = [
            path
            for folder in level
            if not closed(folder)
            for path in sorted(folder.iterdir())
            if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
        ]
