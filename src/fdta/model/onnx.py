"""The networks of tracking as ONNX files, and sessions of onnxruntime that run them.

A copy of the model gets layers that compute the same by plain operations alone: without oneDNN, Triton and tables of
weighted sums, and with shapes that may be symbols. Training and tracking by torch do not import this module.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdta.errors import InputError
from fdta.model.deformable_attention import DeformableAttention, Shapes, Values, deformable_attention
from fdta.model.detector import DeformableDetector, EncoderLayer, Geometry, sine_positions
from fdta.model.fdta import FDTA
from fdta.model.inference import FusedConvolution, optimized
from fdta.model.layers import Attention, Linear

if TYPE_CHECKING:
    import onnx
    import onnxruntime

OPSET = 18
Sampling = Literal["gather", "grid_sample"]
PIECE = 2**26
"""Attention scores, or numbers sampled by deformable attention, from which on the graph computes them in pieces."""
TOLERANCES = {"scores": 1e-4, "boxes_cxcywh": 1e-4, "embeddings": 1e-3, "logits": 1e-3}
"""Largest difference of onnxruntime from torch; embeddings and logits in their standard deviations, if above 1."""
COUNTS = ((1, 1, 1), (1, 3, 2), (2, 1, 4), (3, 4, 1), (4, 6, 5))
"""Frames, tracks and objects with which an exported association is compared, as far as the model has as many."""

logger = logging.getLogger(__name__)


def require_packages(*names: str) -> None:
    """Check that packages are installed.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(f"this needs the package {name}; give pip install 'fdta[onnx]'")


