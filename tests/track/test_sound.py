from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_video import SETTINGS, image, track

from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA

RATE = 16_000
"""Samples a second."""


def write_film(path: Path, codec: str, seconds: float = 3.0) -> Path:
    """A video of 10 frames a second with narrow pixels; each second begins with a beep of a tenth."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        times = np.arange(round(seconds * RATE)) / RATE
        wave = np.where(times % 1 < 0.1, np.sin(2 * np.pi * 440 * times), 0)
        samples = (20_000 * wave).astype(np.int16)[None]
        for number in range(round(10 * seconds)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image(1 + number % 20)[:64, :96]), format="rgb24")
            container.mux(video.encode(picture))
            start = number * RATE // 10
            heard = av.AudioFrame.from_ndarray(samples[:, start : start + RATE // 10], format="s16", layout="mono")
            heard.rate, heard.pts = RATE, start
            container.mux(sound.encode(heard))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def beeps(path: Path) -> list[float]:
    """When each beep of a video begins, in seconds after its first frame."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time
        assert first is not None
    loud: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            values = np.abs(frame.to_ndarray().astype(np.float64)).max(axis=0)
            limit = 5_000 if frame.format.name.startswith("s16") else 0.15
            loud += (frame.time - first + np.flatnonzero(values > limit) / frame.rate).tolist()
    starts = [time for before, time in zip([-1.0, *loud], loud, strict=False) if time - before > 0.5]
    return starts


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_model(path, FDTA(SETTINGS), SETTINGS, "dance/full/seed-0")
    return path


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "aac"), ("film.mkv", "pcm_s16le")])
def test_the_annotated_video_sounds_as_the_video(weights: Path, tmp_path: Path, name: str, codec: str) -> None:
    film, seen = write_film(tmp_path / name, codec), tmp_path / "seen.mp4"
    assert beeps(film) == pytest.approx([0, 1, 2], abs=0.03)
    output = ["--output", str(tmp_path / "t.txt"), "--video", str(seen)]
    assert track(weights, film, *output) == 0
    assert beeps(seen) == pytest.approx([0, 1, 2], abs=0.06)
    with av.open(str(seen)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert track(weights, film, *output, "--stride", "4", "--max-frames", "4") == 0
    assert beeps(seen) == pytest.approx([0, 1], abs=0.06)
    assert track(weights, film, *output, "--no-audio") == 0
    with av.open(str(seen)) as container:
        assert not container.streams.audio


def test_a_damaged_sound_ends_early(weights: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    from fdta.track.sound import Sound

    def broken(self: Sound, packet: av.Packet) -> None:
        raise av.error.InvalidDataError(1, "broken", "")

    monkeypatch.setattr(Sound, "_write", broken)
    film, seen = write_film(tmp_path / "film.mp4", "aac", 1.0), tmp_path / "seen.mp4"
    assert track(weights, film, "--output", str(tmp_path / "t.txt"), "--video", str(seen)) == 0
    assert "film.mp4: its sound ends at 0.1 s" in caplog.text
    with av.open(str(seen)) as container:
        assert len(list(container.decode(video=0))) == 10
