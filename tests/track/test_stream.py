from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers.loopback import serving
from helpers.streams import http_answer, http_camera, number_of, rtsp_camera
from test_video import FRAMES, SETTINGS, track, write_clip

from fdta.errors import InputError
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.track import source as sources
from fdta.track.source import open_source
from fdta.track.stream import LiveFrames, StreamPatience, VideoFrame, shown_address

SHORT = StreamPatience(silence=5.0, first_wait=0.02, longest_wait=0.1, lost=0.5)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "StreamPatience", lambda: SHORT)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_model(path, FDTA(SETTINGS), SETTINGS, "dance/full/seed-0")
    return path


@pytest.mark.parametrize("camera", [rtsp_camera, http_camera])
def test_a_lost_connection_is_made_again(camera, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fdta")
    with camera([range(1, 6), range(6, 11)], pause=0.05) as running:
        source = open_source(running.url)
        assert source.live and source.length is None
        taken: list[VideoFrame] = []
        with (
            closing(source.frames),
            pytest.raises(InputError, match=r"/street/1: no frame for 0\.5 s \(.*\); check the camera"),
        ):
            taken.extend(source.frames)
    shown = [number_of(frame.image) for frame in taken]
    assert shown == sorted(set(shown)) and min(shown) <= 5 < max(shown) <= 10
    times = [frame.time for frame in taken]
    assert times[0] == 0 and times == sorted(times) and times[-1] > 0.1
    assert "connecting again in" in caplog.text and "secret" not in caplog.text


def test_the_oldest_frames_give_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fdta")
    taken, read = threading.Event(), threading.Event()

    def images(_: threading.Event):
        yield np.full((2, 2, 3), 1, np.uint8)
        assert taken.wait(10)
        for number in range(2, 51):
            yield np.full((2, 2, 3), number, np.uint8)
        read.set()

    live = LiveFrames("camera", images)
    with closing(live.frames()) as frames:
        first = next(frames)
        taken.set()
        assert read.wait(10)
        found = [first, *frames]
    assert [frame.number for frame in found] == [1, 49, 50]
    assert [int(frame.image[0, 0, 0]) for frame in found] == [1, 49, 50]
    assert "47 of 50 frames were left out" in caplog.text


def test_frames_that_are_waited_for_can_be_stopped() -> None:
    def images(stopped: threading.Event):
        yield np.zeros((2, 2, 3), np.uint8)
        stopped.wait(60)

    live = LiveFrames("camera", images)
    threading.Timer(0.2, live.stop).start()
    began = time.monotonic()
    assert len(list(live.frames())) == 1
    assert time.monotonic() - began < 30


def test_a_stream_is_tracked_until_a_signal(weights: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with http_camera([range(1, 20)], pause=0.05) as camera:
        camera.pace = lambda: camera.done.wait(0.05 if camera.opened else 0)
        threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        monkeypatch.setattr(sources, "StreamPatience", lambda: StreamPatience(silence=60, lost=60))
        assert track(weights, camera.url, "--stride", "2", "--json", "lines.jsonl") == 130
    told = capsys.readouterr()
    assert "secret" not in told.out + told.err
    (written,) = Path("tracks/dance/full/seed-0").iterdir()
    assert written.name.startswith("127.0.0.1-") and written.name.endswith("-street-1.txt")
    assert len(Path("lines.jsonl").read_text().splitlines()) > 1


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("rtsp://127.0.0.1:1/x", "rtsp://127.0.0.1:1/x: cannot be opened (Connection refused); check address"),
        ("http://user:secret@127.0.0.1:1/x?secret", "http://127.0.0.1:1/x: cannot be opened (Connection refused)"),
        ("ftp://127.0.0.1/x", "ftp://...: no address of a stream; it begins with one of rtsp://"),
        ("http:///x", "http://...: no address"),
        ("rtsp://host:port/x", "rtsp://...: no address"),
    ],
)
def test_addresses_where_nothing_is(weights: Path, capsys, address: str, told: str) -> None:
    assert track(weights, address) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fdta: {told}") and "secret" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 401 No\r\n\r\n",
        b"HTTP/1.0 503 Busy\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n<html>" + bytes(5000),
        b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n",
        b"",
    ],
)
def test_answers_that_are_no_video(weights: Path, capsys, answer: bytes) -> None:
    with http_answer(answer) as server:
        assert track(weights, server.url) == 2
    error = capsys.readouterr().err
    assert error.startswith("fdta: http://127.0.0.1:") and error.endswith("; check address and network\n")
    assert "secret" not in error and "Errno" not in error and error.count("\n") == 1


def test_a_file_at_an_address_has_an_end(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "clip.mp4")
    with av.open(str(film)) as given, av.open(str(tmp_path / "clip.ts"), "w") as stream:
        copied = stream.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copied
                stream.mux(packet)
    with serving(tmp_path) as server:
        for name in ("clip.ts", "clip.mp4"):
            source = open_source(f"{server.url}/{name}")
            assert source.live is None and len(list(source.frames)) == FRAMES


def test_messages_hide_the_password() -> None:
    assert shown_address("rtsp://me:secret@camera:554/a/b?key=secret") == "rtsp://camera:554/a/b"
    assert shown_address("https://[::1]/a") == "https://[::1]/a"


def test_every_nth_frame_up_to_so_many(tmp_path: Path) -> None:
    for number in range(1, 12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    for stride, most, numbers in ((1, None, range(1, 12)), (3, None, (1, 4, 7, 10)), (3, 2, (1, 4)), (4, 9, (1, 5, 9))):
        source = open_source(str(tmp_path)).every(stride, most)
        found = list(source.frames)
        assert [frame.number for frame in found] == list(numbers)
        assert source.length is not None and source.length >= len(found)
        assert [frame.time for frame in found] == pytest.approx([(number - 1) / 30 for number in numbers])


def test_show_without_a_display(weights: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert track(weights, tmp_path / "1.png", "--show", "--output", str(tmp_path / "t.txt")) == 2
    assert capsys.readouterr().err == "fdta: --show: there is no display here; give --video FILE instead\n"
    assert not (tmp_path / "t.txt").exists()


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1), (27, 1), (-1, 0)])
def test_the_window_ends_the_tracking(weights: Path, tmp_path: Path, monkeypatch, key: int, visible: int) -> None:
    for number in range(1, 6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 96, 3), 40, np.uint8))
    shown: list[np.ndarray] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(np.zeros(0)))
    monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: key if len(shown) == 2 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: visible if len(shown) == 2 else 1)
    lines = tmp_path / "lines.jsonl"
    output = ["--output", str(tmp_path / "t.txt"), "--json", str(lines)]
    assert track(weights, tmp_path / "%d.png", "--show", *output) == 0
    assert len(lines.read_text().splitlines()) == 2
    assert [image.shape for image in shown] == [(64, 96, 3), (64, 96, 3), (0,)]
