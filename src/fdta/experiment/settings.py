"""Settings of a run, a data set, a table and a benchmark, assembled from those of the components."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from fdta.data.settings import AugmentationSettings, ClipSettings
from fdta.loss.settings import LossSettings
from fdta.model.settings import ModelSettings
from fdta.names import DETECTOR, MOST_SEED
from fdta.settings import Count, Name, require, settings
from fdta.synthetic.settings import RenderSettings
from fdta.track.settings import TrackerSettings
from fdta.train.settings import TrainingSettings

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


@settings
class Settings(ModelSettings):
    """All settings of one run."""

    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    detector_training: TrainingSettings = field(default_factory=TrainingSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    validation: TrackerSettings = field(default_factory=TrackerSettings)
    """The tracker with which a training is validated. It is apart from `tracker`, so that another threshold there does
    not train again."""
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    training_splits: Annotated[tuple[Name, ...], Field(min_length=1)] = ("train",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.loss.association_matching == "last" or self.detector.decoder_layers > 1,
            "loss.association_matching: a detector of one decoder layer has no last but one",
        )


@settings
class DatasetSettings:
    """One data set of a benchmark: where its sequences come from and what it overrides."""

    title: str
    splits: Annotated[dict[Name, Count], Field(min_length=1)] = field(default_factory=dict)
    """Sequences per split; may be left out if the catalogue has them (`source`)."""
    render: RenderSettings | None = None
    """Settings of the renderer, or null for a real data set, which the catalogue describes."""
    source: str | None = None
    """Entry of the catalogue that describes a real data set; null: the one of the data set's own name."""
    counterpart: str | None = None
    """The paper's data set whose numbers are shown with this one's."""
    teacher: Literal["rendered", "video-depth-anything"] = "video-depth-anything"
    """Where pseudo depth comes from."""
    teacher_size: Literal["small", "base", "large"] = "large"
    """Which Video Depth Anything: ViT-S, ViT-B or ViT-L (the paper's, Sec. C.1)."""
    teacher_weights: str | None = None
    """Its published checkpoint (.pth)."""
    teacher_input_size: Annotated[int, Field(ge=28, le=10_000)] = 518
    """Short side of its input in pixels; 518 is the published one."""
    detector_start: str | None = None
    """What the detector starts from: another data set of the benchmark, a checkpoint file (ours, or published: .pth),
    or null (from scratch)."""
    detector: str | None = None
    """A checkpoint of this package to use as the detector, without training one; null: train it."""
    detector_class: Annotated[int, Field(ge=0)] | None = None
    """The class to keep of a published `detector_start`, or of `weights`, that tells several apart, counted from 0; of
    COCO's 91, 1 is person, 15 bird, and null stands for person."""
    weights: dict[Name, str] = field(default_factory=dict)
    """Variant, or `detector`, -> the published checkpoint (.pth) that is imported as its model. Nothing is trained on a
    data set that has any: only these variants have rows in the tables, and `detector` must be one of them."""
    test_split: Name = "test"
    validation_split: Name = "val"
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of this data set that differ from the benchmark's."""

    def __post_init__(self) -> None:
        require(bool(self.splits), "splits must name at least one split; the catalogue has no data set of this name")
        require(self.render is None or self.source is None, "give render or source, not both")
        for name in ("test_split", "validation_split"):
            split = getattr(self, name)
            require(split in self.splits, f"{name} {split!r} is not among the splits {sorted(self.splits)}")
        for variant, file in self.weights.items():
            named = re.fullmatch(r"[^{}\x00-\x1f\x7f]+\.(pt|pth)", file) is not None
            told = f"weights.{variant}: {file!r} must be a checkpoint file, .pth or .pt, outside models/"
            require(named and not file.startswith("models/"), told)
        require(
            not self.weights or DETECTOR in self.weights,
            "weights must name the checkpoint of the detector alone too (detector: FILE)",
        )
        require(
            not self.weights or self.detector is self.detector_start is None,
            "weights: nothing is trained, so that detector and detector_start do not go with it",
        )


@settings
class TableSettings:
    """One table of the paper: which data set and which of our runs it shows."""

    title: str
    dataset: str
    """The paper's data set (`DatasetSettings.counterpart`); of a table that the paper lacks, one of our data sets."""
    rows: dict[str, str]
    """The paper's row label (paper.yaml) -> the variant or baseline that measures it here."""
    submissions: bool = False
    """Whether these are also tracked on the split whose ground truth a server keeps, and zipped for it."""


@settings
class BenchmarkSettings:
    """Data sets, the settings they share, and how many seeds are run."""

    name: Name
    note: str
    datasets: dict[Name, DatasetSettings]
    settings: dict[str, Any]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    noise_seeds: dict[str, tuple[Seed, ...]] = field(default_factory=dict)
    """Variant -> further seeds of it, run on the data set of the ablations to tell how far a seed moves a score."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variant -> what it changes in this benchmark, in addition to its own overrides."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs of one training; 0: everything is computed on the CPU."""
    only: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Data sets that are run, with those that their detectors start from; null: all. Tables of others are left out."""
    tables: tuple[Name, ...] | None = None
    """Tables that are shown, of those below `tables` of the file; null: all."""
    submissions: bool = True
    """Whether splits whose ground truth a server keeps are tracked and zipped for it, where a table asks for it."""

    def __post_init__(self) -> None:
        require(len(set(self.seeds)) == len(self.seeds), f"seeds {list(self.seeds)} must be different numbers")
        for name, data in self.datasets.items():
            start = data.detector_start
            require(
                start is None or start.endswith((".pt", ".pth")) or start in self.datasets,
                f"datasets.{name}.detector_start: {start!r} is neither a data set of the benchmark nor a checkpoint "
                f"(.pt, .pth)",
            )
            require(
                not data.weights or (len(self.seeds) == 1 and not self.noise_seeds),
                f"datasets.{name}.weights: a checkpoint is one run; give one seed, and no noise_seeds",
            )

    def dataset_of(self, counterpart: str) -> str | None:
        """Our data set that measures what the paper's `counterpart` does, or is itself of this name, or None."""
        return next((name for name, d in self.datasets.items() if counterpart in (d.counterpart, name)), None)
