"""Published checkpoint files, in and out: FDTA, MOTIP and Deformable DETR.

See docs/reproducing.md, Published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fdta.errors import InputError
from fdta.model import checkpoint
from fdta.model.detector import DEPTH_PARTS
from fdta.model.settings import (
    AssociationSettings,
    BackboneSettings,
    DetectorSettings,
    IdentitySettings,
    ModelSettings,
    SpatialSettings,
    TemporalSettings,
)
from fdta.model.weights import from_published
from fdta.names import DETECTOR, check_run_name
from fdta.settings import to_plain

COCO_CLASSES = {"person": 1, "bird": 15}
"""Index of each class that the paper's data sets need, among COCO's."""
BOX_HEAD = ("0.weight", "4.bias")
"""First and last of the parameters of a box head."""
_COCO = 91
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_COUNTER = "num_batches_tracked"
"""End of the name of a counter that other batch norms keep."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
CRITERION, OURS = "criterion", "fdta"

Kind = Literal["FDTA", "MOTIP", "Deformable DETR"]


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published file holds, under our names."""

    kind: Kind
    run: str
    """Name of the run that it becomes; ends in ``/detector`` for a detector alone."""
    settings: ModelSettings
    """Read from the shapes, with defaults for the rest; or as `export_checkpoint` wrote them."""
    plain_settings: dict[str, Any]
    """Settings of the run, for the checkpoint that it becomes."""
    state: dict[str, Tensor]
    """State dict of an `FDTA`, or of a `DeformableDetector` for a detector alone."""
    missing: tuple[str, ...]
    """Parts that the method has and the file has not."""
    left_out: tuple[str, ...]
    """What the file holds besides."""
    classes: int
    """How many classes the file tells apart; of these, one is kept."""

    @property
    def detector_alone(self) -> bool:
        """Whether the file holds no more than a detector."""
        return self.kind == "Deformable DETR"


def read_published(path: Path, kept_class: str | int | None = None) -> PublishedCheckpoint:
    """Published checkpoint of FDTA, MOTIP or Deformable DETR (with iterative box refinement, 91 classes or one).

    Args:
        path: file of ``torch.save``: a state dict, bare or in what a training saves with it.
        kept_class: the class to keep where the file tells several apart: its number, or of COCO's 91 a name of
            `COCO_CLASSES`; None keeps COCO's person.

    Raises:
        InputError: the file cannot be read or wants to run code, is of another model, or has several classes without
            this one.
    """
    value = checkpoint.read(path)
    if checkpoint.is_own(value):
        raise InputError(f"{path}: is a checkpoint of this package already; use it as it is")
    state, wrapper, left_out, classes = _our_names(value, path, kept_class)
    kind = _kind(state)
    ours = wrapper.get(OURS)
    if ours is None:
        plain = to_plain(settings_of(state, path))
        run = f"{path.stem}/{DETECTOR}" if kind == "Deformable DETR" else f"imported/{path.stem}"
    else:
        plain, run = _ours(ours, path)
    settings = checkpoint.model_settings(plain, path)
    missing = []
    if kind == "FDTA" and not any(name.startswith("identity_adapter.") for name in state):
        missing.append("Identity Adapter (serves in training only; published checkpoints do not hold it)")
    if settings.spatial.enabled and "detector.spatial_adapter.bin_values" not in state:
        missing.append("depths of the bins (computed)")
    if kind == "Deformable DETR":
        state = {name.removeprefix("detector."): tensor for name, tensor in state.items()}
    return PublishedCheckpoint(kind, run, settings, plain, state, tuple(missing), tuple(left_out), classes)


def load_detector(path: Path, kept_class: int | None) -> dict[str, Tensor]:
    """State dict of a detector without depth, to start a detector's training from.

    Args:
        path: a detector of this package, or a published checkpoint, of which the detector alone is read.
        kept_class: the class to keep where a published detector tells several apart; None keeps COCO's person.

    Raises:
        InputError: the file cannot be read.
    """
    value = checkpoint.read(path)
    if checkpoint.is_own(value):
        return checkpoint.checked(value, path, model=dict)["model"]
    state, *_ = _our_names(value, path, kept_class)
    return {
        name.removeprefix("detector."): tensor
        for name, tensor in state.items()
        if name.startswith("detector.") and not any(part in name for part in DEPTH_PARTS)
    }


def settings_of(state: Mapping[str, Tensor], path: Path) -> ModelSettings:
    """Settings that a state dict of an `FDTA`, or of its detector, tells by its shapes.

    Shapes do not tell the heads of the detector and of the Temporal Adapter, the groups of the group norms, the frozen
    stages, and all that is not in the model; these keep their defaults (docs/reproducing.md, Published checkpoints).

    Args:
        state: under our names, the detector's starting with "detector.".
        path: named in messages.

    Raises:
        InputError: a tensor that has to be there is missing, or the sizes are impossible.
    """

    def size(name: str, dimension: int = 0) -> int:
        if name not in state or state[name].dim() <= dimension:
            raise InputError(f"{path}: {name} is missing or has another form; the checkpoint is of another model")
        return state[name].shape[dimension]

    def count(prefix: str) -> int:
        return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})

    def has(part: str) -> bool:
        return any(part in name for name in state)

    heads, levels = DetectorSettings().heads, size("detector.level_embedding")

    def points(attention: str) -> int:
        samples = size(f"detector.{attention}.attention_weights.bias")
        if samples % (heads * levels):
            raise InputError(f"{path}: {attention} has {samples} samples a query, no multiple of {heads} x {levels}")
        return samples // (heads * levels)

    parts: dict[str, Any] = {}
    try:
        parts["backbone"] = BackboneSettings(
            block="bottleneck" if has("detector.backbone.stages.0.0.branch.6.") else "basic",
            norm="frozen-batch" if has("detector.backbone.stem.1.running_mean") else "group",
            stem_width=size("detector.backbone.stem.0.weight"),
            widths=tuple(size(f"detector.backbone.stages.{stage}.0.branch.0.weight") for stage in range(4)),
            blocks=tuple(count(f"detector.backbone.stages.{stage}.") for stage in range(4)),
        )
        encoder_layers = count("detector.encoder.")
        parts["detector"] = DetectorSettings(
            width=size("detector.level_embedding", 1),
            encoder_layers=encoder_layers,
            decoder_layers=count("detector.decoder."),
            levels=levels,
            encoder_points=points("encoder.0.attention") if encoder_layers else DetectorSettings().encoder_points,
            decoder_points=points("decoder.0.visual_attention"),
            feedforward=size("detector.decoder.0.feedforward.linear1.bias"),
            queries=size("detector.queries"),
            classes=size("detector.class_heads.0.bias"),
        )
        parts["spatial"] = SpatialSettings(enabled=False)
        if has("detector.spatial_adapter."):
            attends = has(".depth_attention.")
            defaults = SpatialSettings()
            values = state.get("detector.spatial_adapter.bin_values", (defaults.minimum, defaults.maximum))
            parts["spatial"] = SpatialSettings(
                placement=defaults.placement if attends else "none",
                position_embedding=has("detector.spatial_adapter.position."),
                bins=size("detector.spatial_adapter.classifier.bias") - 1,
                # Of the float32 numbers, as many digits as they hold.
                minimum=float(f"{values[0]:.6g}"),
                maximum=float(f"{values[-1]:.6g}"),
                feedforward=size("detector.spatial_adapter.encoder.linear1.bias") if attends else defaults.feedforward,
            )
        if has("id_decoder."):
            width = parts["detector"].width
            parts["history"] = size("id_decoder.time_bias", 1)
            parts["association"] = AssociationSettings(
                labels=size("id_decoder.label_embedding.weight") - 1,
                label_width=size("id_decoder.label_embedding.weight", 1),
                layers=size("id_decoder.time_bias"),
                heads=size("id_decoder.time_bias", 2),
                feedforward_ratio=size("trajectory_features.feedforward1.linear1.bias") // width,
            )
            parts["temporal"] = TemporalSettings(enabled=False)
            if has("temporal_adapter."):
                parts["temporal"] = TemporalSettings(
                    layers=count("temporal_adapter.layers."), feedforward=size("temporal_adapter.layers.0.linear1.bias")
                )
            parts["identity"] = IdentitySettings(
                enabled=_kind(state) == "FDTA", feature_extractor=has("identity_adapter.")
            )
        return ModelSettings(**parts)
    except ValueError as error:
        raise InputError(f"{path}: its shapes fit no model: {error}") from None


def _our_names(
    value: Any, path: Path, kept_class: str | int | None
) -> tuple[dict[str, Tensor], Mapping[str, Any], list[str], int]:
    """State dict under our names, the detector's starting with "detector."; as of `_unwrap`; classes in the file."""
    tensors, wrapper, left_out = _unwrap(value, path)
    try:
        state = from_published(tensors)
        classes = len(state.get("detector.class_heads.0.bias", [None]))
        if classes > 1:
            class_index = _class_index(kept_class, classes)
            state = from_published(tensors, class_index)
            left_out.append(f"{classes - 1} of {classes} classes (all but number {class_index})")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # Untrained heads differ in the bias of width and height alone.
    first, second = ([state.get(f"detector.box_heads.{layer}.{part}") for part in BOX_HEAD] for layer in range(2))
    if all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise InputError(
            f"{path}: all decoder layers share one box head: a Deformable DETR without iterative box refinement; use "
            f"one with"
        )
    return state, wrapper, left_out, classes


