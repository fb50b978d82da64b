"""``fdta score``: TrackEval."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from fdta.cli import add_description, output_file
from fdta.evaluate.settings import Preprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser, "\nPrints HOTA, IDF1, AssA, MOTA and DetA in per cent, by sequence and combined; the file has more."
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FOLDER", help="folder of SEQUENCE/gt/gt.txt"
    )
    parser.add_argument("--tracks", type=Path, required=True, metavar="FOLDER", help="folder of SEQUENCE.txt")
    parser.add_argument("--output", type=output_file, metavar="FILE", help="JSON to write")
    parser.add_argument(
        "--preprocessing",
        choices=("auto", *get_args(Preprocessing)),
        default="auto",
        help="benchmark whose distractors are removed before counting; auto: the one that a sequence is named after "
        "(MOT17-02-...)",
    )
    parser.set_defaults(call=_score)


def _score(options: argparse.Namespace) -> None:
    from fdta.evaluate.metrics import SCORES
    from fdta.evaluate.score import COMBINED, score
    from fdta.files import check_outputs, write_json
    from fdta.report.cells import Column, Number, Row, Table, Text
    from fdta.report.console import console_text

    preprocessing = None if options.preprocessing == "auto" else options.preprocessing
    check_outputs([options.output], [options.ground_truth, *options.tracks.glob("*.txt")])
    scores = score(options.ground_truth, options.tracks, preprocessing=preprocessing)
    if options.output:
        write_json(options.output, scores)
    columns = (Column("per cent", text=True), *(Column(metric.label) for metric in SCORES))
    rows = [
        Row((Text(name), *(Number(scores[name][metric.name], metric) for metric in SCORES)))
        for name in (*sorted(scores.keys() - {COMBINED}), COMBINED)
    ]
    print(console_text(Table(columns, {"": rows})))
