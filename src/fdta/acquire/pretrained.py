"""Published trackers by name: downloaded once, made checkpoints of this package once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from fdta.acquire.catalogue import Checkpoint, Place, catalogue_beside
from fdta.acquire.download import CHECKSUMS, Checksums, fetch, gigabytes
from fdta.errors import InputError
from fdta.files import digest, link_or_copy, locked, whole_file

if TYPE_CHECKING:
    from fdta.model.published import Kind

CACHE = "FDTA_CACHE"
"""Environment variable with the cache folder."""
MODEL = Path(__file__).parents[1] / "model"
"""The code that reads published checkpoints, and the model that they become."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """A published tracker of the catalogue, with its files in the cache folder.

    The folder's name depends on the place: an entry that is changed gets another folder, and two projects may give one
    name to different files.
    """

    name: str
    file: str
    """Its file name in the catalogue."""
    checkpoint: Checkpoint

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        place = {field.name: value for field in fields(Place) if (value := getattr(self.checkpoint, field.name))}
        key = hashlib.sha256(json.dumps({"entry": self.file, **place}, sort_keys=True).encode()).hexdigest()
        return cache_folder() / f"{self.name}-{key[:8]}"

    @property
    def published(self) -> Path:
        """The file as it is published."""
        return self.folder / self.file

    @property
    def imported(self) -> Path:
        """The checkpoint of this package; other code of the model makes another."""
        return self.folder / f"{self.file}.{digest(MODEL, '*.py')[:8]}.pt"

    def get(self) -> Path:
        """The checkpoint of this package, downloaded and imported if it is not there; without network if it is.

        Several processes may ask: one downloads, the others wait. An interrupted download resumes.

        Raises:
            InputError: see `fdta.acquire.download.fetch` and `fdta.model.exchange.import_checkpoint`.
        """
        if self.imported.is_file():
            return self.imported
        with locked(self.imported, lambda: _LOG.info("%s: another process downloads it; waiting", self.name)):
            if not self.imported.is_file():
                kind = f"{self.checkpoint.kind}, " if self.checkpoint.kind else ""
                _LOG.info("%s: %slicence: %s", self.name, kind, self.checkpoint.licence)
                key = f"checkpoints/{self.file}"
                fetch(self.checkpoint, self.published, key, Checksums(self.folder / CHECKSUMS.name))
                self._import()
                size = gigabytes(self.published.stat().st_size)
                _LOG.info("%s: %s, kept in %s", self.name, size, self.folder)
        return self.imported

    def _import(self) -> None:
        from fdta.model import checkpoint
        from fdta.model.exchange import import_checkpoint

        try:
            if checkpoint.is_own(checkpoint.read(self.published)):
                checkpoint.load_model(self.published)
                with whole_file(self.imported) as temporary:
                    link_or_copy(self.published, temporary)
            else:
                told = self.checkpoint.kind
                kinds: tuple[Kind, ...] = (told,) if told == "FDTA" or told == "MOTIP" else ("FDTA", "MOTIP")
                import_checkpoint(self.published, self.imported, kinds=kinds)
        except InputError as error:
            raise InputError(f"{error}; to download it again, remove the folder {self.folder}") from None


def cache_folder() -> Path:
    """Folder of downloaded trackers: FDTA_CACHE, else fdta in XDG_CACHE_HOME, else ~/.cache/fdta.

    Raises:
        InputError: none of them is known.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if given := os.environ.get(CACHE):
            return Path(given).expanduser()
        # A relative one is to be ignored, as its specification has it.
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "fdta"
    except RuntimeError:
        raise InputError(f"there is no home folder to keep downloads in; set {CACHE}") from None


def pretrained(params: Path) -> dict[str, Pretrained]:
    """Published trackers by name: those of the catalogue with the additions of the settings file `params`, if any.

    Raises:
        ParamsError: a wrong key or value among the additions.
    """
    return {
        entry.name: Pretrained(entry.name, file, entry)
        for file, entry in catalogue_beside(params).checkpoints.items()
        if entry.name is not None
    }
