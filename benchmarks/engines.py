"""Speed of torch and onnxruntime on a CPU: the same weights and inputs, in one process, by turns.

``python benchmarks/engines.py --size 800 1422`` (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from fdta.cli.bench import MEDIAN, check, choose_drawn, print_table, write
from fdta.device import choose_device
from fdta.errors import InputError
from fdta.evaluate.speed import settings_of_size
from fdta.evaluate.timing import drawn_model, summary
from fdta.experiment.params import Experiment
from fdta.experiment.settings import Settings
from fdta.machine import machine
from fdta.model.inference import optimized
from fdta.names import Run
from fdta.track.exported import Exported, write_exported
from fdta.track.pipeline import Networks

CPU = torch.device("cpu")


def compare_engines(
    settings: Settings, size: tuple[int, int], objects: int, threads: list[int], repeats: int, fixed: bool = False
) -> dict[str, Any]:
    """Time detector and association of a model with drawn weights on one random image, by turns.

    Args:
        settings: of the model; all frames that it remembers are full of objects.
        size: height and width of the image in the network.
        objects: in the frame, and in each frame of the history.
        threads: numbers of CPU threads, one after the other.
        repeats: turns that are measured, after another one.
        fixed: whether the export is for images of `size` alone.

    Returns:
        JSON-able: for each number of threads, network and clock ("wall", or the "processor" time of the process) the
        milliseconds of both engines (median, smallest, largest), and torch / onnxruntime of each turn likewise.

    Raises:
        InputError: a package is missing, or onnxruntime computes other numbers.
    """
    model = drawn_model(settings, CPU)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "exported"
        write_exported(model, settings, "drawn/full/seed-0", folder, size if fixed else None)
        exported = Exported.read(folder)
    ours = Networks.of(optimized(model), settings)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator)
    frames, width = settings.history - 1, settings.detector.width
    association = (
        torch.randn(frames, objects, width, generator=generator),
        torch.zeros(frames, objects, dtype=torch.bool),
        torch.arange(objects),
        torch.arange(frames),
        torch.randn(objects, width, generator=generator),
    )
    found: dict[str, Any] = {}
    for number in threads:
        choose_device("cpu", number)
        theirs = exported.networks("cpu", number)
        pairs = {
            "detector": (lambda: ours.detect(images), lambda theirs=theirs: theirs.detect(images)),
            "association": (lambda: ours.id_scores(*association), lambda theirs=theirs: theirs.id_scores(*association)),
        }
        found[str(number)] = {name: _by_turns(*pair, repeats) for name, pair in pairs.items()}
    return {
        "threads": found,
        "image": [size[1], size[0]],
        "objects": objects,
        "fixed": fixed,
        "machine": machine(),
    }


@torch.inference_mode()
def _by_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> dict[str, Any]:
    turns = []
    for _ in range(repeats + 1):
        turn = []
        for call in (ours, theirs):
            wall, processor = perf_counter(), process_time()
            call()
            turn.append((1000 * (perf_counter() - wall), 1000 * (process_time() - processor)))
        turns.append(turn)
    clocks = {}
    for index, clock in enumerate(("wall", "processor")):
        torch_times, runtime_times = ([turn[engine][index] for turn in turns[1:]] for engine in (0, 1))
        ratios = [first / second for first, second in zip(torch_times, runtime_times, strict=True)]
        clocks[clock] = {"torch": summary(torch_times), "onnxruntime": summary(runtime_times), "ratio": summary(ratios)}
    return clocks


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2: bad input, in one line)."""
    parser = argparse.ArgumentParser(prog="benchmarks/engines.py", description="Compare torch and onnxruntime.")
    parser.add_argument("--run", metavar="RUN", help="take the settings of this run of params.yaml, not the paper's")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1422), metavar=("H", "W"), help="of a frame")
    parser.add_argument("--objects", type=int, metavar="N", help="in a frame; as many as ID labels if not given")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns that are measured")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="CPU threads")
    parser.add_argument("--fixed", action="store_true", help="export for images of this size alone")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        settings = Settings()
        if options.run is not None:
            run = Run.parse(options.run)
            settings = Experiment(Path("params.yaml"), None).settings(run.dataset, run.variant)
        options.objects = options.objects or settings.association.labels
        check(options)
        choose_drawn(options, min(settings.association.labels, settings.detector.queries))
        size = options.size[0], options.size[1]
        settings = settings_of_size(settings, size)
        given = size, options.objects, options.threads, options.repeats, options.fixed
        measured = compare_engines(settings, *given)
    except InputError as error:
        print(f"fdta: {error}", file=sys.stderr)
        return 2
    write(measured, options.output)
    print(f"one image of {size[1]} x {size[0]}, {options.objects} objects; {measured['machine']}")
    for threads, networks in measured["threads"].items():
        for name, clocks in networks.items():
            for clock, of in clocks.items():
                rows = {
                    engine: (of[engine]["milliseconds"], *of[engine]["spread"]) for engine in ("torch", "onnxruntime")
                }
                print_table(f"{name}, {threads} thread{'s' * (threads != '1')}, {clock} time", MEDIAN, rows)
                low, high = of["ratio"]["spread"]
                print(f"torch / onnxruntime: {of['ratio']['milliseconds']:.2f} ({low:.2f} to {high:.2f})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
