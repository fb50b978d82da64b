from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.loopback import COMMIT, Loopback, serving

from fdta.acquire.catalogue import Place
from fdta.acquire.download import Checksums, Origin, Patience, fetch
from fdta.errors import InputError

for module in ("filelock", "requests"):
    pytest.importorskip(module)

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATIENCE = Patience(timeout=0.3, attempts=3, wait=0.01)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.zip").write_bytes(CONTENT)
    with serving(tmp_path / "served") as loopback:
        yield loopback


def get(server: Loopback, tmp_path: Path, **told: object) -> Path:
    path = tmp_path / "downloads" / "a.zip"
    place = Place(url=f"{server.url}/a.zip", **told)
    fetch(place, path, "x/a.zip", Checksums(tmp_path / "checksums.json"), PATIENCE)
    return path


def left(tmp_path: Path) -> list[str]:
    """What lies in the downloads besides locks."""
    return sorted(path.name for path in (tmp_path / "downloads").iterdir() if not path.name.endswith(".lock"))


def test_a_file_arrives_and_is_recorded(server, tmp_path):
    path = get(server, tmp_path)
    assert path.read_bytes() == CONTENT and left(tmp_path) == ["a.zip"]
    recorded = {"bytes": len(CONTENT), "sha256": DIGEST, "from": f"{server.url}/a.zip"}
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"x/a.zip": recorded}
    get(server, tmp_path)
    assert server.gets("/a.zip") == [None]  # not again


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        (["cut 131072", "cut 131072"], [None, "bytes=131072-", "bytes=262144-"]),
        (["stall 65536"], [None, "bytes=65536-"]),
        (["503"], [None, None]),
        (["cut 131072", "whole"], [None, "bytes=131072-"]),
        (["cut 131072", "shift"], [None, "bytes=131072-", None]),
        (["cut 131072", "503", "503"], [None, "bytes=131072-", "bytes=131072-", "bytes=131072-"]),
    ],
)
def test_interrupted_downloads_go_on(server, tmp_path, faults, asked):
    server.faults["/a.zip"] = list(faults)
    assert get(server, tmp_path, sha256=DIGEST).read_bytes() == CONTENT
    assert server.gets("/a.zip") == asked and left(tmp_path) == ["a.zip"]


def test_a_later_call_goes_on(server, tmp_path):
    server.faults["/a.zip"] = ["cut 131072", "503", "503", "503"]
    with pytest.raises(InputError, match=r"0\.1 MB are kept in .*a\.zip\.part, give the command again"):
        get(server, tmp_path)
    assert left(tmp_path) == ["a.zip.part", "a.zip.part.json"] and not (tmp_path / "checksums.json").exists()
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.gets("/a.zip")[-1] == "bytes=131072-"


def test_a_file_that_changed_meanwhile_is_downloaded_anew(server, tmp_path):
    server.faults["/a.zip"] = ["cut 131072", "503", "503", "503"]
    with pytest.raises(InputError):
        get(server, tmp_path)
    changed = CONTENT[::-1]
    (server.folder / "a.zip").write_bytes(changed)
    assert get(server, tmp_path).read_bytes() == changed


def test_a_whole_part_file_is_kept(server, tmp_path):
    server.faults["/a.zip"] = ["cut 131072", "503", "503", "503"]
    with pytest.raises(InputError):
        get(server, tmp_path)
    (tmp_path / "downloads" / "a.zip.part").write_bytes(CONTENT)  # killed before it was renamed
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.gets("/a.zip")[-1] == f"bytes={len(CONTENT)}-"


def test_a_server_that_always_cuts_is_given_up(server, tmp_path):
    server.faults["/a.zip"] = ["whole cut 131072"] * 20
    with pytest.raises(InputError, match="cut or stalled"):
        get(server, tmp_path)
    assert len(server.gets("/a.zip")) == 1 + PATIENCE.attempts


