"""The catalogue: where real data sets and published checkpoints lie, in which form, and under which licence.

``catalogue.yaml`` beside this file describes those of the paper; the key ``catalogue`` of params.yaml adds entries of
the same form, or replaces shipped ones. docs/datasets.md tells how.
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from fdta.evaluate.settings import Preprocessing
from fdta.settings import NAME, ParamsError, mapping, read_settings, read_yaml, require, settings, suggestion

Kind = Literal["FDTA", "MOTIP", "detector", "depth"]
"""What a published checkpoint is: a whole tracker of FDTA or MOTIP, a detector alone, or a depth network."""
SHIPPED = Path(__file__).with_name("catalogue.yaml")


@settings(kw_only=True)
class Place:
    """Where a file can be had: one of `hub`, `drive`, `drive_folder` and `url`."""

    hub: str | None = None
    """Repository of the Hugging Face hub, ``OWNER/NAME``; models are ``model:OWNER/NAME``."""
    file: str | None = None
    """Path in the hub's repository; null: the name of the entry, or see `pattern`."""
    pattern: str | None = None
    """Instead of `file`, where the name is not known: pattern of its path in the hub's repository. ``*`` is any text,
    also with slashes, ``?`` one character, ``[...]`` one of these; case makes no difference. One file must fit."""
    revision: str | None = None
    """Commit, branch or tag of the hub's repository; null: the newest of its main branch."""
    drive: str | None = None
    """Id of a file on Google Drive."""
    drive_folder: str | None = None
    """Id of a folder on Google Drive, all files of which are taken; archives among them are unpacked."""
    url: str | None = None
    size: int | None = None
    """Bytes; null: not known, recorded at the first download."""
    sha256: str | None = None
    """64 hexadecimal digits; null: not known, recorded at the first download."""

    def __post_init__(self) -> None:
        ways = [self.hub, self.drive, self.drive_folder, self.url]
        require(sum(way is not None for way in ways) == 1, "give one of hub, drive, drive_folder and url")
        require(self.hub is None or re.fullmatch(r"(model:)?[\w.-]+/[\w.-]+", self.hub) is not None, "hub: OWNER/NAME")
        told = (self.file, self.pattern, self.revision)
        require(self.hub is not None or told == (None, None, None), "file, pattern and revision go with hub")
        require(self.file is None or self.pattern is None, "give file or pattern")
        require(self.file is None or is_inside(self.file), "file is a path in the repository, without ..")
        for way in (self.drive, self.drive_folder):
            require(
                way is None or re.fullmatch(r"[\w-]+", way) is not None, "drive and drive_folder are ids, not links"
            )
        require(
            self.url is None or urlsplit(self.url).scheme in ("http", "https"), "url starts with https:// or http://"
        )
        require(
            self.drive_folder is None or (self.size is None and self.sha256 is None),
            "a drive_folder has no size or sha256",
        )
        require(self.size is None or self.size > 0, f"size must be above 0, not {self.size}")
        require(self.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None, "sha256: 64 hex digits")

    def __str__(self) -> str:
        if self.hub is not None:
            kind, _, repository = self.hub.rpartition(":")
            return f"https://huggingface.co/{'' if kind else 'datasets/'}{repository}"
        if self.url is not None:
            return self.url
        kind = "file/d" if self.drive is not None else "drive/folders"
        return f"https://drive.google.com/{kind}/{self.drive or self.drive_folder}"


@settings(kw_only=True)
class Checkpoint(Place):
    """A published checkpoint."""

    licence: str
    kind: Kind | None = None
    """What it is; null: not known."""
    name: str | None = None
    """Short name that commands which track take instead of a file; null: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.name is None or re.fullmatch(NAME, self.name) is not None, "name: letters, digits, - and _")
        alone = self.kind in ("detector", "depth") or self.drive_folder is not None
        require(self.name is None or not alone, "only one file of a whole tracker has a name; remove name")


@settings
class Form:
    """The form in which a data set is published; the defaults are those of MOTChallenge."""

    images: str = "img1"
    """Folder of a sequence's frames, within the sequence; ``.``: the sequence itself."""
    digits: int | None = None
    """Digits of the frames' names; null: any number."""
    annotation: str = "gt/gt.txt"
    """Ground truth within the sequence; or, with ``{sequence}`` and perhaps ``{split}`` in it, within the archives."""
    sequences: str = "*"
    """Pattern of the names of sequences; others are left out (MOT17 has each sequence three times)."""
    rate: float | None = None
    """Frames a second of sequences without seqinfo.ini."""
    first_identity: int = 0
    """The smallest identity; smaller ones are defects."""
    classes: tuple[int, ...] = ()
    """Classes (8th column of a ground-truth line) that count. The 7th column of other lines becomes 0: they stay for
    the scoring's preprocessing, and are not trained on. Empty: every line stays as it is."""
    preprocessing: Preprocessing | None = None
    """Benchmark whose distractors are removed before scoring; null: the one that a sequence is named after
    (MOT17-02-...), if any."""

    def __post_init__(self) -> None:
        require(self.images == "." or is_inside(self.images), "images is a folder within the sequence")
        require(self.digits is None or self.digits > 0, "digits must be above 0")
        require(self.rate is None or self.rate > 0, "rate must be above 0")
        plain = self.annotation.replace("{sequence}", "s").replace("{split}", "s")
        require(is_inside(plain) and not set("{}") & set(plain), "annotation may hold {sequence} and {split}, no other")


