from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fdta.loss.detection import detection_loss, total
from fdta.loss.matching import Targets, match
from fdta.loss.settings import LossSettings
from fdta.model.detector import DetectorOutput

PUBLISHED = {"classification": "ce", "l1": "bbox", "giou": "giou"}
SETTINGS = LossSettings()


def test_golden(golden) -> None:
    terms = detection_loss(golden.output, golden.targets, golden.matchings, golden.settings, golden.boxes_total)
    assert len(terms) == 3 * len(golden.matchings)
    for name, term in terms.items():
        kind, _, layer = name.partition("_")
        published = golden.losses[f"e1_loss_{PUBLISHED[kind]}" + (f"_{layer}" if layer else "")]
        assert term.item() == pytest.approx(published, rel=1e-5), name


def test_golden_total(golden) -> None:
    terms = detection_loss(golden.output, golden.targets, golden.matchings, golden.settings, golden.boxes_total)
    terms["depth"], terms["identity"] = golden.depth_loss, golden.identity_loss
    published = golden.arrays["total"].item()
    tolerance = max(1e-5 * published, 5e-4 * golden.losses["e1_loss_depth_map"])
    assert total(terms, golden.settings).item() == pytest.approx(published, abs=tolerance)


def test_classification_is_the_focal_loss(scene) -> None:
    output, targets, matchings = scene
    settings = LossSettings(focal_alpha=0.3, focal_gamma=1.5)
    terms = detection_loss(output, targets, matchings, settings, 6)
    for layer, matching, suffix in zip((*output.auxiliary, output), matchings, ("_0", ""), strict=True):
        objects = set(zip(matching.frames.tolist(), matching.queries.tolist(), strict=True))
        expected = 0.0
        for frame in range(4):
            for query in range(7):
                p = 1 / (1 + math.exp(-layer.logits[frame, query, 0]))
                if (frame, query) in objects:
                    expected -= 0.3 * (1 - p) ** 1.5 * math.log(p)
                else:
                    expected -= 0.7 * p**1.5 * math.log(1 - p)
        assert terms[f"classification{suffix}"].item() == pytest.approx(expected / 6)


def with_boxes(output: DetectorOutput, matching, targets: list[Targets], share: float) -> DetectorOutput:
    """`output`, matched boxes moved to their targets by `share` of the way."""
    truth = torch.cat([frame.boxes_cxcywh for frame in targets])[matching.targets]
    boxes = output.boxes_cxcywh.clone()
    boxes[matching.frames, matching.queries] = boxes[matching.frames, matching.queries].lerp(truth, share)
    return dataclasses.replace(output, boxes_cxcywh=boxes)


def test_falls_on_the_way_to_the_target(scene) -> None:
    output, targets, matchings = scene
    shares = (0, 0.3, 0.6, 0.9, 1)
    outputs = [with_boxes(output, matchings[-1], targets, share) for share in shares]
    terms = [detection_loss(x, targets, matchings, SETTINGS, 6) for x in outputs]
    for name in ("l1", "giou"):
        values = [t[name].item() for t in terms]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)
        assert values[-1] == pytest.approx(0, abs=1e-12)
        assert len({t[f"{name}_0"].item() for t in terms}) == 1


def test_order_of_targets_does_not_matter(scene) -> None:
    output, targets, matchings = scene
    order = torch.tensor([2, 0, 1])
    permuted = [Targets(targets[0].boxes_cxcywh[order], targets[0].identities[order]), *targets[1:]]
    layers = (*output.auxiliary, output)
    again = match([x.logits for x in layers], [x.boxes_cxcywh for x in layers], permuted, SETTINGS)
    for name, term in detection_loss(output, permuted, again, SETTINGS, 6).items():
        torch.testing.assert_close(term, detection_loss(output, targets, matchings, SETTINGS, 6)[name])


def test_divided_by_the_given_number_of_boxes(scene) -> None:
    by_one, by_four = (detection_loss(*scene, SETTINGS, n) for n in (1, 4))
    for name, term in by_one.items():
        torch.testing.assert_close(by_four[name], term / 4)


def test_gradient(scene) -> None:
    output, targets, matchings = scene

    def weighted(logits: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        changed = dataclasses.replace(output, logits=logits, boxes_cxcywh=boxes)
        return total(detection_loss(changed, targets, matchings, SETTINGS, 6), SETTINGS)

    assert torch.autograd.gradcheck(weighted, (output.logits.requires_grad_(), output.boxes_cxcywh.requires_grad_()))


def test_without_objects(scene) -> None:
    output, _, _ = scene
    nothing = [Targets(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.long))] * 4
    layers = (*output.auxiliary, output)
    for layer in layers:
        layer.logits.requires_grad_()
        layer.boxes_cxcywh.requires_grad_()
    matchings = match([x.logits for x in layers], [x.boxes_cxcywh for x in layers], nothing, SETTINGS)
    terms = detection_loss(output, nothing, matchings, SETTINGS, 1)
    assert terms["l1"].item() == terms["giou"].item() == 0
    assert terms["classification"].item() > 0
    total(terms, SETTINGS).backward()
    assert all((layer.boxes_cxcywh.grad == 0).all() for layer in layers)


def test_finite_at_extreme_logits(scene) -> None:
    output, targets, matchings = scene
    output.logits.mul_(1e4).requires_grad_()
    loss = detection_loss(output, targets, matchings, SETTINGS, 6)["classification"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(output.logits.grad).all()


def test_total() -> None:
    terms = {"l1": torch.tensor(2.0), "l1_3": torch.tensor(3.0), "depth": torch.tensor(5.0)}
    assert total(terms, LossSettings(l1=10.0, depth=100.0)).item() == 550
    with pytest.raises(AttributeError):
        total({"l2": torch.tensor(1.0)}, SETTINGS)
