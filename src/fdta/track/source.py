"""Frames of whatever can be tracked: a video, images, a sequence, a stream or a webcam."""

from __future__ import annotations

import fnmatch
import itertools
import re
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from fdta.data.motchallenge import IMAGE_EXTENSIONS, decode_image, read_sequence
from fdta.errors import InputError
from fdta.track.reading import Images, decoded, sequence_images
from fdta.track.stream import (
    FILES_ONLY,
    Frames,
    LiveFrames,
    StreamPatience,
    VideoFrame,
    connect,
    moving_pictures,
    shown_address,
    stream_images,
    upright,
    webcam_frames,
)

_NUMBER = "%([0-9]*)d"
"""Of an image pattern."""
IMAGE_RATE = 30.0
"""Frames a second of images without a video."""
LONGEST_STILL = 10_000
"""Most seconds that a frame of a video is shown; a file that tells more is not believed."""
_MOST_DIGITS = 255
"""Of a number in the name of a file."""


@dataclass(frozen=True)
class VideoFile:
    """What a video file has besides its frames."""

    path: Path
    start: float
    """Time of the first frame in the file, in seconds."""
    pixel_aspect: Fraction
    """Width of a pixel, as a share of its height."""


@dataclass(frozen=True)
class VideoSource:
    """A video, wherever its images come from."""

    name: str
    rate: float
    """Frames a second, on the average; 30 where nobody knows."""
    length: int | None
    """Number of frames as far as known before they are read."""
    frames: Frames
    """All of one size. Raises InputError where the video breaks; closing it closes the file or camera."""
    live: LiveFrames | None = None
    """Where frames have to be waited for, as from a camera."""
    file: VideoFile | None = None
    """Where the video is one file."""

    def every(self, stride: int, most: int | None = None) -> VideoSource:
        """The first and each `stride`-th frame after it; of these the first `most`, or all."""
        length = self.length and -(-self.length // stride)
        length = min(length, most) if length and most else length or most

        def chosen() -> Frames:
            with closing(self.frames):
                yield from itertools.islice(self.frames, 0, most and (most - 1) * stride + 1, stride)

        return replace(self, length=length, frames=chosen())


def is_split(path: Path) -> bool:
    """Whether `path` is a folder of sequences: it holds folders of sequences, or at least folders and no images."""
    if not path.is_dir() or is_sequence(path):
        return False
    inside = [each for each in path.iterdir() if each.is_dir()]
    return any(map(is_sequence, inside)) or (bool(inside) and not _folder_images(path))


def open_source(given: str) -> VideoSource:
    """The video `given`.

    Args:
        given: a video file, a folder of images (in the order of their numbers), a sequence (seqinfo.ini and img1/), an
            image pattern such as ``frames/%06d.jpg`` or ``frames/*.png``, the address of a stream (rtsp, http) or the
            index of a webcam. What has an end is read whole; of a camera, the newest frames are.

    Raises:
        InputError: there is no such thing, or it is no video.
    """
    if "://" in given:
        return _open_address(given)
    path = Path(given)
    if path.is_dir():
        if is_sequence(path):
            sequence = read_sequence(path)
            frames = _timed(sequence_images(sequence), sequence.rate)
            return VideoSource(sequence.name, sequence.rate, sequence.frames, frames)
        paths = _folder_images(path)
        if not paths:
            raise InputError(
                f"{path}: no images; expected {', '.join(IMAGE_EXTENSIONS)} files, or img1/ and seqinfo.ini"
            )
        return _open_images(path.resolve().name, paths)
    if path.is_file():
        return _open_images(path.stem, [path]) if path.suffix.lower() in IMAGE_EXTENSIONS else _open_video(path)
    if given.isdecimal():
        if len(given) > 4:
            raise InputError(f"webcam {given}: no such webcam, they count from 0; give a smaller index")
        rate, camera = webcam_frames(int(given))
        return VideoSource(f"webcam-{int(given)}", rate, None, camera.frames(), camera)
    if re.search(_NUMBER, path.name):
        return _open_pattern(path)
    if set("*?[") & set(path.name):
        paths = [each for each in _folder_images(path.parent) if fnmatch.fnmatchcase(each.name, path.name)]
        if not paths:
            raise InputError(f"{path}: no such images; check folder, name and extension")
        return _open_images(path.parent.resolve().name, paths)
    raise InputError(
        f"{path}: no such file or folder; give a video, a folder of images, frames/%06d.jpg, frames/*.png, the address "
        f"of a stream or a webcam's index"
    )


def is_sequence(path: Path) -> bool:
    """Whether `path` is the folder of a sequence."""
    return (path / "seqinfo.ini").is_file()


def _folder_images(folder: Path) -> list[Path]:
    """Image files of `folder`; 2.jpg stands before 10.jpg."""

    def by_number(path: Path) -> list[tuple[int, str]]:
        # Digits compare as numbers, and the pairs make digits and letters comparable.
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    inside = folder.iterdir() if folder.is_dir() else ()
    paths = [path for path in inside if path.suffix.lower() in IMAGE_EXTENSIONS and path.name[0] != "."]
    return sorted(paths, key=by_number)


def _open_pattern(pattern: Path) -> VideoSource:
    before, digits, after = re.split(_NUMBER, pattern.name, maxsplit=1)
    if len(digits) > 9 or int(digits or 0) > _MOST_DIGITS:
        raise InputError(f"{pattern}: names of files have at most {_MOST_DIGITS} letters; correct %{digits}d")
    wanted = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    found = [wanted.fullmatch(path.name) for path in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
    numbers = sorted(int(match[1]) for match in found if match)
    if not numbers:
        raise InputError(f"{pattern}: no such images; check folder, name and extension")

    def image_path(number: int) -> Path:
        return pattern.with_name(f"{before}{number:{digits}d}{after}")

    paths = []
    for number in range(numbers[0], numbers[-1] + 1):
        path = image_path(number)
        if not path.is_file():
            first, last = image_path(numbers[0]), image_path(numbers[-1])
            raise InputError(f"{path}: missing, the images run from {first.name} to {last.name}; copy it")
        paths.append(path)
    return _open_images(pattern.parent.resolve().name, paths)


def _open_images(name: str, paths: list[Path]) -> VideoSource:
    def decode(path: Path) -> np.ndarray:
        return cv2.cvtColor(decode_image(path, cv2.IMREAD_COLOR, "replace it"), cv2.COLOR_BGR2RGB)

    def read() -> Images:
        size = None
        for path, image in zip(paths, decoded(decode, paths), strict=True):
            size = size or image.shape
            if image.shape != size:
                raise InputError(
                    f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the images before it have {size[1]} x "
                    f"{size[0]}; bring all to one size"
                )
            yield image

    return VideoSource(name, IMAGE_RATE, len(paths), _timed(read(), IMAGE_RATE))


def _open_address(address: str) -> VideoSource:
    patience = StreamPatience()
    shown = shown_address(address)
    name = re.sub(r"[^\w.-]+", "-", shown.partition("://")[2]).strip("-.")
    container, stream = connect(address, patience)
    rate = float(stream.average_rate or stream.guessed_rate or 30)
    # A server tells the size of a file, and not of what has no end.
    if container.duration is None and container.size <= 0:
        camera = LiveFrames(shown, lambda stopped: stream_images(address, container, stream, patience, stopped))
        return VideoSource(name, rate, None, camera.frames(), camera)
    stream.thread_type = "AUTO"
    return VideoSource(name, rate, stream.frames or None, _video_frames(shown, container, stream, rate))


def _timed(images: Images, rate: float) -> Frames:
    """`images` as frames at `rate`."""
    with closing(images):
        for number, image in enumerate(images, start=1):
            yield VideoFrame(number, (number - 1) / rate, image)


def _open_video(path: Path) -> VideoSource:
    with path.open("rb") as file:
        start = file.read(4096)
    # FFmpeg waits for ever for the next files of one that has no end.
    if start.startswith((b"#EXTM3U", b"ffconcat")) or b"<MPD" in start:
        raise InputError(f"{path}: a playlist, which names other files; give the video itself")
    try:
        # Absolute, as FFmpeg takes the beginning of 12:30.mp4 for a protocol.
        container = av.open(str(path.absolute()), options=FILES_ONLY)
    except (av.FFmpegError, ValueError):
        raise InputError(f"{path}: no video that can be read; is it whole, and a video?") from None
    stream = moving_pictures(container, str(path))
    stream.thread_type = "AUTO"  # Several frames at a time too: most videos have one slice a frame.
    rate = float(stream.average_rate or stream.guessed_rate or 30)
    frames = stream.frames or _counted(path, stream.index)
    first = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    whole = VideoFile(path, first, stream.sample_aspect_ratio or Fraction(1))
    return VideoSource(path.stem, rate, frames or None, _video_frames(str(path), container, stream, rate), file=whole)


def _counted(path: Path, index: int) -> int:
    """Number of frames of the stream `index` of a video by its packets, which are read and not decoded."""
    with suppress(av.FFmpegError), av.open(str(path.absolute()), options=FILES_ONLY) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams[index]))
    return 0


