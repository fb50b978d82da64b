"""Files from the places that the catalogue names: resumed, checked, and in place only when whole.

What the catalogue does not know of a file, its size and SHA-256, is recorded at the first download in a file of its own
(`Checksums`) and checked ever after.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fdta.acquire.catalogue import Place, is_inside
from fdta.errors import InputError
from fdta.files import locked, write_json
from fdta.settings import read_json

if TYPE_CHECKING:
    import requests

CHECKSUMS = Path("checksums.json")
"""Where recorded checksums lie, in the workspace's folder."""

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 16
"""Bytes that a cut connection loses at most."""
_LISTING = ".listing.json"
"""File of a downloaded Drive folder that names its files; written last."""


@dataclass(frozen=True)
class Patience:
    """How long a download waits, and how often it tries again."""

    timeout: float = 60.0
    """Seconds without a byte after which a connection counts as stalled."""
    attempts: int = 6
    """Tries in a row that bring nothing new, after which it gives up."""
    wait: float = 1.0
    """Seconds before the second try; doubled for each further one, up to a minute."""


class _Interrupted(Exception):
    """The connection was cut, stalled or refused for now: worth another try."""


@dataclass(frozen=True)
class Origin:
    """Which file of a hub's repository a place means."""

    file: str
    """Path in the repository."""
    commit: str | None
    """Commit, branch or tag; None: the newest of the main branch."""


class Checksums:
    """Sizes and SHA-256 of files that were downloaded once, in a JSON file that may be committed."""

    def __init__(self, path: Path = CHECKSUMS) -> None:
        self.path = Path(path)

    def check(
        self,
        file: Path,
        key: str,
        place: Place,
        called: Path | None = None,
        record: bool = True,
        origin: Origin | None = None,
    ) -> None:
        """Compare `file` with what `place` or the record tells under `key`; record what neither knows.

        Args:
            file: to be read.
            key: its name in the record, ``DATASET/ARCHIVE``.
            place: what the catalogue tells.
            called: path for messages, by default `file`.
            record: whether to record; not what came from elsewhere.
            origin: file and commit of the hub that it came from, to be recorded too.

        Raises:
            InputError: it is another file.
        """
        size = file.stat().st_size
        recorded = self._read().get(key, {})
        known_size = place.size or recorded.get("bytes")
        known_digest = place.sha256 or recorded.get("sha256")
        told_by = "the catalogue" if place.sha256 else str(self.path)
        if known_digest is None and not record:
            return
        if known_size is not None and size != known_size:
            raise InputError(f"{called or file}: {size} bytes instead of the {known_size} that {told_by} tells")
        digest = _digest(file)
        if known_digest is None:
            entry: dict[str, int | str] = {"bytes": size, "sha256": digest, "from": str(place)}
            if origin is not None and origin.commit is not None:
                entry |= {"file": origin.file, "commit": origin.commit}
            self._record(key, entry)
        elif digest != known_digest:
            raise InputError(
                f"{called or file}: another file than {told_by} tells (SHA-256 {digest[:12]}... instead of "
                f"{str(known_digest)[:12]}...)"
            )

    def origin(self, key: str, place: Place) -> Origin | None:
        """Where in the hub's repository the file recorded under `key` is; None: not recorded, or of another place."""
        entry = self._read().get(key, {})
        file, commit = str(entry.get("file", "")), str(entry.get("commit", ""))
        if not file or entry.get("from") != str(place) or place.revision not in (None, commit):
            return None
        return Origin(file, commit) if _fits(file, place, key) else None

    def _read(self) -> dict[str, dict[str, int | str]]:
        return read_json(dict[str, dict[str, int | str]], self.path) or {}

    def _record(self, key: str, entry: dict) -> None:
        with locked(self.path):
            write_json(self.path, dict(sorted((self._read() | {key: entry}).items())))


