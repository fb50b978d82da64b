from __future__ import annotations

import itertools
import math

import pytest
import torch

from fdta.boxes import cxcywh_to_xyxy, giou
from fdta.loss.matching import Matching, Targets, match
from fdta.loss.settings import LossSettings


def pairs(matching: Matching) -> set[tuple[int, int, int]]:
    return set(zip(matching.frames.tolist(), matching.queries.tolist(), matching.targets.tolist(), strict=True))


def test_golden(golden) -> None:
    compared = 0
    layers = range(len(golden.matchings) - 1)
    for matching, suffix in (
        (golden.matchings[-1], ""),
        *((golden.matchings[layer], f"_aux{layer}") for layer in layers),
    ):
        if f"matched_queries{suffix}" in golden.arrays:
            queries, targets = golden[f"matched_queries{suffix}"], golden[f"matched_targets{suffix}"]
            frames = torch.arange(len(queries), device=golden.device)[:, None].expand_as(queries)
            targets = targets + frames * golden.arrays["gt_ids"].shape[1]
            assert pairs(matching) == pairs(Matching(frames.flatten(), queries.flatten(), targets.flatten()))
            compared += 1
    assert compared == sum(name.startswith("matched_queries") for name in golden.arrays) > 1


def test_is_the_cheapest_assignment(scene) -> None:
    output, targets, matchings = scene
    settings = LossSettings(classification=1.5, l1=4.0, giou=3.0, focal_alpha=0.3, focal_gamma=1.5)
    (matching,) = match([output.logits], [output.boxes_cxcywh], targets, settings)

    def cost(frame: int, query: int, box: torch.Tensor) -> float:
        p = 1 / (1 + math.exp(-output.logits[frame, query, 0]))
        as_object = -0.3 * (1 - p) ** 1.5 * math.log(p)
        as_none = -0.7 * p**1.5 * math.log(1 - p)
        predicted = output.boxes_cxcywh[frame, query]
        distance = (predicted - box).abs().sum().item()
        overlap = giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(box)).item()
        return 1.5 * (as_object - as_none) + 4 * distance - 3 * overlap

    truth = torch.cat([frame.boxes_cxcywh for frame in targets])
    for number, frame in enumerate(targets):
        boxes = frame.boxes_cxcywh
        cheapest = min(
            sum(cost(number, query, box) for query, box in zip(queries, boxes, strict=True))
            for queries in itertools.permutations(range(7), len(boxes))
        )
        found = sum(cost(number, q, truth[t]) for f, q, t in pairs(matching) if f == number)
        assert found == pytest.approx(cheapest)
    assert pairs(matching) != pairs(matchings[0])


def test_layers_are_matched_each_for_itself(scene) -> None:
    output, targets, _ = scene
    layers = [*output.auxiliary, output]
    together = match([x.logits for x in layers], [x.boxes_cxcywh for x in layers], targets, LossSettings())
    alone = [match([x.logits], [x.boxes_cxcywh], targets, LossSettings())[0] for x in layers]
    assert [pairs(matching) for matching in together] == [pairs(matching) for matching in alone]
    assert len({frozenset(pairs(matching)) for matching in alone}) > 1


def test_permuted_targets_permute_the_matching(scene) -> None:
    output, targets, matchings = scene
    order = torch.tensor([2, 0, 1])
    permuted = [Targets(targets[0].boxes_cxcywh[order], targets[0].identities[order]), *targets[1:]]
    (again,) = match([output.logits], [output.boxes_cxcywh], permuted, LossSettings())

    def identities(frames: list[Targets], matching: Matching) -> set[tuple[int, int, int]]:
        identity = torch.cat([frame.identities for frame in frames])[matching.targets]
        return pairs(Matching(matching.frames, matching.queries, identity))

    assert identities(permuted, again) == identities(targets, matchings[-1])
    assert pairs(again) != pairs(matchings[-1])


def test_counts(scene) -> None:
    output, targets, matchings = scene
    assert matchings[-1].frames.tolist() == [0, 0, 0, 2, 3, 3]
    assert sorted(matchings[-1].targets.tolist()) == list(range(6))
    for name in ("frames", "queries", "targets"):
        assert getattr(matchings[-1], name).dtype == torch.long

    (few_queries,) = match([output.logits[:, :1]], [output.boxes_cxcywh[:, :1]], targets, LossSettings())
    assert few_queries.frames.tolist() == [0, 2, 3]
    nothing = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))] * 4
    (none,) = match([output.logits.float()], [output.boxes_cxcywh.float()], nothing, LossSettings())
    assert len(none.frames) == 0


def test_not_finite(scene) -> None:
    output, targets, _ = scene
    output.boxes_cxcywh[2, 3, 1] = math.nan
    with pytest.raises(FloatingPointError, match=r"frames \[2\]"):
        match([output.logits], [output.boxes_cxcywh], targets, LossSettings())
