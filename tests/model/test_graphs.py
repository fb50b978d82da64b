from __future__ import annotations

import contextlib
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recorded_graphs import record_graphs
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fdta.experiment.settings import Settings
from fdta.model import graphs
from fdta.model.deformable_attention import kept
from fdta.model.fdta import FDTA
from fdta.model.graphs import Graphed
from fdta.model.inference import optimized
from fdta.settings import read_settings
from fdta.track.detect import graphed_detector, objects_of
from fdta.track.tracker import OnlineTracker

SETTINGS = read_settings(
    Settings,
    {
        "history": 4,
        "backbone": {"stem_width": 8, "widths": [8] * 4, "blocks": [2, 1, 1, 1]},
        "detector": {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16}
        | {"queries": 6, "norm_groups": 4},
        "spatial": {"bins": 5, "feedforward": 16},
        "temporal": {"layers": 1, "heads": 2, "feedforward": 16},
        "association": {"labels": 8, "label_width": 16, "layers": 2, "heads": 2},
        "tracker": {"detection_threshold": 0, "newborn_threshold": 0, "record_threshold": 0},
    },
    "",
    "test",
)


class Counted:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self.calls += 1
        return 2 * tensor


def test_off_cuda_the_function_is_called() -> None:
    call = Counted()
    graphed = Graphed(call, "doubling")
    assert [graphed(torch.full((1,), value)).item() for value in (1.0, 2.0, 3.0)] == [2, 4, 6]
    assert call.calls == 3


def test_shapes_that_come_again_are_captured_and_results_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    record_graphs(monkeypatch)
    call = Counted()
    graphed = Graphed(call, "doubling")
    first = graphed(torch.ones(1))
    assert call.calls == 1
    second = graphed(torch.full((1,), 2.0))
    captured = call.calls
    assert captured > 2
    third = graphed(torch.full((1,), 3.0))
    assert call.calls == captured
    assert first.item() == 2 and third.item() == 6 and second is third
    assert graphed(torch.ones(2)).tolist() == [2, 2]
    assert call.calls == captured + 1  # of another shape


def test_graphs_of_the_last_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    record_graphs(monkeypatch)
    call = Counted()
    graphed = Graphed(call, "doubling")

    def calls(length: int) -> int:
        before = call.calls
        assert graphed(torch.ones(length)).tolist() == [2] * length
        return call.calls - before

    for length in range(graphs.KEPT):
        assert calls(length) == 1 and calls(length) > 1 and calls(length) == 0
    for length in range(100, 100 + graphs.KEPT):
        assert calls(length) == 1
    assert calls(100) > 1 and calls(100) == 0  # 0 was not used for longest, and goes
    assert calls(1) == 0 and calls(0) == 1


def test_where_capturing_fails_a_line_tells_and_the_function_is_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record_graphs(monkeypatch)

    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(graphs, "_Captured", refuse)
    graphed = Graphed(Counted(), "doubling")
    with caplog.at_level("INFO", logger="fdta"):
        assert [graphed(torch.full((1,), value)).item() for value in (1.0, 2.0, 3.0, 4.0)] == [2, 4, 6, 8]
    assert caplog.messages == ["doubling without a CUDA graph, slower: it cannot be captured (operation not permitted)"]


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    record_graphs(monkeypatch)
    call = Counted()
    graphed = Graphed(call, "doubling", enabled=False)
    for _ in range(3):
        graphed(torch.ones(1))
    assert call.calls == 3


def model(settings: Settings = SETTINGS) -> FDTA:
    torch.manual_seed(0)
    built = FDTA(settings).eval()
    for parameter in built.parameters():
        if not parameter.any():  # so that everything counts
            torch.nn.init.normal_(parameter, std=0.1)
    return optimized(built)


def test_recorded_detector_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sizes by turns, so that what the detector keeps of one is replaced by the other's."""
    record_graphs(monkeypatch)
    compare_by_turns(model(), "cpu")


