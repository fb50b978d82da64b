"""Gradients of two processes with one clip each; run with torchrun by tests/train/test_processes.py.

    train_in_two.py JOB OUTPUT

The job file holds, by objective, a model's state and what `gradients` needs; the first process writes the gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fdta.data.clips import ClipBatch
from fdta.distributed import average_gradients, process_group, rank
from fdta.experiment.settings import Settings
from fdta.loss.attributes import AttributeHeads
from fdta.model.detector import DeformableDetector
from fdta.model.fdta import FDTA
from fdta.train.detector import DetectorObjective
from fdta.train.tracker import TrackerObjective


def gradients(kind: str, settings: Settings, batch: ClipBatch) -> dict[str, Any]:
    """Loss terms and gradients, by parameter, averaged over the processes; in float64."""
    torch.manual_seed(0)
    if kind == "detector":
        detector = DeformableDetector(settings.backbone, settings.detector, settings.spatial)
        heads = AttributeHeads(settings.detector.width, {"a": 3, "b": 2}, settings.detector.decoder_layers)
        model = torch.nn.ModuleDict({"detector": detector, "attribute_heads": heads}).double()
        objective = DetectorObjective(model, settings)
    else:
        model = FDTA(settings).double()
        objective = TrackerObjective(model, settings)
    with torch.no_grad():
        for parameter in model.parameters():
            # So that no head starts at zero and hides gradients.
            parameter += 0.02 * torch.randn_like(parameter)
    total, terms = objective(batch, 1)
    total.backward()
    average_gradients(model.parameters())
    return {
        "terms": terms,
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
    }


if __name__ == "__main__":
    job, output = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        work = torch.load(job, weights_only=False)
        found = {kind: gradients(kind, settings, batches[rank()]) for kind, (settings, batches) in work.items()}
        if rank() == 0:
            torch.save(found, output)
