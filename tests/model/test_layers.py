from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fdta.model import layers
from fdta.model.layers import Attention, Linear


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def gradients(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Of the sum of squares of the output, by the inputs and the parameters."""
    inputs = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    output = module(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    return [output, *torch.autograd.grad(output.square().sum(), [*inputs, *module.parameters()])]


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients_are_those_of_torch(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SMALL", 0)
    ours, theirs = Linear(12, 7, bias), nn.Linear(12, 7, bias)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(3, 5, 12)
    for mine, expected in zip(gradients(ours, tokens), gradients(theirs, tokens), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens))
        torch.testing.assert_close(ours(tokens, "relu"), theirs(tokens).relu())
        assert ours(tokens[:0]).shape == (0, 5, 7)


def test_linear_of_lower_precision_gives_its_own() -> None:
    layer = Linear(16, 8).bfloat16().requires_grad_(False)
    tokens = torch.randn(5, 16)
    output = layer(tokens)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer.float()(tokens), atol=0.05, rtol=0.05)


def test_linear_in_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SMALL", 0)
    layer = Linear(16, 8)
    tokens = torch.randn(5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(tokens)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(tokens), atol=0.05, rtol=0.05)
    output.float().sum().backward()
    torch.testing.assert_close(layer.weight.grad, tokens.sum(0).expand(8, -1), atol=0.05, rtol=0.05)


def masks(kind: str) -> dict[str, Tensor]:
    padding, hidden = torch.rand(2, 6) < 0.4, torch.rand(8, 5, 6) < 0.4
    padding[:, 0] = hidden[..., 0] = False
    given = {"padding": {"key_padding_mask": padding}, "hidden": {"attn_mask": hidden}}
    given["added"] = {"attn_mask": torch.randn(8, 5, 6)}
    given["shared"] = {"attn_mask": hidden[0]}
    given["both"] = given["padding"] | given["hidden"]
    given["added and padding"] = given["padding"] | given["added"]
    return given.get(kind, {})


@pytest.mark.parametrize("zero_key", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "hidden", "added", "shared", "both", "added and padding"])
def test_attention_and_its_gradients_are_those_of_torch(mask: str, zero_key: bool) -> None:
    ours = Attention(16, 4, zero_key=zero_key)
    theirs = nn.MultiheadAttention(16, 4, add_zero_attn=zero_key, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    given = masks(mask)
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    mixed = {name: tensor.clone() for name, tensor in given.items()}
    if mask in ("both", "added and padding") and mixed["attn_mask"].dtype != torch.bool:
        mixed["key_padding_mask"] = torch.zeros(2, 6).masked_fill(mixed["key_padding_mask"], -torch.inf)

    class Masked(nn.Module):
        def __init__(self, attention: nn.Module, given: dict[str, Tensor]) -> None:
            super().__init__()
            self.attention, self.given = attention, given

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.attention(*inputs, **self.given)

    expected = gradients(Masked(theirs, mixed), query, key, value)
    for mine, other in zip(gradients(Masked(ours, given), query, key, value), expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shared", ["query and key", "key and value"])
def test_shared_inputs(shared: str) -> None:
    attention = Attention(16, 4)
    tokens, other = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    given = (tokens, tokens, other) if shared == "query and key" else (other, tokens, tokens)
    apart = [tensor.clone() for tensor in given]
    torch.testing.assert_close(attention(*given), attention(*apart), atol=1e-6, rtol=1e-5)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of keys of long attentions, to which 50 keys belong, in pieces of 16 queries."""
    monkeypatch.setattr(layers, "LONG", 50)
    monkeypatch.setattr(layers, "SCORES", 16 * 50)
    counted: list[int] = []
    plain = layers._shares
    monkeypatch.setattr(layers, "_shares", lambda q, k, dtype: counted.append(len(k)) or plain(q, k, dtype))
    return counted


def test_long_sequences_go_through_in_pieces(pieces: list[int]) -> None:
    attention = Attention(16, 4)
    query, memory = torch.randn(2, 37, 16), torch.randn(2, 50, 16)
    expected = attention(query, memory, memory).detach()
    assert not pieces
    with torch.no_grad():
        torch.testing.assert_close(attention(query, memory, memory), expected, atol=1e-5, rtol=1e-4)
    assert pieces == [50] * 2 * 4 * 3


def test_dropout_in_long_sequences_and_its_gradient(pieces: list[int]) -> None:
    dropout = 0.3
    q, k, v = (torch.randn(2, 4, n, 4, requires_grad=True) for n in (37, 50, 50))
    arriving = torch.randn(2, 37, 16)
    torch.manual_seed(1)
    attended = layers._LongAttention.apply(q, k, v, dropout)
    ours = torch.autograd.grad(attended, (q, k, v), arriving)
    assert len(pieces) == 2 * 2 * 4 * 3
    # With the unit matrix as values, attention shows its shares, and where they are 0 what was dropped.
    torch.manual_seed(1)
    with torch.no_grad():
        shown = layers._LongAttention.apply(q, k, torch.eye(50).expand(2, 4, 50, 50), dropout)
    kept = shown.unflatten(2, (4, 50)).transpose(1, 2) != 0
    assert kept.float().mean() == pytest.approx(1 - dropout, abs=0.02)
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[:, 0], kept[:, 1])
    shares = (q @ k.transpose(2, 3) / 2).softmax(-1) * kept / (1 - dropout)
    expected = (shares @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-4)
    for mine, other in zip(ours, torch.autograd.grad(expected, (q, k, v), arriving), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_dropout_is_of_training_alone() -> None:
    attention = Attention(16, 4, dropout=0.5)
    tokens = torch.randn(1, 6, 16)
    with torch.no_grad():
        assert not torch.equal(attention(tokens, tokens, tokens), attention(tokens, tokens, tokens))
        attention.eval()
        assert torch.equal(attention(tokens, tokens, tokens), attention(tokens, tokens, tokens))