class Clock:
    """Times of a video's frames, which begin at 0 and rise whatever the file says."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._now = -self._step
        self._shift: float | None = None

    def time(self, told: float | None) -> float:
        """Seconds since the first frame; `told` by the file, from wherever it counts."""
        now = None if told is None or self._shift is None else told - self._shift
        if now is None or not 0 < now - self._now <= LONGEST_STILL:
            # Where videos were put together, time may begin again.
            now = self._now + self._step
            self._shift = None if told is None else told - now
        self._now = now
        return now


def _video_frames(name: str, container: av.container.InputContainer, stream: av.VideoStream, rate: float) -> Frames:
    """Every frame up to the first that is lost, damaged ones included; at the end InputError tells what was wrong.

    The frames after a lost one could not be numbered as in the video.
    """
    frames, packets, defect, size, clock = 0, 0, "", None, Clock(rate)
    with container:
        demuxed = container.demux(stream)
        while True:
            try:
                packet = next(demuxed, None)
                if packet is None:
                    break
                packets += packet.size > 0
                decoded = packet.decode()
            except av.EOFError:
                break
            except av.FFmpegError as error:
                defect = f"broken about frame {frames + 1} ({error.strerror}), the rest is not read"
                break
            for frame in decoded:
                frames += 1
                if frame.is_corrupt:
                    defect = defect or f"frame {frames} is damaged"
                image = upright(frame)
                size = size or image.shape
                if image.shape != size:
                    raise InputError(f"{name}: the size changes at frame {frames}; cut the video there")
                yield VideoFrame(frames, clock.time(frame.time), image)
    if not defect and packets < stream.frames:
        defect = f"cut short, it ends after frame {frames} of {stream.frames}"
    if defect or not frames:
        raise InputError(f"{name}: {defect or 'no frame can be decoded'}; copy or encode the video again")
