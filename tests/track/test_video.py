from __future__ import annotations

import copy
import errno
import io
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

import fdta
from fdta.acquire.pretrained import pretrained
from fdta.cli import main
from fdta.data.motchallenge import read_boxes, read_sequence, write_boxes
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.machine import cores
from fdta.model.checkpoint import save_model
from fdta.model.fdta import FDTA
from fdta.model.settings import AssociationSettings, BackboneSettings, DetectorSettings, TemporalSettings
from fdta.track import reading, video
from fdta.track import source as sources
from fdta.track.pipeline import FrameTracks, Tracker
from fdta.track.reading import read_ahead
from fdta.track.run import track_sequence
from fdta.track.settings import TrackerSettings
from fdta.track.source import is_split, open_source
from fdta.track.video import Annotator, VideoWriter, colour, track_video

FRAMES = 24
CPU = torch.device("cpu")
SETTINGS = Settings(
    history=4,
    backbone=BackboneSettings(block="basic", norm="group", stem_width=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1)),
    detector=DetectorSettings(
        width=16, heads=2, norm_groups=4, queries=6, encoder_layers=1, decoder_layers=1, feedforward=16
    ),
    temporal=TemporalSettings(layers=1, heads=2, feedforward=16),
    association=AssociationSettings(labels=5, label_width=16, layers=1, heads=2),
    # An untrained detector is unsure of everything: let it find something in every frame.
    tracker=TrackerSettings(
        short_side=48, long_side=96, record_threshold=0.001, detection_threshold=0.001, newborn_threshold=0.001
    ),
)


def image(frame: int, width: int = 97, height: int = 65) -> np.ndarray:
    """Frame (from 1): grey noise, and a red square that wanders."""
    picture = np.random.default_rng(0).integers(60, 120, (height, width, 3), dtype=np.uint8)
    picture[20:40, 2 * frame : 2 * frame + 16] = (250, 10, 10)
    return picture


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_model(path, FDTA(SETTINGS), SETTINGS, "dance/full/seed-0")
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mp4")


