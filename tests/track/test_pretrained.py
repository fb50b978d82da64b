"""Published trackers by name, from an empty folder against a server that plays the hub."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.loopback import Loopback, serving
from helpers.small_checkpoints import BASE, SMALL, detector_alone, published

import fdta
from fdta.acquire import download
from fdta.acquire.download import Patience
from fdta.acquire.pretrained import cache_folder, pretrained
from fdta.cli import main
from fdta.errors import InputError
from fdta.experiment.sources import code_digests
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.model.weights import to_published

for module in ("huggingface_hub", "requests"):
    pytest.importorskip(module)

HUB = "/api/models/Spongebobbbbbbbb/FDTA"


@pytest.fixture(scope="module")
def published_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the server serves it; the hub's repository has its files in folders, with names of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served")
    repository = folder / "hub" / "Spongebobbbbbbbb" / "FDTA" / "weights"
    repository.mkdir(parents=True)
    motip_state, tracker = published(BASE), FDTA(SMALL)
    with torch.no_grad():
        for name, parameter in tracker.named_parameters():
            if "class_heads" in name and name.endswith("bias"):
                parameter.fill_(3.0)  # every query is an object
    fdta_state = to_published(tracker.state_dict())
    torch.save({"model": fdta_state, "optimizer": None, "states": {"epoch": 9}}, repository / "FDTA_DanceTrack.pth")
    torch.save({"model": fdta_state}, repository / "sportsmot-a.pth")
    torch.save({"model": fdta_state}, repository / "sportsmot-b.pth")
    torch.save({"model": motip_state}, folder / "motip.pth")
    torch.save(detector_alone(fdta_state), folder / "detector.pth")
    torch.save({"model": Hostile()}, folder / "hostile.pth")
    save_model(folder / "own.pt", tracker, SMALL, "dance/full/seed-0")
    return folder


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


@pytest.fixture
def server(published_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("FDTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "Patience", lambda: Patience(timeout=5, attempts=1, wait=0.01))
    with serving(published_files) as loopback:
        monkeypatch.setenv("HF_ENDPOINT", loopback.url)
        loopback.elsewhere = True
        yield loopback


@pytest.fixture
def video(tmp_path: Path) -> str:
    """Two images of a video, by their pattern; so wide that the default size of a tracker's images is soon computed."""
    folder = tmp_path / "street"
    folder.mkdir()
    for number in (1, 2):
        image = np.random.default_rng(number).integers(0, 256, (8, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:06d}.png"), image)
    return str(folder / "%06d.png")


def adding(server: Loopback, file: str, **told: Any) -> None:
    """Write a params.yaml that has nothing but one more published tracker, `mine`."""
    entry = {"name": "mine", "url": f"{server.url}/{file}", "licence": "MIT", **told}
    Path("params.yaml").write_text(yaml.safe_dump({"catalogue": {"checkpoints": {f"mine-{file}": entry}}}))


def in_cache(ending: str) -> list[str]:
    return sorted(path.name for path in cache_folder().rglob(f"*{ending}") if ".hub" not in path.parts)


def told_in_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The line of the error, after those of progress."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fdta: ")]
    assert len(lines) == 1
    return lines[0]


def track(video: str, name: str, *options: str) -> int:
    return main(["track", video, "--weights", name, "--threads", "1", *options])