def fetch(
    place: Place, path: Path, key: str, checksums: Checksums | None = None, patience: Patience | None = None
) -> None:
    """Download what lies at `place` to `path`, a folder if `place` is one; what is there and right is left alone.

    Several processes may ask for the same file: one downloads, the others wait. An interrupted download goes on where
    it was, also in a later call.

    Args:
        place: where it lies.
        path: where it goes.
        key: its name in the record of checksums.
        checksums: the record.
        patience: with the server.

    Raises:
        InputError: the place cannot be reached, wants a login or has no such file; the file is not the one that is
            expected, and was removed; the disk has no room for it.
    """
    checksums, patience = checksums or Checksums(), patience or Patience()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if place.drive_folder is not None:
            _fetch_drive_folder(place, path, key, checksums, patience)
            return
        if path.is_file():
            _check_or_remove(checksums, path, key, place, path)
            return
        _LOG.info("%s: downloading from %s", path, place)
        origin = None
        if place.url is not None:
            arrived = _from_url(place.url, path, place.size, patience)
        elif place.hub is not None:
            arrived, origin = _from_hub(place, place.hub, path, key, checksums.origin(key, place))
        else:
            arrived = _from_drive(str(place.drive), path, patience)
        _check_or_remove(checksums, arrived, key, place, path, origin)
        os.replace(arrived, path)


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to write `needed` bytes into `folder` if its disk has fewer.

    Raises:
        InputError: it has; names `purpose`.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {purpose} needs {gigabytes(needed)}, the disk has {gigabytes(free)} left; free some room or "
            f"choose another folder"
        )


def gigabytes(count: int) -> str:
    """`count` bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _check_or_remove(
    checksums: Checksums, file: Path, key: str, place: Place, called: Path, origin: Origin | None = None
) -> None:
    try:
        checksums.check(file, key, place, called, origin=origin)
    except InputError as error:
        file.unlink()
        _note(called).unlink(missing_ok=True)
        raise InputError(f"{error}; it was removed, give the command again") from None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    """File that tells which version of the URL's file the part belongs to."""
    return path.with_name(path.name + ".part.json")


def _from_url(url: str, path: Path, size: int | None, patience: Patience) -> Path:
    """Download `url` beside `path`; the whole file's path."""
    import requests

    part = _part(path)
    failures, furthest = 0, part.stat().st_size if part.is_file() else 0
    with requests.Session() as session:
        while True:
            try:
                _receive(session, url, path, size, patience.timeout)
            except _Interrupted as error:
                arrived = part.stat().st_size if part.is_file() else 0
                failures = 0 if arrived > furthest else failures + 1
                furthest = max(furthest, arrived)
                if failures >= patience.attempts:
                    raise InputError(
                        f"{url}: {error}; {gigabytes(arrived)} are kept in {part}, give the command again to go on"
                    ) from None
                _LOG.warning("%s: %s; trying again", path.name, error)
                time.sleep(min(patience.wait * 2**failures, 60.0))
            else:
                _note(path).unlink(missing_ok=True)
                return part


def _receive(session: requests.Session, url: str, path: Path, size: int | None, timeout: float) -> None:
    """One request: append what the part file lacks, or write it anew.

    Raises:
        _Interrupted: not all arrived.
        InputError: it never will.
    """
    import requests
    from urllib3.exceptions import NameResolutionError

    part, note = _part(path), _note(path)
    start = part.stat().st_size if part.is_file() else 0
    validator = _validator(note, url) if start else None
    # The bytes are wanted as they are stored: lengths and ranges count these.
    headers = {"Accept-Encoding": "identity"}
    if validator is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            start, total = _begin(response, url, path, start if validator is not None else 0)
            if size is not None and total not in (None, size):
                raise InputError(f"{url}: the server's file has {total} bytes, the catalogue tells {size}; correct it")
            if total is not None:
                check_room(path.parent, total - start, path.name)
            if start == 0:
                version = response.headers.get("ETag") or response.headers.get("Last-Modified")
                write_json(note, {"url": url, "version": version})
            with part.open("r+b" if start else "wb") as stream, _Progress(path.name, total, start) as progress:
                stream.seek(start)
                if start != total:
                    for chunk in response.iter_content(_CHUNK):
                        stream.write(chunk)
                        progress.update(len(chunk))
                stream.truncate()
                arrived = stream.tell()
    except requests.exceptions.SSLError as error:
        raise InputError(f"{url}: no secure connection ({_reason(error)}); {_by_hand(path)}") from None
    except requests.RequestException as error:
        causes = [error, *error.args, *(getattr(cause, "reason", None) for cause in error.args)]
        if any(isinstance(cause, NameResolutionError) for cause in causes):
            raise InputError(f"{url}: its host is not known here, is the network up? {_by_hand(path)}") from None
        if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
            raise _Interrupted(f"the connection was cut or stalled ({_reason(error)})") from None
        raise InputError(f"{url}: {_reason(error)}; correct the address in the catalogue") from None
    if total is not None and arrived != total:
        raise _Interrupted(f"the connection was cut after {arrived} of {total} bytes")


