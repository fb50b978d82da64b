"""A video through the tracker to files, frame by frame: memory does not grow with its length."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from fdta.data.motchallenge import MOST_RATE, box_lines
from fdta.errors import InputError
from fdta.files import whole_file
from fdta.track.pipeline import FrameTracks, Tracker
from fdta.track.sound import Sound
from fdta.track.source import LONGEST_STILL, VideoFile, VideoSource
from fdta.track.stream import VideoFrame

_logger = logging.getLogger(__name__)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what schedulers send, and what a terminal that is closed sends."""
TICK = Fraction(1, 90_000)
"""Seconds; the rates of videos are whole numbers of it."""
REPORT_SECONDS = 10
"""Between two lines of progress, where no terminal shows a bar."""
WINDOW = 1280
"""Longer side of the window at first, pixels of the screen."""
ESCAPE = 27
"""Code of the key."""
TRAIL = 30
"""Frames that a trail is long."""


@dataclass(frozen=True)
class VideoSummary:
    """What `track_video` has done."""

    frames: int
    identities: int
    seconds: float
    stopped: int | None
    """Signal that ended it before the end of the video: Ctrl-C, SIGTERM or SIGHUP."""


def track_video(
    tracker: Tracker,
    source: VideoSource,
    tracks: Path,
    video: Path | None = None,
    lines: Path | None = None,
    show_scores: bool = False,
    window: bool = False,
    sound: bool = True,
) -> VideoSummary:
    """Track `source` to its end, to where it breaks or to Ctrl-C, SIGTERM or SIGHUP; the files hold the frames up to
    there.

    Args:
        tracker: before its first frame.
        source: what to track; closed afterwards.
        tracks: file for the tracks in MOTChallenge form, frames counted from 1 as the source counts them.
        video: file for the annotated video, H.264 in MP4.
        lines: file for a line of JSON a frame:
            ``{"frame": 1, "time": 0.0, "tracks": [{"identity", "box_xyxy", "score"}, ...]}``; times are seconds.
        show_scores: write the score beside the identity in the video.
        window: show the annotated frames in a window; q or Esc in it, or closing it, ends the tracking.
        sound: whether the annotated video has the sound of the source.

    Raises:
        InputError: the source breaks; if not at its first frame, what was tracked before is in the files. Or there
            is no display for the window.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        frames = stack.enter_context(closing(source.frames))
        coming: deque[tuple[int, float]] = deque()
        images, broken = _up_to_defect(frames, coming)
        tracked = stack.enter_context(closing(tracker.track(images, 1 if source.live else tracker.batch)))
        interrupted = stack.enter_context(_interruptible(source.live.stop if source.live else None))
        text_file = stack.enter_context(stack.enter_context(whole_file(tracks)).open("w"))
        line_file = stack.enter_context(stack.enter_context(whole_file(lines)).open("w")) if lines else None
        video_path = stack.enter_context(whole_file(video)) if video else None
        display = stack.enter_context(closing(Window(source.name, show_scores))) if window else None
        annotated: AnnotatedVideo | None = None
        count, identities = 0, 0
        # None: only on a terminal.
        bar = tqdm(tracked, total=source.length, unit="frame", desc=source.name, disable=None)
        told = began
        for image, found, _ in bar:
            count, (frame, seconds) = count + 1, coming.popleft()
            if bar.disable and time.monotonic() - told > REPORT_SECONDS:
                told = time.monotonic()
                _logger.info("%s", _progress(source, count, told - began))
            identities = max([identities, *(found.identities + 1).tolist()])
            text_file.writelines(box_lines(found.to_boxes(frame)))
            if line_file:
                line_file.write(_line(frame, seconds, found))
            if video_path:
                annotated = annotated or stack.enter_context(
                    closing(AnnotatedVideo(video_path, image.shape, source.rate, show_scores, source.file, sound))
                )
                annotated.write(image, found, seconds)
            if (display and not display.show(image, found)) or interrupted:
                break
        if not count:
            raise broken[0] if broken else InputError(f"{source.name}: stopped before its first frame")
    if broken and not interrupted:
        raise InputError(f"{broken[0]}; {count} frames are in {tracks}")
    return VideoSummary(count, identities, time.monotonic() - began, next(iter(interrupted), None))


def _progress(source: VideoSource, count: int, seconds: float) -> str:
    of_all = "" if source.length is None else f" of {source.length}"
    return f"{source.name}: {count}{of_all} frames tracked, {count / seconds:.3g} frames/s"


class Annotator:
    """Draws tracks into the images of one video; an identity keeps its colour, and drags a trail of `TRAIL` frames."""

    def __init__(self, show_scores: bool = False) -> None:
        self._show_scores = show_scores
        self._frame = 0
        self._trails: dict[int, deque[tuple[int, tuple[int, int]]]] = {}

    def draw(self, image: np.ndarray, tracks: FrameTracks) -> np.ndarray:
        """A copy of `image` (H, W, 3) uint8 RGB with boxes, identities and trails."""
        image = image.copy()
        self._frame += 1
        unit = max(0.5, min(image.shape[:2]) / 480)
        line = round(2 * unit)
        # Boxes may reach beyond the image, but not so far that drawing overflows.
        boxes_xyxy = np.rint(np.clip(tracks.boxes_xyxy, -9999, 99999)).astype(int).tolist()
        identities = tracks.identities.tolist()
        for identity, (x1, _, x2, y2) in zip(identities, boxes_xyxy, strict=True):
            trail = self._trails.setdefault(identity, deque(maxlen=TRAIL))
            trail.append((self._frame, ((x1 + x2) // 2, y2)))
        for identity, trail in list(self._trails.items()):
            while trail and trail[0][0] <= self._frame - TRAIL:
                trail.popleft()
            if not trail:
                del self._trails[identity]
            points = np.array([point for _, point in trail], dtype=np.int32).reshape(-1, 1, 2)
            cv2.polylines(image, [points], False, colour(identity), line, cv2.LINE_AA)
        for identity, (x1, y1, x2, y2), score in zip(identities, boxes_xyxy, tracks.scores, strict=True):
            cv2.rectangle(image, (x1, y1), (x2, y2), colour(identity), line)
            label = f"{identity} {score:.2f}" if self._show_scores else str(identity)
            self._label(image, label, (x1, y1), colour(identity), unit)
        return image

    @staticmethod
    def _label(image: np.ndarray, label: str, corner: tuple[int, int], fill: tuple[int, int, int], unit: float) -> None:
        font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, max(0.3, 0.45 * unit), max(1, round(unit))
        (width, height), _ = cv2.getTextSize(label, font, size, weight)
        margin = round(2 * unit)
        left, bottom = max(corner[0], 0), max(corner[1], height + 2 * margin)
        cv2.rectangle(image, (left, bottom - height - 2 * margin), (left + width + 2 * margin, bottom), fill, -1)
        cv2.putText(image, label, (left + margin, bottom - margin), font, size, (0, 0, 0), weight, cv2.LINE_AA)


def colour(identity: int) -> tuple[int, int, int]:
    """RGB colour of an identity, light enough for black letters; neighbours in number are far apart in hue."""
    hue = int(identity * 0.61803398875 % 1 * 180)
    saturation = (200, 120)[identity // 8 % 2]
    red, green, blue = cv2.cvtColor(np.array([[[hue, saturation, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


class VideoWriter:
    """H.264 in MP4, as every browser plays it; the file is whole after `close`."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], rate: float, like: VideoFile | None = None, sound: bool = True
    ) -> None:
        """Open `path`.

        Args:
            path: .mp4 to write.
            shape: of the images, (H, W, 3).
            rate: frames a second, on the average.
            like: a video whose shape of the pixels is taken.
            sound: also its sound.
        """
        # Absolute, as FFmpeg takes the beginning of 3:4.mp4 for a protocol. NTSC's rates are fractions of 1001.
        self._container = av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "faststart"})
        rate = min(max(rate, 1 / LONGEST_STILL), MOST_RATE)
        fraction = Fraction(rate).limit_denominator(1001 if rate > 1 else LONGEST_STILL)
        self._stream = self._container.add_stream("libx264", rate=fraction, options={"preset": "veryfast", "crf": "23"})
        # The format halves the colours' resolution: sides must be even.
        self._pad = shape[0] % 2, shape[1] % 2
        self._stream.height, self._stream.width = shape[0] + self._pad[0], shape[1] + self._pad[1]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TICK
        self._sound = Sound(like.path, like.start, self._container) if like and sound else None
        if like:
            self._stream.codec_context.sample_aspect_ratio = like.pixel_aspect
        self._end, self._step = 0.0, 1 / rate
        self._ticks = -1

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append `image` (H, W, 3) uint8 RGB, shown from so many `seconds` on; they must rise."""
        if any(self._pad):
            image = cv2.copyMakeBorder(image, 0, self._pad[0], 0, self._pad[1], cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        # Frames may come closer together than the file's clock ticks.
        self._ticks = max(round(seconds / TICK), self._ticks + 1)
        frame.pts, frame.time_base = self._ticks, TICK
        self._encode(frame)
        self._end = seconds + self._step
        if self._sound:
            self._sound.write(seconds)

    def close(self) -> None:
        """Write what the encoder still holds, and the index of the file."""
        with closing(self._container):
            self._encode(None)
            if self._sound:
                with closing(self._sound):
                    self._sound.write(self._end)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            packets = self._stream.encode(frame)
        except (av.error.ExternalError, av.error.ArgumentError):
            size = f"{self._stream.width} x {self._stream.height}"
            raise InputError(f"--video: images of {size} pixels cannot be encoded as H.264; leave it out") from None
        self._container.mux(packets)


class AnnotatedVideo:
    """A video of tracked images; a thread draws and encodes one image while the next is tracked."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        rate: float,
        show_scores: bool = False,
        like: VideoFile | None = None,
        sound: bool = True,
    ) -> None:
        """Arguments are as of `VideoWriter` and `Annotator`."""
        self._writer, self._annotator = VideoWriter(path, shape, rate, like, sound), Annotator(show_scores)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._last: Future[None] | None = None

    def write(self, image: np.ndarray, tracks: FrameTracks, seconds: float) -> None:
        """Append `image` (H, W, 3) uint8 RGB with its tracks, shown from `seconds` on, once the last is written."""
        self._wait()
        self._last = self._thread.submit(lambda: self._writer.write(self._annotator.draw(image, tracks), seconds))

    def close(self) -> None:
        """Write what is left; the file is whole."""
        with closing(self._writer), self._thread:
            self._wait()

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last:
            last.result()


