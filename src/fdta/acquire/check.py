"""Defects of data on disk: every line of ground truth, every image."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2

from fdta.acquire.catalogue import Form, Split
from fdta.data.motchallenge import (
    Sequence,
    check_counting,
    check_file,
    decode_image,
    image_names,
    parse_boxes,
    read_seqinfo,
    sequence_folders,
)
from fdta.errors import InputError
from fdta.model.settings import DetectorSettings


@dataclass
class SequenceReport:
    """What `check_split` found in one sequence; as text a line, and one more for each defect."""

    name: str
    frames: int = 0
    boxes: int = 0
    identities: int = 0
    ground_truth: bool = False
    """Whether there is a gt.txt. Test splits may have none."""
    images: bool = True
    """Whether there are any images."""
    uncounted: int = 0
    """Boxes that scoring leaves out: their 7th column is 0."""
    beyond: int = 0
    """Boxes that reach more than a pixel beyond the image."""
    unusable: int = 0
    """Frames without a box, or with more than the published detector can find."""
    defects: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{self.boxes} boxes of {self.identities} identities" if self.ground_truth else "no ground truth"
        frames = f"{self.frames} frames" if self.images else f"{self.frames} frames without images"
        verdict = f"{len(self.defects)} defects" if self.defects else "whole"
        return "\n  ".join([f"{self.name}: {frames}, {found}, {verdict}", *self.defects])


def check_split(
    folder: Path, *, decode: bool = False, published: Split | None = None, form: Form | None = None
) -> list[SequenceReport]:
    """Read every ground-truth line of the split `folder` and every image and depth map; all defects, by sequence.

    A folder without a single image is taken for ground truth alone, if the catalogue does not say otherwise.

    Args:
        folder: with a folder a sequence.
        decode: decode images and maps whole. Otherwise their headers and ends are read, which finds files that are cut,
            of another size or no images.
        published: what the catalogue tells of the split.
        form: what it tells of the data set.

    Raises:
        InputError: there is no such folder, or it holds no sequence.
    """
    folders = sequence_folders(Path(folder))
    form = form or Form()
    reports = [_check_sequence(path, decode, form) for path in folders]
    if published is not None or any(report.images for report in reports):
        for report, path in zip(reports, folders, strict=True):
            if not report.images:
                report.defects.append(f"{path}: no images; expected img1/ with files such as 00000001.jpg, one a frame")
    if published is not None and published.ground_truth:
        for report, path in zip(reports, folders, strict=True):
            if not report.ground_truth:
                report.defects.append(f"{path / 'gt' / 'gt.txt'}: no such file, but this split has ground truth")
    return reports


def split_folders(folder: Path, splits: Iterable[str] = ()) -> list[Path]:
    """`folder` itself if it is a split, or the splits in it; or of these the ones called `splits`.

    Raises:
        InputError: there is no such folder, or no sequence in it.
    """
    if splits:
        return [folder / split for split in splits]
    inside = sequence_folders(folder)
    if any(map(_is_sequence, inside)):
        return [folder]
    found = [path for path in inside if any(map(_is_sequence, path.iterdir()))]
    if not found:
        raise InputError(f"{folder}: no sequence in it; give a split, or a folder of splits")
    return found


def _is_sequence(folder: Path) -> bool:
    return any((folder / part).exists() for part in ("seqinfo.ini", "img1", "gt"))


def missing_sequences(found: int, split: Split) -> str | None:
    """What is wrong with a split of `found` sequences; None: nothing."""
    return None if found == split.sequences else f"{found} sequences instead of {split.sequences}"


_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
"""Of EXIF: the tag, and its values for images whose sides are exchanged."""


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels that the header of an image tells, turned as it says (EXIF) that it is to be turned.

    Raises:
        InputError: the file is missing, cut short or no image.
    """
    from PIL import Image, UnidentifiedImageError

    check_file(path, "copy the sequence again")
    try:
        with path.open("rb") as stream, Image.open(stream, formats=("JPEG", "PNG")) as image:
            stream.seek(max(0, path.stat().st_size - 4096))
            cut = (b"\xff\xd9" if image.format == "JPEG" else b"IEND") not in stream.read()
            # Asked for the EXIF of a PNG that has none, Pillow decodes all of it.
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
            size = image.size[::-1] if turned else image.size
    except UnidentifiedImageError:
        # The decoder takes other formats too, also under these names (WebP from a browser).
        return _decoded_size(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{path}: no image that can be decoded; copy the sequence again") from None
    if cut:
        raise InputError(f"{path}: cut short; copy the sequence again")
    return size


def _decoded_size(path: Path) -> tuple[int, int]:
    height, width = decode_image(path, cv2.IMREAD_COLOR, "copy the sequence again").shape[:2]
    return width, height


def _check_sequence(folder: Path, decode: bool, form: Form) -> SequenceReport:
    report = SequenceReport(folder.name)
    frames, size = None, None
    try:
        sequence = read_seqinfo(folder)
    except InputError as error:
        report.images = bool(image_names(folder / "img1"))
        report.defects.append(str(error))
    else:
        frames = report.frames = sequence.frames
        names = image_names(folder / sequence.image_folder)
        elsewhere = {} if names else image_names(folder / "img1")
        report.images = bool(names or elsewhere)
        if elsewhere:
            report.defects.append(
                f"{folder / 'seqinfo.ini'}: imDir is {sequence.image_folder}, where no images are, but img1 has "
                f"{len(elsewhere)}; correct imDir"
            )
        if names:
            report.defects += _image_defects(sequence, names, decode, form)
        size = (sequence.width, sequence.height)
        if sequence.depth_folder.is_dir():
            report.defects += _depth_defects(sequence, decode)
    path = folder / "gt" / "gt.txt"
    if path.exists():
        rows, defects = parse_boxes(path, frames)
        report.ground_truth = True
        report.boxes, report.identities = len(rows), len({row[1] for row in rows})
        report.uncounted = sum(int(row[6]) == 0 for row in rows)
        report.defects += defects
        counts = Counter(row[0] for row in rows)
        last = frames or max(counts, default=0)
        report.unusable = sum(not 0 < counts[frame] <= DetectorSettings().queries for frame in range(1, last + 1))
        if size is not None:
            report.beyond = sum(_is_beyond(row[2:6], *size) for row in rows)
        report.defects += [
            f"{path}: identity {identity} is below {form.first_identity}, from where they count; correct it"
            for identity in sorted({row[1] for row in rows})
            if identity < form.first_identity
        ]
        if not rows and not defects:
            report.defects.append(f"{path}: no box; write the annotation, or remove the file")
    return report


def _is_beyond(box: tuple[float, ...], width: int, height: int) -> bool:
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    return left < -1 or top < -1 or right > width + 1 or bottom > height + 1


def _image_defects(sequence: Sequence, names: dict[int, str], decode: bool, form: Form) -> Iterator[str]:
    images = sequence.folder / sequence.image_folder
    from_zero = list(_told(partial(check_counting, images, names)))
    if from_zero:
        yield from from_zero
        return
    for run in _runs(frame for frame in range(1, sequence.frames + 1) if frame not in names):
        yield f"{images}: frame {run} of {sequence.frames} is missing; copy it, or correct seqLength"
    for run in _runs(frame for frame in names if not 1 <= frame <= sequence.frames):
        yield f"{images}: frame {run} is outside 1..{sequence.frames}; remove it, or correct seqLength"
    digits = form.digits or len(Path(names[min(names)]).stem)
    suffix = Path(names[min(names)]).suffix
    for name in names.values():
        if len(Path(name).stem) != digits or Path(name).suffix != suffix:
            yield f"{images / name}: its name has not the form {'1'.zfill(digits)}{suffix} of the others; rename it"
    look = _decoded_size if decode else header_size
    for name in names.values():
        yield from _told(partial(_check_size, sequence, images / name, look))


def _depth_defects(sequence: Sequence, decode: bool) -> Iterator[str]:
    for frame in range(1, sequence.frames + 1):
        path = sequence.depth_path(frame)
        if decode:
            yield from _told(partial(sequence.depth, frame))
        else:
            yield from _told(partial(_check_size, sequence, path, header_size))


def _check_size(sequence: Sequence, path: Path, look: Callable[[Path], tuple[int, int]]) -> None:
    sequence.check_size(path, *look(path))


def _told(look: Callable[[], object]) -> Iterator[str]:
    try:
        look()
    except InputError as error:
        yield str(error)


def _runs(frames: Iterator[int]) -> Iterator[str]:
    """Ascending numbers as runs: 3, 4, 5, 9 are ``3-5`` and ``9``."""
    for _, group in itertools.groupby(enumerate(sorted(frames)), key=lambda pair: pair[1] - pair[0]):
        run = [frame for _, frame in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
