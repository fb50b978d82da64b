from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.golden_weights import load_golden

from fdta.data.identities import IGNORED
from fdta.loss.association import association_loss


def test_golden(device: torch.device) -> None:
    arrays = load_golden("id_training")
    labels = torch.from_numpy(arrays["target_labels"]).masked_fill(torch.from_numpy(arrays["unknown_missing"]), IGNORED)
    labels[:, :, 0] = IGNORED
    loss = association_loss(torch.from_numpy(arrays["id_logits"]).to(device), labels.to(device))
    assert loss.item() == pytest.approx(arrays["id_loss"].item(), rel=1e-5)


def test_mean_over_the_valid() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 3, 4, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (1, 2, 3, 4), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.4] = IGNORED
    losses = [-logits[i].log_softmax(-1)[labels[i]].item() for i in np.ndindex(labels.shape) if labels[i] != IGNORED]
    assert 5 < len(losses) < 20
    assert association_loss(logits, labels).item() == pytest.approx(sum(losses) / len(losses))


def test_none_valid() -> None:
    logits = torch.randn(2, 3, 6, requires_grad=True)
    loss = association_loss(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
