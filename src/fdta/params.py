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
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fdta.catalogue import Checkpoint, Source, read_catalogue
from fdta.reading import (
    ParamsError,
    build,
    convert,
    expand,
    listed,
    mapping,
    merge,
    only_keys,
    read_yaml,
    require,
    require_positive,
    require_share,
)

DETECTOR = "detector"
"""Name of the detector alone, among the variants."""
BASELINES = ("sort", "bytetrack", "oc-sort", "bot-sort")
"""Tracking-by-detection methods, run on the detections of the variant `full`."""


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
        require(len(self.widths) == len(self.blocks) == 4, "widths and blocks need four numbers, one a stage")
        require(min(*self.widths, *self.blocks, self.stem_width) > 0, "widths and blocks must be above 0")
        require(0 <= self.frozen_stages <= 5, "frozen_stages must lie in 0..5")


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
        require_positive(self, "width", "heads", "decoder_layers", "encoder_points", "decoder_points", "queries")
        require(self.width % self.heads == 0, f"width {self.width} is no multiple of heads {self.heads}")
        require(self.width % self.norm_groups == 0, f"width {self.width} is no multiple of norm_groups")
        require(self.width % 4 == 0, "width must be a multiple of 4")
        require(self.levels >= 3, "levels must be at least 3 (strides 8, 16, 32)")
        require_share(self, "dropout")


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
        require_positive(self, "bins", "feedforward")
        require(0 <= self.minimum < self.maximum, "minimum must lie in 0..maximum")
        require_share(self, "dropout")


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
        require_positive(self, "layers", "heads", "feedforward")
        require_share(self, "dropout")


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
        require_positive(self, "labels", "label_width", "layers", "heads", "feedforward_ratio")


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
        require_positive(self, "temperature", "chunk")
        require(-1 <= self.threshold <= 1, "threshold must lie in -1..1")
        require(self.first_epoch >= 0, "first_epoch must not be negative")


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
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        require(self.attributes >= 0, "attributes must not be negative")


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
        require_share(self, "flip", "crop", "brightness", "contrast", "saturation")
        require(0 <= self.hue <= 0.5, "hue must lie in 0..0.5")
        require(bool(self.short_sides), "short_sides must name at least one size")
        require(min(*self.short_sides, self.long_side, *self.crop_resize, *self.crop_sides) > 0, "sizes are above 0")
        require(self.crop_sides[0] <= self.crop_sides[1], "crop_sides is (smallest, largest)")


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
        require(1 <= self.intervals[0] <= self.intervals[1], "intervals is (smallest, largest), from 1")
        require_positive(self, "groups")
        require_share(self, "occlusion", "switch")
        require(0 <= self.still_shift < 1, f"still_shift must lie in 0..1, not {self.still_shift}")
        for name in self.stills:
            require(name.count("/") == 1, f"stills: {name!r} is not of the form DATASET/SPLIT")


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
    no_gradient_precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the detector on the frames without gradient; null: as `precision`."""
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
        require_positive(self, "epochs", "batch", "accumulate", "gradient_frames", "no_gradient_chunk")
        require_positive(self, "learning_rate", "clip_norm")
        require(self.clips_per_epoch is None or self.clips_per_epoch > 0, "clips_per_epoch must be above 0 or null")
        require(self.warmup_steps is None or self.warmup_steps >= 0, "warmup_steps must not be negative")
        require(list(self.milestones) == sorted(self.milestones), "milestones must rise")
        require(all(0 <= b < 1 for b in self.betas), "betas must lie in 0..1")
        require(min(self.backbone_scale, self.projection_scale, self.head_scale) >= 0, "scales must not be negative")
        require(self.validate_every >= 0 and self.validate_sequences > 0, "validate_every must not be negative")


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
        require_positive(self, "short_side", "long_side")
        require_share(self, "detection_threshold", "newborn_threshold", "id_threshold", "record_threshold")
        require(self.record_threshold <= self.detection_threshold, "record_threshold is above detection_threshold")


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
        require(self.history >= 2, f"history must be at least 2, not {self.history}")
        token = self.detector.width + self.association.label_width
        require(token % self.association.heads == 0, f"token width {token} is no multiple of association.heads")
        require(self.detector.width % self.temporal.heads == 0, "detector.width is no multiple of temporal.heads")
        require(bool(self.training_splits), "training_splits must name at least one split")
        require(
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
        require_positive(self, "width", "height", "frames", "speed")
        for name in ("objects", "object_height"):
            smallest, largest = getattr(self, name)
            require(0 < smallest <= largest, f"{name} is (smallest, largest), above 0")
        require(self.jerk >= 0 and self.cue >= 0, "jerk and cue must not be negative")
        require_share(self, "minimum_visible")


@dataclass(frozen=True)
class DatasetSettings:
    """One data set of a benchmark: where its sequences come from and what it overrides."""

    title: str
    splits: dict[str, int] = field(default_factory=dict)
    """Sequences a split; may be left out where the catalogue tells (`source`)."""
    render: RenderSettings | None = None
    """Settings of the renderer, or null for a real data set, which the catalogue describes."""
    source: str | None = None
    """Entry of the catalogue that describes a real data set; null: the one of the data set's own name."""
    counterpart: str | None = None
    """The paper's data set whose numbers stand beside this one's."""
    teacher: Literal["rendered", "video-depth-anything"] = "video-depth-anything"
    """Where pseudo depth comes from."""
    teacher_size: Literal["small", "base", "large"] = "large"
    """Which Video Depth Anything: ViT-S, ViT-B or ViT-L (the paper's, Sec. C.1)."""
    teacher_weights: str | None = None
    """Its published checkpoint (.pth)."""
    teacher_input_size: int = 518
    """Short side of its input in pixels; 518 is the published one."""
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
        require(bool(self.splits), "splits must name at least one split; the catalogue has no data set of this name")
        require(all(n > 0 for n in self.splits.values()), "every split needs at least one sequence")
        require(self.render is None or self.source is None, "give render or source, not both")
        require(self.teacher_input_size >= 28, f"teacher_input_size must be at least 28, not {self.teacher_input_size}")
        require(self.detector_class >= 0, f"detector_class must not be negative, not {self.detector_class}")
        for name in ("test_split", "validation_split"):
            split = getattr(self, name)
            require(split in self.splits, f"{name} {split!r} is not among the splits {sorted(self.splits)}")


