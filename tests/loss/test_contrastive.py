from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from fdta.loss.contrastive import identity_loss, match_quality
from fdta.model.settings import IdentitySettings

SETTINGS = IdentitySettings(chunk=3)
CLIP = 5


def samples(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, identities, qualities and frames of two clips of five frames, in float64."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.arange(2 * CLIP).repeat_interleave(3)
    identities = torch.randint(0, 4, (len(frames),), generator=generator)
    qualities = torch.rand(len(frames), generator=generator, dtype=torch.float64) * 0.7 + 0.3
    return torch.randn(len(frames), 6, generator=generator, dtype=torch.float64), identities, qualities, frames


def by_loops(
    features: Tensor, identities: Tensor, qualities: Tensor, chunks: list[int], settings: IdentitySettings
) -> float:
    """The loss of docs/model.md, Identity Adapter, sample by sample."""
    n = [i for i in range(len(features)) if not settings.quality_filter or qualities[i] >= settings.threshold]
    unit = features / features.norm(dim=1, keepdim=True)
    result = 0.0
    for chunk in set(chunks):
        members = [i for i in n if chunks[i] == chunk]
        anchors = []
        for i in members:
            negatives = [j for j in members if identities[j] != identities[i]]
            losses = []
            for p in members:
                if p == i or identities[p] != identities[i]:
                    continue
                similarity = {j: math.exp(unit[i] @ unit[j] / settings.temperature) for j in (p, *negatives)}
                q, r = (qualities[i].item(), qualities[p].item()) if settings.quality_filter else (1.0, 1.0)
                losses.append(-2 * q * r / (q + r) * math.log(similarity[p] / sum(similarity.values())))
            if losses:
                anchors.append(sum(losses) / len(losses))
        if anchors:
            result += settings.temperature * sum(anchors) / len(anchors)
    return result


def test_golden_quality(golden) -> None:
    quality = golden.matched_quality
    torch.testing.assert_close(quality, golden["matched_quality"].flatten(), rtol=1e-5, atol=1e-6)
    predicted = golden.output.boxes_cxcywh[golden.matchings[-1].frames, golden.matchings[-1].queries]
    assert (
        match_quality(predicted, golden["gt_boxes"].flatten(0, 1)[golden.matchings[-1].targets], "iou") > quality
    ).any()


def test_golden(golden) -> None:
    assert golden.identity_loss.item() == pytest.approx(golden.losses["e1_loss_contrastive"], rel=1e-5)
    assert golden.losses["e0_loss_contrastive"] == 0
    assert golden.identity.first_epoch == 1


@pytest.mark.parametrize("quality_filter", [True, False])
@pytest.mark.parametrize("with_extractor", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_is_info_nce(quality_filter: bool, with_extractor: bool, temperature: float) -> None:
    settings = dataclasses.replace(SETTINGS, quality_filter=quality_filter, temperature=temperature)
    embeddings, identities, qualities, frames = samples()
    torch.manual_seed(0)
    extractor = nn.Linear(6, 4).double() if with_extractor else None
    features = extractor(embeddings).detach() if extractor else embeddings
    chunks = [(clip, t // 3) for clip in range(2) for t in range(CLIP) for _ in range(3)]
    loss = identity_loss(embeddings, identities, qualities, frames, CLIP, extractor, settings)
    assert loss.item() == pytest.approx(by_loops(features, identities, qualities, chunks, settings))


def test_clips_add_up() -> None:
    embeddings, identities, qualities, frames = samples()
    first = frames < CLIP
    both = identity_loss(embeddings, identities, qualities, frames, CLIP, None, SETTINGS)
    parts = [
        identity_loss(embeddings[x], identities[x], qualities[x], frames[x] % CLIP, CLIP, None, SETTINGS)
        for x in (first, ~first)
    ]
    assert all(part > 0 for part in parts)
    torch.testing.assert_close(both, parts[0] + parts[1])


def test_order_does_not_matter() -> None:
    batch = samples()
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(1))
    shuffled = identity_loss(*(x[order] for x in batch), CLIP, None, SETTINGS)
    torch.testing.assert_close(shuffled, identity_loss(*batch, CLIP, None, SETTINGS))


def test_falls_on_the_way_to_the_identity() -> None:
    embeddings, identities, qualities, frames = samples()
    centers = torch.eye(6, dtype=torch.float64)[identities]
    losses = [
        identity_loss(embeddings.lerp(centers, share), identities, qualities, frames, CLIP, None, SETTINGS).item()
        for share in (0, 0.5, 0.9, 1)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3


def test_low_quality_is_left_out() -> None:
    embeddings, identities, qualities, frames = samples()
    embeddings.requires_grad_()
    identity_loss(embeddings, identities, qualities, frames, CLIP, None, SETTINGS).backward()
    assert (qualities < 0.5).any()
    assert (embeddings.grad[qualities < 0.5] == 0).all()
    assert (embeddings.grad[qualities >= 0.5] != 0).any()


def test_gradient() -> None:
    embeddings, *rest = samples()
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: identity_loss(x, *rest, CLIP, None, SETTINGS), embeddings)


@pytest.mark.parametrize("case", ["no samples", "one sample", "no positives", "no negatives", "all of low quality"])
def test_nothing_to_contrast(case: str) -> None:
    embeddings, identities, qualities, frames = samples()
    n = {"no samples": 0, "one sample": 1}.get(case, 9)
    embeddings, identities, qualities, frames = embeddings[:n], identities[:n], qualities[:n] + 0.7, frames[:n]
    if case == "no positives":
        identities = torch.arange(n)
    elif case == "no negatives":
        identities = torch.zeros(n, dtype=torch.long)
    elif case == "all of low quality":
        qualities = qualities - 2
    extractor = nn.Linear(6, 4).double()
    with torch.autograd.set_detect_anomaly(True):
        loss = identity_loss(embeddings, identities, qualities, frames, CLIP, extractor, SETTINGS)
        assert loss.item() == 0
        # As published: without two samples to compare, the extractor has no gradient and is not decayed either.
        assert loss.requires_grad == (case in ("no positives", "no negatives"))
        if loss.requires_grad:
            loss.backward()
            assert (extractor.weight.grad == 0).all()


def test_finite_where_the_quality_has_no_harmonic_mean() -> None:
    embeddings, identities, qualities, frames = samples()
    settings = dataclasses.replace(SETTINGS, threshold=-1.0, temperature=1e-3)
    embeddings.requires_grad_()
    qualities[::2], qualities[1::4] = -qualities[::2], 0
    loss = identity_loss(embeddings, identities, qualities, frames, CLIP, None, settings)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()
    assert loss > 0
