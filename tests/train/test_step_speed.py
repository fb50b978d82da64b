from __future__ import annotations

import pytest
import torch
from helpers.tiny_settings import tiny_settings

from fdta.errors import InputError
from fdta.evaluate.timing import drawn_model
from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA
from fdta.train.speed import drawn_clip, measure_training

CPU = torch.device("cpu")


def test_a_training_step() -> None:
    settings = tiny_settings(training={"gradient_frames": 1, "no_gradient_chunk": 2})
    measured = measure_training(settings, 3, (64, 96), 2, CPU, repeats=2)
    assert (measured["frames"], measured["gradient_frames"], measured["objects"]) == (3, 1, 2)
    smallest, largest = measured["ours"]["spread"]
    assert 0 < smallest <= measured["ours"]["milliseconds"] <= largest
    assert measured["ours"]["peak_mebibytes"] > 10
    assert list(measured["parts"]) == ["loss", "gradients", "optimizer"]
    assert all(0 < value < largest for value in measured["parts"].values())
    assert measure_training(settings, 3, (64, 96), 2, CPU, repeats=1, clips=2)["clips"] == 2
    with pytest.raises(InputError, match="--repeats 0"):
        measure_training(settings, 3, (64, 96), 2, CPU, repeats=0)


def test_the_drawn_clip_is_always_the_same() -> None:
    one, other = drawn_clip(2, (8, 8), 3, CPU), drawn_clip(2, (8, 8), 3, CPU)
    assert torch.equal(one.images, other.images) and torch.equal(
        one.targets[1].boxes_cxcywh, other.targets[1].boxes_cxcywh
    )
    several = drawn_clip(2, (8, 8), 3, CPU, clips=2)
    assert several.clips == 2 and several.targets[3].identities.tolist() == [3, 4, 5]
    assert len(one.targets) == 2 and one.targets[0].identities.tolist() == [0, 1, 2]


def test_a_shorter_clip_does_not_change_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has the history of the settings, also if the clip has fewer frames."""
    histories: list[int] = []
    settings = tiny_settings(training={"gradient_frames": 1, "no_gradient_chunk": 2})

    def drawn(settings: Settings, device: torch.device) -> FDTA:
        histories.append(settings.history)
        return drawn_model(settings, device)

    monkeypatch.setattr("fdta.train.speed.drawn_model", drawn)
    assert measure_training(settings, 3, (64, 96), 2, CPU, repeats=1)["frames"] == 3
    assert histories == [4]