def _begin(response: requests.Response, url: str, path: Path, start: int) -> tuple[int, int | None]:
    """Where the body of `response` begins in the file, and how long the file is; for a request from `start` on."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise _Interrupted(f"the server answers {status} {response.reason}")
    length = response.headers.get("Content-Length", "")
    if status == 200:
        if "text/html" in response.headers.get("Content-Type", "") and path.suffix not in (".html", ".htm"):
            raise InputError(f"{url}: a web page instead of the file; {_by_hand(path)}")
        return 0, int(length) if length.isdecimal() else None
    ranged = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if status == 206 and ranged and ranged[1] == str(start):
        return start, int(ranged[2])
    if status == 416 and ranged and int(ranged[2]) == start:
        return start, start
    if status in (206, 416):
        _part(path).unlink(missing_ok=True)
        raise _Interrupted("the server gave another part of the file than was asked for")
    raise InputError(f"{url}: the server answers {status} {response.reason}; {_by_hand(path)}")


def _validator(note: Path, url: str) -> str | None:
    """What If-Range needs to go on with a part file; None: the file must be downloaded anew."""
    try:
        told = read_json(dict[str, str | None], note) or {}
    except InputError:
        return None
    version = told.get("version") if told.get("url") == url else None
    return None if version is None or version.startswith("W/") else version


def _from_hub(place: Place, hub: str, path: Path, key: str, recorded: Origin | None) -> tuple[Path, Origin]:
    """Download from the Hugging Face hub with its client, which resumes and retries; the file's path and origin.

    What was `recorded` is downloaded again where it is not None.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    kind, _, repository = hub.rpartition(":")
    wanted: dict[str, Any] = {"repo_id": repository, "repo_type": kind or "dataset"}
    if recorded is not None:
        origin = recorded
    elif place.pattern is not None:
        with _hub_errors(f"{place}, {place.pattern}", path):
            origin = _picked(place, place.pattern, key, wanted)
    else:
        origin = Origin(place.file or PurePosixPath(key).name, place.revision)
    where = f"{place}, {origin.file}"
    wanted |= {"filename": origin.file, "endpoint": os.environ.get("HF_ENDPOINT")}
    local: dict[str, Any] = {"revision": origin.commit, "local_dir": path.parent / ".hub"}
    with _hub_errors(where, path):
        told: Any = hf_hub_download(**wanted, **local, dry_run=True)
        size = told.file_size
        if place.size is not None and size not in (None, place.size):
            raise InputError(f"{where}: the hub's file has {size} bytes, the catalogue tells {place.size}; correct it")
        check_room(path.parent, size or 0, path.name)
        _LOG.info("%s: %s, %s", path.name, where, gigabytes(size) if size else "of unknown size")
        return Path(hf_hub_download(**wanted, **local)), Origin(origin.file, told.commit_hash)


def _picked(place: Place, pattern: str, key: str, wanted: dict[str, Any]) -> Origin:
    """The one file of the hub's repository that fits the pattern of `place`, at the commit that is the newest now.

    Raises:
        InputError: none or several fit.
    """
    from huggingface_hub import HfApi

    found: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).repo_info(**wanted, revision=place.revision, timeout=60)
    files = sorted(sibling.rfilename for sibling in found.siblings or () if is_inside(sibling.rfilename))
    fitting = [file for file in files if _fits(file, place, key)]
    if len(fitting) != 1:
        wrong = f"fits {_listed(fitting)}" if fitting else f"fits no file, there are {_listed(files)}"
        raise InputError(
            f"{place}: the pattern {pattern!r} {wrong}; name one as `file` of an entry of `catalogue` in params.yaml"
        )
    return Origin(fitting[0], found.sha)


def _fits(file: str, place: Place, key: str) -> bool:
    """Whether `place` can mean the file of the hub's repository with this path, for the entry `key`."""
    if place.pattern is not None:
        return is_inside(file) and fnmatch.fnmatchcase(file.lower(), place.pattern.lower())
    return file == (place.file or PurePosixPath(key).name)


def _listed(files: list[str]) -> str:
    """Names that a server gave, for a message."""
    named = [file if file.isprintable() else ascii(file) for file in files[:20]]
    return ", ".join(named) + (f" and {len(files) - 20} more" if len(files) > 20 else "") or "none at all"


