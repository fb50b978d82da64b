"""DanceTrack, SportsMOT and BFT in miniature: archives of exactly the published form, with moving boxes drawn."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fdta.acquire.catalogue import read_catalogue

SPLITS = ("train", "val", "test")


def write_published_archives(
    folder: Path, url: str, sequences: int = 2, frames: int = 6, width: int = 96, height: int = 64
) -> dict[str, Any]:
    """Write the archives of the three data sets to `folder`; what params.yaml needs to get them from `url`.

    Every split has `sequences` sequences (an even number). The entries are the shipped ones but for the places and the
    numbers of sequences, and for BFT, whose Drive folder is a zip archive here.
    """
    for number, files in enumerate(published_files(sequences, frames, width, height).values()):
        for archive, members in files.items():
            write_archive(folder / archive, members, added=number < 2)
    shipped = {name: dataclasses.asdict(source) for name, source in read_catalogue().datasets.items()}
    for source in shipped.values():
        for split in source["splits"].values():
            split["sequences"] = sequences
            split["archives"] = split["archives"] or ["BFT.zip"]
        names = dict.fromkeys(name for split in source["splits"].values() for name in split["archives"])
        source["archives"] = {name: {"url": f"{url}/{name}"} for name in names}
    return {"catalogue": {"datasets": shipped}}


def published_files(
    sequences: int = 2, frames: int = 6, width: int = 96, height: int = 64
) -> dict[str, dict[str, dict[str, bytes]]]:
    """Data set -> archive -> path in it -> content."""
    dancetrack: dict[str, dict[str, bytes]] = {}
    sportsmot: dict[str, dict[str, bytes]] = {}
    bft: dict[str, bytes] = {}
    for number, split in enumerate(SPLITS):
        for index in range(sequences):
            seed = 100 * number + index
            images, boxes = _moving_boxes(seed, frames, width, height)
            half = split if split == "val" else f"{split}{1 + 2 * index // sequences}"
            name = f"dancetrack{1 + seed:04d}"
            files = dancetrack.setdefault(f"{half}.zip", {})
            info = _seqinfo(name, 20, frames, width, height)
            _add(files, f"{half}/{name}", images, 8, info + "\n", boxes if split != "test" else None, ",", 1)
            name = f"v_{seed:011d}_c001"
            files = sportsmot.setdefault(f"{split}.tar", {})
            info = _seqinfo(name, 25, frames, width, height)
            top = f"sportsmot_publish/dataset/{split}/{name}"
            _add(files, top, images, 6, info, boxes if split != "test" else None, ", ", 0)
            name = f"Bird{seed:03d}"
            bft |= {f"BFT/{split}/{name}/{frame:06d}.jpg": image for frame, image in enumerate(images, start=1)}
            lines = [f"{f},{i + 1},{x},{y},{w},{h},-1,-1,-1,-1\n" for f, i, x, y, w, h in boxes]
            bft[f"BFT/annotations_mot/{split}/{name}.txt"] = "".join(lines).encode()
    return {"dancetrack": dancetrack, "sportsmot": sportsmot, "bft": {"BFT.zip": bft}}


def write_archive(path: Path, members: dict[str, bytes], added: bool = False) -> None:
    """Write a zip or tar archive; `added` puts in the files that a Mac adds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"__MACOSX/._x": b"mac"} if path.suffix == ".zip" else {}
    for name in list(members)[:3] if path.suffix == ".tar" else []:
        head, _, tail = name.rpartition("/")
        extra[f"{head}/._{tail}"] = b"mac"
    members = members | (extra if added else {})
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_folder(folder: Path, members: dict[str, bytes]) -> None:
    """Write what an archive holds as files below `folder`."""
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _add(files, top, images, digits, info, boxes, comma, first_identity) -> None:
    files |= {f"{top}/img1/{frame:0{digits}d}.jpg": image for frame, image in enumerate(images, start=1)}
    files[f"{top}/seqinfo.ini"] = info.encode()
    if boxes is not None:
        rows = [(f, i + first_identity, x, y, w, h, 1, 1, 1) for f, i, x, y, w, h in boxes]
        files[f"{top}/gt/gt.txt"] = "".join(comma.join(map(str, row)) + "\n" for row in rows).encode()


def _seqinfo(name: str, rate: int, frames: int, width: int, height: int) -> str:
    return (
        f"[Sequence]\nname={name}\nimDir=img1\nframeRate={rate}\nseqLength={frames}\nimWidth={width}\n"
        f"imHeight={height}\nimExt=.jpg"
    )


def _moving_boxes(seed: int, frames: int, width: int, height: int) -> tuple[list[bytes], list[tuple[int, ...]]]:
    """JPEG of each frame, and (frame, object from 0, x, y, w, h) of three objects."""
    generator = np.random.default_rng(seed)
    w, h = width // 6, height // 3
    places = generator.uniform((0, 0), (width - w, height - h), (3, 2))
    steps = generator.uniform(-3, 3, (3, 2))
    colours = generator.integers(60, 255, (3, 3)).tolist()
    images, boxes = [], []
    for frame in range(1, frames + 1):
        image = np.full((height, width, 3), 30, np.uint8)
        for index, place in enumerate(np.clip(places + steps * frame, 0, (width - w, height - h)).astype(int)):
            x, y = place.tolist()
            cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colours[index], -1)
            boxes.append((frame, index, x, y, w, h))
        images.append(cv2.imencode(".jpg", image)[1].tobytes())
    return images, boxes