@pytest.mark.parametrize(
    ("fault", "told", "message"),
    [
        ("wrong", {"sha256": DIGEST}, "another file than the catalogue tells"),
        ("", {"size": 5}, "300000 bytes, the catalogue tells 5"),
        ("page", {}, "a web page instead of the file"),
        ("403", {}, "answers 403 Forbidden"),
        ("404", {}, "answers 404 Not Found"),
    ],
)
def test_what_is_refused(server, tmp_path, fault, told, message):
    server.faults["/a.zip"] = [fault]
    with pytest.raises(InputError, match=message) as error:
        get(server, tmp_path, **told)
    assert "\n" not in str(error.value) and left(tmp_path) == []


def test_a_recorded_checksum_is_held_against_later_downloads(server, tmp_path):
    path = get(server, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(InputError, match=r"another file than .*checksums\.json tells .*; it was removed"):
        get(server, tmp_path)
    assert left(tmp_path) == []
    server.faults["/a.zip"] = ["wrong"]
    with pytest.raises(InputError, match=r"another file than .*checksums\.json tells"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_broken_record(server, tmp_path):
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"checksums\.json: broken"):
        get(server, tmp_path)


def test_no_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(InputError, match=r"a\.zip needs 0\.3 MB, the disk has 0\.0 MB left"):
        get(server, tmp_path)
    assert left(tmp_path) == []


def test_unknown_host_and_closed_port(tmp_path):
    with pytest.raises(InputError, match="host is not known"):
        fetch(Place(url="http://nowhere.invalid/a.zip"), tmp_path / "a.zip", "a", patience=PATIENCE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    with pytest.raises(InputError, match="cut or stalled"):
        fetch(Place(url=url), tmp_path / "a.zip", "a", patience=PATIENCE)


def test_two_processes_download_once(server, tmp_path):
    server.faults["/a.zip"] = ["stall 65536"]  # the second comes while the first waits
    code = (
        "import sys; from pathlib import Path; from fdta.acquire.catalogue import Place\n"
        "from fdta.acquire.download import Checksums, Patience, fetch\n"
        f"fetch(Place(url={server.url + '/a.zip'!r}), Path('a.zip'), 'a', Checksums(Path('c.json')), Patience(1.0))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    jobs = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert server.gets("/a.zip") == [None, "bytes=65536-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.fixture
def hub(server, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    file = server.folder / "hub" / "owner" / "data" / "deep" / "a.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return server


def from_hub(tmp_path: Path, file: str = "deep/a.zip", **told: object) -> Path:
    path = tmp_path / "downloads" / "a.zip"
    place = Place(hub="owner/data", file=file, **told)
    fetch(place, path, "x/a.zip", Checksums(tmp_path / "checksums.json"), PATIENCE)
    return path


def test_hub(hub, tmp_path):
    path = from_hub(tmp_path, size=len(CONTENT), sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    from_hub(tmp_path)
    assert hub.gets("/datasets/owner/data/resolve/main/deep/a.zip") == [None]


def test_hub_goes_on_after_a_cut(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    asked = "/datasets/owner/data/resolve/main/deep/a.zip"
    hub.faults[asked] = ["cut 131072"]
    assert from_hub(tmp_path, sha256=DIGEST).read_bytes() == CONTENT
    assert hub.gets(asked) == [None, "bytes=131072-"]


def test_hub_refusals(hub, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="the hub has no such file"):
        from_hub(tmp_path, file="b.zip")
    with pytest.raises(InputError, match="300000 bytes, the catalogue tells 7"):
        from_hub(tmp_path, size=7)
    with pytest.raises(InputError, match="another file than the catalogue tells"):
        from_hub(tmp_path, sha256="0" * 64)
    assert not (tmp_path / "downloads" / "a.zip").exists()
    hub.gated.add("/datasets/owner/data/resolve/main/terms.zip")
    with pytest.raises(InputError, match="hf auth login") as error:
        from_hub(tmp_path, file="terms.zip")
    assert "\n" not in str(error.value)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE") as error:
        from_hub(tmp_path, file="c.zip")
    assert "\n" not in str(error.value)


WEIGHTS = Place(hub="model:owner/weights", pattern="*dance*.pth")


@pytest.fixture
def listed(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = hub.folder / "hub" / "owner" / "weights"
    (folder / "best").mkdir(parents=True)
    for name, content in {"best/FDTA_DanceTrack.pth": CONTENT, "bft.pth": b"bird", "README.md": b"text"}.items():
        (folder / name).write_bytes(content)
    return hub


def picked(place: Place = WEIGHTS, name: str = "d.pth") -> Path:
    fetch(place, Path(name), "checkpoints/d.pth", patience=PATIENCE)
    return Path(name)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_pattern_picks_a_file_for_good(listed, elsewhere):
    listed.elsewhere = elsewhere
    assert picked().read_bytes() == CONTENT
    recorded = json.loads(Path("checksums.json").read_text())["checkpoints/d.pth"]
    assert recorded["file"] == "best/FDTA_DanceTrack.pth" and recorded["commit"] == COMMIT
    assert recorded["from"] == "https://huggingface.co/owner/weights" and recorded["sha256"] == DIGEST
    # Another file that fits would make the pattern ambiguous; what was picked is recorded, so no listing is asked for.
    (listed.folder / "hub" / "owner" / "weights" / "dance2.pth").write_bytes(b"newer")
    assert picked(name="again.pth").read_bytes() == CONTENT
    listings = [path for _, path, _ in listed.requests if path.startswith(("/api/models", "/api/datasets"))]
    assert listings == ["/api/models/owner/weights"]


def test_a_record_is_not_trusted(listed):
    origin = {"from": "https://huggingface.co/owner/weights", "file": "../dance.pth", "commit": COMMIT}
    Path("checksums.json").write_text(json.dumps({"checkpoints/d.pth": origin}))
    assert Checksums().origin("checkpoints/d.pth", WEIGHTS) is None
    assert Checksums().origin("checkpoints/d.pth", Place(hub="model:owner/weights")) is None
    Path("checksums.json").write_text(json.dumps({"checkpoints/d.pth": origin | {"file": "dance.pth"}}))
    assert Checksums().origin("checkpoints/d.pth", WEIGHTS) == Origin("dance.pth", COMMIT)
    for other in ({"hub": "model:owner/other"}, {"pattern": "*bft*"}, {"revision": "v2"}):
        assert Checksums().origin("checkpoints/d.pth", dataclasses.replace(WEIGHTS, **other)) is None


def test_a_file_of_the_hub_is_called_as_its_entry_wherever_it_goes(listed):
    fetch(Place(hub="model:owner/weights"), Path("elsewhere.pth"), "checkpoints/bft.pth", patience=PATIENCE)
    assert Path("elsewhere.pth").read_bytes() == b"bird"


def test_a_picked_file_goes_on_after_a_cut(listed, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    listed.elsewhere = True
    stored = "/stored/owner/weights/best/FDTA_DanceTrack.pth"
    listed.faults[stored] = ["cut 131072"]
    assert picked().read_bytes() == CONTENT
    assert listed.gets(stored) == [None, "bytes=131072-"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("*sport*.pth", "'*sport*.pth' fits no file, there are README.md, best/FDTA_DanceTrack.pth, bft.pth; name one"),
        ("*.pth", "'*.pth' fits best/FDTA_DanceTrack.pth, bft.pth; name one as `file`"),
        ("dance*.pth", "fits no file"),
    ],
)
def test_patterns_that_pick_no_file(listed, pattern, told):
    with pytest.raises(InputError) as error:
        picked(Place(hub="model:owner/weights", pattern=pattern))
    assert str(error.value).startswith("https://huggingface.co/owner/weights: the pattern")
    assert told in str(error.value) and "\n" not in str(error.value)
    assert not Path("d.pth").exists() and not Path("checksums.json").exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("401", "the hub answers 401 Unauthorized"),
        ("403", "the hub answers 403"),
        ("404", "the hub answers 404"),
        ("429", "too many requests from here; wait"),
        ("500", "cannot be reached .*give the command again"),
        ("gated", "accept the terms on that page"),
        ("absent", "no such repository, or shows it to its members only"),
        ("revision", "no such file"),
    ],
)
def test_what_the_hub_answers_instead_of_a_listing(listed, answer, told):
    place, asked = WEIGHTS, "/api/models/owner/weights"
    if answer == "gated":
        listed.gated.add(asked)
    elif answer == "absent":
        place = dataclasses.replace(place, hub="model:owner/other")
    elif answer == "revision":
        place = dataclasses.replace(place, revision="v2")
    else:
        listed.faults[asked] = [answer] * 9
    with pytest.raises(InputError, match=told) as error:
        picked(place)
    assert "\n" not in str(error.value) and not Path("d.pth").exists()


def test_names_in_a_listing_are_not_trusted(listed, monkeypatch):
    from huggingface_hub import HfApi

    files = [SimpleNamespace(rfilename=name) for name in ("../dance.pth", "/dance.pth", "dance\x1b[2J.txt")]
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha=COMMIT, siblings=files))
    with pytest.raises(InputError, match=r"fits no file, there are 'dance\\x1b\[2J\.txt';"):
        picked()


def test_drive_out_of_reach(tmp_path, monkeypatch):
    pytest.importorskip("gdown")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for place in (Place(drive="x" * 30), Place(drive_folder="x" * 30)):
        with pytest.raises(
            InputError, match=r"https://drive\.google\.com/.*cannot be reached.*fdta data import"
        ) as error:
            fetch(place, tmp_path / "a.zip", "a", Checksums(tmp_path / "c.json"), PATIENCE)
        assert "\n" not in str(error.value)


def test_drive(tmp_path, monkeypatch):
    gdown = pytest.importorskip("gdown")
    asked: list[str] = []

    def download(id: str, output: str, progress, **_: object) -> str:
        asked.append(id)
        if id == "busy":
            raise gdown.exceptions.FileURLRetrievalError("Too many users have viewed or\ndownloaded this file")
        progress(10, 30)
        progress(30, 30)
        Path(output).write_bytes(CONTENT)
        return output

    monkeypatch.setattr(gdown, "download", download)
    checksums = Checksums(tmp_path / "c.json")
    fetch(Place(drive="one", sha256=DIGEST), tmp_path / "a.zip", "a", checksums)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    with pytest.raises(InputError, match="Too many users") as error:
        fetch(Place(drive="busy"), tmp_path / "b.zip", "b", checksums)
    assert "\n" not in str(error.value) and not (tmp_path / "b.zip").exists()

    entries = [SimpleNamespace(id="0", path="BFT.zip"), SimpleNamespace(id="1", path="notes/readme.txt")]
    monkeypatch.setattr(gdown, "download_folder", lambda **_: entries)
    for _ in range(2):
        fetch(Place(drive_folder="all"), tmp_path / "BFT", "bft/BFT", checksums)
    assert asked == ["one", "busy", "0", "1"]
    assert (tmp_path / "BFT" / "notes" / "readme.txt").read_bytes() == CONTENT
    (tmp_path / "BFT" / "BFT.zip").write_bytes(b"other")
    with pytest.raises(InputError, match=r"BFT\.zip: 5 bytes instead of"):
        fetch(Place(drive_folder="all"), tmp_path / "BFT", "bft/BFT", checksums)
    entries[0].path = "../BFT.zip"
    with pytest.raises(InputError, match="would leave its folder"):
        fetch(Place(drive_folder="all"), tmp_path / "other", "bft/BFT", checksums)
    assert not (tmp_path / "other").exists()
