from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fdta.model.association import IDDecoder, TrajectoryFeatures
from fdta.model.settings import AssociationSettings

SETTINGS = AssociationSettings(labels=10, label_width=16, layers=2, heads=4)
WIDTH, HISTORY = 16, 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def decoder() -> IDDecoder:
    model = IDDecoder(WIDTH, HISTORY, SETTINGS)
    with torch.no_grad():
        model.time_bias.normal_()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@dataclasses.dataclass
class Layout:
    """Arguments of `IDDecoder.forward`."""

    history_features: Tensor
    history_missing: Tensor
    history_labels: Tensor
    history_times: Tensor
    current_features: Tensor
    current_missing: Tensor
    current_times: Tensor

    def logits(self, model: IDDecoder) -> Tensor:
        return model(*(getattr(self, field.name) for field in dataclasses.fields(self)))


def training_layout(frames: int = 6, objects: int = 4) -> Layout:
    """B = 2 clips in G = 3 groups, history and current the same frames."""
    shape = (2, 3, frames, objects)
    times = torch.arange(frames)[:, None].expand(shape)
    labels = torch.rand(2, 3, 1, 10).argsort(-1)[..., :objects].expand(shape)
    features, missing = torch.randn(*shape, WIDTH), torch.rand(shape) < 0.3
    return Layout(features, missing, labels, times, torch.randn(*shape, WIDTH), torch.rand(shape) < 0.3, times)


def test_training_and_inference_layouts_agree() -> None:
    model, whole = decoder(), training_layout()
    logits = whole.logits(model)
    assert logits.shape == (2, 3, 6, 4, 11)
    for frame in range(6):
        online = Layout(
            whole.history_features[:, :, :frame],
            whole.history_missing[:, :, :frame],
            whole.history_labels[:, :, :frame],
            whole.history_times[:, :, :frame],
            whole.current_features[:, :, frame : frame + 1],
            whole.current_missing[:, :, frame : frame + 1],
            whole.current_times[:, :, frame : frame + 1],
        )
        assert torch.allclose(online.logits(model)[:, :, 0], logits[:, :, frame], atol=1e-5)


def test_only_strictly_earlier_history_has_influence() -> None:
    model, layout = decoder(), training_layout()
    layout.history_missing[:, :, 3] = False
    before = layout.logits(model)
    changed = dataclasses.replace(layout, history_features=layout.history_features.clone())
    changed.history_features[:, :, 3:] += 1
    after = changed.logits(model)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert (before[:, :, 4:] - after[:, :, 4:]).abs().amax(-1).min() > 1e-4

    layout.history_features.requires_grad_()
    layout.logits(model)[:, :, 4].square().sum().backward()
    gradient = layout.history_features.grad
    assert torch.equal(gradient[:, :, 4:], torch.zeros_like(gradient[:, :, 4:]))
    assert gradient[:, :, 3].abs().amax(-1).min() > 0


def test_missing_tokens_have_no_influence() -> None:
    model, layout = decoder(), training_layout()
    before = layout.logits(model)
    layout.history_features = torch.where(layout.history_missing[..., None], 9.0, layout.history_features)
    layout.history_labels = torch.where(layout.history_missing, SETTINGS.labels, layout.history_labels)
    layout.current_features = torch.where(layout.current_missing[..., None], 9.0, layout.current_features)
    after = layout.logits(model)
    present = ~layout.current_missing
    assert torch.equal(before[present], after[present])

    layout.current_missing = torch.zeros_like(layout.current_missing)
    assert not torch.allclose(layout.logits(model)[present], after[present], atol=1e-4)


def test_nothing_visible_gives_finite_values_and_gradients() -> None:
    model, layout = decoder().train(), training_layout()
    layout.history_missing = torch.ones_like(layout.history_missing)
    layout.current_missing = torch.ones_like(layout.current_missing)
    layout.history_features.requires_grad_()
    logits = layout.logits(model)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert torch.equal(layout.history_features.grad, torch.zeros_like(layout.history_features))
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_no_history_and_no_current_objects() -> None:
    model, layout = decoder(), training_layout()
    for name in ("history_features", "history_missing", "history_labels", "history_times"):
        setattr(layout, name, getattr(layout, name)[:, :, :, :0])
    assert layout.logits(model).isfinite().all()
    for name in ("current_features", "current_missing", "current_times"):
        setattr(layout, name, getattr(layout, name)[:, :, :, :0])
    assert layout.logits(model).shape == (2, 3, 6, 0, 11)


def test_permuted_labels_permute_the_logits() -> None:
    model, layout = decoder(), training_layout()
    before = layout.logits(model)
    order = torch.cat([torch.randperm(SETTINGS.labels), torch.tensor([SETTINGS.labels])])
    with torch.no_grad():
        model.label_embedding.weight.copy_(model.label_embedding.weight[order.argsort()])
        model.classifier.weight.copy_(model.classifier.weight[order.argsort()])
    layout.history_labels = order[layout.history_labels]
    after = layout.logits(model)
    assert torch.allclose(after[..., order], before, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-3)


