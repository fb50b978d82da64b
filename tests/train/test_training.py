"""Training on a few rendered frames: same seed same bytes, kill and resume, what is learned and what is not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from helpers.training_data import CHOICE, ROOT, RUN, first_batch, work

from fdta.cli import main
from fdta.data.clips import ClipDataset, ClipSampler, collate
from fdta.loss.matching import match
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.model.weights import to_published
from fdta.train import detector as train_detector
from fdta.train import objectives, tracker, validation
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor
from fdta.train.settings import TrainingSettings
from fdta.train.tracker import TrackerObjective, by_trajectory, detect


def test_same_seed_same_bytes(root, finished):
    assert main(["train", RUN, "--root", str(root), *CHOICE]) == 0
    assert (root / "models" / RUN / "model.pt").read_bytes() == finished


def test_other_seed_other_weights(root, finished):
    other = RUN.replace("seed-0", "seed-1")
    assert main(["train", other, "--root", str(root), *CHOICE]) == 0
    assert (root / "models" / other / "model.pt").read_bytes() != finished


def test_state_of_another_training_is_not_resumed(root, params_with, capsys, monkeypatch):
    def interrupt(step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        return rate_factor(step, *rest)

    arguments = ["train", RUN, "--root", str(root), *params_with(training={"checkpoint_seconds": 0.0})]
    with monkeypatch.context() as patch:
        patch.setattr("fdta.train.loop.rate_factor", interrupt)
        assert main(arguments) == 130
    checkpoint.save(work(root) / "resume.pt", {"format": checkpoint.FORMAT, "origin": "other"})
    assert main(arguments) == 0
    assert "of another job; training from scratch" in capsys.readouterr().err
    path = root / "models" / RUN / "model.pt"
    model = path.read_bytes()
    assert main([*arguments, "--again"]) == 0
    assert path.read_bytes() == model


def test_without_trackeval_a_training_that_validates_does_not_begin(root, params_with, capsys, monkeypatch):
    monkeypatch.setattr(validation, "find_spec", lambda name: None)
    arguments = ["train", RUN, "--root", str(root)]
    assert main([*arguments, *params_with(training={"validate_every": 1})]) == 2
    assert "fdta: training.validate_every: validation needs TrackEval" in capsys.readouterr().err
    assert not (root / "models" / RUN).exists()
    assert main([*arguments, *params_with(training={"validate_every": 0})]) == 0


@pytest.mark.parametrize("class_index", [1, 15])
def test_detector_starts_from_a_published_one(root, monkeypatch, class_index):
    ours = checkpoint.load(root / "models/smoke-dance/detector/model.pt")["model"]
    names = {f"detector.{name}": tensor for name, tensor in ours.items()}
    published = {name.removeprefix("detr."): tensor for name, tensor in to_published(names).items()}
    for name in published:
        if name.startswith("class_embed"):
            published[name] = torch.zeros(91, *published[name].shape[1:])
            published[name][class_index] = ours[name.replace("class_embed", "class_heads")]
    torch.save({"model": published, "epoch": 49}, root / "detr.pth")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmarks"]["smoke"]["datasets"]["smoke-dance"] |= {
        "detector_start": "detr.pth",
        "detector_class": class_index,
    }
    (root / "params.yaml").write_text(yaml.safe_dump(raw))
    (root / "models/smoke-dance/detector").unlink()

    def fit(*arguments, folder, **options):
        folder.mkdir(parents=True)
        (folder / "history.jsonl").touch()

    monkeypatch.setattr(train_detector, "fit", fit)
    choice = ["--params", str(root / "params.yaml"), "--benchmark", "smoke"]
    assert main(["train", "smoke-dance/detector", "--root", str(root), *choice]) == 0
    started = checkpoint.load(root / "models/smoke-dance/detector/model.pt")["model"]
    assert started.keys() == ours.keys()
    assert all(torch.equal(started[name], tensor) for name, tensor in ours.items())


def test_history_has_losses_and_scores(finished, rendered):
    records = [json.loads(line) for line in (rendered / "models" / RUN / "history.jsonl").open()]
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert len(epochs) == 2 and "HOTA" in epochs[-1]["scores"]
    assert {"total", "classification", "l1", "giou", "depth", "association"} <= set(steps[0]["losses"])
    assert "identity" not in steps[0]["losses"] and "identity" in steps[-1]["losses"]


def test_loss_falls_on_one_clip(rendered, settings):
    torch.manual_seed(0)
    model = FDTA(settings)
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    batch = first_batch(data)
    objective = TrackerObjective(model, settings)
    optimizer = build_optimizer(model, dataclasses.replace(settings.training, learning_rate=1e-3))
    totals = []
    for step in range(25):
        torch.manual_seed(step)
        total, terms = objective(batch, 1)
        optimizer.zero_grad()
        total.backward()
        clip_gradients(model, TrainingSettings(clip_norm=1.0))
        optimizer.step()
        totals.append(total.item())
    assert {"depth", "identity", "association"} <= set(terms)
    assert np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])


def test_gradient_reaches_every_trainable_parameter(rendered, settings):
    torch.manual_seed(0)
    settings = dataclasses.replace(settings, identity=dataclasses.replace(settings.identity, quality_filter=False))
    model = FDTA(settings)
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    total, _ = TrackerObjective(model, settings)(first_batch(data), 1)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize(("choice", "layer"), [("last", -1), ("last-but-one", -2)])
def test_association_is_trained_on_the_chosen_matching(rendered, settings, monkeypatch, choice, layer):
    torch.manual_seed(0)
    loss = dataclasses.replace(settings.loss, association_matching=choice)
    model = FDTA(settings)
    torch.nn.init.normal_(model.detector.box_heads[-1][-1].weight)  # All heads start as copies of one.
    objective = TrackerObjective(model, dataclasses.replace(settings, loss=loss))
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    batch = first_batch(data)
    outputs, matchings, trained_on = [], [], []
    monkeypatch.setattr(tracker, "detect", lambda *arguments: outputs.append(detect(*arguments)) or outputs[0])
    monkeypatch.setattr(objectives, "match", lambda *given: matchings.extend(match(*given)) or matchings)
    monkeypatch.setattr(objective, "_association", lambda *arguments: trained_on.extend(arguments) or torch.zeros(()))
    objective(batch, 1)
    embeddings, identities, frames, *_ = trained_on
    chosen = matchings[layer]
    assert torch.equal(embeddings, outputs[0].embeddings[chosen.frames, chosen.queries])
    truth = torch.cat([target.identities for target in batch.targets])
    assert torch.equal(identities, truth[chosen.targets]) and torch.equal(frames, chosen.frames)
    assert not torch.equal(matchings[-1].queries, matchings[-2].queries)


def test_embeddings_by_trajectory():
    # Two clips of two frames; identities 0 and 1 in the first, 2 in the second.
    identities = torch.tensor([1, 0, 1, 2])
    frames = torch.tensor([0, 0, 1, 3])
    embeddings = torch.arange(8.0).reshape(4, 2)
    features, present = by_trajectory(embeddings, identities, frames, clips=2, length=2)
    assert present.tolist() == [[[True, True], [False, True]], [[False, False], [True, False]]]
    assert torch.equal(features[0, 0, 1], embeddings[0]) and torch.equal(features[0, 0, 0], embeddings[1])
    assert torch.equal(features[0, 1, 1], embeddings[2]) and torch.equal(features[1, 1, 0], embeddings[3])
    assert features[~present].abs().sum() == 0


def test_clips_fit_their_sequences_and_use_every_interval():
    sampler = ClipSampler(
        [np.ones(12, bool), np.ones(30, bool)], length=5, intervals=(1, 4), clips_per_epoch=400, seed=3
    )
    clips = sampler.epoch(0)
    assert clips == sampler.epoch(0) and clips != sampler.epoch(1)
    steps = set()
    for sequence, frames in clips:
        assert frames[0] >= 1 and frames[-1] <= [12, 30][sequence]
        (step,) = set(np.diff(frames).tolist())
        steps.add(step)
    assert steps == {1, 2, 3, 4}


def test_every_frame_that_can_starts_one_clip():
    clips = ClipSampler(
        [np.ones(6, bool), np.ones(9, bool)], length=4, intervals=(1, 1), clips_per_epoch=None, seed=0
    ).epoch(0)
    assert sorted((sequence, frames[0]) for sequence, frames in clips) == [(0, f) for f in range(1, 4)] + [
        (1, f) for f in range(1, 7)
    ]


def test_identities_of_different_clips_stay_apart(rendered, settings):
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 4, 0)
    clips = [data.clip(0, i, *clip) for i, clip in enumerate(data.sampler.epoch(0)[:2])]
    batch = collate(clips)
    sets = [
        {int(i) for target in batch.targets[start : start + settings.history] for i in target.identities}
        for start in (0, settings.history)
    ]
    assert sets[0] and sets[1] and not sets[0] & sets[1]
    assert batch.depth is not None and batch.depth.shape == batch.padding.shape


def test_schedule():
    steps = TrainingSettings(epochs=13, milestones=(6, 9))
    assert rate_factor(0, 100, steps) == pytest.approx(0.01)
    assert rate_factor(99, 100, steps) == pytest.approx(1.0)
    assert rate_factor(600, 100, steps) == pytest.approx(0.1)
    assert rate_factor(900, 100, steps) == pytest.approx(0.01)
    cosine = TrainingSettings(epochs=4, milestones=(2,), schedule="cosine", warmup_epochs=0)
    assert rate_factor(150, 100, cosine) == 1.0
    assert rate_factor(300, 100, cosine) == pytest.approx(0.5)
    assert rate_factor(399, 100, cosine) < 1e-3


def test_warmup_lasts_its_epochs():
    two = TrainingSettings(epochs=22, milestones=(16, 20), warmup_epochs=2)
    assert [rate_factor(step, 100, two) for step in (0, 99, 199, 200)] == pytest.approx([0.005, 0.5, 1.0, 1.0])
    none = TrainingSettings(warmup_epochs=0)
    assert rate_factor(0, 100, none) == 1.0
    part = TrainingSettings(warmup_epochs=0.25)
    assert [rate_factor(step, 8, part) for step in (0, 1)] == [0.5, 1.0]


def test_learning_rates_and_clipping_by_part(settings):
    model = FDTA(settings)
    training = TrainingSettings(learning_rate=1.0, backbone_scale=0.1, projection_scale=0.05, head_scale=3.0)
    rates = {id(p): group["lr"] for group in build_optimizer(model, training).param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named["detector.backbone.stem.0.weight"])] == pytest.approx(0.1)
    assert rates[id(named["detector.encoder.0.attention.sampling_offsets.weight"])] == pytest.approx(0.05)
    assert rates[id(named["detector.level_embedding"])] == pytest.approx(1.0)
    assert rates[id(named["id_decoder.time_bias"])] == pytest.approx(3.0)
    for name, parameter in named.items():
        parameter.grad = torch.full_like(parameter, 100.0 if name.startswith("detector.") else 1.0)
    assert clip_gradients(model, TrainingSettings(clip_norm=0.5))
    parts = {"detector": [], "rest": [], "identity_adapter": []}
    for name, parameter in named.items():
        top = name.partition(".")[0]
        parts[top if top in parts else "rest"].append(parameter.grad.flatten())
    for part in ("detector", "rest"):
        assert torch.cat(parts[part]).norm() == pytest.approx(0.5, rel=1e-2)
    assert all((gradient == 1).all() for gradient in parts["identity_adapter"])
    next(model.identity_adapter.parameters()).grad[:] = torch.nan
    assert not clip_gradients(model, TrainingSettings())
