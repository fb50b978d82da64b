"""``fdta similarity``: the statistic of the paper's Fig. 1."""

from __future__ import annotations

import argparse

from fdta.cli import add_description, add_params, add_root, output_file
from fdta.names import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(parser, "\nCosine similarity between the embeddings of different objects of one frame (Fig. 1).")
    parser.add_argument("run", help="run that was tracked, DATASET/VARIANT/seed-N")
    parser.add_argument("split", help="split that was tracked")
    parser.add_argument(
        "--output", type=output_file, metavar="FILE", help="JSON to write; by default scores/RUN/SPLIT-similarity.json"
    )
    add_root(parser)
    add_params(parser)
    parser.set_defaults(call=_similarity)


def _similarity(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_step
    from fdta.evaluate.similarity import measure_similarity
    from fdta.experiment.params import Experiment
    from fdta.files import check_outputs, write_json

    run = Run.parse(options.run)
    if options.output is None:
        execute_step(options, lambda steps: steps.similarity(run, options.split))
        return
    check_outputs([options.output], [options.params, options.root / "detections"])
    settings = Experiment(options.params, options.benchmark).settings(run.dataset, run.variant)
    found = measure_similarity(
        options.root / "detections" / str(run) / options.split, settings.tracker.detection_threshold
    )
    write_json(options.output, found)
