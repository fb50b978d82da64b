from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from helpers.tiny_settings import tiny_settings

from fdta.errors import InputError
from fdta.experiment.settings import Settings
from fdta.model import onnx as exporting
from fdta.model.fdta import FDTA
from fdta.model.inference import optimized
from fdta.track.tracker import OnlineTracker

pytest.importorskip("onnxscript", reason="exporting needs onnxscript, pip install 'fdta[onnx]'")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx, pip install 'fdta[onnx]'")
pytest.importorskip("onnxruntime", reason="what is exported is run by onnxruntime, pip install 'fdta[onnx]'")

FULL = tiny_settings(detector={"levels": 3})
SIZE = 64, 96


def drawn(settings: Settings) -> FDTA:
    """A model whose numbers all matter."""
    torch.manual_seed(0)
    model = FDTA(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def detected(model: FDTA, file: bytes, *sizes: tuple[int, int]) -> None:
    ran = exporting.session(file)
    for height, width in sizes:
        images = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            expected = optimized(model).detector(images)
        scores, boxes_cxcywh, embeddings = ran.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(scores, expected.logits.sigmoid().amax(-1), atol=1e-4)
        np.testing.assert_allclose(boxes_cxcywh, expected.boxes_cxcywh, atol=1e-4)
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-4)
        assert np.ptp(embeddings) > 1


def operations(file: bytes) -> Counter[str]:
    proto = onnx.load_from_string(file)
    assert {one.domain for one in proto.opset_import} == {""} and proto.opset_import[0].version >= 17
    return Counter(node.op_type for node in proto.graph.node)


@pytest.mark.parametrize("sampling", ["gather", "grid_sample"])
def test_layers_of_plain_operations_compute_the_same(sampling, monkeypatch):
    monkeypatch.setattr(exporting, "PIECE", 10_000)  # A few pieces, the last not full.
    model = drawn(FULL)
    plain = exporting._plain(model, SIZE, sampling).detector
    assert plain.encoder[0].attention.pieces > 1 and plain.spatial_adapter.encoder.self_attention.pieces > 1
    for size in ((64, 96), (33, 81)):
        images = torch.randn(1, 3, *size)
        with torch.inference_mode():
            ours, expected = plain(images), model.detector(images)
        for name in ("logits", "boxes_cxcywh", "embeddings"):
            torch.testing.assert_close(getattr(ours, name), getattr(expected, name), atol=5e-5, rtol=0)


def test_detector_for_images_of_any_size(monkeypatch):
    monkeypatch.setattr(exporting, "PIECE", 200_000)
    model = drawn(tiny_settings(detector={"levels": 3, "decoder_layers": 1}, spatial={"enabled": False}))
    file, differences = exporting.detector_onnx(model, None, SIZE, "gather")
    assert max(differences.values()) < 1e-4
    detected(model, file, (64, 96), (65, 129), (24, 24))
    found = operations(file)
    assert found["GridSample"] == 0 and found["Gather"] > 2
    sides = onnx.load_from_string(file).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == [1, 3, "height", "width"]
    assert b"/src/" not in file and b".py" not in file


def test_association():
    model = drawn(FULL)
    file, differences = exporting.association_onnx(model)
    assert differences["logits"] < 1e-4
    ran, expected = exporting.session(file), OnlineTracker.scores_of(model)
    generator = torch.Generator().manual_seed(1)
    for frames, tracks, objects in ((1, 1, 1), (1, 5, 3), (2, 8, 1), (3, 2, 7), (3, 8, 20)):
        given = exporting._drawn(frames, tracks, objects, 16, 8, generator)
        seen = ~given["current_missing"]
        history = {name: tensor for name, tensor in given.items() if name.startswith("history")}
        with torch.inference_mode():
            wanted = expected(**history, current_features=given["current_features"][seen])
        (logits,) = ran.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        # An object that is missing is as if it were not there.
        np.testing.assert_allclose(logits[seen.numpy()], wanted, atol=1e-4)
        # So are tracks and frames of padding.
        padded = {name: tensor.numpy() for name, tensor in given.items()}
        padded["history_features"] = np.zeros((5, 8, 16), np.float32)
        padded["history_features"][:frames, :tracks] = given["history_features"]
        padded["history_missing"] = np.ones((5, 8), bool)
        padded["history_missing"][:frames, :tracks] = given["history_missing"]
        padded["history_labels"] = np.pad(given["history_labels"].numpy(), (0, 8 - tracks))
        padded["history_times"] = np.arange(5)
        (logits,) = ran.run(None, padded)
        np.testing.assert_allclose(logits[seen.numpy()], wanted, atol=1e-4)


def test_other_numbers_than_those_of_torch_are_reported():
    differences = {"scores": 0.0, "embeddings": 0.0}
    ours = torch.zeros(3), torch.tensor([-40.0, 0, 40])
    theirs = [np.zeros(3, np.float32), ours[1].numpy() + 0.01]
    exporting._compare(differences, ours, theirs, "detector")
    assert differences["embeddings"] == pytest.approx(0.01 / 40, rel=1e-3)
    for index, change in ((0, 2e-4), (1, 0.1), (0, np.nan)):
        changed = list(theirs)
        changed[index] = changed[index] + np.float32(change)
        with pytest.raises(InputError, match=r"^detector: (scores|embeddings) of onnxruntime differ from torch by"):
            exporting._compare(dict(differences), ours, changed, "detector")


def test_file_that_onnxruntime_cannot_read():
    with pytest.raises(InputError, match=r"^onnxruntime cannot read the network \("):
        exporting.session(b"no network")


def test_missing_package_is_named():
    exporting.require_packages("onnx")
    with pytest.raises(InputError, match=r"^this needs the package no_such_package; give pip install 'fdta\[onnx\]'$"):
        exporting.require_packages("onnx", "no_such_package")
