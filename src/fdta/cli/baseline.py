"""``fdta baseline``: tracking-by-detection methods on the detections of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.names import BASELINES, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=BASELINES, help="method of the package `trackers`")
    parser.add_argument("folder", type=Path, help="folder of sequences, for example data/dance/test")
    parser.add_argument("--detections", required=True, metavar="RUN", help="run whose detections are linked")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of detections/ and tracks/")
    parser.set_defaults(call=_baseline)


def _baseline(options: argparse.Namespace) -> None:
    from fdta.files import digest, write_json
    from fdta.track.baselines import track_baseline

    run = Run.parse(options.detections)
    split = options.folder.name
    output = options.root / "tracks" / run.dataset / options.method / f"seed-{run.seed}" / split
    track_baseline(options.method, options.folder, options.root / "detections" / str(run) / split, output)
    write_json(
        output / "summary.json", {"method": options.method, "detections": str(run), "tracks": digest(output, "*.txt")}
    )
    print(f"written: {output}")
