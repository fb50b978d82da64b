from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.sequences import HEIGHT, WIDTH, break_image, make_sequence

from fdta.data.motchallenge import Boxes, Sequence, read_boxes, read_sequence, read_split, write_boxes
from fdta.errors import InputError


def gt(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gt.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1, 0, 599, 235, 51, 130, 1, 1, 1\n", [1, 0, 599, 235, 51, 130, 1]),  # SportsMOT
        ("1,0,818.50,366.04,65.92,114.02,0.83,-1,-1,-1\n", [1, 0, 818.5, 366.04, 65.92, 114.02, 0.83]),  # tracks
        ("1,7,-4.5,3,10,12\r\n", [1, 7, -4.5, 3, 10, 12, 1]),
        ("\n\n1,7,4,3,10,12,0,3\n   \n", [1, 7, 4, 3, 10, 12, 0]),
        ("\ufeff1.0, 7.0, 4e0, 3, 10, 12, 1", [1, 7, 4, 3, 10, 12, 1]),
    ],
)
def test_forms_of_lines(tmp_path, text, expected) -> None:
    boxes = read_boxes(gt(tmp_path, text))
    assert [*boxes.frames, *boxes.identities, *boxes.boxes_xywh[0], *boxes.scores] == pytest.approx(expected)
    assert (boxes.frames.dtype, boxes.identities.dtype) == (np.int64, np.int64)
    assert boxes.boxes_xywh.shape == (1, 4)


def test_rows_are_sorted(tmp_path) -> None:
    boxes = read_boxes(gt(tmp_path, "2,1,1,1,5,5\n1,9,2,2,5,5\n1,3,3,3,5,5\n10,1,4,4,5,5\n"))
    assert boxes.frames.tolist() == [1, 1, 2, 10]
    assert boxes.identities.tolist() == [3, 9, 1, 1]
    assert boxes.boxes_xywh[:, 0].tolist() == [3, 2, 1, 4]


def test_empty_file_has_no_boxes(tmp_path) -> None:
    assert read_boxes(gt(tmp_path, "")).boxes_xywh.shape == (0, 4)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("1,2,3,4,5", "5 instead of 6 to 10 columns"),
        ("1,2,3,4,5,6,7,8,9,10,11", "11 instead of"),
        ("1 2 3 4 5 6", "1 instead of"),
        ("1,2,3,4,five,6", "'five', not a number"),
        ("1,2,,4,5,6", "not a number"),
        ("1,2,nan,4,5,6", "not a number"),
        ("1,2,3,4,5,6,inf", "not a number"),
        ("1.5,2,3,4,5,6", "whole numbers"),
        ("0,2,3,4,5,6", "frame 0 is outside 1..20"),
        ("21,2,3,4,5,6", "frame 21 is outside 1..20"),
        ("1,2,3,4,0,6", "width 0"),
        ("1,2,3,4,5,-6", "height -6"),
        ("1,1,9,9,9,9", "identity 1 is already in frame 1 (line 1)"),
    ],
)
def test_bad_lines_are_named(tmp_path, bad, complaint) -> None:
    path = gt(tmp_path, f"1,1,2,3,4,5\n{bad}\n")
    with pytest.raises(InputError) as caught:
        read_boxes(path, frames=20)
    message = str(caught.value)
    assert f"{path}, line 2: " in message and complaint in message and "\n" not in message


def test_frames_have_no_end_unless_given(tmp_path) -> None:
    assert read_boxes(gt(tmp_path, "2100,2,3,4,5,6\n")).frames.tolist() == [2100]