class Window:
    """A window of the screen that shows tracked images as they come."""

    def __init__(self, title: str, show_scores: bool = False) -> None:
        """Open it.

        Raises:
            InputError: there is no display.
        """
        # Without one, the library that draws windows would end the process.
        absent = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        try:
            if absent:
                raise cv2.error
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            raise InputError("--show: there is no display here; give --video FILE instead") from None
        self._title, self._annotator, self._sized = title, Annotator(show_scores), False

    def show(self, image: np.ndarray, tracks: FrameTracks) -> bool:
        """Show `image` (H, W, 3) uint8 RGB with its tracks; whether to go on: False once the window is closed."""
        if not self._sized:
            scale = min(1.0, WINDOW / max(image.shape[:2]))
            cv2.resizeWindow(self._title, round(scale * image.shape[1]), round(scale * image.shape[0]))
            self._sized = True
        cv2.imshow(self._title, cv2.cvtColor(self._annotator.draw(image, tracks), cv2.COLOR_RGB2BGR))
        wanted_end = cv2.waitKey(1) & 0xFF in (ord("q"), ESCAPE)
        return not wanted_end and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def _up_to_defect(
    frames: Iterator[VideoFrame], coming: deque[tuple[int, float]]
) -> tuple[Iterator[np.ndarray], list[InputError]]:
    """Images of `frames` up to where these break, and a list that then holds why.

    The number and time of each image is appended to `coming`.
    """
    broken: list[InputError] = []

    def whole() -> Iterator[np.ndarray]:
        try:
            for frame in frames:
                coming.append((frame.number, frame.time))
                yield frame.image
        except InputError as error:
            broken.append(error)

    return whole(), broken


@contextmanager
def _interruptible(stop: Callable[[], None] | None) -> Iterator[list[int]]:
    """A list that the first signal of `STOPPING` fills, so that no line is cut in the middle; it also calls `stop`.

    A second one does what it does elsewhere. A signal that is ignored, as SIGHUP under nohup, stays ignored.
    """
    signals: list[int] = []

    def note(number: int, _: object) -> None:
        signals.append(number)
        restore()
        if stop:
            stop()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        restore()


def _line(frame: int, seconds: float, tracks: FrameTracks) -> str:
    rows = zip(tracks.identities.tolist(), tracks.boxes_xyxy.tolist(), tracks.scores.tolist(), strict=True)
    found = [
        {"identity": identity, "box_xyxy": [round(side, 2) for side in box], "score": round(score, 3)}
        for identity, box, score in rows
    ]
    return json.dumps({"frame": frame, "time": round(seconds, 3), "tracks": found}) + "\n"