@contextmanager
def _hub_errors(where: str, path: Path) -> Iterator[None]:
    """One line for whatever keeps the hub's client from downloading."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{where}: the hub asks who you are; accept the terms on that page, give 'hf auth login', and try again"
        ) from None
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{where}: the hub has no such repository, or shows it to its members only ({_reason(error)}); give 'hf "
            f"auth login' if you are one, or {_by_hand(path)}"
        ) from None
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise InputError(f"{where}: the hub has no such file ({_reason(error)}); {_by_hand(path)}") from None
    except Exception as error:
        # The client lets errors of several libraries through; those of the disk are told elsewhere.
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        cause = error.__cause__ or error
        if isinstance(cause, errors.OfflineModeIsEnabled):
            raise InputError(f"{where}: HF_HUB_OFFLINE forbids to download; unset it, or {_by_hand(path)}") from None
        answer = error.response if isinstance(error, errors.HfHubHTTPError) else None
        status = answer.status_code if answer is not None else 500
        if status == 429:
            raise InputError(
                f"{where}: the hub has too many requests from here; wait some minutes and try again"
            ) from None
        if answer is not None and status < 500:
            told = f"the hub answers {status} {answer.reason_phrase}"
            raise InputError(f"{where}: {told}; {_by_hand(path)}") from None
        raise InputError(
            f"{where}: the hub cannot be reached ({_reason(cause)}); give the command again to go on, or "
            f"{_by_hand(path)}"
        ) from None


def _from_drive(identifier: str, path: Path, patience: Patience) -> Path:
    """Download a file of Google Drive with gdown, which resumes and retries; the file's path."""
    import gdown

    arrived = path.with_name(path.name + ".drive")

    def advance(done: int, total: int | None) -> None:
        check_room(path.parent, (total or done) - done, path.name)
        progress.reach(done, total)

    if not arrived.is_file():
        with _drive_errors(f"https://drive.google.com/file/d/{identifier}", path), _Progress(path.name) as progress:
            gdown.download(
                id=identifier,
                output=str(arrived),
                quiet=True,
                use_cookies=False,
                resume=True,
                timeout=patience.timeout,
                retries=patience.attempts - 1,
                progress=advance,
            )
    return arrived


def _fetch_drive_folder(place: Place, folder: Path, key: str, checksums: Checksums, patience: Patience) -> None:
    import gdown

    listing = folder / _LISTING
    if listing.is_file():
        for name in read_json(list[str], listing) or ():
            if not is_inside(name):
                raise InputError(f"{listing}: {name!r} leads out of the folder; remove the file")
            if not (folder / name).is_file():
                listing.unlink()
                raise InputError(f"{folder / name}: gone; give the command again to download it")
            _check_or_remove(checksums, folder / name, f"{key}/{name}", place, folder / name)
        return
    _LOG.info("%s: downloading from %s", folder, place)
    # By hand the files may go anywhere but here: only a listed folder is known to be whole.
    with _drive_errors(str(place), Path("any folder")):
        files: Any = gdown.download_folder(
            id=place.drive_folder,
            output=str(folder),
            quiet=True,
            use_cookies=False,
            skip_download=True,
            timeout=patience.timeout,
        )
    names = [file.path for file in files]
    for name in names:
        if not is_inside(name):
            raise InputError(f"{place}: it lists the file {name!r}, which would leave its folder; do not use it")
    if not names:
        raise InputError(f"{place}: no files are listed there; correct the id in the catalogue")
    for file in files:
        fetch(Place(drive=file.id), folder / file.path, f"{key}/{file.path}", checksums, patience)
    write_json(listing, names)


@contextmanager
def _drive_errors(where: str, path: Path) -> Iterator[None]:
    """One line for whatever keeps gdown from downloading."""
    import gdown
    import requests

    try:
        yield
    except gdown.DownloadError as error:
        raise InputError(f"{where}: Drive does not give it ({_reason(error)}); {_by_hand(path)}") from None
    except requests.RequestException as error:
        raise InputError(
            f"{where}: Drive cannot be reached ({_reason(error)}); give the command again to go on, or {_by_hand(path)}"
        ) from None


def _by_hand(path: Path) -> str:
    return f"download it by hand to {path} (a data set: 'fdta data import' takes it from anywhere)"


def _reason(error: BaseException) -> str:
    """What `error` says, in one short line: of the errors of a connection, the innermost."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    text = str(error) if cause is None else str(cause).rpartition(": ")[2]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


class _Progress:
    """A bar on a terminal; elsewhere a line every tenth."""

    def __init__(self, name: str, total: int | None = None, start: int = 0) -> None:
        self._name = name
        self._total = total
        self._tenth = 10 * start // total if total else 0
        self._bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None)
        self._done = start

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """`count` more bytes are here."""
        self._done += count
        self._bar.update(count)
        if self._bar.disable and self._total and 10 * self._done // self._total > self._tenth:
            self._tenth = 10 * self._done // self._total
            _LOG.info("%s: %d %% of %s", self._name, 10 * self._tenth, gigabytes(self._total))

    def reach(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes are here."""
        self._total = self._bar.total = total
        self.update(done - self._done)
