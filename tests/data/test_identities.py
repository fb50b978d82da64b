from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.golden_weights import load_golden, published_settings
from torch import Tensor

from fdta.data.identities import IGNORED, IdentityGroups, assign_identities, target_labels
from fdta.data.settings import ClipSettings

LABELS = 20


def draw(present: Tensor, labels: int = LABELS, seed: int = 0, **settings: float) -> IdentityGroups:
    generator = torch.Generator().manual_seed(seed)
    return assign_identities(present, ClipSettings(**settings), labels, generator)


def all_present(frames: int = 8, identities: int = 6) -> Tensor:
    return torch.ones(frames, identities, dtype=torch.bool)


def assert_equal(a: IdentityGroups, b: IdentityGroups) -> None:
    assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_labels_are_distinct_and_differ_between_groups() -> None:
    groups = draw(all_present(), groups=50)
    assert groups.labels.shape == (50, 6)
    assert all(len(set(row)) == 6 for row in groups.labels.tolist())
    assert set(groups.labels.flatten().tolist()) == set(range(LABELS))
    assert len({tuple(row) for row in groups.labels.tolist()}) > 40


def test_the_generator_alone_decides() -> None:
    present = torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    assert_equal(draw(present), draw(present))
    assert not torch.equal(draw(present).source, draw(present, seed=1).source)


def test_more_identities_than_labels() -> None:
    groups = draw(all_present(8, 30), occlusion=0.0, switch=0.5)
    labelled = groups.labels < LABELS
    assert (labelled.sum(-1) == LABELS).all()
    assert (labelled == labelled[0]).all()
    assert all(sorted(row[row < LABELS].tolist()) == list(range(LABELS)) for row in groups.labels)
    assert torch.equal(groups.missing_history, ~labelled[:, None].expand(6, 8, 30))
    assert torch.equal(groups.missing_current, groups.missing_history)
    chosen = {tuple(draw(all_present(8, 30), seed=seed).labels[0].tolist()) for seed in range(4)}
    assert len(chosen) == 4


def test_padding_takes_no_label_and_no_part() -> None:
    present = all_present(8, 30)
    present[:, 5:20] = False
    present[:, 25:] = False
    groups = draw(present, labels=10, groups=30)
    padding = ~present[0]
    assert (groups.labels[:, padding] == 10).all()
    assert (groups.labels[:, ~padding] < 10).all()
    assert groups.missing_history[..., padding].all() and groups.missing_current[..., padding].all()
    columns = torch.arange(30)
    assert (groups.source[..., padding] == columns[padding]).all()
    assert not padding[groups.source[..., ~padding]].any()


def test_occlusion_is_one_run_that_spares_the_last_frame() -> None:
    groups = draw(all_present(10, 8), groups=400, occlusion=0.5, switch=0.0)
    assert torch.equal(groups.missing_history, groups.missing_current)
    missing = groups.missing_current
    assert not missing[:, -1].any()
    starts = (missing & ~torch.cat([torch.zeros_like(missing[:, :1]), missing[:, :-1]], 1)).sum(1)
    assert starts.max() == 1
    # One start in ten is the last frame, of which nothing is left.
    assert starts.float().mean().item() == pytest.approx(0.5 * 0.9, abs=0.03)
    lengths = missing.sum(1)[starts > 0]
    assert set(lengths.tolist()) == set(range(1, 10))
    # A start at b leaves r = 9 - b frames, of which a uniform 1..r are taken: (r + 1) / 2, averaged over r = 1..9.
    assert lengths.float().mean().item() == pytest.approx(3.0, abs=0.15)


def test_without_occlusion_and_switch_nothing_changes() -> None:
    present = torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    groups = draw(present, occlusion=0.0, switch=0.0)
    assert torch.equal(groups.missing_history, ~present.expand(6, 8, 6))
    assert torch.equal(groups.missing_current, groups.missing_history)
    assert torch.equal(groups.source, torch.arange(6).expand(6, 8, 6))


def test_switch_permutes_the_chosen_and_their_absence() -> None:
    present = torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    groups = draw(present, groups=500, occlusion=0.5, switch=0.5)
    assert torch.equal(groups.source.sort(-1).values, torch.arange(6).expand(500, 8, 6))
    assert torch.equal(groups.missing_history, groups.missing_current.gather(-1, groups.source))
    assert (groups.missing_current | present).all()

    full = draw(all_present(8, 6), groups=500, occlusion=0.0, switch=1.0).source
    for slot in range(6):
        share = torch.bincount(full[..., slot].flatten(), minlength=6) / full[..., slot].numel()
        assert share.numpy() == pytest.approx(np.full(6, 1 / 6), abs=0.025)
    two = draw(all_present(8, 2), groups=500, occlusion=0.0, switch=0.5).source
    # Both chosen (1/4) and the exchange drawn (1/2).
    assert (two[..., 0] == 1).float().mean().item() == pytest.approx(1 / 8, abs=0.02)
    frames = (full != torch.arange(6)).any(-1)
    assert frames.any(1).all() and not torch.equal(full[:, 0], full[:, 1])


def test_targets_by_hand() -> None:
    x = True
    groups = IdentityGroups(
        labels=torch.tensor([[7, 3]]),
        missing_history=torch.tensor([[[0, x], [0, 0], [x, 0], [0, 0]]], dtype=torch.bool),
        missing_current=torch.tensor([[[0, 0], [0, 0], [x, 0], [0, 0]]], dtype=torch.bool),
        source=torch.arange(2).expand(1, 4, 2),
    )
    assert target_labels(groups, LABELS).tolist() == [[[20, 20], [7, 20], [IGNORED, 3], [7, 3]]]


def test_targets_equal_golden() -> None:
    arrays = load_golden("id_training")
    labels, missing_history, missing_current, expected = (
        torch.from_numpy(arrays[key][0])
        for key in ("id_labels", "trajectory_missing", "unknown_missing", "target_labels")
    )
    source = torch.arange(labels.shape[-1]).expand(labels.shape)
    groups = IdentityGroups(labels[:, 0], missing_history, missing_current, source)
    newborn = published_settings(str(arrays["config"])).association.labels
    assert torch.equal(target_labels(groups, newborn), expected.masked_fill(missing_current, IGNORED))


def test_clip_without_identities() -> None:
    groups = draw(all_present(8, 0))
    assert groups.labels.shape == (6, 0)
    assert target_labels(groups, LABELS).shape == (6, 8, 0)
