"""Small sequences in MOTChallenge form."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 32, 24


def make_sequence(
    folder: Path, frames: int = 3, digits: int = 8, extension: str = ".jpg", text: str | None = None
) -> Path:
    (folder / "img1").mkdir(parents=True)
    for frame in range(1, frames + 1):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[..., 2] = 40 * frame % 256
        cv2.imwrite(str(folder / "img1" / f"{frame:0{digits}d}{extension}"), image)
    if text is None:
        text = (
            f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=25\nseqLength={frames}\n"
            f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt={extension}\n"
        )
    (folder / "seqinfo.ini").write_text(text)
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text("1,1,2,3,10,12,1,1,1\n2,1,3,3,10,12,1,1,1\n")
    return folder


def break_image(path: Path, how: str) -> None:
    if how == "cut":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif how == "garbage":
        path.write_bytes(b"<html>not found</html>")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        cv2.imwrite(str(path), np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8))