def write_clip(path: Path) -> Path:
    """H.264 with the index at the front, a key frame every 6 frames and no reordering, so that half a file is half a
    video."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "6", "bf": "0", "crf": "10", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in range(1, FRAMES + 1):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image(frame)[:64, :96]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_images(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for frame, name in enumerate(names, start=1):
        assert cv2.imwrite(str(folder / name), image(frame)[..., ::-1])
    return folder


def track(weights: Path, given: Path | str, *options: str) -> int:
    return main(["track", str(given), "--weights", str(weights), *options])


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_video_to_text_json_and_mp4(weights, clip, tmp_path, capsys):
    video, lines, tracks = tmp_path / "out/seen.mp4", tmp_path / "out/seen.jsonl", tmp_path / "out/seen.txt"
    options = ["--output", str(tracks), "--video", str(video), "--json", str(lines), "--show-scores"]
    assert track(weights, clip, *options) == 0
    assert f"clip: {FRAMES} frames" in capsys.readouterr().out
    boxes = read_boxes(tracks, FRAMES)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(1, FRAMES + 1))
    told = [(row["frame"], one["identity"]) for row in rows for one in row["tracks"]]
    assert told and told == list(zip(boxes.frames.tolist(), boxes.identities.tolist(), strict=True))
    x1, y1, x2, y2 = rows[0]["tracks"][0]["box_xyxy"]
    np.testing.assert_allclose(boxes.boxes_xywh[0], (x1, y1, x2 - x1, y2 - y1), atol=0.02)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (FRAMES, 10)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"seen.mp4", "seen.jsonl", "seen.txt"}


def test_progress_is_told_where_no_terminal_shows_it(weights, clip, monkeypatch, caplog):
    monkeypatch.setattr(video, "REPORT_SECONDS", 0)
    caplog.set_level("INFO", "fdta")
    assert track(weights, clip, "--output", str(clip.with_name("t.txt")), "--max-frames", "3") == 0
    lines = [line for line in caplog.messages if "frames tracked" in line]
    assert [line.split(" frames/s")[0].rsplit(" ", 1)[0] for line in lines] == [
        f"clip: {number} of 3 frames tracked," for number in (1, 2, 3)
    ]


def test_every_kind_of_input_is_tracked_as_the_sequence_is(weights, tmp_path):
    """Image by image, through each way in, as `track_sequence` tracks."""
    sequence = tmp_path / "sequence"
    write_images(sequence / "img1", [f"{frame:06d}.png" for frame in range(1, 9)])
    info = "[Sequence]\nname=s\nimDir=img1\nframeRate=20\nseqLength=8\nimWidth=97\nimHeight=65\n"
    (sequence / "seqinfo.ini").write_text(info)
    tracks, _ = track_sequence(Tracker.from_checkpoint(weights), read_sequence(sequence), batch=1)
    write_boxes(tmp_path / "expected.txt", tracks)
    assert len(tracks.frames) > 8
    for given in (sequence, sequence / "img1", sequence / "img1/%06d.png", sequence / "img1/*.png"):
        assert track(weights, given, "--output", str(tmp_path / "got.txt")) == 0
        assert (tmp_path / "got.txt").read_text() == (tmp_path / "expected.txt").read_text(), given
    assert open_source(str(sequence)).rate == 20
    assert not is_split(sequence) and not is_split(sequence / "img1") and is_split(tmp_path)


def test_folder_of_sequences_wants_no_video(weights, tmp_path, capsys):
    (tmp_path / "split/one").mkdir(parents=True)
    assert track(weights, tmp_path / "split", "--video", str(tmp_path / "x.mp4")) == 2
    assert "--video needs one sequence or video" in capsys.readouterr().err


def test_images_come_in_the_order_of_their_numbers(tmp_path):
    names = [f"shot{number}.png" for number in (1, 2, 10, 11)]
    source = open_source(str(write_images(tmp_path / "frames", names)))
    assert (source.name, source.length) == ("frames", 4)
    for number, got in enumerate(source.frames, start=1):
        assert got.number == number
        np.testing.assert_array_equal(got.image, image(number))


def test_gap_in_a_pattern(tmp_path):
    write_images(tmp_path / "frames", ["3.png", "4.png", "6.png"])
    with pytest.raises(InputError, match=r"5\.png: missing, the images run from 3\.png to 6\.png"):
        open_source(str(tmp_path / "frames/%d.png"))


def test_image_of_another_size_ends_the_video(weights, tmp_path, capsys):
    folder = write_images(tmp_path / "frames", ["1.png", "2.png"])
    cv2.imwrite(str(folder / "3.png"), image(3, width=50))
    assert track(weights, folder, "--output", str(tmp_path / "t.txt")) == 2
    error = capsys.readouterr().err
    assert "3.png: 50 x 65 pixels" in error and "2 frames are in" in error
    assert set(read_boxes(tmp_path / "t.txt").frames) == {1, 2}


def test_cut_video_keeps_what_was_decoded(weights, clip, tmp_path, capsys):
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 2 // 3])
    video, tracks = tmp_path / "seen.mp4", tmp_path / "t.txt"
    assert track(weights, clip, "--output", str(tracks), "--video", str(video)) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    kept = int(re.search(r"clip\.mp4: .*; (\d+) frames are in", error)[1])
    assert FRAMES // 3 < kept < FRAMES
    assert read_boxes(tracks).frames.max() == kept == len(decoded(video))


def test_damaged_video_is_told_of(weights, clip, tmp_path, capsys):
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(number * 37 % 256 for number in range(600))
    clip.write_bytes(data)
    assert track(weights, clip, "--output", str(tmp_path / "t.txt")) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(r"clip\.mp4: (frame \d+ is damaged|broken about frame \d+)", error) and "\n" not in error
    assert (tmp_path / "t.txt").stat().st_size


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_frames_after_a_lost_one_are_not_renumbered(clip, share):
    expected = [frame.image for frame in open_source(str(clip)).frames]
    data = bytearray(clip.read_bytes())
    start = int(share * len(data))
    data[start : start + len(data) // 5] = bytes(len(data) // 5)
    clip.write_bytes(data)
    images = []
    with pytest.raises(InputError, match=r"broken about frame \d+ \(.*\), the rest is not read") as refusal:
        images.extend(frame.image for frame in open_source(str(clip)).frames)
    assert f"broken about frame {len(images) + 1} " in str(refusal.value)
    assert 1 < len(images) < len(expected)
    # The last one may be damaged itself.
    for image, wanted in zip(images[:-1], expected, strict=False):
        np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_whole_files(weights, clip, tmp_path, monkeypatch, capsys, number):
    track_images = Tracker.track

    def interrupted(self, images, batch):
        for frame, tracked in enumerate(track_images(self, images, batch), start=1):
            if frame == 5:
                signal.raise_signal(number)
            yield tracked

    monkeypatch.setattr(Tracker, "track", interrupted)
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    # A shell starts commands in the background with SIGINT ignored.
    started_with = signal.signal(number, before)
    paths = [tmp_path / name for name in ("t.txt", "t.mp4", "t.jsonl")]
    options = ["--output", str(paths[0]), "--video", str(paths[1]), "--json", str(paths[2])]
    assert track(weights, clip, *options) == 128 + number
    assert "what was finished is kept" in capsys.readouterr().err
    assert signal.signal(number, started_with) is before
    assert read_boxes(paths[0]).frames.max() == 5 == len(decoded(paths[1]))
    assert len([json.loads(line) for line in paths[2].read_text().splitlines()]) == 5


def test_an_ignored_signal_stays_ignored(weights, clip, tmp_path, monkeypatch):
    track_images = Tracker.track

    def interrupted(self, images, batch):
        for tracked in track_images(self, images, batch):
            signal.raise_signal(signal.SIGHUP)
            yield tracked

    monkeypatch.setattr(Tracker, "track", interrupted)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert track(weights, clip, "--output", str(tmp_path / "t.txt")) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_source_is_read_a_few_frames_ahead(weights, tmp_path, monkeypatch):
    """A frame that vanishes while the first is tracked is missed only when its turn comes."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    source = open_source(str(write_images(tmp_path / "frames", [f"{number}.png" for number in range(1, 10)])))
    tracker = Tracker.from_checkpoint(weights)

    class Removing:
        batch = 1

        def track(self, images, batch):
            for tracked in tracker.track(images, batch):
                (tmp_path / "frames/9.png").unlink(missing_ok=True)
                yield tracked

    with pytest.raises(InputError, match=r"9\.png: no such file.*; 8 frames are in"):
        track_video(Removing(), source, tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("text.mp4", "no video that can be read"),
        ("empty", "no images"),
        ("missing.mp4", "no such file or folder"),
        ("missing/%06d.jpg", "no such images"),
        ("9999", "webcam 9999: cannot be opened"),
    ],
)
def test_no_video(weights, tmp_path, monkeypatch, capfd, name, told):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("This is no video.\n" * 50)
    Path("empty").mkdir()
    assert track(weights, name) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("fdta: ") and told in error and "\n" not in error
    assert not Path("tracks").exists()