def _class_index(kept_class: str | int | None, classes: int) -> int:
    if isinstance(kept_class, int):
        return kept_class
    if classes != _COCO:
        raise InputError(
            f"it tells {classes} classes apart, not COCO's {_COCO}, whose names alone are known; give the number of "
            f"the class to keep, from 0 (--class NUMBER, or detector_class of the data set)"
        )
    return COCO_CLASSES[kept_class or "person"]


def _ours(entry: Any, path: Path) -> tuple[dict[str, Any], str]:
    """Settings and run of a file that `export_checkpoint` wrote."""
    run = entry.get("run") if isinstance(entry, Mapping) else None
    if not isinstance(run, str) or "/" not in run or not isinstance(entry.get("settings"), Mapping):
        raise InputError(f"{path}: its entry {OURS!r} is not as `fdta weights export` writes it; remove or mend it")
    check_run_name(run, path)
    checkpoint.model_settings(entry["settings"], path)
    return dict(entry["settings"]), run


def _kind(state: Mapping[str, Tensor]) -> Kind:
    parts = {name.partition(".")[0] for name in state}
    if "id_decoder" not in parts:
        return "Deformable DETR"
    adapters = {"temporal_adapter", "identity_adapter"} & parts
    return "FDTA" if adapters or any("spatial_adapter" in name for name in state) else "MOTIP"


