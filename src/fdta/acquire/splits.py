"""Real data sets onto disk: downloaded or taken from what the user has, converted, verified, and only then in place.

``ROOT/DATASET/SPLIT/`` appears whole; ``ROOT/DATASET/seqmaps/SPLIT.txt`` is written last and says that it was verified.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fdta.acquire.archives import is_archive, unpack
from fdta.acquire.catalogue import Source
from fdta.acquire.check import check_split, missing_sequences
from fdta.acquire.convert import PublishedFolders, is_part_of
from fdta.acquire.download import Checksums, fetch
from fdta.data.motchallenge import (
    IMAGE_EXTENSIONS,
    is_image_name,
    sequence_folders,
    sequence_map_path,
    split_summary,
    write_sequence_map,
)
from fdta.errors import InputError
from fdta.files import TEMPORARY, locked, restore_folder, whole_folder
from fdta.settings import named

_LOG = logging.getLogger(__name__)
_PICTURES = (*IMAGE_EXTENSIONS, ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".jp2", ".avif", ".heic", ".exr")


def get_split(
    name: str, source: Source, split: str, root: Path, downloads: Path, checksums: Checksums | None = None
) -> Path:
    """Make ``root/name/split`` stand, downloading what it needs; its folder.

    A verified split is left alone; one without its sequence map, which the user put there, is verified and left as it
    is. Archives go to ``downloads/name/`` and stay there, for the other splits.

    Args:
        name: of the data set.
        source: what the catalogue tells of it.
        split: its name in the catalogue.
        root: folder of all data sets.
        downloads: folder of all downloads.
        checksums: record of what the catalogue does not know.

    Raises:
        InputError: what `fdta.acquire.download.fetch`, `unpack` and `PublishedFolders` reject; the split has another
            number of sequences than the catalogue has, or defects.
    """
    target = root / name / split
    with _held(target):
        if sequence_map_path(target).is_file():
            return target
        if not target.exists():
            if source.folder is not None:
                _take(name, source, split, Path(source.folder), target, checksums or Checksums())
            else:
                _download(name, source, split, target, downloads / name, checksums or Checksums())
        _verify(source, split, target)
    return target


def import_splits(
    name: str, source: Source, path: Path, root: Path, split: str | None = None, checksums: Checksums | None = None
) -> dict[str, Path]:
    """Make splits under ``root/name`` from what is in `path`; their folders by name. `path` is not changed.

    A split that an earlier call left there unverified, since it has defects, is verified again as it is.

    Args:
        name: of the data set.
        source: what the catalogue tells of it.
        path: unpacked data set or split in its published form, or a folder with its archives, or an archive.
        root: folder of all data sets.
        split: the only one to take; None: all that are found.
        checksums: record of what the catalogue does not know of archives.

    Raises:
        InputError: there is no such path, it holds none of the splits, or what `get_split` refuses; a split is there
            already.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give what holds the data set or its archives")
    taken: dict[str, Path] = {}
    for each in source.splits if split is None else (split,):
        target = root / name / each
        with _held(target):
            if sequence_map_path(target).is_file():
                if split is not None:
                    raise InputError(f"{target}: is there already; remove it first")
                _LOG.info("%s: is there already, left as it is", target)
                continue
            if target.exists():
                _LOG.info("%s: is there already, only verified", target)
            elif split is None and not _holds(source, each, path):
                continue
            else:
                _take(name, source, each, path, target, checksums or Checksums())
            _verify(source, each, target)
        taken[each] = target
    if not taken and not all(sequence_map_path(root / name / each).is_file() for each in source.splits):
        raise InputError(f"{path}: {_expected(source, source.splits)}{_unlike_frames(path)}")
    return taken


def _download(name: str, source: Source, split: str, target: Path, downloads: Path, checksums: Checksums) -> None:
    archives = source.split_archives(split)
    for archive, place in archives.items():
        fetch(place, downloads / archive, f"{name}/{archive}", checksums)
    with _scratch(target) as scratch:
        trees = _unpacked([downloads / archive for archive in archives], source, split, scratch)
        _convert(source, split, PublishedFolders(source, split, trees), target, ", ".join(map(str, archives)))


