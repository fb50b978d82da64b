"""The benchmarks of real data in miniature: small models, archives and checkpoints of the published form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fdta.depth.video_depth_anything import VideoDepthAnything
from fdta.experiment.params import Experiment
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.model.settings import BackboneSettings, DetectorSettings, SpatialSettings
from fdta.model.weights import to_published
from fdta.names import DETECTOR
from helpers.published_forms import write_published_archives

ROOT = Path(__file__).parents[2]
DETECTOR_SIZES = {"width": 32, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 32, "queries": 10}
BACKBONE = {"stem_width": 8, "widths": [8, 8, 16, 16], "blocks": [1, 1, 1, 1]}
SETTINGS = {
    "history": 4,
    "backbone": BACKBONE,
    "detector": DETECTOR_SIZES,
    "spatial": {"feedforward": 32},
    "temporal": {"layers": 1, "feedforward": 32},
    "association": {"labels": 6, "label_width": 32, "layers": 1, "heads": 4},
    "augmentation": {"short_sides": [64], "long_side": 96, "crop_resize": [70], "crop_sides": [48, 60]},
    "clip": {"intervals": [1, 1], "groups": 2},
    "detector_training": {"epochs": 1, "clips_per_epoch": 4, "batch": 2, "gradient_frames": 1},
    "training": {"epochs": 1, "clips_per_epoch": 2, "milestones": [], "gradient_frames": 2},
    "tracker": {
        "short_side": 64,
        "long_side": 96,
        "detection_threshold": 0.005,
        "newborn_threshold": 0.005,
        "record_threshold": 0.001,
    },
}
"""Of the runs of both benchmarks."""
STARTS = ("r50_deformable_detr_coco.pth", "video_depth_anything_vits.pth")


def miniature_params(served: Path, url: str, rows: dict[str, dict[str, str]], frames: int = 8) -> dict[str, Any]:
    """params.yaml whose benchmarks `paper` and `published` have small models and get everything from `url`.

    The archives are written to `served`, for every split two sequences of `frames` frames.

    Args:
        served: folder that is served.
        url: where.
        rows: table -> its rows; other tables are left out.
        frames: of a sequence.
    """
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw |= write_published_archives(served, url, sequences=2, frames=frames)
    paper, published = raw["benchmarks"]["paper"], raw["benchmarks"]["published"]
    files = [
        *STARTS,
        *(Path(file).name for data in published["datasets"].values() for file in data["weights"].values()),
    ]
    raw["catalogue"]["checkpoints"] = {name: {"url": f"{url}/{name}", "licence": f"{name} is free"} for name in files}
    for benchmark in (paper, published):
        benchmark |= {"gpus": 0, "settings": SETTINGS}
        for data in benchmark["datasets"].values():
            data["overrides"] = {}
    for data in paper["datasets"].values():
        data |= {"teacher_size": "small", "teacher_weights": f"pretrained/{STARTS[1]}", "teacher_input_size": 28}
    raw["tables"] = {name: raw["tables"][name] | {"rows": chosen} for name, chosen in rows.items()}
    return raw


def write_starts(folder: Path) -> None:
    """A Deformable DETR of COCO's 91 classes and Video Depth Anything, in the published form."""
    torch.manual_seed(0)
    backbone = BackboneSettings(
        **{name: tuple(size) if isinstance(size, list) else size for name, size in BACKBONE.items()}
    )
    detector = DeformableDetector(
        backbone, DetectorSettings(classes=91, **DETECTOR_SIZES), SpatialSettings(enabled=False)
    )
    torch.save({"model": _detector_state(detector), "epoch": 49}, folder / STARTS[0])
    torch.save(VideoDepthAnything("small").state_dict(), folder / STARTS[1])


def write_weights(folder: Path, experiment: Experiment) -> None:
    """The checkpoints that the data sets of `experiment` name as their weights, seeded, in the published form."""
    for number, (dataset, data) in enumerate(experiment.benchmark.datasets.items()):
        for variant, file in data.weights.items():
            torch.manual_seed(number)
            settings = experiment.settings(dataset, variant)
            if variant == DETECTOR:
                state = _detector_state(DeformableDetector(settings.backbone, settings.detector, settings.spatial))
            else:
                own = FDTA(settings).state_dict()
                # What the published code does not save.
                kept = {
                    name: own[name]
                    for name in own
                    if not name.startswith("identity_adapter.") and "bin_values" not in name
                }
                state = to_published(kept)
            torch.save({"model": state, "optimizer": None, "states": {"epoch": 12}}, folder / Path(file).name)


def _detector_state(detector: DeformableDetector) -> dict[str, Tensor]:
    """State of a detector alone under the published names."""
    state = to_published({f"detector.{name}": tensor for name, tensor in detector.state_dict().items()})
    return {name.removeprefix("detr."): tensor for name, tensor in state.items()}