@dataclass(frozen=True)
class TableSettings:
    """One table of the paper: which data set and which of our runs it shows."""

    title: str
    dataset: str
    """The paper's data set (`DatasetSettings.counterpart`); of a table that the paper lacks, a data set of ours."""
    rows: dict[str, str]
    """The paper's row label (paper.yaml) -> the variant or baseline that measures it here."""
    submissions: bool = False
    """Whether these are also tracked on the split whose ground truth a server keeps, and zipped for it."""


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
    gpus: int = 0
    """GPUs of one training; 0: everything is computed on the CPU."""

    def dataset(self, name: str) -> DatasetSettings:
        """Data set `name`.

        Raises:
            ParamsError: no such data set.
        """
        if name not in self.datasets:
            raise ParamsError(
                f"data set {name!r} is not in benchmark {self.name!r}, which has {listed(self.datasets)}; choose "
                f"another benchmark with --benchmark"
            )
        return self.datasets[name]

    def dataset_of(self, counterpart: str) -> str | None:
        """Our data set that stands for the paper's `counterpart`, or is itself of this name, or None."""
        return next((name for name, d in self.datasets.items() if counterpart in (d.counterpart, name)), None)


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
        raw = read_yaml(path)
        only_keys(raw, ("benchmark", "seeds", "benchmarks", "variants", "tables", "catalogue"), "", path)
        only_keys(raw, raw, "", path, needed=("benchmark", "benchmarks", "variants", "tables"))
        self._catalogue = read_catalogue(raw.get("catalogue", {}), path)
        self._benchmarks = mapping(raw["benchmarks"], "benchmarks", path)
        self.benchmark_names = tuple(self._benchmarks)
        self._variants = {
            name: mapping(overrides or {}, f"variants.{name}", path)
            for name, overrides in mapping(raw["variants"], "variants", path).items()
        }
        chosen = benchmark or raw["benchmark"]
        self.benchmark = self._benchmark(chosen, raw.get("seeds", [0]))
        self.tables = {
            name: build(TableSettings, table, f"tables.{name}", path)
            for name, table in mapping(raw["tables"], "tables", path).items()
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
                    f"{path}: {where}: no table shows {dataset.counterpart!r}; they show {listed(counterparts)}"
                )
        for key, names in (("variants", self.benchmark.variant_overrides), ("noise_seeds", self.benchmark.noise_seeds)):
            for name in names:
                if name not in self._variants:
                    where = f"benchmarks.{chosen}.{key}.{name}"
                    raise ParamsError(f"{path}: {where}: no such variant; there are {listed(self._variants)}")
        for name, table in self.tables.items():
            for row, measured_by in table.rows.items():
                if measured_by not in (*self._variants, *BASELINES):
                    raise ParamsError(
                        f"{path}: tables.{name}.rows.{row}: {measured_by!r} is neither a variant nor a baseline "
                        f"({listed(BASELINES)})"
                    )
        for dataset in self.benchmark.datasets:
            for variant in (DETECTOR, *self._variants):
                self.settings(dataset, variant)

    @property
    def all_datasets(self) -> tuple[str, ...]:
        """Names of the data sets of all benchmarks."""
        names = [name for raw in self._benchmarks.values() for name in (raw or {}).get("datasets", {})]
        return tuple(dict.fromkeys(names))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants."""
        return tuple(self._variants)

    @property
    def catalogue(self) -> dict[str, Source]:
        """Real data sets by name: the shipped ones, and those under ``catalogue.datasets``."""
        return self._catalogue.datasets

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Published checkpoints by file name: the shipped ones, and those under ``catalogue.checkpoints``."""
        return self._catalogue.checkpoints

    def source(self, dataset: str) -> Source | None:
        """What the catalogue tells of the data set `dataset` of the benchmark; None: it is rendered, or not listed.

        Raises:
            ParamsError: the benchmark has no such data set.
        """
        data = self.benchmark.dataset(dataset)
        return None if data.render is not None else self.catalogue.get(data.source or dataset)

    def submission_split(self, dataset: str) -> str | None:
        """Split of `dataset` whose ground truth a server keeps; its tracks are zipped for it.

        Raises:
            ParamsError: the benchmark has no such data set.
        """
        source = self.source(dataset)
        return next((name for name, split in source.splits.items() if not split.ground_truth), None) if source else None

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
                raise ParamsError(f"variant {variant!r} is not in {self.path}; there are {listed(self._variants)}")
            overrides.append((self._variants[variant], f"variants.{variant}"))
            if variant in self.benchmark.variant_overrides:
                where = f"benchmarks.{self.benchmark.name}.variants.{variant}"
                overrides.append((self.benchmark.variant_overrides[variant], where))
        merged: dict[str, Any] = {}
        for override, where in overrides:
            expanded = expand(override, where, self.path)
            build(Settings, expanded, where, self.path, validate=False)
            merged = merge(merged, expanded)
        return build(Settings, merged, f"{dataset}/{variant}", self.path)

    def _seeds(self, value: Any) -> tuple[int, ...]:
        seeds = convert(tuple[int, ...], value, "seeds", self.path)
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ParamsError(f"{self.path}: seeds: {value!r} must be a list of different numbers from 0, such as [0]")
        return seeds

    def _dataset(self, name: str, value: Any, where: str) -> DatasetSettings:
        """Settings of a data set; those of a real one get their splits from the catalogue where they have none."""
        raw = mapping(value, where, self.path)
        source = raw.get("source") or name
        if raw.get("render") is None and source in self.catalogue:
            raw.setdefault("splits", {split: s.sequences for split, s in self.catalogue[source].splits.items()})
        elif raw.get("source") is not None:
            raise ParamsError(
                f"{self.path}: {where}.source: the catalogue has no {source!r}; it has {listed(self.catalogue)}"
            )
        return build(DatasetSettings, raw, where, self.path)

    def _benchmark(self, name: str, seeds: Any) -> Benchmark:
        if name not in self._benchmarks:
            raise ParamsError(f"{self.path}: benchmark: {name!r} is unknown; allowed: {listed(self._benchmarks)}")
        where = f"benchmarks.{name}"
        raw = mapping(self._benchmarks[name], where, self.path)
        parent = raw.pop("inherits", None)
        if parent is not None:
            if parent not in self._benchmarks or parent == name:
                raise ParamsError(f"{self.path}: {where}.inherits: {parent!r} is no other benchmark")
            inherited = mapping(self._benchmarks[parent], f"benchmarks.{parent}", self.path)
            settings = merge(
                expand(inherited.get("settings", {}), f"benchmarks.{parent}.settings", self.path),
                expand(raw.get("settings", {}), f"{where}.settings", self.path),
            )
            raw = {**inherited, **raw, "settings": settings}
        allowed = ("note", "datasets", "settings", "seeds", "noise_seeds", "variants", "gpus")
        only_keys(raw, allowed, where, self.path, needed=("note", "datasets", "settings"))
        datasets = {
            key: self._dataset(key, value, f"{where}.datasets.{key}")
            for key, value in mapping(raw["datasets"], f"{where}.datasets", self.path).items()
        }
        for key, data in datasets.items():
            start = data.detector_start
            if start is not None and not start.endswith((".pt", ".pth")) and start not in datasets:
                raise ParamsError(
                    f"{self.path}: {where}.datasets.{key}.detector_start: {start!r} is neither a data set of the "
                    f"benchmark nor a checkpoint (.pt, .pth)"
                )
        gpus = convert(int, raw.get("gpus", 0), f"{where}.gpus", self.path)
        if gpus < 0:
            raise ParamsError(f"{self.path}: {where}.gpus: must not be negative, not {gpus}")
        return Benchmark(
            name=name,
            note=convert(str, raw["note"], f"{where}.note", self.path),
            datasets=datasets,
            settings=mapping(raw["settings"], f"{where}.settings", self.path),
            seeds=self._seeds(raw.get("seeds", seeds)),
            noise_seeds=convert(
                dict[str, tuple[int, ...]], raw.get("noise_seeds", {}), f"{where}.noise_seeds", self.path
            ),
            variant_overrides=mapping(raw.get("variants", {}), f"{where}.variants", self.path),
            gpus=gpus,
        )


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON-able values."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def settings_from_dict(value: dict[str, Any], where: str = "settings") -> Settings:
    """Settings that `settings_to_dict` wrote.

    Raises:
        ParamsError: a key or value does not fit.
    """
    return build(Settings, value, where, Path("checkpoint"))
