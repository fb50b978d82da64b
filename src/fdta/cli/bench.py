"""``fdta bench``: speed on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_action, add_compute, add_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    infer = add_action(actions, "infer", "measure milliseconds a frame by component of the online tracker (Table 8)")
    infer.add_argument("folder", type=Path, help="folder of sequences, for example data/dance/test; the first is used")
    infer.add_argument(
        "--weights", required=True, metavar="RUN", help="run (dance/full/seed-0) or checkpoint file (model.pt)"
    )
    infer.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of models/")
    infer.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write")
    infer.add_argument("--repeats", type=int, default=3, metavar="N", help="passes over the sequence")
    add_compute(infer)
    add_params(infer)
    infer.set_defaults(call=_infer)


def _infer(options: argparse.Namespace) -> None:
    from fdta.data.motchallenge import read_split
    from fdta.device import choose_device
    from fdta.evaluate.speed import measure_inference
    from fdta.files import write_json
    from fdta.track.run import load_run

    device = choose_device(options.device, options.threads)
    model, settings, _ = load_run(options.weights, options.root, options.params, options.benchmark, device)
    measured = measure_inference(model, read_split(options.folder)[0], settings, device, options.repeats)
    write_json(options.output, measured)
    print(f"written: {options.output}, {measured['milliseconds']['total']:.2f} ms a frame")