def test_constants_of_the_detector_outlive_the_tensors_of_other_sizes() -> None:
    """A graph reads the memory of what the attention keeps of an image's size, and holds it with the constants."""
    detector, device = model().detector, torch.device("cpu")
    detector(torch.randn(1, 3, 48, 112))  # a size of no other test
    constants = detector.constants()
    read = [weakref.ref(tensor) for tensor in kept(detector.unpadded[1].shapes, device)]
    for height in range(1000, 1100):
        kept([(height, 1)], device)
    assert len(read) == 2 and all(tensor() is not None for tensor in read)
    del constants
    assert all(tensor() is None for tensor in read)


class Transfers(TorchDispatchMode):
    """Notes operations that have to do with another device, and tensors made of numbers."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.operations = 0
        self.seen: list[str] = []
        self.made = Made(self.seen)

    def __enter__(self) -> Transfers:
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        leaves = tree_leaves((arguments, named, result))
        self.operations += 1
        if {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)} - {self.device}:
            self.seen.append(str(function))
        return result


class Made(TorchFunctionMode):
    """Notes calls of torch.tensor and torch.as_tensor."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function in (torch.tensor, torch.as_tensor):
            self.seen.append(str(function))
        return function(*arguments, **(named or {}))


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that is no CPU and has no numbers: what would wait for numbers fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    return torch.device("meta")


def test_the_test_device_tells_what_waits(meta: torch.device) -> None:
    tensor = torch.ones(3, device=meta)
    for wait in (lambda: bool(tensor.any()), lambda: tensor.sum().item(), lambda: tensor[tensor > 0], tensor.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()
    cpu = torch.ones(1)
    for move in (lambda: torch.tensor([1.0], device=meta), lambda: cpu.to(meta), lambda: tensor.copy_(cpu)):
        with Transfers("meta") as transfers:
            move()
        assert transfers.seen


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nothing_waits_for_the_device_before_the_transfer(meta: torch.device, dtype: torch.dtype) -> None:
    """Detector and association, of frames that are not the first of their size."""
    whole = optimized(model(), dtype).to(meta)
    images = torch.zeros(1, 3, 64, 96, device=meta)
    whole.detector(images)
    tracker = OnlineTracker.from_model(whole, SETTINGS)
    state = torch.zeros(tracker._state().shape, dtype=torch.long, device=meta)
    with Transfers("meta") as transfers:
        detected = (tensor[0] for tensor in objects_of(whole.detector(images)))
        found, features = tracker._look(4, state, *detected)
    assert found.shape == (4, 6 + 9)
    assert transfers.operations > 500
    assert transfers.seen == []
    # The CPU's decisions go there, and are not waited for either.
    tracker._remember(tracker._give_birth(np.full(4, 8), np.arange(4), np.ones(4)), features)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_captured_detector_finds_the_same(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    compare_by_turns(optimized(model().cuda(), dtype), "cuda")
    assert "without a CUDA graph" not in caplog.text


@pytest.mark.cuda
def test_captured_tracker_tracks_the_same(caplog: pytest.LogCaptureFixture) -> None:
    whole = model().cuda()
    plain = OnlineTracker.from_model(whole, SETTINGS, graphs=False)
    captured = OnlineTracker.from_model(whole, SETTINGS, candidates=2)
    generator = torch.Generator().manual_seed(0)
    caplog.set_level("INFO", logger="fdta")
    for _ in range(12):
        frame = torch.rand(6, generator=generator), torch.rand(6, 4, generator=generator) + 0.1
        frame = *frame, torch.randn(6, 16, generator=generator)
        expected, actual = (tracker.update(*(tensor.cuda() for tensor in frame)) for tracker in (plain, captured))
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(actual, name), value)
    assert "without a CUDA graph" not in caplog.text


def compare_by_turns(whole: FDTA, device: str) -> None:
    detect = graphed_detector(whole.detector)
    for turn in range(3):
        for size in ((64, 96), (80, 64)):
            torch.manual_seed(turn)
            images = torch.randn(1, 3, *size, device=device)
            with torch.inference_mode():
                expected = objects_of(whole.detector(images))
                for mine, theirs in zip(detect(images), expected, strict=True):
                    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