def test_missing_and_binary_files(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_boxes(tmp_path / "none.txt")
    path = tmp_path / "gt.txt"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_boxes(path)


def test_written_boxes_come_back(tmp_path) -> None:
    boxes = Boxes(
        np.array([1, 1, 3]),
        np.array([0, 4, 4]),
        np.array([[1.25, -2, 3, 4], [5, 6, 7.5, 8], [9, 9, 9, 9]]),
        np.array([1, 0.5, 0.125]),
        np.array([1, 1, 1]),
    )
    write_boxes(tmp_path / "deep" / "a.txt", boxes)
    first = (tmp_path / "deep" / "a.txt").read_text().splitlines()[0]
    assert first == "1,0,1.25,-2.00,3.00,4.00,1.000,-1,-1,-1"
    again = read_boxes(tmp_path / "deep" / "a.txt")
    for name in ("frames", "identities", "boxes_xywh", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(boxes, name))


@pytest.mark.parametrize(("digits", "extension"), [(8, ".jpg"), (6, ".jpg"), (6, ".png")])
def test_sequence(tmp_path, digits, extension) -> None:
    sequence = read_sequence(make_sequence(tmp_path / "a", digits=digits, extension=extension))
    assert (sequence.name, sequence.frames, sequence.width, sequence.height, sequence.rate) == ("a", 3, 32, 24, 25)
    assert sequence.image_path(2) == tmp_path / "a" / "img1" / f"{2:0{digits}d}{extension}"
    image = sequence.image(3)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image.mean(axis=(0, 1)), [120, 0, 0], atol=3)
    assert sequence.ground_truth().frames.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name=a\n", "malformed"),
        ("[Sequence]\nseqLength=3\nimWidth=32\n", "imHeight"),
        ("[Sequence]\nseqLength=three\nimWidth=32\nimHeight=24\n", "three"),
        ("[Sequence]\nseqLength=0\nimWidth=32\nimHeight=24\n", "sequence is empty"),
        ("[Sequence]\nseqLength=3\nimWidth=0\nimHeight=24\n", "must be above 0"),
        ("[Sequence]\nseqLength=4\nimWidth=32\nimHeight=24\n", "frame 4 of 4 is missing"),
    ],
)
def test_bad_seqinfo(tmp_path, text, complaint) -> None:
    folder = make_sequence(tmp_path / "a", text=text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_sequence(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_parts(tmp_path) -> None:
    folder = make_sequence(tmp_path / "a")
    image = folder / "img1" / "00000002.jpg"
    image.unlink()
    with pytest.raises(InputError, match=r"00000002\.jpg: frame 2 of 3 is missing"):
        read_sequence(folder)
    for path in (folder / "img1").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no images"):
        read_sequence(folder)
    (folder / "seqinfo.ini").unlink()
    with pytest.raises(InputError, match=r"seqinfo\.ini: no such file"):
        read_sequence(folder)


@pytest.mark.parametrize(
    ("how", "complaint"), [("cut", "cut short"), ("garbage", "no image"), ("empty", "no image"), ("size", "32 x 25")]
)
def test_broken_images_are_refused_on_reading(tmp_path, how, complaint) -> None:
    sequence = read_sequence(make_sequence(tmp_path / "a"))
    break_image(sequence.image_path(2), how)
    sequence.image(1)
    with pytest.raises(InputError, match=complaint) as caught:
        sequence.image(2)
    assert str(sequence.image_path(2)) in str(caught.value)


def test_depth_in_the_published_colours(tmp_path) -> None:
    sequence = read_sequence(make_sequence(tmp_path / "a"))
    depth = np.arange(HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)  # all of 0..255
    coloured = cv2.applyColorMap(depth, cv2.COLORMAP_INFERNO)
    (sequence.folder / "depth").mkdir()
    cv2.imwrite(str(sequence.folder / "depth" / "00000001.png"), coloured)
    np.testing.assert_array_equal(sequence.depth(1), depth)
    coloured[3, 4] = (0, 255, 0)
    cv2.imwrite(str(sequence.folder / "depth" / "00000002.png"), coloured)
    with pytest.raises(InputError, match="inferno"):
        sequence.depth(2)


def test_depth(tmp_path) -> None:
    sequence = read_sequence(make_sequence(tmp_path / "a"))
    with pytest.raises(InputError, match="fdta depth"):
        sequence.depth(1)
    depth = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    (sequence.folder / "depth").mkdir()
    cv2.imwrite(str(sequence.folder / "depth" / "00000001.png"), depth)
    np.testing.assert_array_equal(sequence.depth(1), depth)
    cv2.imwrite(str(sequence.folder / "depth" / "00000002.png"), depth.astype(np.uint16))
    with pytest.raises(InputError, match="8-bit"):
        sequence.depth(2)


def test_depth_of_a_part_of_the_pixels(tmp_path) -> None:
    sequence = read_sequence(make_sequence(tmp_path / "a"))
    (sequence.folder / "depth").mkdir()
    for frame, shape in enumerate(((HEIGHT // 2, WIDTH // 2), (HEIGHT // 2, WIDTH), (HEIGHT * 2, WIDTH * 2)), start=1):
        cv2.imwrite(str(sequence.depth_path(frame)), np.zeros(shape, np.uint8))
    assert sequence.depth(1).shape == (HEIGHT // 2, WIDTH // 2)
    for frame in (2, 3):
        with pytest.raises(InputError, match=r"seqinfo\.ini says"):
            sequence.depth(frame)


def _smooth(folder: Path, width: int, height: int, extension: str = ".jpg") -> Sequence:
    """One frame without fine structure."""
    (folder / "img1").mkdir(parents=True)
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / f"img1/00000001{extension}"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nseqLength=1\nimWidth={width}\nimHeight={height}\n")
    return read_sequence(folder)


def test_images_are_decoded_no_larger_than_needed(tmp_path) -> None:
    sequence = _smooth(tmp_path / "a", 192, 128)
    full = sequence.image(1)
    for enough, shape in (((96, 64), (64, 96)), ((97, 40), (128, 192)), ((30, 20), (32, 48)), ((9, 9), (16, 24))):
        image = sequence.image(1, enough)
        assert image.shape == (*shape, 3)
        expected = cv2.resize(full, shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - expected).mean() < 3
    # Where a pixel would not be 2 x 2 of the file's, or the file is no JPEG.
    assert _smooth(tmp_path / "b", 191, 128).image(1, (20, 20)).shape == (128, 191, 3)
    assert _smooth(tmp_path / "c", 192, 130).image(1, (20, 20)).shape == (65, 96, 3)
    assert np.array_equal(_smooth(tmp_path / "d", 192, 128, ".png").image(1, (9, 9)).shape, (128, 192, 3))


def test_reduced_decoding_finds_what_full_decoding_does(tmp_path) -> None:
    folder = _smooth(tmp_path / "a", 191, 128).folder
    (folder / "seqinfo.ini").write_text("[Sequence]\nseqLength=1\nimWidth=192\nimHeight=128\n")
    with pytest.raises(InputError, match=r"191 x 128 pixels, but seqinfo\.ini says 192 x 128"):
        read_sequence(folder).image(1, (20, 20))
    path = _smooth(tmp_path / "b", 192, 128).image_path(1)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match="cut short"):
        read_sequence(tmp_path / "b").image(1, (20, 20))
    path = _smooth(tmp_path / "c", 192, 128).image_path(1)
    turned = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06" + bytes(6)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(turned) + 2).to_bytes(2) + turned + data[2:])
    with pytest.raises(InputError, match="128 x 192 pixels"):
        read_sequence(tmp_path / "c").image(1, (20, 20))


def test_split(tmp_path) -> None:
    for name in ("b", "a", ".unfinished"):
        make_sequence(tmp_path / "train" / name)
    assert [sequence.name for sequence in read_split(tmp_path / "train")] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no sequence"):
        read_split(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        read_split(tmp_path / "none")


def test_a_tiny_box_survives_writing(tmp_path):
    tiny = Boxes(np.array([1]), np.array([4]), np.array([[5.0, 6.0, 1e-4, 2.0]]), np.array([0.5]), np.array([1]))
    write_boxes(tmp_path / "tracks.txt", tiny)
    assert read_boxes(tmp_path / "tracks.txt").boxes_xywh.tolist() == [[5.0, 6.0, 0.01, 2.0]]
