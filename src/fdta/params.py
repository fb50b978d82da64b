"""Typed settings, and the only reader of ``params.yaml``.

The file names *benchmarks* (data sets and the settings they share), *variants* (overrides of the full model) and
*tables* (which variants stand in which table of the paper). A *run* is data set x variant x seed, written
``DATASET/VARIANT/seed-N``; its settings are the benchmark's, overridden by the data set's, overridden by the
variant's. Every mistake raises `ParamsError` with the path of the key.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fdta.errors import InputError

DETECTOR = "detector"
"""Name of the detector alone, among the variants."""
BASELINES = ("sort", "bytetrack", "oc-sort", "bot-sort")
"""Tracking-by-detection methods, run on the detections of the variant `full`."""


class ParamsError(InputError):
    """A wrong key or value in params.yaml."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(settings: Any, *names: str) -> None:
    for name in names:
        _require(getattr(settings, name) > 0, f"{name} must be above 0, not {getattr(settings, name)}")


def _require_share(settings: Any, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(settings, name) <= 1, f"{name} must lie in 0..1, not {getattr(settings, name)}")


@dataclass(frozen=True)
class BackboneSettings:
    """A ResNet; the defaults are ResNet-50 with frozen batch norm (MODEL.md, Detector)."""

    block: Literal["bottleneck", "basic"] = "bottleneck"
    norm: Literal["frozen-batch", "group"] = "frozen-batch"
    stem_width: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    frozen_stages: int = 2
    """How many of (stem, stage 1, ..., stage 4) are not trained."""

    def __post_init__(self) -> None:
        _require(len(self.widths) == len(self.blocks) == 4, "widths and blocks need four numbers, one a stage")
        _require(min(*self.widths, *self.blocks, self.stem_width) > 0, "widths and blocks must be above 0")
        _require(0 <= self.frozen_stages <= 5, "frozen_stages must lie in 0..5")


@dataclass(frozen=True)
class DetectorSettings:
    """Deformable DETR (MODEL.md, Detector)."""

    width: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    levels: int = 4
    encoder_points: int = 4
    decoder_points: int = 4
    feedforward: int = 1024
    queries: int = 300
    classes: int = 1
    dropout: float = 0.0
    norm_groups: int = 32
    reference_initialization: Literal["uniform", "grid"] = "uniform"
    """Starting reference points: drawn with the weights, or spread over the image."""

    def __post_init__(self) -> None:
        _require_positive(self, "width", "heads", "decoder_layers", "encoder_points", "decoder_points", "queries")
        _require(self.width % self.heads == 0, f"width {self.width} is no multiple of heads {self.heads}")
        _require(self.width % self.norm_groups == 0, f"width {self.width} is no multiple of norm_groups")
        _require(self.width % 4 == 0, "width must be a multiple of 4")
        _require(self.levels >= 3, "levels must be at least 3 (strides 8, 16, 32)")
        _require_share(self, "dropout")


@dataclass(frozen=True)
class SpatialSettings:
    """Spatial Adapter (paper Sec. 3.2, B.1; MODEL.md, Spatial Adapter)."""

    enabled: bool = True
    placement: Literal["after", "between", "before", "none"] = "after"
    """Depth attention after the visual cross-attention, between self- and visual attention, before both, or none."""
    position_embedding: bool = True
    bins: int = 150
    minimum: float = 1e-3
    maximum: float = 256.0
    feedforward: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require_positive(self, "bins", "feedforward")
        _require(0 <= self.minimum < self.maximum, "minimum must lie in 0..maximum")
        _require_share(self, "dropout")


@dataclass(frozen=True)
class TemporalSettings:
    """Temporal Adapter (paper Sec. 3.3; MODEL.md, Temporal Adapter)."""

    enabled: bool = True
    missing: Literal["mask", "zero-vector"] = "mask"
    layers: int = 6
    heads: int = 8
    feedforward: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require_positive(self, "layers", "heads", "feedforward")
        _require_share(self, "dropout")


