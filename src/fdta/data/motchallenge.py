"""Sequences and boxes in the MOTChallenge layout, as DanceTrack and SportsMOT ship them.

A split is a folder of sequences, a sequence is ``img1/%08d.jpg``, ``seqinfo.ini`` and, unless its annotation is held
back, ``gt/gt.txt`` with the lines ``frame,identity,x,y,w,h,...``. Ours may hold ``depth/%08d.png`` besides.
"""

from __future__ import annotations

import configparser
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fdta.errors import InputError
from fdta.files import write_json, write_text
from fdta.names import check_file_name

FROM_ONE = "frames count from 1; if here they count from 0, renumber the images and the first column of gt.txt"
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")
MOST_FRAMES = 1_000_000
"""Of a sequence: 9 hours at 30 frames a second. More is a mistake of writing."""
MOST_SIDE = 100_000
"""Of an image, in pixels."""
MOST_RATE = 100_000
"""Frames a second."""
MOST_DECODED = 2**28
"""Most pixels of an image; with three colours they take 0.8 GB."""
MOST_PIXELS = 1e7
"""Size of a coordinate."""


@dataclass(frozen=True)
class Boxes:
    """Rows of a gt.txt or track file, sorted by (frame, identity); arrays of equal length n."""

    frames: np.ndarray
    """(n,) int64, counted from 1."""
    identities: np.ndarray
    """(n,) int64, up to 2**53."""
    boxes_xywh: np.ndarray
    """(n, 4) float64 pixels, as in the file."""
    scores: np.ndarray
    """(n,) float64, the 7th column; 1 where absent. Of ground truth: 0 says that scoring leaves the box out."""
    classes: np.ndarray
    """(n,) int64, the 8th column; 1 where absent or no class."""

    def select(self, keep: np.ndarray) -> Boxes:
        """The rows where `keep`, (n,) bool, is True."""
        return Boxes(*(getattr(self, field.name)[keep] for field in fields(self)))


def read_boxes(path: Path, frames: int | None = None) -> Boxes:
    """Read a gt.txt or track file.

    Lines have 6 to 10 comma-separated numbers; blanks around them, a comma at the end, CRLF, empty lines and float
    coordinates are fine, and identities may start at 0.

    Args:
        path: the file.
        frames: length of the sequence, to refuse frame numbers beyond it.

    Raises:
        InputError: the file is missing or no text, or a line is malformed (wrong number of columns, not a number, frame
            number outside 1..`frames`, width or height not above 0, an identity twice in a frame, a number out of all
            proportion).
    """
    rows, defects = parse_boxes(Path(path), frames)
    if defects:
        raise InputError(defects[0])
    return _sorted_boxes(rows)


def write_boxes(path: Path, boxes: Boxes) -> None:
    """Write `boxes` as track file, whole or not at all; the lines are those of `box_lines`."""
    write_text(Path(path), "".join(box_lines(boxes)))