def detector_onnx(
    model: FDTA, size: tuple[int, int] | None, usual: tuple[int, int], sampling: Sampling
) -> tuple[bytes, dict[str, float]]:
    """The detector of `model` as an ONNX file.

    Its input is `images` (1, 3, H, W), its outputs are `scores` (1, Q), `boxes_cxcywh` (1, Q, 4) and `embeddings`
    (1, Q, d).

    Args:
        model: on a CPU, in evaluation mode.
        size: height and width of the images; None: any.
        usual: height and width for which the pieces of large layers are chosen, and that are compared with torch.
        sampling: whether deformable attention becomes ``Gather`` or ``GridSample``.

    Returns:
        The file, and the largest difference of each output from torch.

    Raises:
        InputError: onnxruntime gives other numbers than torch.
    """
    graph = _DetectorGraph(_plain(model, size or usual, sampling).detector)
    dimensions = None
    example = usual if size is None else size
    if size is None:
        # Small, and with more than one cell in the coarsest level, because torch takes a size of 1 for a constant.
        stride = 8 * 2 ** (len(graph.detector.projections) - 1)
        example = 2 * stride + 8, 3 * stride + 16
        dimensions = {2: torch.export.Dim("height", min=stride + 1), 3: torch.export.Dim("width", min=stride + 1)}
    outputs = ["scores", "boxes_cxcywh", "embeddings"]
    file = _exported(graph, {"images": torch.zeros(1, 3, *example)}, {"images": dimensions}, outputs)
    ran, fast = session(file), optimized(model).detector
    differences = dict.fromkeys(outputs, 0.0)
    generator = torch.Generator().manual_seed(0)
    for height, width in [size] if size else [usual, (usual[1] // 2, usual[0] // 2)]:
        images = torch.randn(1, 3, height, width, generator=generator)
        with torch.inference_mode():
            found = fast(images)
        expected = found.logits.sigmoid().amax(-1), found.boxes_cxcywh, found.embeddings
        _compare(differences, expected, ran.run(None, {"images": images.numpy()}), f"detector at {height} x {width}")
    return file, differences


def association_onnx(model: FDTA) -> tuple[bytes, dict[str, float]]:
    """Temporal Adapter, trajectory features and ID decoder of `model` as an ONNX file.

    Inputs and output are those of `fdta.track.tracker.IDScores`, with any numbers of frames, tracks and objects from 1.

    Args:
        model: on a CPU, in evaluation mode.

    Returns:
        The file, and the largest difference of `logits` from torch.

    Raises:
        InputError: onnxruntime gives other numbers than torch.
    """
    frames, tracks, objects = (torch.export.Dim(name, min=1) for name in ("frames", "tracks", "objects"))
    width, labels = model.detector.level_embedding.shape[1], len(model.id_decoder.classifier.weight) - 1
    dimensions: dict[str, Any] = {
        "history_features": {0: frames, 1: tracks},
        "history_missing": {0: frames, 1: tracks},
        "history_labels": {0: tracks},
        "history_times": {0: frames},
        "current_features": {0: objects},
        "current_missing": {0: objects},
        "current_time": None,
    }
    generator = torch.Generator().manual_seed(0)
    example = _drawn(3, 4, 5, width, labels, generator)
    file = _exported(_AssociationGraph(_plain(model)), example, dimensions, ["logits"])
    ran, ours = session(file), _AssociationGraph(model)
    differences = {"logits": 0.0}
    history = model.id_decoder.time_bias.shape[1]
    for frames_now, tracks_now, objects_now in (*COUNTS, (history - 1, labels, 2 * labels)):
        given = _drawn(min(frames_now, history - 1), min(tracks_now, labels), objects_now, width, labels, generator)
        with torch.inference_mode():
            expected = ours(**given)
        seen = ~given["current_missing"]
        found = ran.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0][seen.numpy()]
        where = f"association with {frames_now} frames, {tracks_now} tracks and {objects_now} objects"
        _compare(differences, (expected[seen],), [found], where)
    return file, differences


def session(file: bytes, threads: int = 1, cuda: bool = False) -> onnxruntime.InferenceSession:
    """The ONNX `file`, ready to run with so many CPU threads.

    Raises:
        InputError: onnxruntime cannot read it, or cannot run it on CUDA.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait for work would take the cores from reading and drawing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    try:
        made = onnxruntime.InferenceSession(file, options, providers=providers)
    except Exception as error:  # onnxruntime has a class for each kind, without a common one.
        told = str(error).partition("\n")[0]
        raise InputError(f"onnxruntime cannot read the network ({told}); export it again") from None
    if providers[0] not in made.get_providers():
        raise InputError("onnxruntime finds no CUDA libraries of its version; install them, or use --device cpu")
    return made


def _compare(
    differences: dict[str, float], expected: Sequence[Tensor], found: Sequence[np.ndarray], where: str
) -> None:
    """Raise the largest `differences` of the outputs, in the order of these; InputError if one is above tolerance."""
    for (name, before), ours, theirs in zip(list(differences.items()), expected, found, strict=True):
        scale = max(1.0, float(ours.std())) if name in ("embeddings", "logits") and ours.numel() > 1 else 1.0
        difference = float((ours - torch.from_numpy(theirs)).abs().max()) / scale if ours.numel() else 0.0
        if not difference <= TOLERANCES[name]:
            raise InputError(
                f"{where}: {name} of onnxruntime differ from torch by {difference:.2g}, more than "
                f"{TOLERANCES[name]:g}; nothing is written, use other versions of torch, onnxscript and onnxruntime"
            )
        differences[name] = max(before, difference)


def _drawn(
    frames: int, tracks: int, objects: int, width: int, labels: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Arguments of `_AssociationGraph`."""
    missing = torch.rand(frames, tracks, generator=generator) < 0.3
    current_missing = torch.rand(objects, generator=generator) < 0.2
    current_missing[0] = False
    return {
        "history_features": torch.randn(frames, tracks, width, generator=generator).masked_fill(missing[..., None], 0),
        "history_missing": missing,
        "history_labels": torch.randperm(labels, generator=generator)[:tracks].sort().values,
        "history_times": torch.arange(frames),
        "current_features": torch.randn(objects, width, generator=generator),
        "current_missing": current_missing,
        "current_time": torch.tensor(frames),
    }


def _exported(graph: nn.Module, example: dict[str, Tensor], dimensions: dict[str, Any], outputs: list[str]) -> bytes:
    """`graph` as an ONNX file, checked; `dimensions` are those of its inputs that may change."""
    import onnx

    with torch.no_grad(), _quiet():
        program = torch.export.export(graph.eval(), (), example, dynamic_shapes=dimensions, strict=False)
        made = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=list(example),
            output_names=outputs,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    _tidy(proto, dimensions)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of its own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _tidy(proto: onnx.ModelProto, dimensions: dict[str, Any]) -> None:
    """Give the changing `dimensions` of the inputs their names, and remove what the exporter notes of the code that a
    node came from, with paths of this machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    names = {
        value.type.tensor_type.shape.dim[axis].dim_param: dimension.__name__
        for value in graph.input
        for axis, dimension in (dimensions[value.name] or {}).items()
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), side.dim_param)


class _DetectorGraph(nn.Module):
    """Images -> scores, boxes and embeddings of the last decoder layer."""

    def __init__(self, detector: DeformableDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.detector(images)
        return found.logits.sigmoid().amax(-1), found.boxes_cxcywh, found.embeddings


class _AssociationGraph(nn.Module):
    """As `fdta.track.tracker.OnlineTracker.scores_of`."""

    def __init__(self, model: FDTA) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        history_features: Tensor,
        history_missing: Tensor,
        history_labels: Tensor,
        history_times: Tensor,
        current_features: Tensor,
        current_missing: Tensor,
        current_time: Tensor,
    ) -> Tensor:
        logits = self.model.id_logits(
            history_features[None, None],
            history_missing[None, None],
            history_labels.expand(history_missing.shape)[None, None],
            history_times[:, None].expand(history_missing.shape)[None, None],
            current_features[None, None, None],
            current_missing[None, None, None],
            current_time.expand(current_missing.shape)[None, None, None],
        )
        return logits[0, 0, 0]


def _plain(model: FDTA, size: tuple[int, int] = (1, 1), sampling: Sampling = "gather") -> FDTA:
    """A copy of `model` of plain operations, whose large layers are in pieces that suit images of `size`."""
    plain = optimized(model)
    for module in plain.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
        if isinstance(module, _DeformableAttention):
            module.sampling = sampling
    detector = plain.detector
    cells = [
        -(-size[0] // stride) * -(-size[1] // stride) for stride in (8 * 2**n for n in range(len(detector.projections)))
    ]
    layer: Any
    for layer in detector.encoder:
        attention = layer.attention
        sampled = 4 * sum(cells) * detector.level_embedding.shape[1] * attention.levels * attention.points
        attention.pieces = -(-sampled // PIECE)
    adapter = detector.spatial_adapter
    if adapter is not None and adapter.encoder is not None:
        long: Any = adapter.encoder.self_attention
        long.pieces = -(-long.num_heads * cells[0] ** 2 // PIECE)
    return plain


class _Linear(Linear):
    def forward(self, tokens: Tensor, activation: str = "none") -> Tensor:
        output = F.linear(tokens, self.weight, self.bias)
        return output if activation == "none" else output.relu()


class _Attention(Attention):
    pieces = 1

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (F.linear(*part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mask = self._mask(key_padding_mask, attn_mask, q)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            mask = mask if mask is None else F.pad(mask, (0, 1), value=mask.dtype == torch.bool)
        q, k = q * self.head_dim**-0.5, k.transpose(2, 3)
        attended = []
        for part in _split(q, 2, self.pieces if mask is None else 1):
            scores = part @ k
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
            attended.append(scores.softmax(-1) @ v)
        joined = _joined(attended, 2, q.shape[2]).transpose(1, 2).flatten(2)
        return F.linear(joined, self.out_proj.weight, self.out_proj.bias)


class _DeformableAttention(DeformableAttention):
    """Of one image."""

    sampling: Sampling = "gather"
    pieces = 1

    def values(self, memory: Tensor, shapes: Shapes, padding: Tensor | None) -> Values:
        return Values(shapes, self.value(memory).unflatten(-1, (self.heads, -1)))

    def attend(self, queries: Tensor, references: Tensor, values: Values) -> Tensor:
        assert isinstance(values.cells, Tensor)
        offsets = self.sampling_offsets(queries).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.heads, self.levels * self.points)).softmax(-1)
        sizes = _sizes(values.shapes)[:, None]
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            places = references + offsets / sizes
        else:
            places = references[..., :2] + offsets * references[..., 2:] * (0.5 / self.points)
        if self.sampling == "grid_sample":
            weights = weights.unflatten(-1, (self.levels, self.points))
            return self.output(deformable_attention(values.cells, values.shapes, places, weights))
        return self.output(self._gather(values.cells, values.shapes, places * sizes - 0.5, weights))

    def _gather(self, cells: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
        """As `deformable_attention`, with places (1, Q, heads, L, P, 2) in cells, where 0, 0 is the center of the first
        cell, and weights (1, Q, heads, L * P)."""
        heads, channels = cells.shape[2:]
        # Places outside read the border, which is zero.
        levels = cells.split([height * width for height, width in shapes], 1)
        grids = [
            F.pad(level.unflatten(1, shape), (0, 0, 0, 0, 1, 1, 1, 1))
            for level, shape in zip(levels, shapes, strict=True)
        ]
        table = torch.cat([grid.flatten(1, 2) for grid in grids], 1).reshape(-1, channels)
        sizes = _sizes(shapes)[:, None]
        places = torch.minimum(places, sizes).clamp(min=-1)
        first = torch.minimum(places.floor(), sizes - 1)
        right, below = (places - first).unbind(-1)
        x, y = first.unbind(-1)
        widths = sizes[..., 0] + 2
        areas = widths * (sizes[..., 1] + 2)
        # Whole numbers below 2 ** 24 are exact in float32.
        row = (y + 1) * widths + x + (areas.cumsum(0) - areas + 1)
        corners = torch.stack([torch.zeros_like(widths), torch.ones_like(widths), widths, widths + 1], -1)
        rows = (row[..., None] + corners).long().flatten(3) * heads + torch.arange(heads)[:, None]
        vertical, horizontal = torch.stack([1 - below, below], -1), torch.stack([1 - right, right], -1)
        shares = (vertical[..., None] * horizontal[..., None, :]).flatten(-2).flatten(3, 4) * weights[..., None]
        attended = [
            (share[..., None, :] @ F.embedding(part, table))[..., 0, :]
            for part, share in zip(_split(rows, 1, self.pieces), _split(shares.flatten(3), 1, self.pieces), strict=True)
        ]
        return _joined(attended, 1, rows.shape[1]).flatten(2)


class _EncoderLayer(EncoderLayer):
    def forward(self, tokens: Tensor, positions: Tensor, geometry: Geometry) -> Tensor:
        values = self.attention.values(tokens, geometry.shapes, geometry.padding)
        attended = self.attention.attend(tokens + positions, geometry.references, values)
        return self.feedforward(self.attention_norm(tokens + attended))


class _FusedConvolution(FusedConvolution):
    def forward(self, features: Tensor, shortcut: Tensor | None = None) -> Tensor:
        output = F.conv2d(features, self.weight, self.bias, self.stride, self.padding)
        output = output if shortcut is None else output + shortcut
        return output.relu() if self.relu else output


class _Detector(DeformableDetector):
    """Of one image without padding."""

    def _unpadded_geometry(self, images: Tensor, shapes: Shapes) -> Geometry:
        positions, centers = [], []
        for height, width in shapes:
            nowhere = torch.zeros(1, height, width, dtype=torch.bool)
            positions.append(sine_positions(nowhere, self.level_embedding.shape[1]))
            x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
            grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)
            centers.append(grid.flatten(0, 1))
        references = torch.cat(centers)[None, :, None].expand(-1, -1, len(shapes), -1)
        return Geometry(shapes, torch.ones(1, len(shapes), 2), None, positions, references)


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    Linear: _Linear,
    Attention: _Attention,
    DeformableAttention: _DeformableAttention,
    EncoderLayer: _EncoderLayer,
    FusedConvolution: _FusedConvolution,
    DeformableDetector: _Detector,
}
"""Layer -> the same layer of plain operations."""


def _sizes(shapes: Shapes) -> Tensor:
    """(L, 2) widths and heights."""
    return torch.stack([torch.stack([torch.scalar_tensor(side) for side in shape[::-1]]) for shape in shapes])


def _split(tensor: Tensor, axis: int, pieces: int) -> Sequence[Tensor]:
    """`pieces` equal parts of `tensor`, with zeros at the end where it is too short for that."""
    if pieces == 1:
        return [tensor]
    length = tensor.shape[axis]
    part = (length + pieces - 1) // pieces
    padding = [0, 0] * (tensor.dim() - 1 - axis) + [0, part * pieces - length]
    return F.pad(tensor, padding).unflatten(axis, (pieces, part)).unbind(axis)


def _joined(parts: Sequence[Tensor], axis: int, length: int) -> Tensor:
    """The first `length` of what `_split` gave."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), axis).narrow(axis, 0, length)
