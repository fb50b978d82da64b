from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fdta.data.motchallenge import Sequence, read_boxes, read_sequence
from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model.detector import DetectorOutput
from fdta.model.fdta import FDTA
from fdta.model.settings import AssociationSettings, BackboneSettings, DetectorSettings, TemporalSettings
from fdta.track.detections import read_detections
from fdta.track.pipeline import Tracker
from fdta.track.run import Part, track_sequence, track_split
from fdta.track.settings import TrackerSettings

torch.set_num_threads(1)
SETTINGS = Settings(
    history=4,
    backbone=BackboneSettings(block="basic", norm="group", stem_width=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1)),
    detector=DetectorSettings(
        width=16, heads=2, norm_groups=4, queries=6, encoder_layers=1, decoder_layers=1, feedforward=16
    ),
    temporal=TemporalSettings(layers=1, heads=2, feedforward=16),
    association=AssociationSettings(labels=5, label_width=16, layers=1, heads=2),
    tracker=TrackerSettings(short_side=48, long_side=96),
)


class BrightSpot(nn.Module):
    """Detects the bright rectangle of an image (score 0.95), a shadow of it (0.2) and nothing (0.05)."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, padding: Tensor | None = None) -> DetectorOutput:
        assert padding is None
        self.batches.append(tuple(images.shape))
        boxes = torch.zeros(len(images), 3, 4)
        for box, bright in zip(boxes, images.mean(dim=1) > 0, strict=True):
            (y1, x1), (y2, x2) = bright.nonzero().aminmax(dim=0)
            box[:] = torch.tensor([x1 + x2 + 1, y1 + y2 + 1, 2 * (x2 + 1 - x1), 2 * (y2 + 1 - y1)]) / 2
        boxes /= torch.tensor([images.shape[3], images.shape[2]] * 2)
        logits = torch.logit(torch.tensor([0.2, 0.95, 0.05])).expand(len(images), 3)[..., None]
        embeddings = torch.arange(3.0)[:, None].expand(len(images), 3, 16).contiguous()
        return DetectorOutput(logits, boxes, embeddings, [], None, None)


class Scripted(nn.Module):
    """An `FDTA` that sees bright rectangles and gives every object label 0."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = BrightSpot()

    def id_logits(self, *arguments: Tensor) -> Tensor:
        logits = torch.zeros(*arguments[4].shape[:-1], 6)
        logits[..., 0] = 9
        return logits


def write_sequence(folder: Path, frames: int, width: int = 64, height: int = 48) -> None:
    """Frame t shows a rectangle of 16 x 12 pixels whose corner is at (4 t, 12)."""
    (folder / "img1").mkdir(parents=True)
    for frame in range(1, frames + 1):
        image = np.zeros((height, width, 3), dtype=np.uint8)
        image[12:24, 4 * frame : 4 * frame + 16] = 255
        cv2.imwrite(str(folder / "img1" / f"{frame:08d}.png"), image)
    info = f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=20\nseqLength={frames}\n"
    (folder / "seqinfo.ini").write_text(f"{info}imWidth={width}\nimHeight={height}\nimExt=.png\n")


@pytest.fixture
def sequence(tmp_path: Path) -> Sequence:
    write_sequence(tmp_path / "video", 7)
    return read_sequence(tmp_path / "video")


@pytest.mark.parametrize(("short_side", "size"), [(48, (48, 64)), (24, (24, 32)), (96, (72, 96))])
def test_results_are_in_pixels_of_the_original_image(
    sequence: Sequence, short_side: int, size: tuple[int, int]
) -> None:
    model = Scripted()
    settings = dataclasses.replace(SETTINGS, tracker=TrackerSettings(short_side=short_side, long_side=96))
    tracks, detections = track_sequence(Tracker(model, settings), sequence, batch=3)
    assert model.detector.batches == [(3, 3, *size), (3, 3, *size), (1, 3, *size)]
    corners = 4 * np.arange(1, 8)
    tolerance = 0 if size == (48, 64) else 2
    expected = np.column_stack((corners, np.full(7, 12), np.full(7, 16), np.full(7, 12)))
    assert tracks.frames.tolist() == list(range(1, 8))
    assert tracks.identities.tolist() == [0] * 7
    np.testing.assert_allclose(tracks.boxes_xywh, expected, atol=tolerance + 1e-4)
    np.testing.assert_allclose(tracks.scores, 0.95, atol=1e-6)

    assert detections.frames.tolist() == np.repeat(range(1, 8), 2).tolist()
    expected[:, 2:] += expected[:, :2]
    np.testing.assert_allclose(detections.boxes_xyxy, np.repeat(expected, 2, axis=0), atol=tolerance + 1e-4)
    np.testing.assert_allclose(detections.scores, [0.2, 0.95] * 7, atol=1e-6)
    assert detections.embeddings.tolist() == [[0] * 16, [1] * 16] * 7
    kinds = [detections.frames, detections.boxes_xyxy, detections.scores, detections.embeddings]
    assert [kind.dtype for kind in kinds] == [np.int32, np.float32, np.float32, np.float16]


