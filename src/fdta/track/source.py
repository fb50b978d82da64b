"""Images of whatever can be tracked: a video, a folder of images, an image pattern, a sequence or a webcam."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
import torch

from fdta.data.images import pin
from fdta.data.motchallenge import IMAGE_EXTENSIONS, Sequence, decode_image, read_sequence
from fdta.errors import InputError

Key = TypeVar("Key")
Images = Generator[np.ndarray, None, None]
"""(H, W, 3) uint8 RGB, all of one size."""


_NUMBER = "%([0-9]*)d"
"""Of an image pattern."""
_FROM_FILES = {"protocol_whitelist": "file"}
"""Option of FFmpeg: a playlist that calls itself a video must not reach into the network."""
_MOST_DIGITS = 255
"""Of a number in the name of a file."""


@dataclass(frozen=True)
class VideoSource:
    """A video, wherever its images come from."""

    name: str
    rate: float
    """Frames a second; 30 where nobody knows."""
    length: int | None
    """Number of frames as far as known before they are read."""
    images: Images
    """One at a time. Raises InputError where the video breaks; closing it closes the file or camera."""
    live: bool = False
    """Whether an image has to be waited for, as from a camera."""


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
            image pattern such as ``frames/%06d.jpg`` or the index of a webcam.

    Raises:
        InputError: there is no such thing, or it is no video.
    """
    path = Path(given)
    if path.is_dir():
        if is_sequence(path):
            sequence = read_sequence(path)
            return VideoSource(sequence.name, sequence.rate, sequence.frames, sequence_images(sequence))
        paths = _folder_images(path)
        if not paths:
            raise InputError(
                f"{path}: no images; expected {', '.join(IMAGE_EXTENSIONS)} files, or img1/ and seqinfo.ini"
            )
        return _open_images(path.resolve().name, paths)
    if path.is_file():
        return _open_images(path.stem, [path]) if path.suffix.lower() in IMAGE_EXTENSIONS else _open_video(path)
    if given.isdecimal():
        return _open_webcam(given)
    if re.search(_NUMBER, path.name):
        return _open_pattern(path)
    raise InputError(
        f"{path}: no such file or folder; give a video, a folder of images, frames/%06d.jpg or a webcam's index"
    )


def read_ahead(images: Iterator[np.ndarray], device: torch.device, count: int = 1) -> Images:
    """The same `images`, up to `count` of which another thread reads while one is in use; closing waits for it.

    For a `device` of CUDA they lie in pinned memory, from where they reach it while the CPU goes on. `images` itself is
    left to be closed by its owner.
    """

    def read() -> np.ndarray | None:
        image = next(images, None)
        return image if image is None or device.type != "cuda" else pin(image)

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = deque(reader.submit(read) for _ in range(count))
        while (image := coming.popleft().result()) is not None:
            coming.append(reader.submit(read))
            yield image


def sequence_images(sequence: Sequence, step: int = 1) -> Images:
    """Every `step`-th image of `sequence`, from the first."""
    return _decoded(sequence.image, range(1, sequence.frames + 1, step))


def is_sequence(path: Path) -> bool:
    """Whether `path` is the folder of a sequence."""
    return (path / "seqinfo.ini").is_file()


def _folder_images(folder: Path) -> list[Path]:
    """Image files of `folder`; 2.jpg stands before 10.jpg."""

    def by_number(path: Path) -> list[tuple[int, str]]:
        # Digits compare as numbers, and the pairs make digits and letters comparable.
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS and path.name[0] != "."]
    return sorted(paths, key=by_number)


