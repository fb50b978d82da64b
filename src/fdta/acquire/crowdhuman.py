"""CrowdHuman (Shao et al., 2018) as sequences of one frame.

A training can use them as still images (docs/model.md, Clips and augmentation).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from fdta.data.motchallenge import (
    MOST_PIXELS,
    check_file,
    decode_image,
    sequence_map_path,
    split_summary,
    write_sequence_map,
)
from fdta.errors import InputError
from fdta.files import check_beside, check_own_folder, link_or_copy, whole_folder
from fdta.names import check_file_name


def convert_crowdhuman(annotations: Path, images: Path, folder: Path) -> int:
    """Write the images of an ``annotation_SPLIT.odgt`` that show a person as sequences of one frame.

    Each is ``folder/NAME/{img1/00000001.jpg, gt/gt.txt, seqinfo.ini}``, NAME being the image's ID with an underscore
    for its comma; ``folder/../seqmaps/SPLIT.txt`` lists them. Boxes are the full boxes (``fbox``), also of what is
    hidden or outside of the image, as the published code has them; other tags than "person" and boxes to ignore are
    left out. Images are linked, or copied where that is impossible.

    Args:
        annotations: JSON lines with ``ID`` and ``gtboxes``.
        images: folder of ``ID.jpg``.
        folder: the split to write, whole or not at all.

    Returns:
        Number of sequences.

    Raises:
        InputError: a file is missing or a line malformed; with its number.
    """
    names = []
    check_own_folder(folder)
    check_beside(folder, sequence_map_path(folder))
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is there already; remove it, with what you put into it, to make it again")
    with whole_folder(folder) as temporary:
        for identity, boxes in _records(annotations):
            image = images / f"{identity}.jpg"
            if not boxes:
                continue
            remedy = f"{annotations} lists it, copy the images again"
            height, width = decode_image(image, cv2.IMREAD_COLOR, remedy).shape[:2]
            name = identity.replace(",", "_")
            sequence = temporary / name
            if sequence.exists():
                raise InputError(f"{annotations}: two images become {name} ({identity} is one); remove a line")
            (sequence / "img1").mkdir(parents=True)
            (sequence / "gt").mkdir()
            link_or_copy(image.resolve(), sequence / "img1" / "00000001.jpg")
            lines = [
                f"1,{number},{x:.10g},{y:.10g},{w:.10g},{h:.10g},1,1,1\n"
                for number, (x, y, w, h) in enumerate(boxes, 1)
            ]
            (sequence / "gt" / "gt.txt").write_text("".join(lines))
            (sequence / "seqinfo.ini").write_text(
                f"[Sequence]\nname={name}\nimDir=img1\nframeRate=1\nseqLength=1\nimWidth={width}\nimHeight={height}\n"
                "imExt=.jpg\n",
                encoding="utf-8",
            )
            names.append(name)
        if not names:
            raise InputError(f"{annotations}: no image with a person; check the file")
    write_sequence_map(sequence_map_path(folder), names, split_summary(folder, names))
    return len(names)


def _records(path: Path) -> Iterator[tuple[str, list[list[float]]]]:
    """ID and boxes (x, y, w, h) of the persons of each image."""
    try:
        check_file(path, "give CrowdHuman's annotation_train.odgt or _val")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: cannot be read; expected CrowdHuman's annotation_train.odgt or _val") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            identity = record["ID"]
            if not isinstance(identity, str):
                raise ValueError(f"the ID {str(identity)[:60]!r} is no file name")
            check_file_name(identity, "picture", path)
            boxes = [_box(item) for item in record["gtboxes"] if _counts(item)]
        except RecursionError:
            raise InputError(f"{path}: line {number} is nested too deep; fetch the file again") from None
        except InputError as error:
            raise InputError(f"{error} (line {number})") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise InputError(f"{path}: line {number} is malformed ({what}); fetch the file again") from None
        yield identity, [box for box in boxes if box[2] > 0 and box[3] > 0]


def _counts(item: dict[str, Any]) -> bool:
    return item["tag"] == "person" and item.get("extra", {}).get("ignore", 0) != 1


def _box(item: dict[str, Any]) -> list[float]:
    if not all(type(value) in (int, float) for value in item["fbox"]):
        raise ValueError(f"fbox {str(item['fbox'])[:60]} holds something else than numbers")
    box = [float(value) for value in item["fbox"]]
    if len(box) != 4:
        raise ValueError(f"fbox has {len(box)} numbers, not 4")
    if not all(abs(value) <= MOST_PIXELS for value in box):
        raise ValueError(f"a number of fbox is beyond {MOST_PIXELS:g}")
    return box
