"""A whole training in float64, on one process or, with torchrun, on several.

    train_exactly.py DATA ACCUMULATE OUTPUT

DATA is a data set of `equal_sequence`; the first process writes the weights to OUTPUT/weights.pt.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fdta.data.clips import ClipBatch, ClipDataset
from fdta.data.settings import AugmentationSettings
from fdta.distributed import process_group, rank
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.model.fdta import FDTA
from fdta.train.loop import fit
from fdta.train.tracker import TrackerObjective

ROOT = Path(__file__).parents[2]


def equal_sequence(folder: Path, frames: int) -> None:
    """Noise of 64 x 48 pixels and three boxes that move through all frames.

    So that each clip has as many boxes as the others: their numbers divide the losses of the processes together, but of
    accumulated batches one by one.
    """
    for part in ("img1", "gt", "depth"):
        (folder / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for frame in range(1, frames + 1):
        image = random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"img1/{frame:08d}.jpg"), image)
        cv2.imwrite(str(folder / f"depth/{frame:08d}.png"), image[..., 0])
        rows += [f"{frame},{i},{12 * i + frame},{9 * i - frame / 2},14,16,1,1,1\n" for i in (1, 2, 3)]
    (folder / "gt/gt.txt").write_text("".join(rows))
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nseqLength={frames}\nimWidth=64\nimHeight=48\n")


def settings(accumulate: int) -> Settings:
    """Of the smoke benchmark's full model, without what would make the clips' numbers of objects differ."""
    full = Experiment(ROOT / "params.yaml", "smoke").settings("smoke-dance", "full")
    augmentation = AugmentationSettings(crop=0.0, short_sides=(48,), long_side=64)
    training = dataclasses.replace(
        full.training, epochs=2, milestones=(1,), clips_per_epoch=6, batch=1, accumulate=accumulate
    )
    return dataclasses.replace(
        full,
        history=4,
        augmentation=augmentation,
        clip=dataclasses.replace(full.clip, occlusion=0.0, switch=0.5),
        identity=dataclasses.replace(full.identity, quality_filter=False),
        training=dataclasses.replace(training, gradient_frames=2),
    )


def train(data: Path, accumulate: int, output: Path) -> dict[str, Tensor]:
    """Weights at the end of a training of six steps, of two clips each."""
    chosen = settings(accumulate)
    torch.manual_seed(0)
    model = FDTA(chosen).double()
    objective = TrackerObjective(model, chosen)

    def exact(batch: ClipBatch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        targets = [dataclasses.replace(each, boxes_cxcywh=each.boxes_cxcywh.double()) for each in batch.targets]
        return objective(dataclasses.replace(batch, images=batch.images.double(), targets=targets), epoch)

    clips = ClipDataset(data, ("train",), chosen, chosen.history, True, False, chosen.training.clips_per_epoch, 0)
    output.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu")
    fit(model, exact, clips, chosen.training, folder=output, origin="", seed=0, device=device)
    return model.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with process_group(torch.device("cpu")):
        weights = train(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
        if rank() == 0:
            torch.save(weights, Path(sys.argv[3]) / "weights.pt")
