"""``fdta score``: TrackEval."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += "\nGives HOTA, DetA, AssA, MOTA, IDF1 and more, in per cent, per sequence and combined."
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FOLDER", help="folder of SEQUENCE/gt/gt.txt"
    )
    parser.add_argument("--tracks", type=Path, required=True, metavar="FOLDER", help="folder of SEQUENCE.txt")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write")
    parser.set_defaults(call=_score)


def _score(options: argparse.Namespace) -> None:
    from fdta.evaluate.score import COMBINED, score
    from fdta.files import write_json

    scores = score(options.ground_truth, options.tracks)
    write_json(options.output, scores)
    print("  ".join(f"{name} {scores[COMBINED][name]:.1f}" for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")))