def _decoded(decode: Callable[[Key], np.ndarray], keys: Iterable[Key]) -> Images:
    """Images of `keys`, in order; as many are decoded at a time as torch has threads."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as decoders:
        coming: deque[Future[np.ndarray]] = deque()
        for key in keys:
            coming.append(decoders.submit(decode, key))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


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
        for path, image in zip(paths, _decoded(decode, paths), strict=True):
            size = size or image.shape
            if image.shape != size:
                raise InputError(
                    f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but the images before it have {size[1]} x "
                    f"{size[0]}; bring all to one size"
                )
            yield image

    return VideoSource(name, 30.0, len(paths), read())


def _open_webcam(given: str) -> VideoSource:
    if len(given) > 4:
        raise InputError(f"webcam {given}: no such webcam, they count from 0; give a smaller index")
    index = int(given)
    level = cv2.utils.logging.getLogLevel()
    # OpenCV would tell of each of its ways to open a camera.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        camera = cv2.VideoCapture(index)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not camera.isOpened():
        raise InputError(f"webcam {index}: cannot be opened; check that it is plugged in and in no other use")

    def read() -> Images:
        try:
            while True:
                whole, image = camera.read()
                if not whole:
                    raise InputError(f"webcam {index}: gives no more images; plug it in again")
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            camera.release()

    return VideoSource(f"webcam-{index}", camera.get(cv2.CAP_PROP_FPS) or 30.0, None, read(), live=True)


def _open_video(path: Path) -> VideoSource:
    with path.open("rb") as file:
        start = file.read(4096)
    # FFmpeg waits for ever for the next files of one that has no end.
    if start.startswith((b"#EXTM3U", b"ffconcat")) or b"<MPD" in start:
        raise InputError(f"{path}: a playlist, which names other files; give the video itself")
    try:
        # Absolute, as FFmpeg takes the beginning of 12:30.mp4 for a protocol.
        container = av.open(str(path.absolute()), options=_FROM_FILES)
    except (av.FFmpegError, ValueError):
        raise InputError(f"{path}: no video that can be read; is it whole, and a video?") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: there is no video in it; give a video file")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"  # Several frames at a time too: most videos have one slice a frame.
    rate = float(stream.average_rate or stream.guessed_rate or 30)
    frames = stream.frames
    if not frames:
        # The container has no number of them, and then FFmpeg's mean rate is that of the first frames.
        frames, mean = _counted(path)
        rate = mean if mean and abs(mean - rate) > rate / 20 else rate
    return VideoSource(path.stem, rate, frames or None, _video_images(path, container, stream))


def _counted(path: Path) -> tuple[int, float | None]:
    """Number of frames of a video and their mean rate by its packets, which are read and not decoded."""
    frames, seconds, last = 0, Fraction(), Fraction()
    decoded: int | None = None
    first: Fraction | None = None
    with suppress(av.FFmpegError), av.open(str(path.absolute()), options=_FROM_FILES) as container:
        for packet in container.demux(container.streams.video[0]):
            if not packet.size:
                continue
            frames += 1
            if packet.pts is None or packet.time_base is None:
                continue
            shown, before, decoded = packet.pts * packet.time_base, decoded, packet.dts
            if first is None or (before is not None and decoded is not None and decoded < before):
                # Where videos were put together, time may begin again.
                seconds += last - (first or 0)
                first = last = shown
            first, last = min(first, shown), max(last, shown)
    seconds += last - (first or 0)
    return frames, float((frames - 1) / seconds) if seconds > 0 else None


def _video_images(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Images:
    """Every frame up to the first that is lost, damaged ones included; at the end InputError tells what was wrong.

    The frames after a lost one could not be numbered as in the video.
    """
    frames, packets, defect, size = 0, 0, "", None
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
                # Telephones film on edge and note how to turn the image.
                image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                size = size or image.shape
                if image.shape != size:
                    raise InputError(f"{path}: the size changes at frame {frames}; cut the video there")
                yield np.ascontiguousarray(image)
    if not defect and packets < stream.frames:
        defect = f"cut short, it ends after frame {frames} of {stream.frames}"
    if defect or not frames:
        raise InputError(f"{path}: {defect or 'no frame can be decoded'}; copy or encode the video again")
