"""10,000 draws against the distributions that docs/model.md states (Clips and augmentation, ID labels in training)."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from fdta.data.augmentation import Augmentation, Frame, crop, draw_augmentation, flip, jitter, pan, resize_frame
from fdta.data.clips import ClipSampler
from fdta.data.identities import assign_identities
from fdta.data.settings import AugmentationSettings, ClipSettings

DRAWS = 10_000
LEAST = 1e-4
"""Of all probabilities below; seeds are fixed, so that a test that passes once passes always."""


def is_uniform(drawn: Iterable[Hashable], values: Sequence[Hashable]) -> bool:
    """Whether `drawn` are of `values`, and each as often as the others as far as chance allows."""
    counts = Counter(drawn)
    assert set(counts) <= set(values)
    return bool(stats.chisquare([counts[value] for value in values]).pvalue > LEAST)


def is_share(number: int, of: int, share: float) -> bool:
    return bool(stats.binomtest(int(number), int(of), share).pvalue > LEAST)


def is_even(drawn: Sequence[float], low: float, high: float) -> bool:
    """Whether `drawn` are spread evenly from `low` to `high`."""
    return bool(stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > LEAST)


@pytest.fixture(scope="module")
def augmentations() -> list[Augmentation]:
    """Of clips of 1920 x 1080 whose boxes are everywhere, with the published settings."""
    everywhere = [np.array([[0.0, 0.0, 1920.0, 1080.0]])]
    generator = np.random.default_rng(0)
    return [draw_augmentation(AugmentationSettings(), 1920, 1080, everywhere, generator) for _ in range(DRAWS)]


def drawn(augmentations: list[Augmentation], function: object, place: int = 0) -> list[dict]:
    """Arguments of the change by `function`, of those augmentations that have it."""
    found = []
    for augmentation in augmentations:
        with_it = [each.keywords for each in augmentation.changes if getattr(each, "func", None) is function]
        found += [with_it[place]] if with_it else []
    return found


def test_half_are_flipped(augmentations) -> None:
    assert is_share(sum(flip in each.changes for each in augmentations), DRAWS, 0.5)


def test_half_are_cropped_anywhere_to_sizes_from_384_to_600(augmentations) -> None:
    cropped = [each for each in augmentations if drawn([each], crop)]
    assert is_share(len(cropped), DRAWS, 0.5)
    before = [(each["width"], each["height"]) for each in drawn(cropped, resize_frame)]
    assert is_uniform(before, [(711, 400), (889, 500), (1067, 600)])
    parts = drawn(cropped, crop)
    assert is_uniform([part["width"] for part in parts], range(384, 601))
    for (width, height), most in (((711, 400), 400), ((889, 500), 500), ((1067, 600), 600)):
        these = [part for part, size in zip(parts, before, strict=True) if size == (width, height)]
        assert is_uniform([part["height"] for part in these], range(384, most + 1))
        # A uniform whole number from 0 to n, and less than one added: a uniform number from 0 to n + 1.
        shift = np.random.default_rng(1).random(len(these))
        for start, size, side in (("left", "width", width), ("top", "height", height)):
            shares = [(each[start] + more) / (side - each[size] + 1) for each, more in zip(these, shift, strict=True)]
            assert is_even(shares, 0, 1)


def test_short_sides_are_from_480_to_800_and_long_ones_at_most_1440(augmentations) -> None:
    plain = [each for each in augmentations if not drawn([each], crop)]
    sizes = [(each["width"], each["height"]) for each in drawn(plain, resize_frame)]
    assert is_uniform([height for _, height in sizes], range(480, 801, 32))
    assert all(width == round(height * 16 / 9) for width, height in sizes)
    last = [(each["width"], each["height"]) for each in drawn(augmentations, resize_frame, place=-1)]
    assert max(map(max, last)) <= 1440
    assert min(map(min, last)) >= 480


@pytest.mark.parametrize(("size", "short", "expected"), [
    ((1920, 1080), 480, (853, 480)),
    ((1920, 1080), 608, (1081, 608)),
    ((1080, 1920), 608, (608, 1081)),
    ((1920, 800), 800, (1440, 600)),
    ((1000, 1000), 512, (512, 512)),
])  # fmt: skip
def test_the_long_side_is_rounded_to_the_nearest_pixel(size, short, expected) -> None:
    settings = AugmentationSettings(crop=0.0, short_sides=(short,))
    (change,) = drawn([draw_augmentation(settings, *size, [], np.random.default_rng(0))], resize_frame)
    assert (change["width"], change["height"]) == expected


def test_colours_change_in_every_order_and_up_to_their_settings(augmentations) -> None:
    adjustments = [each["adjustments"] for each in drawn(augmentations, jitter)]
    assert len(adjustments) == DRAWS
    names = ("brightness", "contrast", "saturation", "hue")
    assert is_uniform([tuple(name for name, _ in each) for each in adjustments], list(itertools.permutations(names)))
    for name in names[:3]:
        assert is_even([dict(each)[name] for each in adjustments], 0.6, 1.4)
    assert is_even([dict(each)["hue"] for each in adjustments], -0.2, 0.2)


def test_a_crop_that_leaves_a_frame_without_a_box_is_not_made() -> None:
    settings = AugmentationSettings(flip=0.5, crop=1.0)
    # The second frame has one box, in a corner that most crops do not reach.
    boxes = [np.array([[0.0, 0.0, 1920.0, 1080.0]]), np.array([[0.0, 0.0, 60.0, 60.0]])]
    image = np.zeros((1080, 1920, 3), np.uint8)
    frames = [Frame(image, None, each, np.arange(1)) for each in boxes]
    generator = np.random.default_rng(0)
    augmentations = [draw_augmentation(settings, 1920, 1080, boxes, generator) for _ in range(200)]
    cropped = [bool(drawn([each], crop)) for each in augmentations]
    assert 0 < sum(cropped) < 100
    for augmentation in augmentations[:40]:
        assert all(len(augmentation(frame).identities) for frame in frames)
    # What is not cropped was resized all the same.
    kept = next(each for each, was in zip(augmentations, cropped, strict=True) if not was)
    assert [each.func for each in kept.changes if each is not flip] == [resize_frame, resize_frame, jitter]
    everything = [draw_augmentation(settings, 1920, 1080, boxes[:1], generator) for _ in range(50)]
    assert all(drawn([each], crop) for each in everything)


def test_steps_are_drawn_from_1_to_4_and_cut_to_what_fits() -> None:
    length, frames = 4, 24
    sampler = ClipSampler([np.ones(frames, bool)], length, (1, 4), DRAWS, seed=0)
    steps: dict[int, list[int]] = {}
    for _, clip in sampler.epoch(0):
        steps.setdefault(clip[0], []).append(clip[1] - clip[0])
        assert clip == tuple(range(clip[0], clip[0] + (clip[1] - clip[0]) * (length - 1) + 1, clip[1] - clip[0]))
    counts = {start: len(found) for start, found in steps.items()}
    assert set(counts) == set(range(1, frames - length + 2)) and max(counts.values()) - min(counts.values()) <= 1
    for start, found in steps.items():
        longest = (frames - start) // (length - 1)
        assert max(found) <= min(4, longest)
        for step in range(1, min(4, longest) + 1):
            share = 0.25 if step < longest else (5 - step) / 4
            assert is_share(found.count(step), len(found), share)


def test_clips_with_a_frame_that_is_not_usable_are_left_out() -> None:
    usable = np.ones(12, bool)
    usable[5] = False  # Frame 6.
    sampler = ClipSampler([usable, np.zeros(7, bool)], 3, (1, 2), None, seed=0)
    clips = [clip for epoch in range(200) for clip in sampler.epoch(epoch)]
    assert not any(6 in frames for _, frames in clips) and {sequence for sequence, _ in clips} == {0}
    # From frame 2, 4 is a step of 2 without 6, and from 5 every clip has 6 or 7: 5, 6, 7 and 5, 7, 9.
    assert {frames for _, frames in clips} == {
        frames for start in range(1, 11) for step in (1, 2)
        if (frames := tuple(range(start, start + 2 * step + 1, step)))[-1] <= 12 and 6 not in frames
    }  # fmt: skip
    assert sampler.possible == 10 + 5 and sampler.starts == sampler.clips == len({frames[0] for _, frames in clips})
    assert all(len(sampler.epoch(epoch)) == sampler.clips for epoch in range(20))


def test_shifts_of_stills_reach_6_percent_and_half_run_backwards() -> None:
    still = Frame(np.zeros((50, 100, 3), np.uint8), None, np.array([[45.0, 20.0, 55.0, 30.0]]), np.arange(1))
    generator = np.random.default_rng(0)
    clips = [[frame.boxes_xyxy[0] for frame in pan(still, 2, 0.06, generator)] for _ in range(DRAWS)]
    moved = [clip for clip in clips if not np.array_equal(*clip)]
    # 13 x 7 shifts in whole pixels, one of which is none.
    assert is_share(len(moved), DRAWS, 1 - 1 / 91)
    forwards = [clip for clip in moved if np.array_equal(clip[0], still.boxes_xyxy[0])]
    assert is_share(len(forwards), len(moved), 0.5)
    # What is shifted by n of 100 pixels is enlarged by 100 / (100 - n), and leaves at the other side.
    shifts = []
    for _, (left, top, right, bottom) in forwards:
        across, down = 100 - 1000 / (right - left), 50 - 500 / (bottom - top)
        backwards = (right + left < 100, bottom + top < 50)
        signs = [-1 if each else 1 for each in backwards]
        shifts.append((round(signs[0] * across), round(signs[1] * down)))
    assert {abs(across) for across, _ in shifts} == set(range(7)) and {abs(down) for _, down in shifts} == set(range(4))
    apart = [each for each in itertools.product(range(-6, 7), range(-3, 4)) if each != (0, 0)]
    assert is_uniform(shifts, apart)


@pytest.fixture(scope="module")
def present() -> torch.Tensor:
    """5 frames of 4 identities; the last one misses a frame."""
    seen = torch.ones(5, 4, dtype=torch.bool)
    seen[2, 3] = False
    return seen


def groups_of(present: torch.Tensor, labels: int = 6, **settings: float):
    clip = ClipSettings(groups=DRAWS, **{"occlusion": 0.0, "switch": 0.0, **settings})
    return assign_identities(present, clip, labels, torch.Generator().manual_seed(0))


def test_labels_are_distinct_and_all_assignments_as_likely(present) -> None:
    drawn = groups_of(present).labels.tolist()
    assert is_uniform(map(tuple, drawn), list(itertools.permutations(range(6), 4)))


def test_of_too_many_identities_any_are_chosen() -> None:
    chosen = []
    for seed in range(2_000):
        generator = torch.Generator().manual_seed(seed)
        drawn = assign_identities(torch.ones(2, 5, dtype=torch.bool), ClipSettings(groups=2), 3, generator)
        labelled = drawn.labels < 3
        assert torch.equal(labelled[0], labelled[1])
        chosen.append(tuple(labelled[0].nonzero().flatten().tolist()))
    assert is_uniform(chosen, list(itertools.combinations(range(5), 3)))


def test_occlusions_begin_anywhere_and_take_a_share_of_what_follows(present) -> None:
    frames = len(present)
    missing = groups_of(present, occlusion=0.5).missing_history[..., 0]
    lengths = missing.sum(dim=1)
    runs = [tuple(row) for row in missing.tolist()]
    expected = Counter({(False,) * frames: 0.5})
    for begin in range(frames):
        left = frames - 1 - begin
        for length in range(1, left + 1):
            row = tuple(begin <= t < begin + length for t in range(frames))
            expected[row] += 0.5 / frames / left
        if not left:
            expected[(False,) * frames] += 0.5 / frames
    assert set(runs) == set(expected) and math.isclose(expected.total(), 1)
    counts = Counter(runs)
    test = stats.chisquare([counts[row] for row in expected], [DRAWS * share for share in expected.values()])
    assert test.pvalue > LEAST and lengths.max() == frames - 1


def test_switches_permute_the_chosen_evenly(present) -> None:
    groups = groups_of(present, switch=0.5)
    orders = [tuple(row) for row in groups.source[:, 1].tolist()]
    expected: Counter[tuple[int, ...]] = Counter()
    for size in range(5):
        for chosen in itertools.combinations(range(4), size):
            for order in itertools.permutations(chosen):
                row = list(range(4))
                for slot, source in zip(chosen, order, strict=True):
                    row[slot] = source
                expected[tuple(row)] += 1 / 16 / math.factorial(size)
    counts = Counter(orders)
    assert set(counts) <= set(expected) and math.isclose(expected.total(), 1)
    test = stats.chisquare([counts[row] for row in expected], [DRAWS * share for share in expected.values()])
    assert test.pvalue > LEAST
    # Absence travels with what is exchanged.
    absent = groups.missing_history[:, 2]
    assert torch.equal(absent, groups.source[:, 2] == 3)
    assert not groups.missing_current[:, 2, :3].any() and groups.missing_current[:, 2, 3].all()
