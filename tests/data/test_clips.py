"""Still images as clips, and what carries clips to the model."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fdta.data.augmentation import Frame, pan
from fdta.data.clips import ClipDataset, ClipSampler, collate
from fdta.data.images import to_tensor
from fdta.data.motchallenge import Sequence
from fdta.data.settings import AugmentationSettings, ClipSettings
from fdta.data.targets import Targets
from fdta.errors import InputError
from fdta.experiment.settings import Settings

PLAIN = AugmentationSettings(
    flip=0, crop=0, short_sides=(48,), long_side=64, brightness=0, contrast=0, saturation=0, hue=0
)


def _sequence(folder: Path, frames: int) -> None:
    """Noise of 64 x 48 pixels with two boxes in every frame."""
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    (folder / "depth").mkdir()
    random = np.random.default_rng(frames)
    for frame in range(1, frames + 1):
        image = random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"img1/{frame:08d}.jpg"), image)
        cv2.imwrite(str(folder / f"depth/{frame:08d}.png"), image[..., 0])
    rows = [f"{frame},{i},{10 * i},{8 * i},16,20,1,1,1\n" for frame in range(1, frames + 1) for i in (1, 2)]
    (folder / "gt/gt.txt").write_text("".join(rows))
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nseqLength={frames}\nimWidth=64\nimHeight=48\n")


@pytest.fixture
def data(tmp_path):
    _sequence(tmp_path / "data/dance/train/a", 7)
    _sequence(tmp_path / "data/crowd/train/still", 1)
    return tmp_path / "data"


def _dataset(data: Path, length: int, stills: tuple[str, ...] = ("crowd/train",)) -> ClipDataset:
    clip = ClipSettings(intervals=(1, 2), stills=stills)
    settings = dataclasses.replace(Settings(), history=5, augmentation=PLAIN, clip=clip)
    return ClipDataset(data / "dance", ("train",), settings, length, True, False, None, 0)


def test_stills_are_trained_on_where_the_settings_name_them(data):
    assert {sequence for sequence, _ in _dataset(data, 5, ()).sampler.epoch(0)} == {0}
    with_stills = _dataset(data, 5)
    clips = with_stills.sampler.epoch(0)
    assert sorted(frames[0] for sequence, frames in clips if sequence == 0) == [1, 2, 3]
    assert [frames for sequence, frames in clips if sequence == 1] == [(1,) * 5]
    assert [frames for sequence, frames in _dataset(data, 1).sampler.epoch(0) if sequence == 1] == [(1,)]
    with pytest.raises(InputError, match="nowhere"):
        _dataset(data, 5, ("nowhere/train",))


def test_still_becomes_a_clip_of_shifts(data):
    dataset = _dataset(data, 5)
    moved = 0
    for position in range(8):
        batch = dataset.clip(0, position, 1, (1,) * 5)
        assert batch.images.shape == (5, 3, 48, 64) and batch.depth.shape == (5, 48, 64)
        assert all(target.identities.tolist() == [1, 2] for target in batch.targets)
        moved += not torch.equal(batch.images[0], batch.images[-1])
        again = dataset.clip(0, position, 1, (1,) * 5)
        assert torch.equal(again.images, batch.images)
    assert moved >= 6
    # As detection of single frames has it, nothing moves.
    still = _dataset(data, 1).clip(0, 0, 1, (1,))
    assert torch.equal(still.images[0].permute(1, 2, 0), torch.from_numpy(dataset.sequences[1].image(1)))


def test_pan_moves_image_depth_and_boxes_alike():
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:110] = 255
    boxes = np.array([[90.0, 40, 110, 60]])
    still = Frame(image, image[..., 0].copy(), boxes, np.array([4]))
    forwards = set()
    for seed in range(12):
        frames = pan(still, 6, 0.06, np.random.default_rng(seed))
        ends = [np.array_equal(frames[i].image, image) for i in (0, -1)]
        forwards.add(ends[0])
        for before, after in itertools.pairwise(frames):
            width, other = (f.boxes_xyxy[0, 2] - f.boxes_xyxy[0, 0] for f in (before, after))
            assert 0.9 <= other / width <= 1.1
        for frame in frames:
            rows, columns = np.nonzero(frame.depth > 127)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert frame.image.shape == image.shape
            assert np.abs(np.subtract(found, frame.boxes_xyxy[0])).max() <= 1.5
        assert any(ends)
    assert forwards == {True, False}


def test_pan_that_would_lose_every_object_does_not_move():
    image = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    still = Frame(image, None, np.array([[0.0, 0, 3, 3]]), np.array([4]))
    kinds = set()
    for seed in range(20):
        frames = pan(still, 30, 0.06, np.random.default_rng(seed))
        assert all(len(frame.identities) == 1 for frame in frames)
        kinds.add(np.array_equal(frames[0].image, frames[-1].image))
    assert kinds == {True, False}


def test_images_are_carried_as_bytes_and_normalized_where_the_model_is(data):
    dataset = _dataset(data, 5)
    clip = dataset.clip(0, 0, 0, (1, 2, 3, 4, 5))
    small = dataclasses.replace(
        clip, images=clip.images[:, :, :40, :50], padding=clip.padding[:, :40, :50], depth=clip.depth[:, :40, :50]
    )
    batch = collate([clip, small])
    assert batch.images.dtype == torch.uint8
    moved = batch.to(torch.device("cpu"))
    expected = to_tensor(clip.images[2].permute(1, 2, 0).numpy())
    assert torch.equal(moved.images[2], expected)
    assert torch.equal(moved.images[7][:, :40, :50], expected[:, :40, :50])
    assert (moved.images[5:][:, :, 40:] == 0).all() and (moved.images[5:][..., 50:] == 0).all()
    assert torch.equal(moved.to(torch.device("cpu")).images, moved.images)


def test_clips_of_reduced_images_are_the_same_but_for_the_decoding(data, monkeypatch):
    small = dataclasses.replace(PLAIN, flip=1.0, short_sides=(20,))
    dataset = _dataset(data, 5)
    dataset.settings = dataclasses.replace(dataset.settings, augmentation=small)
    for image in (data / "dance/train/a/img1").iterdir():
        cv2.imwrite(str(image), cv2.GaussianBlur(cv2.imread(str(image)), (0, 0), 3))
    shapes = []
    decode = Sequence.image

    def watched(sequence, frame, enough=None):
        image = decode(sequence, frame, enough)
        shapes.append(image.shape)
        return image

    monkeypatch.setattr(Sequence, "image", watched)
    reduced = dataset.clip(0, 0, 0, (1, 2, 3, 4, 5))
    monkeypatch.setattr(Sequence, "image", lambda sequence, frame, enough: watched(sequence, frame))
    full = dataset.clip(0, 0, 0, (1, 2, 3, 4, 5))
    assert shapes == [(24, 32, 3)] * 5 + [(48, 64, 3)] * 5
    assert reduced.images.shape == full.images.shape == (5, 3, 20, 27)
    assert (reduced.images.float() - full.images.float()).abs().mean() < 2
    assert (reduced.depth.float() - full.depth.float()).abs().mean() < 8
    for one, other in zip(reduced.targets, full.targets, strict=True):
        assert torch.equal(one.boxes_cxcywh, other.boxes_cxcywh) and len(one.identities) == 2


def test_a_clip_travels_whole_in_few_tensors(data):
    clip = _dataset(data, 5).clip(0, 0, 0, (1, 2, 3, 4, 5))
    emptied = clip.targets[1]
    none = Targets(emptied.boxes_cxcywh[:0], emptied.identities[:0], None)
    clip = dataclasses.replace(clip, targets=[clip.targets[0], none, *clip.targets[2:]])
    *carried, joined, seeds = clip.__reduce__()[1]
    assert len([x for x in (*carried, *joined) if isinstance(x, torch.Tensor)]) == 5 and seeds == clip.seeds
    for other in (pickle.loads(pickle.dumps(clip)), clip.to(torch.device("cpu"))):
        assert [len(t.identities) for t in other.targets] == [2, 0, 2, 2, 2]
        for one, two in zip(clip.targets, other.targets, strict=True):
            assert torch.equal(one.boxes_cxcywh, two.boxes_cxcywh) and torch.equal(one.identities, two.identities)
        assert torch.equal(clip.depth, other.depth) and torch.equal(clip.padding, other.padding)
        assert other.seeds == clip.seeds
    assert torch.equal(pickle.loads(pickle.dumps(clip)).images, clip.images)
    assert collate([clip]) is clip


def test_digest_tells_data_apart(data):
    digests = [_dataset(data, 5).digest(), _dataset(data, 5, ()).digest()]
    assert _dataset(data, 5).digest() == digests[0]
    truth = data / "dance/train/a/gt/gt.txt"
    truth.write_text(truth.read_text().replace("3,1,10,8,16,20", "3,1,11,8,16,20"))
    digests.append(_dataset(data, 5).digest())
    image = data / "dance/train/a/img1/00000007.jpg"
    cv2.imwrite(str(image), np.zeros((48, 64, 3), np.uint8))
    digests.append(_dataset(data, 5).digest())
    assert len(set(digests)) == 4


def test_truth_of_every_frame(data):
    (first, *_) = _dataset(data, 5).truth
    assert [len(boxes) for boxes, _ in first] == [0] + [2] * 7
    assert all(identities.tolist() == [1, 2] for _, identities in first[1:])
    assert first[4][0].tolist() == [[10, 8, 26, 28], [20, 16, 36, 36]]


def test_stills_leave_the_other_clips_as_they_are():
    plain = ClipSampler([np.ones(9, bool)], 3, (1, 2), None, seed=4).epoch(0)
    assert all(len(set(np.diff(frames))) == 1 for _, frames in plain)
    mixed = ClipSampler([np.ones(9, bool), np.ones(2, bool)], 3, (1, 2), None, seed=4, stills=(1,)).epoch(0)
    assert sorted(frames for sequence, frames in mixed if sequence == 1) == [(1, 1, 1), (2, 2, 2)]
    assert {f[0] for s, f in mixed if s == 0} == {f[0] for _, f in plain}