@dataclass(frozen=True)
class AssociationSettings:
    """Trajectory features and ID decoder (MODEL.md, Trajectory features and ID decoder)."""

    labels: int = 50
    """K, the ID labels; "newborn" comes on top."""
    label_width: int = 256
    layers: int = 6
    heads: int = 16
    feedforward_ratio: int = 2
    initialization: Literal["xavier", "copy"] = "xavier"
    """Starting weights only: "copy" makes the untrained decoder look up the most similar history token's label."""

    def __post_init__(self) -> None:
        _require_positive(self, "labels", "label_width", "layers", "heads", "feedforward_ratio")


@dataclass(frozen=True)
class IdentitySettings:
    """Identity Adapter (paper Sec. 3.4; MODEL.md, Identity Adapter)."""

    enabled: bool = True
    feature_extractor: bool = True
    quality_filter: bool = True
    """The paper's IoU filter: drop samples under `threshold` and weigh pairs by the harmonic mean of their quality."""
    quality: Literal["giou", "iou"] = "giou"
    threshold: float = 0.5
    temperature: float = 0.1
    chunk: int = 10
    """Frames whose matched predictions are contrasted with one another."""
    first_epoch: int = 1
    """Epochs are counted from 0."""

    def __post_init__(self) -> None:
        _require_positive(self, "temperature", "chunk")
        _require(-1 <= self.threshold <= 1, "threshold must lie in -1..1")
        _require(self.first_epoch >= 0, "first_epoch must not be negative")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses, and Hungarian costs of the same names (MODEL.md)."""

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    depth: float = 1.0
    foreground_weight: float = 7.0
    """Weight of the pixels in a ground-truth box in the depth loss; the others weigh 1 (paper eq. 1)."""
    identity: float = 1.0
    association: float = 1.0
    attributes: float = 0.0
    """Weight of the appearance attributes in detector pre-training (rendered data only)."""
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    association_matching: Literal["last", "last-but-one"] = "last"
    """Decoder layer whose matching picks the embeddings of the ID branch; the published trainer, by an overwritten
    variable, uses the last but one (MODEL.md, Training)."""

    def __post_init__(self) -> None:
        for name in ("classification", "l1", "giou", "depth", "foreground_weight", "identity", "association"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative")
        _require(self.attributes >= 0, "attributes must not be negative")


@dataclass(frozen=True)
class AugmentationSettings:
    """One augmentation for a whole clip (MODEL.md, Training). Sizes in pixels."""

    flip: float = 0.5
    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    long_side: int = 1440
    crop: float = 0.5
    """How often the clip is resized to one of `crop_resize`, cropped to `crop_sides`, and resized as above."""
    crop_resize: tuple[int, ...] = (400, 500, 600)
    crop_sides: tuple[int, int] = (384, 600)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2

    def __post_init__(self) -> None:
        _require_share(self, "flip", "crop", "brightness", "contrast", "saturation")
        _require(0 <= self.hue <= 0.5, "hue must lie in 0..0.5")
        _require(bool(self.short_sides), "short_sides must name at least one size")
        _require(min(*self.short_sides, self.long_side, *self.crop_resize, *self.crop_sides) > 0, "sizes are above 0")
        _require(self.crop_sides[0] <= self.crop_sides[1], "crop_sides is (smallest, largest)")


@dataclass(frozen=True)
class ClipSettings:
    """How clips are drawn and what happens to their identities (MODEL.md, Training)."""

    intervals: tuple[int, int] = (1, 4)
    """Smallest and largest step between the frames of a clip."""
    groups: int = 6
    """Random assignments of ID labels to the identities of one clip."""
    occlusion: float = 0.5
    """Probability, per trajectory, that a run of its frames becomes missing."""
    switch: float = 0.5
    """Probability, per frame and per object, of taking part in a permutation of history embeddings."""
    stills: tuple[str, ...] = ()
    """Splits of still images, DATASET/SPLIT, that are trained on besides: each image becomes a clip by repeated shifts
    (CrowdHuman in the published code; off by default)."""
    still_shift: float = 0.06
    """Largest shift from frame to frame of such a clip, as a share of the image's sides."""

    def __post_init__(self) -> None:
        _require(1 <= self.intervals[0] <= self.intervals[1], "intervals is (smallest, largest), from 1")
        _require_positive(self, "groups")
        _require_share(self, "occlusion", "switch")
        _require(0 <= self.still_shift < 1, f"still_shift must lie in 0..1, not {self.still_shift}")
        for name in self.stills:
            _require(name.count("/") == 1, f"stills: {name!r} is not of the form DATASET/SPLIT")