def box_lines(boxes: Boxes) -> list[str]:
    """`boxes` as lines of a track file: ``frame,identity,x,y,w,h,score,-1,-1,-1``.

    Sides are at least 0.01 pixels, so that none is rounded to 0, which `read_boxes` refuses.
    """
    sizes = np.concatenate([boxes.boxes_xywh[:, :2], np.maximum(boxes.boxes_xywh[:, 2:], 0.01)], axis=1)
    rows = zip(boxes.frames.tolist(), boxes.identities.tolist(), sizes.tolist(), boxes.scores.tolist(), strict=True)
    return [f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{score:.3f},-1,-1,-1\n" for f, i, (x, y, w, h), score in rows]


def sequence_map_path(folder: Path) -> Path:
    """Sequence map of the split `folder`, ``DATASET/seqmaps/SPLIT.txt``; written last, it stands for the split."""
    return folder.parent / "seqmaps" / f"{folder.name}.txt"


def split_summary(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Numbers of sequences and files of a split, and a digest of it.

    The digest is of the names and sizes of all files and of the texts among them: it tells a split from another with
    sequences of the same names.
    """
    names = sorted(names)
    digest, files = hashlib.sha256(), 0
    for name in names:
        for file in sorted((folder / name).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                files += 1
                digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
                digest.update(file.read_bytes() if file.suffix in (".txt", ".ini", ".json") else b"")
    return {"sequences": len(names), "files": files, "digest": digest.hexdigest()}


def write_sequence_map(path: Path, names: Iterable[str], summary: dict[str, Any]) -> None:
    """Write a sequence map: the names of a split's sequences, in order, and as .json its `split_summary`."""
    write_json(path.with_suffix(".json"), summary)
    write_text(path, "\n".join(["name", *sorted(names)]) + "\n")


def read_sequence_map(path: Path) -> list[str]:
    """Names of the sequences that the sequence map `path` lists, as it orders them.

    Raises:
        InputError: no such file, no text, no sequence in it, one twice, or a name that is no plain one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; get the split with 'fdta data get' or 'fdta data import'") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text ({error}); remove it and get the split again") from None
    names = [check_file_name(name, "sequence", path) for line in lines[1:] if (name := line.strip())]
    if lines[:1] != ["name"] or not names or len(set(names)) < len(names):
        raise InputError(
            f"{path}: must be a line 'name' and a line for each of the split's sequences, none twice; found "
            f"{len(names)} sequences; remove it and get the split again"
        )
    return names


@dataclass(frozen=True)
class Sequence:
    """One video as a folder of frames."""

    name: str
    folder: Path
    frames: int
    """Number of frames; they count from 1."""
    width: int
    height: int
    rate: float
    """Frames a second."""
    image_folder: str = "img1"
    image_digits: int = 8
    image_extension: str = ".jpg"

    def image_path(self, frame: int) -> Path:
        """File of frame `frame`, counted from 1."""
        return self.folder / self.image_folder / f"{frame:0{self.image_digits}d}{self.image_extension}"

    def image(self, frame: int, enough: tuple[int, int] | None = None) -> np.ndarray:
        """Frame `frame` as (H, W, 3) uint8 RGB.

        Args:
            frame: counted from 1.
            enough: width and height that suffice. A JPEG file that has twice, 4 or 8 times as many pixels a side is
                decoded at a half, a quarter or an eighth of its size, in about half of the time; only if both of
                its sides are multiples of that, so that a pixel is exactly 2 x 2, 4 x 4 or 8 x 8 of the file's.

        Raises:
            InputError: the file is missing, broken, cut short, or of another size than seqinfo.ini says.
        """
        path = self.image_path(frame)
        data = _read_image(path, _COPY)
        if enough is not None:
            reduction = self._reduction(*enough)
            # The size of what is decoded would not tell an image that is a pixel smaller.
            if reduction > 1 and _jpeg_size(data) == (self.width, self.height):
                image = _decode(path, data, _REDUCED[reduction], _COPY)
                # A file may say that it is to be turned; then the sizes are told below.
                if image.shape[1] * reduction == self.width and image.shape[0] * reduction == self.height:
                    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        image = _decode(path, data, cv2.IMREAD_COLOR, _COPY)
        self.check_size(path, image.shape[1], image.shape[0])
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _reduction(self, width: int, height: int) -> int:
        fits = (n for n in _REDUCED if self.width % n == self.height % n == 0)
        return max((n for n in fits if self.width >= n * width and self.height >= n * height), default=1)

    def depth(self, frame: int) -> np.ndarray:
        """Pseudo depth of frame `frame` as (H / n, W / n) uint8 inverse depth: larger is nearer.

        The file is an 8-bit grey image, or one that the published code coloured (OpenCV's map "inferno"); it has the
        frame's size, or both sides are the frame's divided by the same whole number n.

        Raises:
            InputError: the map is missing, broken, of another form, or of another size.
        """
        path = self.depth_path(frame)
        depth: np.ndarray | None = decode_image(
            path, cv2.IMREAD_UNCHANGED, "make the depth maps of this split with 'fdta depth'"
        )
        if depth is not None and depth.ndim == 3 and depth.dtype == np.uint8:
            depth = _without_colours(depth)
        if depth is None or depth.ndim != 2 or depth.dtype != np.uint8:
            raise InputError(
                f"{path}: depth maps are 8-bit grey images, or coloured by the map inferno; make them again with "
                f"'fdta depth'"
            )
        height, width = depth.shape
        times = self.width // width
        if (times * width, times * height) != (self.width, self.height):
            self.check_size(path, width, height)
        return depth

    def depth_path(self, frame: int) -> Path:
        """File of the depth map of frame `frame`, counted from 1."""
        return self.depth_folder / f"{frame:08d}.png"

    @property
    def depth_folder(self) -> Path:
        """Folder of the depth maps: ``depth/`` in the sequence, where the user's own lie, else that of `fdta depth`."""
        own = self.folder / "depth"
        return own if own.is_dir() else self.made_depth_folder

    @property
    def made_depth_folder(self) -> Path:
        """Folder of the depth maps that `fdta depth` makes, apart from the data that they are made of:
        ``DATASET/depth/SPLIT/SEQUENCE`` for ``DATASET/SPLIT/SEQUENCE``."""
        split = self.folder.absolute().parent
        return split.parent / "depth" / split.name / self.name

    def ground_truth(self) -> Boxes:
        """Boxes of gt/gt.txt.

        Raises:
            InputError: the file is missing or malformed.
        """
        return read_boxes(self.folder / "gt" / "gt.txt", self.frames)

    def check_size(self, path: Path, width: int, height: int) -> None:
        """Refuse the image `path` of `width` x `height` pixels if the frames have another size.

        Raises:
            InputError: they have.
        """
        if (width, height) != (self.width, self.height):
            turned = ", turned as its EXIF orientation says" if (height, width) == (self.width, self.height) else ""
            raise InputError(
                f"{path}: {width} x {height} pixels{turned}, but seqinfo.ini says {self.width} x {self.height}; mend "
                f"either"
            )


def read_seqinfo(folder: Path) -> Sequence:
    """What the seqinfo.ini of `folder` tells; the images are not looked at.

    Raises:
        InputError: the file is missing, malformed or says that the sequence is empty.
    """
    folder = Path(folder)
    path = folder / "seqinfo.ini"
    if not path.is_file():
        raise InputError(f"{path}: no such file; a sequence needs one with {_SEQINFO}")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
        section = parser["Sequence"]
        frames, width, height = (int(plain_number(section[key])) for key in ("seqLength", "imWidth", "imHeight"))
        rate = float(plain_number(section.get("frameRate", "30")))
    except (configparser.Error, KeyError, ValueError, OverflowError) as error:
        what = " ".join(str(error).split())
        raise InputError(f"{path}: malformed ({what}); a sequence needs one with {_SEQINFO}") from None
    if frames < 1:
        raise InputError(f"{path}: seqLength is {frames}, the sequence is empty; remove the folder {folder}")
    if frames > MOST_FRAMES:
        raise InputError(
            f"{path}: seqLength is {frames}, more than the {MOST_FRAMES} that a sequence may have; correct it"
        )
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and 0 < rate <= MOST_RATE):
        raise InputError(
            f"{path}: imWidth, imHeight and frameRate must be above 0, the sides and the rate at most {MOST_SIDE}; "
            f"correct them"
        )
    return Sequence(folder.name, folder, frames, width, height, rate, image_folder=_image_folder(section, path))


def plain_number(text: str) -> str:
    """`text`, of which Python also reads 1_0 as 10, where it is more likely a mistake.

    Raises:
        ValueError: it has such a mark.
    """
    if "_" in text:
        raise ValueError(f"{text.strip()!r} is no number")
    return text


def _image_folder(section: configparser.SectionProxy, path: Path) -> str:
    name = section.get("imDir", "img1")
    # "." is a sequence whose frames lie in its own folder.
    if name != ".":
        for part in name.rstrip("/").split("/"):
            check_file_name(part, "folder (imDir)", path)
    return name


def write_seqinfo(sequence: Sequence) -> None:
    """Write the seqinfo.ini of `sequence`, whole or not at all."""
    write_text(
        sequence.folder / "seqinfo.ini",
        f"[Sequence]\nname={sequence.name}\nimDir={sequence.image_folder}\nframeRate={sequence.rate:g}\n"
        f"seqLength={sequence.frames}\nimWidth={sequence.width}\nimHeight={sequence.height}\n"
        f"imExt={sequence.image_extension}\n",
    )


def read_sequence(folder: Path) -> Sequence:
    """Read the seqinfo.ini of `folder` and check that an image file exists for every frame.

    Raises:
        InputError: no such folder; seqinfo.ini is missing, malformed or says that the sequence is empty; there are no
            images, one is missing, or there are more than seqinfo.ini says.
    """
    told = read_seqinfo(folder)
    images = told.folder / told.image_folder
    names = image_names(images)
    first = names.get(1) or next(iter(names.values()), None)
    if first is None:
        raise InputError(f"{images}: no images; expected files such as {'1'.zfill(8)}.jpg, one a frame")
    sequence = replace(told, image_digits=len(Path(first).stem), image_extension=Path(first).suffix)
    for frame in range(1, sequence.frames + 1):
        expected = sequence.image_path(frame)
        if names.get(frame) != expected.name:
            check_counting(images, names)
            raise InputError(
                f"{expected}: frame {frame} of {sequence.frames} is missing; copy it, or correct seqLength"
            )
    if len(names) > sequence.frames:
        raise InputError(
            f"{images}: has {len(names)} images, but seqinfo.ini says seqLength={sequence.frames}; correct it, or "
            f"remove the images beyond"
        )
    return sequence


def read_split(folder: Path) -> list[Sequence]:
    """All sequences of `folder`, sorted by name; folders whose name starts with a dot are left out.

    Raises:
        InputError: there is no such folder, it holds no sequence, or one of them cannot be read.
    """
    return [read_sequence(path) for path in sequence_folders(Path(folder))]


def decode_image(path: Path, flags: int, remedy: str) -> np.ndarray:
    """Image file `path` as OpenCV's `flags` have it.

    Raises:
        InputError: the file is missing, broken or cut short; ends with `remedy`.
    """
    return _decode(path, _read_image(path, remedy), flags, remedy)


def write_image(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write `image`, (H, W, 3) uint8 BGR or (H, W) uint8, in the format that the name of the file `path` tells.

    Args:
        quality: of JPEG, 0..100.

    Raises:
        OSError: it cannot be written; OpenCV's own function would keep silent about a full disk.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    _, data = cv2.imencode(path.suffix, image, options)
    path.write_bytes(data.tobytes())


def check_file(path: Path, remedy: str) -> None:
    """Reject what is no file to read, such as a pipe, for which reading would wait for ever.

    Raises:
        InputError: it is none; ends with `remedy`.
    """
    if not path.is_file():
        # A link that leads nowhere is there, but does not exist.
        what = "is no file, or a link that leads to none" if os.path.lexists(path) else "no such file"
        raise InputError(f"{path}: {what}; {remedy}")


def _read_image(path: Path, remedy: str) -> bytes:
    check_file(path, remedy)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None


def _decode(path: Path, data: bytes, flags: int, remedy: str) -> np.ndarray:
    # A decoder fills what a cut file lacks with grey and says nothing: look for the end marker.
    png = data[:8] == _PNG
    cut = not _png_is_complete(data) if png else data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]
    size = (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) if png else _jpeg_size(data)
    if size and size[0] * size[1] > MOST_DECODED:
        most = f"{MOST_DECODED / 1e6:.0f} million"
        raise InputError(f"{path}: {size[0]} x {size[1]} pixels, more than the {most} that are read; {remedy}")
    try:
        image = None if cut or not data else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # Of more pixels than OpenCV takes.
        image = None
    if image is None:
        raise InputError(f"{path}: {'cut short' if cut else 'no image that can be decoded'}; {remedy}")
    return image


def _png_is_complete(data: bytes) -> bool:
    """Whether all parts of a PNG file are there; of one that is not, the decoder would make room for 4 GB."""
    place = len(_PNG)
    while place + 12 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + int.from_bytes(data[place : place + 4])
    return False


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that the header of a JPEG file tells; None if it is none, or has no such header."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        # Frame headers are C0..CF without those of tables and of arithmetic coding.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[place + 7 : place + 9]), int.from_bytes(data[place + 5 : place + 7])
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


_PNG = b"\x89PNG\r\n\x1a\n"
_COPY = "copy the sequence again"
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_SEQINFO = "[Sequence] and the keys name, imDir, frameRate, seqLength, imWidth, imHeight"

_Row = tuple[int, int, float, float, float, float, float, int]


def parse_boxes(path: Path, frames: int | None) -> tuple[list[_Row], list[str]]:
    """Good rows (frame, identity, x, y, w, h, score, class) of the file `path`, and one line for each bad one."""
    try:
        check_file(path, "boxes are expected there, one 'frame,identity,x,y,w,h' a line")
        text = path.read_text(encoding="utf-8-sig")
    except InputError as error:
        return [], [str(error)]
    except (UnicodeDecodeError, OSError) as error:
        return [], [f"{path}: cannot be read as text ({' '.join(str(error).split())}); replace the file"]
    rows: list[_Row] = []
    defects: list[str] = []
    seen: dict[tuple[int, int], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _parse_line(line, frames)
            earlier = seen.setdefault(row[:2], number)
            if earlier != number:
                raise ValueError(f"identity {row[1]} is already in frame {row[0]} (line {earlier}); remove one of them")
        except ValueError as error:
            defects.append(f"{path}, line {number}: {error}")
        else:
            rows.append(row)
    return rows, defects


def _parse_line(line: str, frames: int | None) -> _Row:
    columns = line.split(",")
    if len(columns) > 6 and not columns[-1].strip():
        del columns[-1]
    if not 6 <= len(columns) <= 10:
        raise ValueError(f"{len(columns)} instead of 6 to 10 columns; write frame,identity,x,y,w,h,... with commas")
    values = []
    for column, name in zip(columns, ("frame", "identity", "x", "y", "w", "h", "score", "8", "9", "10"), strict=False):
        try:
            value = float(plain_number(column))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"column {name!r} is {column.strip()!r}, not a number; correct it")
        values.append(value)
    for value, name in zip(values[2:7], ("x", "y", "w", "h", "score"), strict=False):
        if abs(value) > MOST_PIXELS:
            raise ValueError(f"column {name!r} is {value:g}, beyond {MOST_PIXELS:g}; correct it or remove the line")
    frame, identity = int(values[0]), int(values[1])
    if abs(identity) >= 2**53:
        raise ValueError(
            f"identity {columns[1].strip()} is beyond 2**53 and may be taken for its neighbour; renumber them"
        )
    if (frame, identity) != tuple(values[:2]):
        raise ValueError(f"frame {values[0]:g} and identity {values[1]:g} must be whole numbers; correct them")
    if frame == 0:
        raise ValueError(f"frame 0 is outside 1..{frames or MOST_FRAMES}; {FROM_ONE}")
    if not 1 <= frame <= (frames or MOST_FRAMES):
        raise ValueError(f"frame {frame} is outside 1..{frames or MOST_FRAMES}; correct it or seqLength")
    if min(values[4:6]) < 1e-6:
        raise ValueError(f"width {values[4]:g} and height {values[5]:g} must be above 0; correct or remove the line")
    left, top, width, height = values[2:6]
    score = values[6] if len(values) > 6 else 1.0
    known = len(values) > 7 and values[7].is_integer() and 0 < values[7] <= MOST_PIXELS
    return frame, identity, left, top, width, height, score, int(values[7]) if known else 1


def _sorted_boxes(rows: list[_Row]) -> Boxes:
    table = np.array(sorted(rows), dtype=np.float64).reshape(-1, 8)
    keys = table[:, (0, 1, 7)].astype(np.int64)
    return Boxes(keys[:, 0], keys[:, 1], table[:, 2:6], table[:, 6], keys[:, 2])


def _without_colours(image: np.ndarray) -> np.ndarray | None:
    """(H, W) levels of an (H, W, 3) BGR image coloured by the map inferno; None if it has another colour."""
    levels = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    codes, colours = (x[..., :3].astype(np.int64) @ (65536, 256, 1) for x in (levels, image))
    order = np.argsort(codes)
    place = np.searchsorted(codes, colours, sorter=order).clip(max=255)
    found = order[place]
    return found.astype(np.uint8) if (codes[found] == colours).all() else None


def is_image_name(path: Path) -> bool:
    """Whether the file `path` has the name of a frame: a number, and the extension of an image."""
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.stem.isdecimal()


def image_names(folder: Path) -> dict[int, str]:
    """File name of each numbered image of `folder`, in order."""
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.iterdir() if is_image_name(path)]
    return {int(path.stem): path.name for path in sorted(paths)}


def check_counting(folder: Path, names: Mapping[int, str]) -> None:
    """Reject frames that count from 0.

    Args:
        folder: of the images.
        names: file name of each, by number (`image_names`).

    Raises:
        InputError: there is a frame 0.
    """
    if 0 in names:
        raise InputError(f"{folder / names[0]}: frame 0; {FROM_ONE}")


def sequence_folders(folder: Path) -> list[Path]:
    """Folders in the split `folder`, sorted by name; those whose name starts with a dot are left out.

    Raises:
        InputError: there is no such folder, it holds none, or the name of one is no plain name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a split, a folder with one folder a sequence")
    paths = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in paths:
        check_file_name(path.name, "sequence", folder)
    if not paths:
        raise InputError(f"{folder}: no sequence; expected one folder a sequence, each with img1/ and seqinfo.ini")
    return paths