def test_a_name_tracks_from_an_empty_folder(
    server: Loopback, video: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert track(video, "dancetrack") == 0
    tracks = Path("tracks/pretrained/dancetrack/street.txt")
    told = capsys.readouterr()
    assert str(tracks) in told.out
    assert "dancetrack: FDTA, licence: MIT (code)" in told.err
    assert "weights/FDTA_DanceTrack.pth" in told.err and "kept in" in told.err
    first = tracks.read_bytes()
    assert first and sorted(path.name for path in Path().iterdir()) == ["tracks"]
    assert in_cache("pth") == ["fdta_dancetrack.pth"] and len(in_cache(".pt")) == 1

    requests = list(server.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert track(video, "dancetrack") == 0
    assert tracks.read_bytes() == first and server.requests == requests
    assert "licence" not in capsys.readouterr().err
    tracker = fdta.Tracker.from_pretrained("dancetrack", device="cpu", threads=1)
    image = cv2.imread(video % 1)
    found = tracker.update(image, channels="BGR")
    assert len(found) == sum(line.startswith(b"1,") for line in first.splitlines()) == SMALL.detector.queries
    again = fdta.Tracker.from_checkpoint("dancetrack", device="cpu", threads=1).update(image, channels="BGR")
    np.testing.assert_array_equal(found.boxes_xyxy, again.boxes_xyxy)
    # The imported file is made again without network where the published one is there.
    next(cache_folder().rglob("*.pt")).unlink()
    assert pretrained(Path())["dancetrack"].get().is_file() and server.requests == requests
    assert main(["weights", "export", "dancetrack", "--output", "again.pth"]) == 0
    assert main(["bench", "pipeline", video, "--weights", "dancetrack", "--frames", "2", "--repeats", "1"]) == 0


def test_a_name_wins_over_a_file(server: Loopback, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("dancetrack").write_bytes(b"no checkpoint")
    assert track(video, "./dancetrack") == 2
    assert "dancetrack: broken or no checkpoint" in told_in_one_line(capsys)
    assert server.requests == []
    assert main(["weights", "export", "dancetrack", "--output", "named.pth"]) == 0
    Path("dancetrack").unlink()
    Path("dancetrack").mkdir()
    assert main(["weights", "export", "dancetrack", "--output", "named.pth"]) == 0
    # A word that is no name may still be a file.
    Path("own").write_bytes((server.folder / "own.pt").read_bytes())
    assert main(["weights", "export", "own", "--output", "own.pth"]) == 0
    assert track(video, "dancetrak") == 2
    assert "neither a file nor a published tracker; did you mean dancetrack?" in told_in_one_line(capsys)
    with pytest.raises(InputError, match="no published tracker has this name; did you mean bft"):
        fdta.Tracker.from_pretrained("bft1")


def test_names_of_params_yaml(server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    adding(server, "motip.pth", kind="MOTIP")
    first = pretrained(Path("params.yaml"))["mine"].get()
    # The same name for another file, as another project may have it.
    adding(server, "own.pt")
    second = pretrained(Path("params.yaml"))["mine"].get()
    assert first.parent != second.parent and first.is_file()
    assert fdta.Tracker.from_pretrained("mine").device.type in ("cpu", "cuda")
    assert second.read_bytes() == (server.folder / "own.pt").read_bytes()
    Path("other.yaml").write_text("catalogue: {checkpoints: {a.pth: {name: dancetrack, url: http://x, licence: MIT}}}")
    assert main(["weights", "list", "--params", "other.yaml"]) == 2
    assert "fdta_dancetrack.pth has the name 'dancetrack' already" in told_in_one_line(capsys)


def test_an_interrupted_download_resumes(server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    adding(server, "motip.pth")
    server.faults["/motip.pth"] = ["cut 131072", "503"]
    assert main(["weights", "get", "mine"]) == 2
    assert "are kept in" in told_in_one_line(capsys) and in_cache(".pt") == []
    assert main(["weights", "get", "mine"]) == 0
    assert server.gets("/motip.pth") == [None, "bytes=131072-", "bytes=131072-"] and len(in_cache(".pt")) == 1


def test_two_at_once_download_once(server: Loopback) -> None:
    adding(server, "motip.pth")
    tracker, found = pretrained(Path("params.yaml"))["mine"], []
    threads = [threading.Thread(target=lambda: found.append(tracker.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tracker.imported] * 2 and server.gets("/motip.pth") == [None]


@pytest.mark.parametrize(
    ("file", "told", "message"),
    [
        ("motip.pth", {"sha256": "0" * 64}, "another file than the catalogue tells"),
        ("motip.pth", {"kind": "FDTA"}, "holds MOTIP, expected is FDTA"),
        ("detector.pth", {}, "holds Deformable DETR, expected is FDTA or MOTIP"),
        ("hostile.pth", {}, "rejected, because it would load or run"),
    ],
)
def test_files_that_are_not_imported(
    server: Loopback, video: str, capsys: pytest.CaptureFixture[str], file: str, told: dict[str, Any], message: str
) -> None:
    adding(server, file, **told)
    for _ in range(2):
        assert track(video, "mine") == 2
        assert message in told_in_one_line(capsys)
    assert in_cache(".pt") == [] and not Path("hacked").exists() and not Path("tracks").exists()
    # What is wrong with the file stays wrong; what is wrong with the download may be better the next time.
    assert len(server.gets(f"/{file}")) == (2 if "sha256" in told else 1)


def test_what_the_hub_does_not_give(server: Loopback, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in {
        "bft": "the pattern '*bft*.pth' fits no file, there are weights/FDTA_DanceTrack.pth, weights/sportsmot-a.pth",
        "sportsmot": "the pattern '*sportsmot*.pth' fits weights/sportsmot-a.pth, weights/sportsmot-b.pth; name one",
    }.items():
        assert track(video, name) == 2
        assert f"https://huggingface.co/Spongebobbbbbbbb/FDTA: {told}" in told_in_one_line(capsys)
    entry = {"hub": "model:Spongebobbbbbbbb/FDTA", "file": "weights/sportsmot-b.pth", "licence": "MIT"}
    entries = {"catalogue": {"checkpoints": {"fdta_sportsmot.pth": {"name": "sportsmot", **entry}}}}
    Path("params.yaml").write_text(yaml.safe_dump(entries))
    assert main(["weights", "get", "sportsmot"]) == 0
    server.gated.add(HUB)
    assert track(video, "dancetrack") == 2
    assert "accept the terms on that page, give 'hf auth login'" in told_in_one_line(capsys)
    assert len(in_cache(".pt")) == 1 and not Path("tracks").exists()


def test_weights_without_params_yaml(server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "get", "dancetrack", "--output", "a/b.pth"]) == 0
    assert main(["weights", "get", "fdta_dancetrack.pth"]) == 0
    assert Path("a/b.pth").read_bytes() == Path("pretrained/fdta_dancetrack.pth").read_bytes()
    assert len([path for _, path, _ in server.requests if path == HUB]) == 1  # the pick is recorded
    assert main(["weights", "import", "a/b.pth", "--output", "b.pt"]) == 0
    assert main(["weights", "get", "nothing"]) == 2
    assert "nothing: not in the catalogue; allowed: motip-dancetrack" in told_in_one_line(capsys)
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    heading, first, second, *_ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "file", "what", "here", "size", "licence", "from"]
    assert first.split()[:4] == ["dancetrack", "fdta_dancetrack.pth", "FDTA", "pretrained/"]
    assert second.split()[:5] == ["sportsmot", "fdta_sportsmot.pth", "FDTA", "no", "-"]
    assert main(["weights", "get", "dancetrack"]) == 0 and main(["weights", "list"]) == 0
    assert "FDTA      cache, pretrained/" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["track a.mp4 --weights a.pt", "weights list", "weights get a.pth", "params check", "bench infer a --weights a.pt"],
)
def test_a_settings_file_that_is_asked_for_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--params", "nosuch.yaml"]) == 2
    assert capsys.readouterr().err == "fdta: nosuch.yaml: no such file; correct --params\n"


def test_without_weights_the_command_to_type_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "my street.mp4"]) == 2
    assert "type: fdta track 'my street.mp4' --weights dancetrack (" in told_in_one_line(capsys)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FDTA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fdta"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "fdta"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fdta"
    monkeypatch.setenv("FDTA_CACHE", "~/here")
    assert cache_folder() == tmp_path / "here"


def test_the_code_of_downloads_decides_no_tracks() -> None:
    for entry in ("fdta.track.run", "fdta.train.tracker"):
        assert not [module for module in code_digests(entry) if module.startswith(("fdta.acquire", "fdta.model.exch"))]


def test_an_entry_that_changes_has_another_folder() -> None:
    tracker = pretrained(Path("nosuch.yaml"))["dancetrack"]
    folders = {
        dataclasses.replace(tracker, checkpoint=dataclasses.replace(tracker.checkpoint, **change)).folder
        for change in ({}, {"licence": "other"}, {"revision": "v2"}, {"pattern": None, "file": "a.pth"})
    }
    assert len(folders) == 3