@settings
class Split:
    """One split of a data set as it is published."""

    sequences: int
    ground_truth: bool = True
    """Whether its annotation is published. Otherwise a server scores it."""
    archives: tuple[str, ...] = ()
    """Names of the archives that hold it; empty: all of the data set."""
    folders: tuple[str, ...] = ()
    """Folders with its sequences, found at any depth of the archives; empty: one of the split's name."""
    submission_folder: str = ""
    """Folder of the tracks in the zip that the server takes; empty: none."""

    def __post_init__(self) -> None:
        require(self.sequences > 0, "sequences must be above 0")
        require(all(is_inside(folder) for folder in self.folders), "folders are paths within the archives, without ..")


@settings
class Source:
    """A real data set."""

    title: str
    licence: str
    splits: dict[str, Split]
    homepage: str | None = None
    citation: str | None = None
    archives: dict[str, Place] = field(default_factory=dict)
    """File name -> where it lies."""
    folder: str | None = None
    """Folder on this machine that holds the data set or its archives, instead of `archives`."""
    form: Form = field(default_factory=Form)

    def __post_init__(self) -> None:
        require(bool(self.splits), "splits must name at least one split")
        require(bool(self.archives) != (self.folder is not None), "give archives or folder")
        for name in (*self.splits, *self.archives):
            require(
                re.fullmatch(r"[\w-][\w.-]*", name) is not None, f"{name!r} names a file: use letters, digits, . _ -"
            )
        for name, split in self.splits.items():
            for archive in split.archives:
                require(archive in self.archives, f"splits.{name}.archives: {archive!r} is not among the archives")

    def split_archives(self, split: str) -> dict[str, Place]:
        """The archives that hold `split`, by name."""
        return {name: self.archives[name] for name in self.splits[split].archives or self.archives}


@settings
class Catalogue:
    """Real data sets by name, checkpoints by file name."""

    datasets: dict[str, Source] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)


def read_catalogue(additions: Any = None, path: Path = SHIPPED) -> Catalogue:
    """The shipped catalogue with the entries of `additions`, a mapping of the same form that stands in the file `path`.

    Raises:
        ParamsError: a wrong key or value, with its place.
    """
    shipped = _read(read_yaml(SHIPPED), "", SHIPPED)
    added = _read(additions or {}, "catalogue.", path)
    checkpoints = shipped.checkpoints | added.checkpoints
    first: dict[str, str] = {}
    for file, checkpoint in checkpoints.items():
        if checkpoint.name is not None and first.setdefault(checkpoint.name, file) != file:
            raise ParamsError(
                f"{path}: catalogue.checkpoints.{file}.name: {first[checkpoint.name]} has the name {checkpoint.name!r} "
                f"already; choose another, or replace that entry"
            )
    return Catalogue(shipped.datasets | added.datasets, checkpoints)


def catalogue_beside(params: Path) -> Catalogue:
    """The shipped catalogue, with the additions of the settings file `params` if there is one.

    Other keys of that file are not looked at.

    Raises:
        ParamsError: a wrong key or value among the additions, with its place.
    """
    additions = read_yaml(params).get("catalogue") if params.is_file() else None
    return read_catalogue(additions, params)


def is_inside(path: str) -> bool:
    """Whether the relative path `path`, with slashes, stays in its folder."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path


def _read(value: Any, where: str, path: Path) -> Catalogue:
    raw = mapping(value, where.rstrip(".") or "the file", path)
    for key in raw:
        if key not in ("datasets", "checkpoints"):
            raise ParamsError(f"{path}: {where}{key}: unknown key; {suggestion(key, ('datasets', 'checkpoints'))}")
    for name in mapping(raw.get("checkpoints") or {}, f"{where}checkpoints", path):
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ParamsError(f"{path}: {where}checkpoints.{name}: names a file; use letters, digits, . _ -")
    return Catalogue(
        *(
            {
                name: read_settings(cast(type[Any], kind), entry, f"{where}{key}.{name}", path)
                for name, entry in mapping(raw.get(key) or {}, f"{where}{key}", path).items()
            }
            for key, kind in (("datasets", Source), ("checkpoints", Checkpoint))
        )
    )
