"""``fdta weights``: published checkpoints, in and out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fdta.cli import add_action, add_params, output_file
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.files import check_outputs
from fdta.names import Run

if TYPE_CHECKING:
    from fdta.model.published import PublishedCheckpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    read = add_action(actions, "import", "make a checkpoint of ours from one of FDTA, MOTIP or Deformable DETR")
    read.add_argument("file", type=Path, help="published checkpoint, for example r50_deformable_detr_coco.pth")
    read.add_argument("--output", type=output_file, required=True, metavar="FILE", help=".pt file to write")
    read.add_argument(
        "--class",
        dest="class_name",
        metavar="CLASS",
        help="class to keep of a detector of several: a number from 0; of COCO's 91 person (default) or bird",
    )
    read.set_defaults(call=_import)
    get = add_action(actions, "get", "download a published checkpoint of the catalogue")
    get.add_argument("file", metavar="FILE", help="its name, for example r50_deformable_detr_coco.pth")
    get.add_argument("--output", type=output_file, metavar="FILE", help="where it goes; by default pretrained/FILE")
    add_params(get)
    get.set_defaults(call=_get)
    write = add_action(actions, "export", "make a checkpoint that the published code loads from one of ours")
    write.add_argument("weights", metavar="RUN", help="run (dance/full/seed-0, dance/detector) or checkpoint file")
    write.add_argument("--output", type=output_file, required=True, metavar="FILE", help=".pth file to write")
    write.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
    write.set_defaults(call=_export)


def _get(options: argparse.Namespace) -> None:
    from fdta.acquire.download import fetch

    checkpoints = Experiment(options.params, options.benchmark).checkpoints
    if options.file not in checkpoints:
        raise InputError(f"{options.file}: not in the catalogue, which has {', '.join(checkpoints)}")
    checkpoint = checkpoints[options.file]
    output = options.output or Path("pretrained") / options.file
    check_outputs([output], [options.params])
    if output.is_file() and output.name != options.file:
        # What has the checkpoint's name is compared with its checksum, and removed if that differs.
        raise InputError(f"{output}: is there already; remove it or give another name")
    print(f"{options.file}: {checkpoint.licence}")
    fetch(checkpoint, output, f"checkpoints/{options.file}")
    print(f"whole: {output}")


def _import(options: argparse.Namespace) -> None:
    from fdta.model.exchange import import_checkpoint
    from fdta.model.published import COCO_CLASSES

    name = options.class_name
    if name is not None and name not in COCO_CLASSES and not name.isdecimal():
        raise InputError(f"--class {name}: give {', '.join(COCO_CLASSES)} or the number of a class")
    check_outputs([options.output], [options.file])
    found = import_checkpoint(options.file, options.output, int(name) if name and name.isdecimal() else name)
    print(f"{options.file}: {found.kind}{' (the variant base)' if found.kind == 'MOTIP' else ''}")
    print(f"found: {_found(found)}; {len(found.state)} tensors")
    print(f"missing: {'; '.join(found.missing) or 'nothing'}")
    print(f"left out: {', '.join(found.left_out) or 'nothing'}")
    use = f"fdta track FOLDER --weights {options.output}"
    if found.detector_alone:
        use = "trainings start from it as models/DATASET/detector/model.pt, or as a data set's detector_start"
    print(f"written: {options.output} ({found.run}); {use}")


def _found(found: PublishedCheckpoint) -> str:
    settings = found.settings
    detector, association = settings.detector, settings.association
    parts = [f"detector ({detector.queries} queries, width {detector.width})"]
    if settings.spatial.enabled:
        parts.append(f"Spatial Adapter ({settings.spatial.bins} depth bins)")
    if not found.detector_alone:
        if settings.temporal.enabled:
            parts.append(f"Temporal Adapter ({settings.temporal.layers} layers)")
        if any(name.startswith("identity_adapter") for name in found.state):
            parts.append("Identity Adapter")
        parts.append(f"ID decoder ({association.labels} labels, history of {settings.history} frames)")
    return ", ".join(parts)


def _export(options: argparse.Namespace) -> None:
    from fdta.experiment.plan import model_path
    from fdta.model.exchange import export_checkpoint

    path = Path(options.weights)
    if not path.is_file():
        path = model_path(options.root, Run.parse(options.weights))
    check_outputs([options.output], [path, options.root / "models"])
    print(f"written: {options.output} ({export_checkpoint(path, options.output)})")