@dataclass(frozen=True)
class TrainingSettings:
    """One training: of the detector alone (clips of one frame) or of the whole."""

    epochs: int = 13
    milestones: tuple[int, ...] = (6, 9)
    schedule: Literal["steps", "cosine"] = "steps"
    """"steps" multiplies the rate by 0.1 at each milestone; "cosine" is flat until the first and then falls to 0."""
    warmup_steps: int | None = None
    """Linear warm-up; null: the whole first epoch."""
    clips_per_epoch: int | None = None
    """null: every frame of the training split starts one clip an epoch."""
    batch: int = 1
    """Clips (for the detector alone: frames) at once through the model of each process."""
    accumulate: int = 1
    """Batches a step and process. The gradient of a step is the mean over them, each normalized by its own number of
    boxes, as the published trainer has it."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the networks in training (torch.autocast); weights, matching and losses stay float32. The published trainer
    uses float32."""
    gradient_frames: int = 4
    """Frames of a clip through which gradients reach the detector."""
    no_gradient_chunk: int = 8
    """Frames at once through the detector without gradient; bounds memory."""
    learning_rate: float = 1e-4
    backbone_scale: float = 0.1
    projection_scale: float = 0.05
    """Of the rate, for sampling offsets and reference points."""
    head_scale: float = 1.0
    """Of the rate, for all that is not the detector."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    clip_norm: float = 0.1
    """Largest gradient norm, for the detector and for the rest apart."""
    checkpoint_seconds: float = 60.0
    """Seconds between the checkpoints that a killed training goes on from."""
    validate_every: int = 0
    """Epochs between validations; 0: none."""
    validate_sequences: int = 4

    def __post_init__(self) -> None:
        _require_positive(self, "epochs", "batch", "accumulate", "gradient_frames", "no_gradient_chunk")
        _require_positive(self, "learning_rate", "clip_norm")
        _require(self.clips_per_epoch is None or self.clips_per_epoch > 0, "clips_per_epoch must be above 0 or null")
        _require(self.warmup_steps is None or self.warmup_steps >= 0, "warmup_steps must not be negative")
        _require(list(self.milestones) == sorted(self.milestones), "milestones must rise")
        _require(all(0 <= b < 1 for b in self.betas), "betas must lie in 0..1")
        _require(min(self.backbone_scale, self.projection_scale, self.head_scale) >= 0, "scales must not be negative")
        _require(self.validate_every >= 0 and self.validate_sequences > 0, "validate_every must not be negative")


@dataclass(frozen=True)
class TrackerSettings:
    """Online tracker (MODEL.md, Online tracker)."""

    short_side: int = 800
    long_side: int = 1440
    detection_threshold: float = 0.3
    newborn_threshold: float = 0.6
    id_threshold: float = 0.2
    assignment: Literal["object-max", "hungarian", "id-max"] = "object-max"
    record_threshold: float = 0.1
    """Detections above it are written beside the tracks, for the baselines and the similarity statistic."""

    def __post_init__(self) -> None:
        _require_positive(self, "short_side", "long_side")
        _require_share(self, "detection_threshold", "newborn_threshold", "id_threshold", "record_threshold")
        _require(self.record_threshold <= self.detection_threshold, "record_threshold is above detection_threshold")


@dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    history: int = 30
    """T: frames of a training clip, miss tolerance of the tracker, and length of the relative-time table."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    spatial: SpatialSettings = field(default_factory=SpatialSettings)
    temporal: TemporalSettings = field(default_factory=TemporalSettings)
    association: AssociationSettings = field(default_factory=AssociationSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    detector_training: TrainingSettings = field(default_factory=TrainingSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    training_splits: tuple[str, ...] = ("train",)

    def __post_init__(self) -> None:
        _require(self.history >= 2, f"history must be at least 2, not {self.history}")
        token = self.detector.width + self.association.label_width
        _require(token % self.association.heads == 0, f"token width {token} is no multiple of association.heads")
        _require(self.detector.width % self.temporal.heads == 0, "detector.width is no multiple of temporal.heads")
        _require(bool(self.training_splits), "training_splits must name at least one split")
        _require(
            self.loss.association_matching == "last" or self.detector.decoder_layers > 1,
            "loss.association_matching: a detector of one decoder layer has no last but one",
        )


@dataclass(frozen=True)
class RenderSettings:
    """One rendered data set. Lengths in pixels, times in frames."""

    scene: Literal["dance", "sports", "flock", "appearance"]
    """"appearance" mixes the other three with independently coloured parts, for pre-training the detector."""
    width: int = 160
    height: int = 96
    frames: int = 40
    objects: tuple[int, int] = (4, 6)
    """Smallest and largest number of objects in view at the start."""
    object_height: tuple[int, int] = (37, 57)
    """Height of the farthest and of the nearest figure; of flock: their wing span. In "appearance" birds are half as
    large."""
    speed: float = 1.0
    jerk: float = 0.3
    cue: float = 1.0
    """How far the individual cues (hat, stripe, tint) differ: 0 is identical costumes, 3 strong."""
    minimum_visible: float = 0.12
    """Objects of which a smaller share is visible have no box."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require_positive(self, "width", "height", "frames", "speed")
        for name in ("objects", "object_height"):
            smallest, largest = getattr(self, name)
            _require(0 < smallest <= largest, f"{name} is (smallest, largest), above 0")
        _require(self.jerk >= 0 and self.cue >= 0, "jerk and cue must not be negative")
        _require_share(self, "minimum_visible")


@dataclass(frozen=True)
class DatasetSettings:
    """One data set of a benchmark: where its sequences come from and what it overrides."""

    title: str
    splits: dict[str, int]
    """Sequences a split."""
    render: RenderSettings | None = None
    """Settings of the renderer, or null for a real data set, which the catalogue describes."""
    counterpart: str | None = None
    """The paper's data set whose numbers stand beside this one's."""
    teacher: Literal["rendered", "video-depth-anything"] = "video-depth-anything"
    """Where pseudo depth comes from."""
    teacher_size: Literal["small", "base", "large"] = "large"
    """Which Video Depth Anything: ViT-S, ViT-B or ViT-L (the paper's, Sec. C.1)."""
    teacher_weights: str | None = None
    """Its published checkpoint (.pth)."""
    detector_start: str | None = None
    """What the detector starts from: another data set of the benchmark, a checkpoint file (ours, or published: .pth),
    or null (from scratch)."""
    detector_class: int = 1
    """The class to keep of a published `detector_start` that tells COCO's 91 apart: 1 is person, 15 bird."""
    test_split: str = "test"
    validation_split: str = "val"
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of this data set that differ from the benchmark's."""

    def __post_init__(self) -> None:
        _require(bool(self.splits), "splits must name at least one split")
        _require(all(n > 0 for n in self.splits.values()), "every split needs at least one sequence")
        _require(self.detector_class >= 0, f"detector_class must not be negative, not {self.detector_class}")
        for name in ("test_split", "validation_split"):
            split = getattr(self, name)
            _require(split in self.splits, f"{name} {split!r} is not among the splits {sorted(self.splits)}")


@dataclass(frozen=True)
class TableSettings:
    """One table of the paper: which data set and which of our runs it shows."""

    title: str
    dataset: str
    """Name of the paper's data set (`DatasetSettings.counterpart`)."""
    rows: dict[str, str]
    """The paper's row label (paper.yaml) -> the variant or baseline that measures it here."""


@dataclass(frozen=True)
class Benchmark:
    """Data sets, the settings they share, and how many seeds are run."""

    name: str
    note: str
    datasets: dict[str, DatasetSettings]
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    noise_seeds: dict[str, tuple[int, ...]]
    """Variant -> further seeds of it, run on the data set of the ablations to tell how far a seed moves a score."""
    variant_overrides: dict[str, dict[str, Any]]

    def dataset(self, name: str) -> DatasetSettings:
        """Data set `name`.

        Raises:
            ParamsError: no such data set.
        """
        if name not in self.datasets:
            raise ParamsError(
                f"data set {name!r} is not in benchmark {self.name!r}, which has {_listed(self.datasets)}; choose "
                f"another benchmark with --benchmark"
            )
        return self.datasets[name]

    def dataset_of(self, counterpart: str) -> str | None:
        """Our data set that stands for the paper's `counterpart`, or None."""
        return next((name for name, d in self.datasets.items() if d.counterpart == counterpart), None)


@dataclass(frozen=True)
class Run:
    """One run, ``DATASET/VARIANT/seed-N``; the variant `detector` is the detector alone (``DATASET/detector``)."""

    dataset: str
    variant: str
    seed: int = 0

    PATTERN: typing.ClassVar[re.Pattern[str]] = re.compile(r"([\w-]+)/([\w-]+)/seed-(\d+)")

    @classmethod
    def parse(cls, text: str) -> Run:
        """Run of the name `text`.

        Raises:
            ParamsError: the name has another form.
        """
        match = cls.PATTERN.fullmatch(text.strip("/"))
        if match:
            return cls(match[1], match[2], int(match[3]))
        raise ParamsError(f"run {text!r}: a run is named DATASET/VARIANT/seed-N, for example dance/full/seed-0")

    def __str__(self) -> str:
        return f"{self.dataset}/{self.variant}/seed-{self.seed}"


class Params:
    """params.yaml, read and checked.

    Raises:
        ParamsError: the file cannot be read, or a key or value in it is wrong; the message gives the key's path.
    """

    def __init__(self, path: Path, benchmark: str | None = None) -> None:
        self.path = path
        raw = _read_yaml(path)
        _only_keys(raw, ("benchmark", "seeds", "benchmarks", "variants", "tables"), "", path)
        _only_keys(raw, raw, "", path, needed=("benchmark", "benchmarks", "variants", "tables"))
        self._benchmarks = _mapping(raw["benchmarks"], "benchmarks", path)
        self.benchmark_names = tuple(self._benchmarks)
        self._variants = {
            name: _mapping(overrides or {}, f"variants.{name}", path)
            for name, overrides in _mapping(raw["variants"], "variants", path).items()
        }
        chosen = benchmark or raw["benchmark"]
        self.benchmark = self._benchmark(chosen, raw.get("seeds", [0]))
        self.tables = {
            name: _build(TableSettings, table, f"tables.{name}", path)
            for name, table in _mapping(raw["tables"], "tables", path).items()
        }
        for name in self._variants:
            if name in (DETECTOR, *BASELINES):
                raise ParamsError(f"{path}: variants.{name}: the name is taken by the {name} itself; choose another")
        for where, names in (("variants", self._variants), ("datasets", self.benchmark.datasets)):
            for name in names:
                if not re.fullmatch(r"[\w-]+", name):
                    raise ParamsError(
                        f"{path}: {where}.{name}: use letters, digits, - and _ in names, they name folders"
                    )
        counterparts = sorted({table.dataset for table in self.tables.values()})
        for name, dataset in self.benchmark.datasets.items():
            if dataset.counterpart is not None and dataset.counterpart not in counterparts:
                where = f"benchmarks.{chosen}.datasets.{name}.counterpart"
                raise ParamsError(
                    f"{path}: {where}: no table shows {dataset.counterpart!r}; they show {_listed(counterparts)}"
                )
        for key, names in (("variants", self.benchmark.variant_overrides), ("noise_seeds", self.benchmark.noise_seeds)):
            for name in names:
                if name not in self._variants:
                    where = f"benchmarks.{chosen}.{key}.{name}"
                    raise ParamsError(f"{path}: {where}: no such variant; there are {_listed(self._variants)}")
        for name, table in self.tables.items():
            for row, measured_by in table.rows.items():
                if measured_by not in (*self._variants, *BASELINES):
                    raise ParamsError(
                        f"{path}: tables.{name}.rows.{row}: {measured_by!r} is neither a variant nor a baseline "
                        f"({_listed(BASELINES)})"
                    )
        for dataset in self.benchmark.datasets:
            for variant in (DETECTOR, *self._variants):
                self.settings(dataset, variant)

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants."""
        return tuple(self._variants)

    def settings(self, dataset: str, variant: str) -> Settings:
        """Settings of the runs of `variant` (or "detector") on `dataset`.

        Raises:
            ParamsError: no such data set or variant, or an impossible value.
        """
        data = self.benchmark.dataset(dataset)
        overrides = [
            (self.benchmark.settings, f"benchmarks.{self.benchmark.name}.settings"),
            (data.overrides, f"benchmarks.{self.benchmark.name}.datasets.{dataset}.overrides"),
        ]
        if variant == DETECTOR:
            overrides.append(({"spatial": {"enabled": False}}, DETECTOR))
        else:
            if variant not in self._variants:
                raise ParamsError(f"variant {variant!r} is not in {self.path}; there are {_listed(self._variants)}")
            overrides.append((self._variants[variant], f"variants.{variant}"))
            if variant in self.benchmark.variant_overrides:
                where = f"benchmarks.{self.benchmark.name}.variants.{variant}"
                overrides.append((self.benchmark.variant_overrides[variant], where))
        merged: dict[str, Any] = {}
        for override, where in overrides:
            expanded = _expand(override, where, self.path)
            _build(Settings, expanded, where, self.path, validate=False)
            merged = _merge(merged, expanded)
        return _build(Settings, merged, f"{dataset}/{variant}", self.path)

    def _seeds(self, value: Any) -> tuple[int, ...]:
        seeds = _convert(tuple[int, ...], value, "seeds", self.path)
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ParamsError(f"{self.path}: seeds: {value!r} must be a list of different numbers from 0, such as [0]")
        return seeds

    def _benchmark(self, name: str, seeds: Any) -> Benchmark:
        if name not in self._benchmarks:
            raise ParamsError(f"{self.path}: benchmark: {name!r} is unknown; allowed: {_listed(self._benchmarks)}")
        where = f"benchmarks.{name}"
        raw = _mapping(self._benchmarks[name], where, self.path)
        parent = raw.pop("inherits", None)
        if parent is not None:
            if parent not in self._benchmarks or parent == name:
                raise ParamsError(f"{self.path}: {where}.inherits: {parent!r} is no other benchmark")
            inherited = _mapping(self._benchmarks[parent], f"benchmarks.{parent}", self.path)
            settings = _merge(
                _expand(inherited.get("settings", {}), f"benchmarks.{parent}.settings", self.path),
                _expand(raw.get("settings", {}), f"{where}.settings", self.path),
            )
            raw = {**inherited, **raw, "settings": settings}
        allowed = ("note", "datasets", "settings", "seeds", "noise_seeds", "variants")
        _only_keys(raw, allowed, where, self.path, needed=("note", "datasets", "settings"))
        datasets = {
            key: _build(DatasetSettings, value, f"{where}.datasets.{key}", self.path)
            for key, value in _mapping(raw["datasets"], f"{where}.datasets", self.path).items()
        }
        for key, data in datasets.items():
            start = data.detector_start
            if start is not None and not start.endswith((".pt", ".pth")) and start not in datasets:
                raise ParamsError(
                    f"{self.path}: {where}.datasets.{key}.detector_start: {start!r} is neither a data set of the "
                    f"benchmark nor a checkpoint (.pt, .pth)"
                )
        return Benchmark(
            name=name,
            note=_convert(str, raw["note"], f"{where}.note", self.path),
            datasets=datasets,
            settings=_mapping(raw["settings"], f"{where}.settings", self.path),
            seeds=self._seeds(raw.get("seeds", seeds)),
            noise_seeds=_convert(
                dict[str, tuple[int, ...]], raw.get("noise_seeds", {}), f"{where}.noise_seeds", self.path
            ),
            variant_overrides=_mapping(raw.get("variants", {}), f"{where}.variants", self.path),
        )


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON-able values."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def settings_from_dict(value: dict[str, Any], where: str = "settings") -> Settings:
    """Settings that `settings_to_dict` wrote.

    Raises:
        ParamsError: a key or value does not fit.
    """
    return _build(Settings, value, where, Path("checkpoint"))


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, which refuses a key that a mapping has twice instead of forgetting the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in first:
                problem = f"the key {key!r} stands in lines {first[key]} and {line}; join them"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            first[key] = line
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(), _UniqueKeys)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder or give --params FILE") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ParamsError(f"{path}:{line} is no valid YAML: {getattr(error, 'problem', error)}") from None
    return _mapping(value, "the file", path)


def _listed(names: typing.Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names)


def _mapping(value: Any, where: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ParamsError(f"{path}: {where}: expected names with values, got {value!r}")
    return dict(value)


def _only_keys(
    raw: dict[str, Any], allowed: typing.Iterable[str], where: str, path: Path, needed: tuple[str, ...] = ()
) -> None:
    prefix = f"{where}." if where else ""
    allowed = tuple(allowed)
    for key in raw:
        if key not in allowed:
            raise ParamsError(f"{path}: {prefix}{key}: unknown key; allowed: {_listed(allowed)}")
    for key in needed:
        if key not in raw:
            raise ParamsError(f"{path}: {prefix}{key}: missing")


def _expand(overrides: Any, where: str, path: Path) -> dict[str, Any]:
    """Nested form of overrides whose keys may be dotted."""
    nested: dict[str, Any] = {}
    for key, value in _mapping(overrides, where, path).items():
        head, _, rest = key.partition(".")
        if rest:
            value = _expand({rest: value}, f"{where}.{head}", path)
        elif isinstance(value, dict):
            value = _expand(value, f"{where}.{head}", path)
        nested = _merge(nested, {head: value})
    return nested


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _build(cls: type, value: Any, where: str, path: Path, validate: bool = True) -> Any:
    """Dataclass `cls` from a mapping; without `validate` only its keys and types are checked."""
    raw = _mapping(value, where, path)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    needed = tuple(
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    _only_keys(raw, fields, where, path, needed if validate else ())
    converted = {}
    for key, item in raw.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            converted[key] = _build(hint, item, f"{where}.{key}", path, validate)
        else:
            converted[key] = _convert(hint, item, f"{where}.{key}", path)
    if not validate:
        return None
    try:
        return cls(**converted)
    except ValueError as error:
        raise ParamsError(f"{path}: {where}: {error}") from None


def _convert(hint: Any, value: Any, where: str, path: Path) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = next(a for a in arguments if a is not type(None))
        if dataclasses.is_dataclass(inner):
            return _build(inner, value, where, path)
        return _convert(inner, value, where, path)
    if origin is Literal:
        if value not in arguments:
            raise ParamsError(f"{path}: {where}: {value!r} is not allowed; allowed: {_listed(arguments)}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        variadic = len(arguments) == 2 and arguments[1] is Ellipsis
        if not variadic and len(value) != len(arguments):
            raise ParamsError(f"{path}: {where}: expected {len(arguments)} values, got {value!r}")
        inner = [arguments[0]] * len(value) if variadic else list(arguments)
        return tuple(_convert(h, v, f"{where}[{i}]", path) for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {
            _convert(arguments[0], key, where, path): _convert(arguments[1], item, f"{where}.{key}", path)
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        raise ParamsError(f"{path}: {where}: YAML reads {value} as text; write {float(value):.1e} with a point")
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ParamsError(f"{path}: {where}: expected {name}, got {value!r}")
