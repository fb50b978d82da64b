"""Tracks of a split whose ground truth a server keeps, zipped as the server takes them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from fdta.data.motchallenge import read_boxes, read_sequence_map
from fdta.errors import InputError
from fdta.files import whole_file

DIGEST = 12
"""How many hexadecimal digits of its SHA-256 tell a submission from others."""


def write_submission(sequence_map: Path, tracks: Path, output: Path, folder: str = "") -> str:
    """Zip ``tracks/SEQUENCE.txt`` of every sequence of `sequence_map`; the same tracks give the same bytes.

    Args:
        sequence_map: list of the split's sequences, data/DATASET/seqmaps/SPLIT.txt.
        tracks: folder of the tracks.
        output: zip file to write.
        folder: of the tracks in the zip; none if empty.

    Returns:
        The `submission_digest` of the file.

    Raises:
        InputError: the list cannot be read, or the tracks of a sequence are missing or malformed.
    """
    names = read_sequence_map(sequence_map)
    for name in names:
        path = tracks / f"{name}.txt"
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; a submission needs all {len(names)} sequences of {sequence_map}, track them"
            )
        read_boxes(path)
    with whole_file(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in names:
            # A ZipInfo without a time of its own stands for 1980: no two writings differ.
            entry = zipfile.ZipInfo(f"{folder}/{name}.txt" if folder else f"{name}.txt")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (tracks / f"{name}.txt").read_bytes())
    return submission_digest(output)


def submission_digest(path: Path) -> str:
    """What tells the submission `path` from others."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST]
