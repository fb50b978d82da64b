"""What trainings of real size need: mixed precision, accumulated batches, and finished runs that are left alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.training_data import CHOICE, RUN, first_batch, read_history, work

from fdta.cli import main
from fdta.data.clips import ClipDataset
from fdta.model import checkpoint
from fdta.model.fdta import FDTA
from fdta.train.optimizer import clip_gradients
from fdta.train.tracker import TrackerObjective, detect


def _train(root, choice, *more):
    return main(["train", RUN, "--root", str(root), *choice, *more])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_nearly_as_float32_does(rendered, settings, precision):
    settings = dataclasses.replace(
        settings, identity=dataclasses.replace(settings.identity, threshold=-1.0, quality="iou")
    )
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    batch = first_batch(data)
    found = []
    for training in (settings.training, dataclasses.replace(settings.training, precision=precision)):
        torch.manual_seed(0)
        model = FDTA(settings)
        total, terms = TrackerObjective(model, dataclasses.replace(settings, training=training))(batch, 1)
        total.backward()
        assert all(term.dtype == torch.float32 for term in terms.values())
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
        found.append({name: term.item() for name, term in terms.items()})
    assert found[1] != found[0]
    # The matching may choose other queries where two are nearly alike.
    assert found[1] == pytest.approx(found[0], rel=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frames_without_gradient_in_a_precision_of_their_own(rendered, settings, precision):
    training = dataclasses.replace(settings.training, gradient_frames=1, no_gradient_precision=precision)
    settings = dataclasses.replace(settings, training=training)
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    batch = first_batch(data)
    torch.manual_seed(0)
    model = FDTA(settings)
    output = detect(model, batch, settings, [torch.Generator().manual_seed(0)])
    (chosen,) = torch.randperm(settings.history, generator=torch.Generator().manual_seed(0))[:1].tolist()
    with torch.no_grad():
        expected = model.detector(batch.images, batch.padding).embeddings
    off = (output.embeddings - expected).abs().amax((1, 2))
    assert off[chosen] < 1e-4
    others = torch.cat([off[:chosen], off[chosen + 1 :]])
    assert others.max() < 1e-4 if precision == "float32" else others.min() > 1e-3


def test_depth_is_float32_also_in_mixed_precision(rendered, settings):
    data = ClipDataset(rendered / "data/smoke-dance", ("train",), settings, settings.history, True, False, 1, 0)
    batch = first_batch(data)
    torch.manual_seed(0)
    detector = FDTA(settings).detector.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = detector(batch.images[:1], batch.padding[:1])
    assert output.depth.dtype == torch.float32
    values = detector.spatial_adapter.bin_values
    expected = torch.einsum("bdhw,d->bhw", output.depth_logits.float().softmax(1), values)
    assert torch.allclose(output.depth, expected, rtol=1e-5)


def test_scale_of_float16_is_gone_on_from(root, params_with, monkeypatch):
    training = {"epochs": 2, "validate_every": 0, "clips_per_epoch": 1, "gradient_frames": 1}
    choice = params_with(training={**training, "precision": "float16"})
    state_dict, load_state_dict = torch.amp.GradScaler.state_dict, torch.amp.GradScaler.load_state_dict
    loaded = []

    def save(scaler):
        # The state is saved as it is after the first epoch, and the training ends there.
        monkeypatch.setattr("fdta.train.loop.clip_gradients", _interrupt)
        return {**state_dict(scaler), "scale": 512.0}

    with monkeypatch.context() as patch:
        patch.setattr("fdta.train.loop.clip_gradients", clip_gradients)
        patch.setattr(torch.amp.GradScaler, "state_dict", save)
        assert _train(root, choice) == 130
    monkeypatch.undo()
    assert checkpoint.load(work(root) / "resume.pt")["scaler"]["scale"] == 512.0
    monkeypatch.setattr(
        torch.amp.GradScaler, "load_state_dict", lambda self, x: (loaded.append(x), load_state_dict(self, x))
    )
    assert _train(root, choice) == 0
    assert [state["scale"] for state in loaded] == [512.0]


def _interrupt(*_):
    raise KeyboardInterrupt


def test_accumulated_batches_are_one_step(root, params_with):
    training = {"clips_per_epoch": 5, "batch": 1, "epochs": 2, "validate_every": 0, "checkpoint_seconds": 0.0}
    assert _train(root, params_with(training={**training, "accumulate": 2})) == 0
    steps = read_history(root / "models" / RUN, "step")
    assert [(record["step"], record["epoch"]) for record in steps] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]


def test_gradient_of_a_step_is_the_mean_over_its_batches(root, params_with, monkeypatch):
    found = []

    def clip(model, largest):
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        raise KeyboardInterrupt

    monkeypatch.setattr("fdta.train.loop.clip_gradients", clip)
    losses = []
    original = TrackerObjective.__call__

    def call(self, *arguments):
        total, terms = original(self, *arguments)
        own = torch.autograd.grad(total, self.model.detector.class_heads[0].weight, retain_graph=True)
        losses.append(own[0])
        return total, terms

    monkeypatch.setattr(TrackerObjective, "__call__", call)
    training = {"clips_per_epoch": 4, "batch": 1, "accumulate": 3, "epochs": 1}
    assert _train(root, params_with(training=training)) == 130
    assert len(losses) == 3 and not torch.equal(losses[0], losses[1])
    assert torch.allclose(found[0]["detector.class_heads.0.weight"], sum(losses) / 3, rtol=1e-4, atol=1e-6)


def test_finished_run_is_not_trained_again_until_asked_or_changed(root, finished, capsys):
    path = root / "models" / RUN / "model.pt"
    assert _train(root, CHOICE) == 0
    assert "up to date" not in capsys.readouterr().err
    record = path.with_name("record.json").read_text()
    assert _train(root, CHOICE) == 0
    assert "up to date" in capsys.readouterr().err
    assert path.with_name("record.json").read_text() == record
    assert _train(root, CHOICE, "--again") == 0
    assert "up to date" not in capsys.readouterr().err
    assert path.read_bytes() == finished and (path.parent / "history.jsonl").exists()
    state = checkpoint.load(root / "models/smoke-dance/detector/model.pt")
    state["model"]["level_embedding"] += 1
    (root / "models/smoke-dance/detector").unlink()
    checkpoint.save(root / "models/smoke-dance/detector/model.pt", state)
    assert _train(root, CHOICE) == 0
    assert "up to date" not in capsys.readouterr().err and path.read_bytes() != finished


@pytest.mark.parametrize("broken", ["loss", "gradient", "matching"])
def test_training_that_diverges_ends_in_one_line(root, monkeypatch, capsys, broken):
    original = TrackerObjective.__call__

    def call(self, *arguments):
        if broken == "matching":
            raise FloatingPointError("matching costs are not finite")
        total, terms = original(self, *arguments)
        if broken == "loss":
            return total * torch.inf, terms
        return total + (total - total.detach()).clamp(min=0).sqrt(), terms

    monkeypatch.setattr(TrackerObjective, "__call__", call)
    assert _train(root, CHOICE) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    what = {"loss": "the loss is inf", "gradient": "the gradients are not finite", "matching": "costs are not finite"}
    assert line.startswith("fdta: ") and f"{what[broken]} at step 0; lower learning_rate" in line
    assert not (root / "models" / RUN / "model.pt").exists()
