"""``fdta data``: data sets on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fdta.cli import add_action, add_params, add_root
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.files import check_outputs

if TYPE_CHECKING:
    from fdta.acquire.catalogue import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    render = add_action(actions, "render", "draw the sequences of a rendered data set")
    render.add_argument("dataset", help="data set of the benchmark, for example dance")
    render.add_argument("split", help="train, val or test")
    add_root(render)
    add_params(render)
    render.set_defaults(call=_render)
    get = add_action(actions, "get", "download, convert and verify a split of a real data set")
    get.add_argument("dataset", help="data set of the benchmark or the catalogue, for example dancetrack")
    get.add_argument("split", help="train, val or test")
    _add_root(get)
    get.add_argument(
        "--downloads", type=Path, default=Path("downloads"), metavar="FOLDER", help="where archives are kept"
    )
    add_params(get)
    get.set_defaults(call=_get)
    take = add_action(actions, "import", "take a data set that is on this machine already, with hard links")
    take.add_argument("dataset", help="data set of the benchmark or the catalogue, for example dancetrack")
    take.add_argument("path", type=Path, help="what holds it: unpacked as it is published, or its archives")
    take.add_argument("--split", metavar="SPLIT", help="take this split alone")
    _add_root(take)
    add_params(take)
    take.set_defaults(call=_import)
    stills = add_action(actions, "crowdhuman", "make a split of CrowdHuman's still images, to train on besides")
    stills.add_argument("annotations", type=Path, help="CrowdHuman's annotation_train.odgt or annotation_val.odgt")
    stills.add_argument("images", type=Path, help="folder of its images, ID.jpg")
    stills.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="split to write, for example data/crowdhuman/train"
    )
    stills.set_defaults(call=_crowdhuman)
    check = add_action(actions, "check", "read every line and image of a data set or split and report defects")
    check.add_argument("dataset", metavar="DATASET_OR_FOLDER", help="for example dancetrack, or data/dance/train")
    check.add_argument("splits", nargs="*", metavar="SPLIT", help="splits to check; by default all that are there")
    check.add_argument("--decode", action="store_true", help="decode every image whole, not its header and end alone")
    _add_root(check)
    add_params(check)
    check.set_defaults(call=_check)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path("data"), metavar="FOLDER", help="folder of all data sets")


def _render(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step

    dataset = Experiment(options.params, options.benchmark).dataset(options.dataset)
    if dataset.render is None:
        raise InputError(
            f"data set {options.dataset!r} is not rendered; 'fdta data get {options.dataset} SPLIT' gets it"
        )
    execute_step(options, lambda steps: steps.split(options.dataset, options.split))


def _get(options: argparse.Namespace) -> None:
    from fdta.acquire.splits import get_split

    source = _source(options, options.split)
    print(f"{source.title}: {source.licence}")
    folder = get_split(options.dataset, source, options.split, options.root, options.downloads)
    print(f"whole: {folder}, {source.splits[options.split].sequences} sequences")


def _import(options: argparse.Namespace) -> None:
    from fdta.acquire.splits import import_splits

    source = _source(options, options.split)
    folders = import_splits(options.dataset, source, options.path, options.root, options.split)
    for split, folder in folders.items():
        print(f"whole: {folder}, {source.splits[split].sequences} sequences")
    left = [split for split in source.splits if split not in folders]
    if options.split is None and left:
        print(f"not taken: {', '.join(left)}")


def _crowdhuman(options: argparse.Namespace) -> None:
    from fdta.acquire.crowdhuman import convert_crowdhuman

    check_outputs([options.output], [options.annotations, options.images])
    sequences = convert_crowdhuman(options.annotations, options.images, options.output)
    print(f"whole: {options.output}, {sequences} sequences of one frame")


def _source(options: argparse.Namespace, split: str | None) -> Source:
    """What the catalogue tells of a data set of the benchmark, or else of its entry of that name."""
    params = Experiment(options.params, options.benchmark)
    name = options.dataset
    source = params.source(name) if name in params.benchmark.datasets else params.catalogue.get(name)
    if source is None:
        if name in params.benchmark.datasets and params.dataset(name).render is not None:
            raise InputError(f"data set {name!r} is rendered; 'fdta data render {name} SPLIT' draws it")
        raise InputError(
            f"data set {name!r} is not in the catalogue, which has {', '.join(params.catalogue)}; docs/datasets.md "
            f"tells how to add it"
        )
    if split is not None and split not in source.splits:
        raise InputError(f"split {split!r}: {name} has {', '.join(source.splits)}")
    return source


def _check(options: argparse.Namespace) -> None:
    from fdta.acquire.check import check_split, missing_sequences
    from fdta.model.settings import DetectorSettings

    defects: list[str] = []
    source, folders = _splits_to_check(options)
    for folder in folders:
        published = source.splits.get(folder.name) if source else None
        form = source.form if source else None
        reports = check_split(folder, decode=options.decode, published=published, form=form)
        for report in reports:
            print(report)
        found = [defect for report in reports for defect in report.defects]
        wrong = missing_sequences(len(reports), published) if published else None
        found += [f"{folder}: {wrong}"] if wrong else []
        counted = f"{len(reports)} sequences" if wrong is None else wrong
        names = ("frames", "boxes", "identities", "uncounted", "beyond", "unusable")
        totals = {name: sum(getattr(report, name) for report in reports) for name in names}
        frames, boxes, identities, uncounted, beyond, unusable = totals.values()
        defects += found
        if uncounted:
            print(
                f"{folder}: {uncounted} boxes do not count (column 7 is 0): scoring leaves them out, training learns "
                f"them unless clip.uncounted_boxes is false"
            )
        if beyond:
            print(f"{folder}: {beyond} boxes reach beyond the image; training cuts them if clip.cut_boxes is true")
        if unusable:
            print(
                f"{folder}: {unusable} of {frames} frames have no box, or more than {DetectorSettings().queries}; "
                f"training leaves out the clips that have one of them"
            )
        print(f"{folder}: {counted}, {frames} frames, {boxes} boxes, {identities} identities; {len(found)} defects")
    if defects:
        raise InputError(
            f"{options.dataset}: {len(defects)} defects, listed above; mend or remove these files; the first: "
            f"{defects[0]}"
        )


def _splits_to_check(options: argparse.Namespace) -> tuple[Source | None, list[Path]]:
    """What the catalogue tells, if anything, and the folders of the splits."""
    from fdta.acquire.check import split_folders

    path = Path(options.dataset)
    if path.is_dir() or path.name != options.dataset:
        return None, split_folders(path, options.splits)
    params = Experiment(options.params, options.benchmark)
    source = params.catalogue.get(options.dataset)
    if options.dataset in params.benchmark.datasets:
        source, splits = params.source(options.dataset), tuple(params.dataset(options.dataset).splits)
    elif source is not None:
        splits = tuple(source.splits)
    else:
        names = ", ".join((*params.benchmark.datasets, *params.catalogue))
        raise InputError(f"{options.dataset}: neither a folder nor a data set; these are {names}")
    for split in options.splits:
        if split not in splits:
            raise InputError(f"split {split!r}: {options.dataset} has {', '.join(splits)}")
    folders = [options.root / options.dataset / split for split in options.splits or splits]
    present = folders if options.splits else [folder for folder in folders if folder.is_dir()]
    if not present:
        raise InputError(f"{options.root / options.dataset}: no split is there yet; 'fdta data get' gets them")
    return source, present