def test_batches_do_not_change_the_result_of_a_model(sequence: Sequence) -> None:
    torch.manual_seed(0)
    model = FDTA(SETTINGS).train()
    with torch.no_grad():  # detections of any score from 0 to 1
        model.detector.class_heads[0].weight *= 8
        model.detector.class_heads[0].bias.zero_()
    tracker = Tracker(model, SETTINGS)
    one, one_detections = track_sequence(tracker, sequence, batch=1)
    all_at_once, detections = track_sequence(tracker, sequence, batch=16)
    assert not model.training
    assert len(one.frames) > 7 and len(one_detections.frames) > 7
    for a, b in zip(vars(one).values(), vars(all_at_once).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    for a, b in zip(vars(one_detections).values(), vars(detections).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2)
    order = np.lexsort((one.identities, one.frames))
    assert order.tolist() == list(range(len(order)))


def test_a_sequence_without_objects_has_empty_files(tmp_path: Path, sequence: Sequence) -> None:
    model = Scripted()
    settings = dataclasses.replace(
        SETTINGS,
        tracker=TrackerSettings(short_side=48, long_side=96, detection_threshold=0.99, record_threshold=0.99),
    )
    track_split(Tracker(model, settings), sequence.folder.parent, tmp_path / "tracks", tmp_path / "detections")
    assert (tmp_path / "tracks" / "video.txt").read_text() == ""
    assert read_detections(tmp_path / "detections" / "video.npz").embeddings.shape == (0, 16)


def test_split_is_tracked_to_files_and_told_line_by_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sequence(tmp_path / "test" / "a", 3)
    write_sequence(tmp_path / "test" / "b", 2)
    tracks, detections = tmp_path / "tracks", tmp_path / "detections"
    with caplog.at_level(logging.INFO, "fdta"):
        track_split(Tracker(Scripted(), SETTINGS), tmp_path / "test", tracks, detections)
    assert caplog.messages == ["a: 3 frames, 1 tracks", "b: 2 frames, 1 tracks"]
    assert read_boxes(tracks / "a.txt").boxes_xywh.tolist() == [[4, 12, 16, 12], [8, 12, 16, 12], [12, 12, 16, 12]]
    assert read_detections(detections / "b.npz").frames.tolist() == [1, 1, 2, 2]
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.suffix in (".txt", ".npz")) == [
        "a.npz",
        "a.txt",
        "b.npz",
        "b.txt",
    ]


def test_an_interrupted_run_resumes_with_the_next_sequence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_sequence(tmp_path / "data" / "test" / name, 2)
    broken = tmp_path / "data/test/b/img1/00000002.png"
    image = broken.read_bytes()
    tracks, detections = tmp_path / "tracks", tmp_path / "detections"

    def track(resume: bool = True) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "fdta"):
            track_split(Tracker(Scripted(), SETTINGS), tmp_path / "data/test", tracks, detections, resume=resume)
        return [message.partition(",")[0] for message in caplog.messages]

    assert track() == ["a: 2 frames", "b: 2 frames"]
    whole = {path.name: path.read_bytes() for path in (*tracks.iterdir(), *detections.iterdir())}
    (tracks / "b.txt").unlink()
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError):
        track()
    broken.write_bytes(image)
    assert track() == ["a: tracked before", "b: 2 frames"]
    assert {path.name: path.read_bytes() for path in (*tracks.iterdir(), *detections.iterdir())} == whole
    assert track(resume=False) == ["a: 2 frames", "b: 2 frames"]


def test_parts_give_what_one_run_gives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c"):
        write_sequence(tmp_path / "data" / "test" / name, 2)

    def track(output: str, part: str | None = None) -> list[str]:
        caplog.clear()
        folder = tmp_path / output
        with caplog.at_level(logging.INFO, "fdta"):
            share = Part.parse(part) if part else None
            places = (folder / "tracks", folder / "detections")
            track_split(Tracker(Scripted(), SETTINGS), tmp_path / "data/test", *places, share, resume=True)
        return [message.partition(",")[0] for message in caplog.messages]

    track("whole")
    assert track("parts", "1/2") == ["a: 2 frames", "c: 2 frames"]
    assert track("parts", "2/2") == ["b: 2 frames"]
    assert track("parts") == ["a: tracked before", "b: tracked before", "c: tracked before"]
    files = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")}
    assert files == {path.relative_to(tmp_path / "parts") for path in (tmp_path / "parts").rglob("*.*")}
    assert all((tmp_path / "parts" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes() for path in files)


@pytest.mark.parametrize("text", ["3/2", "0/2", "2", "a/b", "1/0"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="--part"):
        Part.parse(text)


def test_a_broken_image_is_named_and_leaves_no_file_of_its_sequence(tmp_path: Path) -> None:
    write_sequence(tmp_path / "test" / "a", 2)
    write_sequence(tmp_path / "test" / "b", 12)
    broken = tmp_path / "test" / "b" / "img1" / "00000010.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"00000010\.png"):
        track_split(Tracker(Scripted(), SETTINGS), tmp_path / "test", tmp_path / "tracks", tmp_path / "detections")
    assert [path.name for path in (tmp_path / "tracks").iterdir()] == ["a.txt"]
    assert [path.name for path in (tmp_path / "detections").iterdir()] == ["a.npz"]