def _take(name: str, source: Source, split: str, path: Path, target: Path, checksums: Checksums) -> None:
    """Make the split from the user's `path`."""
    if path.is_dir():
        published = PublishedFolders(source, split, [path])
        if not published.sequences and (len(source.splits) == 1 or not _archives_in(source, split, path)):
            published = published.within(path)
        if published.sequences:
            _convert(source, split, published, target, str(path))
            return
    archives = _archives_in(source, split, path)
    if not archives:
        raise InputError(f"{path}: {_expected(source, [split])}{_unlike_frames(path)}")
    for archive in archives:
        if archive.name in source.archives:
            checksums.check(archive, f"{name}/{archive.name}", source.archives[archive.name], record=False)
    with _scratch(target) as scratch:
        trees = _unpacked(archives, source, split, scratch)
        _convert(source, split, PublishedFolders(source, split, trees), target, str(path))


def _holds(source: Source, split: str, path: Path) -> bool:
    """Whether the user's `path` seems to hold the split."""
    if path.is_dir() and PublishedFolders(source, split, [path]).sequences:
        return True
    return bool(_archives_in(source, split, path))


def _archives_in(source: Source, split: str, path: Path) -> list[Path]:
    """The archives of `split` in the user's `path`, if all are there; empty otherwise."""
    if path.is_file():
        files = {path.name: path}
    else:
        files = {file.name: file for depth in ("*", "*/*") for file in sorted(path.glob(depth)) if is_archive(file)}
    wanted = source.split_archives(split) if source.folder is None else {}
    if any(place.drive_folder is not None for place in wanted.values()) or not wanted:
        return list(files.values())
    return [files[name] for name in wanted] if all(name in files for name in wanted) else []


def _unpacked(paths: list[Path], source: Source, split: str, scratch: Path) -> list[Path]:
    """Folders with what belongs to `split` of `paths`, archives and folders that may hold archives and loose files."""
    trees: list[Path] = []
    for path in paths:
        if path.is_dir():
            trees.append(path)
            trees += _unpacked(sorted(filter(is_archive, path.rglob("*"))), source, split, scratch)
        else:
            trees.append(scratch / f"{len(trees)}")
            unpack(path, trees[-1], lambda member: is_part_of(source, split, member))
    return trees


def _convert(source: Source, split: str, published: PublishedFolders, target: Path, where: str) -> None:
    if not published.sequences:
        raise InputError(f"{where}: {_expected(source, [split])}")
    wrong = missing_sequences(len(published.sequences), source.splits[split])
    if wrong is not None:
        raise InputError(f"{where}: the split {split} has {wrong}; complete it, or correct the catalogue")
    with whole_folder(target) as temporary:
        published.write(temporary)


def _verify(source: Source, split: str, target: Path) -> None:
    """Check the split in `target` and write its sequence map."""
    reports = check_split(target, published=source.splits[split], form=source.form)
    defects = [defect for report in reports for defect in report.defects]
    wrong = missing_sequences(len(reports), source.splits[split])
    if wrong is not None:
        raise InputError(f"{target}: {wrong}; complete it, or remove it and repeat this command")
    if defects:
        raise InputError(
            f"{defects[0]} ({len(defects)} defects in {target}: 'fdta data check {target}' lists them; correct them "
            f"there and repeat this command, or correct your own files, remove {target} and repeat it)"
        )
    names = [path.name for path in sequence_folders(target)]
    write_sequence_map(sequence_map_path(target), names, split_summary(target, names))


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Hold the lock of the split `target`, restored if a killed call set it aside; remove what else that call left."""
    with locked(target):
        restore_folder(target)
        for pattern in ("unpacked", f"{TEMPORARY}{'[0-9a-f]' * 8}"):
            for left in target.parent.glob(f".{target.name}.{pattern}"):
                shutil.rmtree(left)
        yield


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, so that files are linked from it."""
    folder = target.with_name(f".{target.name}.unpacked")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unlike_frames(path: Path) -> str:
    """What is wrong with the name of an image below `path`, for a message; empty if there is none."""
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            if Path(name).suffix.lower() in _PICTURES and not is_image_name(Path(name)):
                wanted = f"a number and one of {named(IMAGE_EXTENSIONS)}, such as 000001.jpg"
                return f"; {Path(folder) / name} is not called as frames are: {wanted}; rename or convert them"
    return ""


def _expected(source: Source, splits: Iterable[str]) -> str:
    folders = [f"{folder}/" for split in splits for folder in source.splits[split].folders or (split,)]
    archives = [name for split in splits for name in source.split_archives(split)] if source.archives else []
    looked = " or ".join(filter(None, [", ".join(dict.fromkeys(folders)), ", ".join(dict.fromkeys(archives))]))
    return f"no sequences of {source.title} found; expected {looked} with frames in SEQUENCE/{source.form.images}/"
