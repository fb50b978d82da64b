from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from fdta.acquire.archives import is_archive, unpack
from fdta.errors import InputError


def zipped(path: Path, members: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def tarred(path: Path, members: dict[str, bytes], kinds: dict[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), (kinds or {}).get(name, tarfile.REGTYPE)
            info.linkname = "/etc/passwd" if kinds and name in kinds else ""
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar"), (tarred, "a.tar.gz")])
def test_files_come_out(tmp_path, make, name):
    members = {"top/a/1.jpg": b"one", "./top/b.txt": b"", "__MACOSX/x": b"mac", "top/._b.txt": b"mac", "other/c": b"c"}
    archive = make(tmp_path / name, members)
    assert is_archive(archive) and not is_archive(tmp_path / "a.pth")
    assert unpack(archive, tmp_path / "out") == 3
    assert files(tmp_path / "out") == {"top/a/1.jpg": b"one", "top/b.txt": b"", "other/c": b"c"}
    assert unpack(archive, tmp_path / "part", lambda path: "top" in path.parts) == 2


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_nothing_leaves_the_folder(tmp_path, make, name):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar"), {"good": b"1", name: b"evil"})
    with pytest.raises(InputError, match="outside its folder") as error:
        unpack(archive, tmp_path / "deep" / "er" / "out")
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


def test_links_and_devices_are_refused(tmp_path):
    archives = [zipped(tmp_path / "a.zip", {"l": b"/etc/passwd", "l/x": b"1"}, {"l": stat.S_IFLNK | 0o777})]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        archives.append(tarred(tmp_path / f"{kind.decode()}.tar", {"l": b""}, {"l": kind}))
    for archive in archives:
        with pytest.raises(InputError, match="'l' is a link or device"):
            unpack(archive, tmp_path / archive.stem)
        assert files(tmp_path / archive.stem) == {}


def test_a_file_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = zipped(tmp_path / "a.zip", {"x": b"1"})
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("x", b"2")
    with pytest.raises(InputError, match="'x' is in it twice"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(InputError, match="'x/y' is in it twice"):
        unpack(zipped(tmp_path / "b.zip", {"x": b"1", "x/y": b"2"}), tmp_path / "b")


def test_what_is_no_whole_archive(tmp_path):
    good = {name: bytes(range(256)) * 40 for name in "abc"}
    archives = [tmp_path / "text.zip", tmp_path / "empty.tar"]
    archives[0].write_text("not an archive")
    archives[1].write_bytes(b"")
    for archive in (
        zipped(tmp_path / "z.zip", good),
        tarred(tmp_path / "t.tar", good),
        tarred(tmp_path / "g.tar.gz", good),
    ):
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        archives.append(archive)
    flipped = zipped(tmp_path / "flipped.zip", good)
    data = bytearray(flipped.read_bytes())
    data[60] ^= 255
    flipped.write_bytes(bytes(data))
    for archive in [*archives, flipped]:
        with pytest.raises(InputError, match="no whole zip or tar archive") as error:
            unpack(archive, tmp_path / "out" / archive.name)
        assert "\n" not in str(error.value) and str(archive) in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
def test_bombs_do_not_fill_the_disk(tmp_path, monkeypatch, make, name):
    archive = make(tmp_path / name, {"zeros": b"\0" * 10_000_000})
    assert archive.stat().st_size < 20_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**8, 10**8, 10**6))
    with pytest.raises(InputError, match=r"needs 10\.0 MB, the disk has 1\.0 MB left"):
        unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_a_file_without_a_name(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "x")
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: [zipfile.ZipInfo("")])
    with pytest.raises(InputError, match=r"a\.zip: a file in it has no name"):
        unpack(tmp_path / "a.zip", tmp_path / "out", lambda member: True)
