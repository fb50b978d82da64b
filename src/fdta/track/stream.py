"""Images that do not wait: network cameras, streams and webcams. What comes too fast is left out, the oldest first."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from fdta.errors import InputError
from fdta.track.reading import Images

SCHEMES = ("rtsp", "rtsps", "http", "https")
"""Of addresses that are read."""
TEXT = ("adf", "bin", "idf", "tty", "xbin")
"""Formats of FFmpeg that draw text."""
WAITING = 2
"""Frames that wait to be tracked; an older one gives way to a newer."""

_logger = logging.getLogger(__name__)
FILES_ONLY = {"protocol_whitelist": "file"}
"""Option of FFmpeg: a playlist that calls itself a video must not reach into the network."""
_NETWORK = "rtsp,rtsps,rtp,srtp,http,https,httpproxy,crypto,tls,tcp,udp"
"""Protocols of FFmpeg that an address may lead to: not to files."""


class VideoFrame(NamedTuple):
    """One image of a video."""

    number: int
    """From 1, in the order of the video; what is left out is counted too."""
    time: float
    """Seconds since the first frame."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""


Frames = Generator[VideoFrame, None, None]


@dataclass(frozen=True)
class StreamPatience:
    """How long a stream is waited for, in seconds."""

    silence: float = 10.0
    """Without a byte, after which the connection counts as lost."""
    first_wait: float = 0.5
    """Before connecting again; it doubles with each failure, up to `longest_wait`."""
    longest_wait: float = 15.0
    lost: float = 120.0
    """Without a frame, after which the stream is given up."""


class LiveFrames:
    """Frames that a thread reads as fast as they come; the newest `WAITING` of them wait to be taken."""

    def __init__(self, name: str, read: Callable[[threading.Event], Images]) -> None:
        """Nothing is read yet.

        Args:
            name: for messages.
            read: gives the images; it ends soon after the event that it is given is set.
        """
        self._name, self._read = name, read
        self._waiting: deque[VideoFrame] = deque(maxlen=WAITING)
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self._all_read = False
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """End the frames, even while one is waited for."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def frames(self) -> Frames:
        """The frames, once.

        Raises:
            InputError: there are no more, or their size changed.
        """
        taken, number, size = 0, 0, None
        reader = threading.Thread(target=self._fill, daemon=True)
        reader.start()
        try:
            while (frame := self._next()) is not None:
                size = size or frame.image.shape
                if frame.image.shape != size:
                    raise InputError(f"{self._name}: the size changes at frame {frame.number}; start again")
                taken, number = taken + 1, frame.number
                yield frame
            if self._failure and not self._stopped.is_set():
                raise self._failure
        finally:
            self.stop()
            # It may wait for the network a while longer, but nobody waits for it.
            reader.join(timeout=1)
            if number > taken:
                left_out = f"{number - taken} of {number} frames"
                _logger.info("%s: %s were left out, they came faster than they were tracked", self._name, left_out)

    def _next(self) -> VideoFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._all_read or self._stopped.is_set())
            return self._waiting.popleft() if self._waiting and not self._stopped.is_set() else None

    def _fill(self) -> None:
        began = None
        try:
            with closing(self._read(self._stopped)) as images:
                for number, image in enumerate(images, start=1):
                    now = time.monotonic()
                    began = now if began is None else began
                    with self._changed:
                        self._waiting.append(VideoFrame(number, now - began, image))
                        self._changed.notify()
                    if self._stopped.is_set():
                        break
        except BaseException as error:
            self._failure = error
        finally:
            with self._changed:
                self._all_read = True
                self._changed.notify()


def shown_address(address: str) -> str:
    """`address` without password and query, which messages must not tell.

    Raises:
        InputError: it has another scheme, or no host.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InputError(f"{address.partition('://')[0]}://...: no address of a stream; it begins with one of {known}")
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}{f':{port}' if port else ''}{parts.path}"


def connect(address: str, patience: StreamPatience) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open the stream at `address`, and find the video in it.

    Raises:
        InputError: nothing answers, or not as a video.
    """
    shown = shown_address(address)
    options = {"protocol_whitelist": _NETWORK}
    if address.startswith("rtsp"):
        # What UDP loses on its way would damage the images.
        options["rtsp_transport"] = "tcp"
    try:
        container = av.open(address, options=options, timeout=(patience.silence, patience.silence))
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{shown}: cannot be opened ({_reason(error, patience)}); check address and network") from None
    return container, moving_pictures(container, shown)


def stream_images(
    address: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    patience: StreamPatience,
    stopped: threading.Event,
) -> Images:
    """Images of a stream without an end; a lost connection is made again.

    Args:
        address: where `container` was opened.
        container: closed at the end.
        stream: the video in it.
        patience: how long to wait.
        stopped: ends the waiting.

    Raises:
        InputError: no frame came for `StreamPatience.lost` seconds.
    """
    shown = shown_address(address)
    last, wait = time.monotonic(), patience.first_wait
    while True:
        with closing(container):
            problem = "the stream ended"
            try:
                for packet in container.demux(stream):
                    try:
                        decoded = packet.decode()
                    except av.error.InvalidDataError:
                        continue  # Until the first whole image.
                    for frame in decoded:
                        last, wait = time.monotonic(), patience.first_wait
                        yield upright(frame)
            except av.FFmpegError as error:
                problem = _reason(error, patience)
        while True:
            if time.monotonic() - last > patience.lost:
                raise InputError(f"{shown}: no frame for {patience.lost:g} s ({problem}); check the camera")
            _logger.info("%s: %s; connecting again in %g s", shown, problem, wait)
            if stopped.wait(wait):
                return
            wait = min(2 * wait, patience.longest_wait)
            try:
                container, stream = connect(address, patience)
                break
            except InputError as error:
                problem = str(error).removeprefix(f"{shown}: ").partition(";")[0]


def webcam_frames(index: int) -> tuple[float, LiveFrames]:
    """Frames a second, and frames, of a webcam.

    Raises:
        InputError: there is none of this index.
    """
    name = f"webcam {index}"
    level = cv2.utils.logging.getLogLevel()
    # OpenCV would tell of each of its ways to open a camera.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        camera = cv2.VideoCapture(index)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not camera.isOpened():
        raise InputError(f"{name}: cannot be opened; check that it is plugged in and in no other use")

    def read(_: threading.Event) -> Images:
        try:
            while True:
                whole, image = camera.read()
                if not whole:
                    raise InputError(f"{name}: gives no more images; plug it in again")
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            camera.release()

    return camera.get(cv2.CAP_PROP_FPS) or 30.0, LiveFrames(name, read)


def moving_pictures(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The first stream of `container` that is a video, and not the picture of a song.

    Raises:
        InputError: there is none, or it is text, which FFmpeg draws as a terminal would; `container` is closed.
    """
    is_text = container.format.name in TEXT
    videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if is_text or not videos:
        container.close()
        told = "no video that can be read, it is text" if is_text else "there is no video in it"
        raise InputError(f"{name}: {told}; give a video")
    if len(videos) > 1:
        _logger.info("%s: has %d videos, the first is tracked", name, len(videos))
    return videos[0]


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8 RGB; telephones film on edge and note how to turn the image."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _reason(error: Exception, patience: StreamPatience) -> str:
    if isinstance(error, av.error.ExitError):
        return f"no answer for {patience.silence:g} s"
    # The whole text of the error holds the address, and with it the password.
    return getattr(error, "strerror", None) or type(error).__name__
