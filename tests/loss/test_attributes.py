from __future__ import annotations

import dataclasses

import pytest
import torch

from fdta.loss.attributes import UNKNOWN, AttributeHeads, attribute_loss
from fdta.loss.detection import total
from fdta.loss.settings import LossSettings

ATTRIBUTES = {"hat": 3, "stripe": 4}


@pytest.fixture
def heads() -> AttributeHeads:
    torch.manual_seed(0)
    return AttributeHeads(5, ATTRIBUTES, 2).double()


def test_sum_over_attributes_of_the_mean_over_known_objects(scene, heads) -> None:
    output, targets, matchings = scene
    truth = torch.cat([frame.attributes for frame in targets])
    assert (truth == UNKNOWN).any()
    terms = attribute_loss(heads, output, targets, matchings)
    assert list(terms) == ["attributes_0", "attributes"]
    for number, (layer, matching) in enumerate(zip((*output.auxiliary, output), matchings, strict=True)):
        expected = 0.0
        for attribute, first, classes in ((0, 0, 3), (1, 3, 4)):
            losses = []
            for frame, query, target in zip(*dataclasses.astuple(matching), strict=True):
                logits = heads.layers[number](layer.embeddings[frame, query])[first : first + classes]
                if truth[target, attribute] != UNKNOWN:
                    losses.append(-logits.log_softmax(0)[truth[target, attribute]].item())
            expected += sum(losses) / len(losses)
        assert terms["attributes" if number else "attributes_0"].item() == pytest.approx(expected)


def test_weight(scene, heads) -> None:
    terms = attribute_loss(heads, *scene)
    torch.testing.assert_close(total(terms, LossSettings(attributes=0.25)), sum(terms.values()) / 4)


def test_all_unknown(scene, heads) -> None:
    output, targets, matchings = scene
    hidden = [dataclasses.replace(x, attributes=torch.full_like(x.attributes, UNKNOWN)) for x in targets]
    loss = attribute_loss(heads, output, hidden, matchings)["attributes"]
    loss.backward()
    assert loss.item() == 0
    assert (heads.layers[1].weight.grad == 0).all()


def test_can_be_learned(scene, heads) -> None:
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    for _ in range(60):
        loss = total(attribute_loss(heads, *scene), LossSettings(attributes=1.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