def test_permuted_objects_permute_the_logits() -> None:
    model, layout = decoder(), training_layout()
    before = layout.logits(model)
    history_order, current_order = torch.randperm(4), torch.tensor([2, 0, 3, 1])
    permuted = Layout(
        layout.history_features[:, :, :, history_order],
        layout.history_missing[:, :, :, history_order],
        layout.history_labels[:, :, :, history_order],
        layout.history_times[:, :, :, history_order],
        layout.current_features[:, :, :, current_order],
        layout.current_missing[:, :, :, current_order],
        layout.current_times[:, :, :, current_order],
    )
    assert torch.allclose(permuted.logits(model), before[:, :, :, current_order], atol=1e-5)


def test_groups_are_independent() -> None:
    model, layout = decoder(), training_layout()
    whole = layout.logits(model)
    one = Layout(*(getattr(layout, field.name)[1:, 2:] for field in dataclasses.fields(layout)))
    assert torch.allclose(one.logits(model), whole[1:, 2:], atol=1e-5)


def test_time_bias_belongs_to_the_distance() -> None:
    model, layout = decoder(), training_layout()
    before = layout.logits(model)
    with torch.no_grad():
        model.time_bias[:, 0] += 5  # no visible token is at distance 0
        model.time_bias[:, 6:] += 5  # nor farther than 5
    assert torch.equal(layout.logits(model), before)
    with torch.no_grad():
        model.time_bias[:, 5] += torch.randn(2, 4)
    after = layout.logits(model)
    assert torch.equal(after[:, :, :5], before[:, :, :5])
    assert not torch.allclose(after[:, :, 5], before[:, :, 5], atol=1e-3)
    layout.current_times = layout.current_times + 100
    beyond = layout.logits(model)
    layout.current_times = layout.current_times + 100
    assert torch.equal(layout.logits(model), beyond)


def test_trajectory_features_act_on_every_token_alone() -> None:
    model = TrajectoryFeatures(WIDTH, 2)
    tokens = torch.randn(2, 3, WIDTH)
    assert torch.allclose(model(tokens)[1, 2], model(tokens[1, 2]), atol=1e-6)
    assert torch.allclose(model(tokens).mean(-1), torch.zeros(2, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("width", "settings"),
    [
        (64, AssociationSettings(labels=24, label_width=64, layers=2, heads=4)),
        (64, AssociationSettings(labels=24, label_width=32, layers=3, heads=4)),
        (64, AssociationSettings(labels=24, label_width=128, layers=2, heads=2)),
        (64, AssociationSettings(labels=100, label_width=64, layers=2, heads=4)),
        (256, AssociationSettings(layers=2)),
    ],
)
def test_copy_initialization_looks_the_label_up(width: int, settings: AssociationSettings) -> None:
    objects, frames = 6, 8
    prototypes = torch.randn(objects, width)
    embeddings = F.layer_norm(prototypes + 0.2 * torch.randn(10, 2, frames, objects, width), (width,))
    shape = embeddings.shape[:-1]
    labels = torch.rand(10, 2, 1, settings.labels).argsort(-1)[..., :objects].expand(shape)
    times = torch.arange(frames)[:, None].expand(shape)
    missing = torch.rand(shape) < 0.2
    missing[:, :, 0] = False

    def accuracy(initialization: str) -> float:
        model = IDDecoder(width, 30, dataclasses.replace(settings, initialization=initialization))
        with torch.no_grad():
            logits = model(embeddings, missing, labels, times, embeddings, missing, times)
        right = logits.argmax(-1) == labels
        return right[:, :, 1:][~missing[:, :, 1:]].float().mean().item()

    assert accuracy("copy") > 0.98
    assert accuracy("xavier") < 0.3


def test_copy_initialization_weights() -> None:
    settings = AssociationSettings(labels=24, label_width=32, layers=2, heads=4, initialization="copy")
    model = IDDecoder(64, 8, settings)
    labels = F.normalize(model.label_embedding.weight, dim=-1)
    assert torch.allclose(labels @ labels.T, torch.eye(25), atol=1e-5)
    assert torch.allclose(model.classifier.weight, 2 * labels, atol=1e-5)
    for layer in model.layers:
        query, key, value = layer.cross_attention.in_proj_weight.chunk(3)
        assert torch.equal(query, key)
        assert torch.equal(value, torch.eye(96))
        assert torch.equal(layer.cross_attention.out_proj.weight, torch.eye(96))
        assert torch.equal(query[:, 64:], torch.zeros(96, 32))
        for head in query[:, :64].split(24):
            assert torch.allclose(head @ head.T, torch.eye(24), atol=1e-5)
    crowded = IDDecoder(64, 8, dataclasses.replace(settings, labels=50))
    lengths = crowded.label_embedding.weight.norm(dim=-1)
    assert torch.allclose(lengths, torch.full((51,), 32**0.5), atol=1e-4)