def _unwrap(value: Any, path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any], list[str]]:
    """Tensors of the model (and of the criterion), the outermost mapping, and the names of what else is there."""
    wrapper = value if isinstance(value, Mapping) else {}
    tensors: dict[str, Tensor] = {}
    left_out = []
    while isinstance(value, Mapping):
        inner = next((key for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            break
        criterion = value.get(CRITERION)
        if isinstance(criterion, Mapping):
            tensors |= _bare_names(criterion)
        known = (inner, OURS, *([CRITERION] if isinstance(criterion, Mapping) else []))
        left_out += [str(key) for key, entry in value.items() if key not in known and entry not in (None, {})]
        value = value[inner]
    named = {key: entry for key, entry in value.items() if isinstance(entry, Tensor)} if wrapper else {}
    for name, tensor in named.items():
        if not str(name).endswith(_COUNTER):
            checkpoint.check_tensor(name, tensor, path)
    if not named:
        raise InputError(f"{path}: holds no state dict; give a checkpoint of FDTA, MOTIP or Deformable DETR")
    left_out += [str(key) for key in value if key not in named]
    tensors |= {key: entry for key, entry in _bare_names(named).items() if not key.endswith(_COUNTER)}
    return tensors, wrapper, left_out


def _bare_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without what wrappers of a module put before all of its names."""
    bare = {str(name): tensor for name, tensor in state.items()}
    while prefix := next((p for p in _PREFIXES if bare and all(name.startswith(p) for name in bare)), None):
        bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    return bare