def test_missing_weights(clip, capsys):
    assert main(["track", str(clip)]) == 2
    error = capsys.readouterr().err.strip()
    assert "fdta train dance/full/seed-0" in error and "\n" not in error
    assert track(Path("nowhere.pt"), clip) == 2
    assert "nowhere.pt: no such checkpoint" in capsys.readouterr().err


def test_the_input_is_not_overwritten(weights, clip, capsys):
    data = clip.read_bytes()
    assert track(weights, clip, "--video", str(clip)) == 2
    assert "different files" in capsys.readouterr().err
    assert clip.read_bytes() == data


def test_video_of_a_turned_telephone(clip):
    """The matrix of the track says: turn by 90 degrees clockwise."""
    upright = next(open_source(str(clip)).frames).image
    data = bytearray(clip.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    clip.write_bytes(data)
    np.testing.assert_array_equal(next(open_source(str(clip)).frames).image, np.rot90(upright, -1))


def test_written_video_shows_what_was_written(tmp_path):
    """Odd sides are padded, colours and order stay."""
    writer = VideoWriter(tmp_path / "v.mp4", (65, 97, 3), 29.97)
    for second, value in enumerate((40, 120, 200)):
        writer.write(np.full((65, 97, 3), (value, 80, 40), dtype=np.uint8), second)
    writer.close()
    frames = decoded(tmp_path / "v.mp4")
    assert [frame.shape for frame in frames] == [(66, 98, 3)] * 3
    for frame, value in zip(frames, (40, 120, 200), strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - (value, 80, 40)).max() < 8


def test_colours_and_trails():
    black = np.zeros((480, 640, 3), dtype=np.uint8)
    annotator = Annotator()
    nothing = FrameTracks(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    for step in range(10):
        corner = 100.0 + 20 * step
        box = np.array([[corner, 100, corner + 40, 200]])
        drawn = annotator.draw(black, FrameTracks(box, np.array([7]), np.array([0.5], dtype=np.float32)))
        assert (drawn[150, int(corner)] == colour(7)).all()
    assert (drawn[200, 130] == colour(7)).all(), "trail of the first frames"
    assert not black.any()
    for _ in range(29):
        drawn = annotator.draw(black, nothing)
    assert not drawn[:, :200].any()
    assert not annotator.draw(black, nothing).any()
    assert not annotator._trails
    assert len({colour(identity) for identity in range(100)}) > 90


def test_tracker_of_images(weights):
    tracker = Tracker.from_checkpoint(weights, device="cpu")
    rgb = [tracker.update(image(frame)) for frame in range(1, 5)]
    tracker.reset()
    bgr = [tracker.update(image(frame)[..., ::-1], channels="BGR") for frame in range(1, 5)]
    assert any(len(tracks) for tracks in rgb)
    for one, other in zip(rgb, bgr, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        np.testing.assert_array_equal(one.identities, other.identities)
        assert (np.diff(one.identities) > 0).all()
        assert len(one.scores) == len(one) and one.boxes_xyxy.shape == (len(one), 4)
    tracker.reset()
    assert not np.array_equal(tracker.update(image(1), channels="BGR").scores, rgb[0].scores)


def test_4k_image(weights):
    tracks = Tracker.from_checkpoint(weights).update(np.zeros((2160, 3840, 3), dtype=np.uint8))
    assert len(tracks) and tracks.boxes_xyxy.max() > 100


@pytest.mark.parametrize(
    ("frame", "channels", "told"),
    [
        (np.zeros((4, 4), dtype=np.uint8), "RGB", r"uint8 \(4, 4\) instead"),
        (np.zeros((4, 4, 3)), "RGB", "float64"),
        (None, "RGB", "NoneType instead"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "RGB", "empty"),
        (np.zeros((4, 4, 3), dtype=np.uint8), "rgba", "'RGB' or 'BGR'"),
    ],
)
def test_no_image(weights, frame, channels, told):
    with pytest.raises(InputError, match=told):
        Tracker.from_checkpoint(weights).update(frame, channels)


def test_to_supervision(weights):
    supervision = pytest.importorskip("supervision")
    tracks = Tracker.from_checkpoint(weights).update(image(1))
    detections = tracks.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == len(tracks) > 0
    np.testing.assert_array_equal(detections.tracker_id, tracks.identities)
    np.testing.assert_array_equal(detections.xyxy, tracks.boxes_xyxy)
    for annotate in (
        supervision.BoxAnnotator(),
        supervision.LabelAnnotator(),
        supervision.TraceAnnotator(),
        supervision.EllipseAnnotator(),
    ):
        scene = np.ascontiguousarray(image(1))
        for _ in range(2):
            drawn = annotate.annotate(scene.copy(), detections)
        assert drawn.shape == scene.shape and (drawn != scene).any()


def test_a_tracker_can_be_sent_to_another_process(weights):
    tracker = Tracker.from_checkpoint(weights, threads=1)
    images = [image(frame) for frame in range(1, 6)]
    expected = [tracker.update(each) for each in images]
    for copied in (pickle.loads(pickle.dumps(tracker)), copy.deepcopy(tracker)):
        for each, wanted in zip(images, expected, strict=True):
            found = copied.update(each)
            np.testing.assert_array_equal(found.boxes_xyxy, wanted.boxes_xyxy)
            np.testing.assert_array_equal(found.identities, wanted.identities)


def test_import_is_light():
    code = "import sys, fdta; print([m for m in ('torch', 'cv2', 'av', 'numpy') if m in sys.modules]); fdta.Tracker"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert fdta.Tracker is Tracker
    with pytest.raises(AttributeError, match="Nothing"):
        fdta.Nothing  # noqa: B018


@pytest.mark.parametrize("page", ["README.md", "docs/tracking.md"])
def test_examples_of_the_docs(repository, clip, tmp_path, monkeypatch, page):
    settings = Experiment(repository / "params.yaml", "synthetic").settings("dance", "full")
    torch.manual_seed(0)
    monkeypatch.setenv("FDTA_CACHE", str(tmp_path / "cache"))
    save_model(pretrained(Path())["dancetrack"].imported, FDTA(settings), settings, "dance/full/seed-0")
    clip.rename(tmp_path / "street.mp4")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (repository / page).read_text(), re.DOTALL)
    told = io.StringIO()
    with redirect_stdout(told):
        exec(example, {})
    assert len(told.getvalue().splitlines()) >= FRAMES


def test_images_are_decoded_several_at_a_time(tmp_path, monkeypatch):
    together, decode = threading.Barrier(2, timeout=60), sources.decode_image

    def waiting(path, *given):
        together.wait()
        return decode(path, *given)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(sources, "decode_image", waiting)
    source = open_source(str(write_images(tmp_path / "frames", ["1.png", "2.png", "3.png", "4.png"])))
    for number, found in enumerate(source.frames, start=1):
        np.testing.assert_array_equal(found.image, image(number))


def test_a_video_that_cannot_be_written_ends_the_tracking(weights, clip, tmp_path, monkeypatch, capsys):
    def full(self, image, seconds):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(VideoWriter, "write", full)
    written = tmp_path / "written"
    assert track(weights, clip, "--output", str(written / "t.txt"), "--video", str(written / "t.mp4")) == 2
    assert "No space left on device (" in capsys.readouterr().err
    assert not list(written.iterdir())


def test_reading_ahead_keeps_order_and_defects():
    def images():
        for number in range(3):
            yield np.full((2, 2, 3), number, np.uint8)
        raise InputError("broken")

    read = []
    with pytest.raises(InputError, match="broken"):
        for image in read_ahead(images(), CPU):
            read.append(int(image[0, 0, 0]))
    assert read == [0, 1, 2]


def test_so_many_images_are_read_ahead_and_no_more():
    read = []

    def images():
        for number in range(10):
            read.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    ahead = read_ahead(images(), CPU, 3)
    for number in range(4):
        assert int(next(ahead)[0, 0, 0]) == number
        assert len(read) <= number + 4
    ahead.close()
    assert len(read) <= 7


def test_the_reading_thread_pins_for_cuda(monkeypatch):
    pinned = []

    def pin(image):
        pinned.append((int(image), threading.current_thread() is threading.main_thread()))
        return image + 10

    monkeypatch.setattr(reading, "pin", pin)
    given = map(np.array, range(3))
    assert [int(image) for image in read_ahead(given, torch.device("cuda"))] == [10, 11, 12]
    assert pinned == [(0, False), (1, False), (2, False)]


def test_reading_ahead_leaves_the_source_to_be_closed():
    closed = []

    def images():
        try:
            while True:
                yield np.zeros((2, 2, 3), np.uint8)
        finally:
            closed.append(True)

    source = images()
    ahead = read_ahead(source, CPU)
    next(ahead)
    ahead.close()
    assert not closed
    source.close()
    assert closed


@pytest.mark.parametrize(("given", "expected"), [(None, 1), (2, 2)])
def test_a_small_model_computes_on_one_thread_in_update_alone(weights, monkeypatch, given, expected):
    tracker = Tracker.from_checkpoint(weights, threads=given)
    used = []
    detect = tracker._detector.__call__
    monkeypatch.setattr(tracker, "_detector", lambda images: used.append(torch.get_num_threads()) or detect(images))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tracker.update(image(1))
        assert (used, torch.get_num_threads()) == ([expected], 3)
    finally:
        torch.set_num_threads(before)


def test_the_papers_model_uses_all_cores_and_one_image_at_a_time():
    with torch.device("meta"):
        model = FDTA(Settings())
    tracker = Tracker(model, Settings())
    assert (tracker.threads, tracker.batch) == (cores(), 1)
