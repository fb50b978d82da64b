"""``fdta weights``: published checkpoints, in and out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fdta.cli import WEIGHTS, add_action, add_catalogue, add_description, output_file
from fdta.errors import InputError
from fdta.files import check_outputs
from fdta.names import Run
from fdta.settings import suggestion

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
    get.add_argument("file", metavar="NAME", help="its name or file name: dancetrack, r50_deformable_detr_coco.pth")
    get.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="where it goes as it is published; by default a file name goes to pretrained/, and a name to the cache "
        "folder, ready to track with",
    )
    add_catalogue(get)
    get.set_defaults(call=_get)
    listing = add_action(actions, "list", "print the published checkpoints of the catalogue")
    add_description(
        listing,
        "\nA name can be given as --weights wherever a run or a checkpoint file can. The first time it is downloaded to"
        "\nthe cache folder: FDTA_CACHE, else fdta in XDG_CACHE_HOME, else ~/.cache/fdta.",
    )
    add_catalogue(listing)
    listing.set_defaults(call=_list)
    write = add_action(actions, "export", "make a checkpoint that the published code loads from one of ours")
    write.add_argument("weights", metavar="RUN", help=f"{WEIGHTS}; also a detector (dance/detector)")
    write.add_argument("--output", type=output_file, required=True, metavar="FILE", help=".pth file to write")
    write.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
    add_catalogue(write)
    write.set_defaults(call=_export)


def _get(options: argparse.Namespace) -> None:
    from fdta.acquire.catalogue import catalogue_beside
    from fdta.acquire.download import fetch
    from fdta.acquire.pretrained import pretrained

    named, checkpoints = pretrained(options.params), catalogue_beside(options.params).checkpoints
    if options.file in named and options.output is None:
        tracker = named[options.file]
        print(f"ready: {tracker.get()}; fdta track VIDEO --weights {tracker.name}")
        return
    file = named[options.file].file if options.file in named else options.file
    if file not in checkpoints:
        raise InputError(f"{file}: not in the catalogue; {suggestion(file, (*named, *checkpoints))}")
    checkpoint = checkpoints[file]
    output = options.output or Path("pretrained") / file
    check_outputs([output], [options.params])
    if output.is_file() and output.name != file:
        # What has the checkpoint's name is compared with its checksum, and removed if that differs.
        raise InputError(f"{output}: is there already; remove it or give another name")
    print(f"{file}: {checkpoint.licence}")
    fetch(checkpoint, output, f"checkpoints/{file}")
    print(f"complete: {output}")


def _list(options: argparse.Namespace) -> None:
    from tabulate import tabulate

    from fdta.acquire.catalogue import catalogue_beside
    from fdta.acquire.download import gigabytes
    from fdta.acquire.pretrained import cache_folder, pretrained

    in_cache = {tracker.file: tracker for tracker in pretrained(options.params).values()}
    rows = []
    for file, checkpoint in catalogue_beside(options.params).checkpoints.items():
        copies = {"pretrained/": Path("pretrained") / file}
        if file in in_cache:
            copies = {"cache": in_cache[file].published} | copies
        here = [name for name, path in copies.items() if path.is_file()]
        size = copies[here[0]].stat().st_size if here else checkpoint.size
        row = (checkpoint.name, file, checkpoint.kind, ", ".join(here) or "no", gigabytes(size) if size else None)
        place = str(checkpoint).removeprefix("https://").removesuffix(f"/{file}")
        rows.append((*row, checkpoint.licence, place))
    rows.sort(key=lambda row: (row[0] is None, row[2] != "FDTA"))
    headings = ("name", "file", "what", "here", "size", "licence", "from")
    print(tabulate([[cell or "-" for cell in row] for row in rows], headings, "plain", disable_numparse=True))
    print(f"cache folder: {cache_folder()}")


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
    from fdta.acquire.pretrained import Pretrained
    from fdta.experiment.plan import model_path
    from fdta.model.exchange import export_checkpoint
    from fdta.track.weights import find_weights

    found = find_weights(options.weights, options.params)
    if isinstance(found, Pretrained):
        path = found.get()
    else:
        path = model_path(options.root, found) if isinstance(found, Run) else found
    check_outputs([options.output], [path, options.root / "models"])
    print(f"written: {options.output} ({export_checkpoint(path, options.output)})")
