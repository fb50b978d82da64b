"""All that is to be measured on a GPU, in one run: tests, precision, speed of tracking and training, and a video.

    PYTHONPATH=src python benchmarks/gpu.py --output gpu [--video street.mp4]

It needs torch, the packages of the model (numpy, scipy, opencv-python, pillow, av, pydantic, pyyaml, tabulate, tqdm,
filelock) and pytest, but nothing of the pipeline. Every part is a process of its own with a limit of time; one that
fails is reported, and the next one starts. The JSON and the tables from it are written to the folder after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
END = 2000
"""Last characters of a failed part's output that are kept."""


def main(arguments: list[str] | None = None) -> int:
    """Run all parts; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.py", description="Measure everything on a GPU.")
    parser.add_argument("--output", type=Path, default=Path("gpu"), metavar="FOLDER", help="of the JSON and the tables")
    parser.add_argument("--video", type=Path, metavar="FILE", help="video to track")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1422), metavar=("H", "W"), help="of a frame")
    parser.add_argument("--frames", type=int, default=30, metavar="T", help="of a training clip")
    parser.add_argument("--seconds", type=float, default=360, help="of all parts together")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        print(json.dumps(MEASURES[options.part](options)))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), {}
    for name, (limit, command) in parts(options).items():
        left = options.seconds - (time.monotonic() - began)
        if left < 1:
            found[name] = {"seconds": 0.0, "error": "no time was left"}
            continue
        print(f"{name} ...", flush=True)
        found[name] = run(command, min(limit, left), options.output / f"{name}.json")
        failed = found[name].get("error")
        print(f"{name}: {'FAILED' if failed else 'done'} in {found[name]['seconds']:.0f} s", flush=True)
        if failed:
            print(failed, flush=True)
        write(options.output, found)
    write(options.output, found)
    print((options.output / "gpu.md").read_text())
    return int(any("error" in part for part in found.values()))


def parts(options: argparse.Namespace) -> dict[str, tuple[float, list[str]]]:
    """Name of each part -> its limit in seconds and its command, which writes JSON to --output or its last line."""
    device = ["--device", options.device]
    size = ["--size", *map(str, options.size)]
    bench = [sys.executable, "-m", "fdta", "bench"]
    own = [sys.executable, __file__, *device, *size, "--frames", str(options.frames), "--part"]
    halves = ["bfloat16", "float16"] if options.device == "cuda" else ["bfloat16"]
    found: dict[str, tuple[float, list[str]]] = {"peak": (40, [*own, "peak"])}
    if options.device == "cuda":
        tests = [sys.executable, "-m", "pytest", "-q", "--override-ini", "addopts=", "-p", "no:cacheprovider"]
        # The other folders need packages of the pipeline.
        folders = [str(ROOT / "tests" / name) for name in ("model", "loss", "depth", "data", "track", "train")]
        found["tests"] = (120, [*tests, "--continue-on-collection-errors", "-m", "cuda", *folders])
    found["precision"] = (60, [*own, "precision"])
    for name in ("float32", *halves):
        found[f"infer-{name}"] = (50, [*bench, "infer", *device, *size, "--dtype", name])
    found["compiled"] = (100, [*own, "compiled"])
    for name in ("float32", "bfloat16"):
        for clips in (1, 4):
            command = [*bench, "train", *device, *size, "--frames", str(options.frames), "--objects", "10"]
            found[f"train-{name}-{clips}"] = (60, [*command, "--dtype", name, "--clips", str(clips), "--repeats", "2"])
    if options.video:
        found["video"] = (60, [*own, "video", "--video", str(options.video)])
    return found


def run(command: list[str], limit: float, output: Path) -> dict[str, Any]:
    """Result of one part; `error` holds the end of its output if it failed."""
    began = time.monotonic()
    output.unlink(missing_ok=True)
    bench = "bench" in command
    places = [str(ROOT / "src"), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    process = subprocess.Popen(
        [*command, "--output", str(output)] if bench else command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, code = f"{process.communicate()[0]}\nnot finished in {limit:.0f} s", -1
    found: dict[str, Any] = {"seconds": time.monotonic() - began}
    if code:
        return found | {"error": text[-END:]}
    if bench:
        return found | json.loads(output.read_text())
    last = text.strip().splitlines()[-1]
    return found | (json.loads(last) if last.startswith("{") else {"summary": last})


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the JSON and the tables."""
    (folder / "gpu.json").write_text(json.dumps(found, indent=1))
    (folder / "gpu.md").write_text(markdown(found))


def choose(options: argparse.Namespace, precision: str) -> Any:
    """The device, with float32 as `precision` says: exact, or TF32 in matrices and convolutions."""
    import torch

    from fdta.device import choose_device

    device = choose_device(options.device, torch.get_num_threads())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return device


def seconds_of(call: Callable[[], object], device: Any, repeats: int) -> float:
    """Median seconds of a call, after two that are not measured."""
    from statistics import median

    from fdta.evaluate.timing import device_clock

    clock, spans = device_clock(device), []
    for _ in range(repeats + 2):
        start = clock()
        call()
        spans.append(clock() - start)
    return median(spans[2:])


def measure_peak(options: argparse.Namespace) -> dict[str, Any]:
    """What the card does at best: a large product of matrices in each precision, and a copy; and what a frame needs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fdta.evaluate.timing import drawn_model
    from fdta.experiment.settings import Settings
    from fdta.machine import machine

    side = 8192 if options.device == "cuda" else 512
    rates = {}
    for name in PRECISIONS if options.device == "cuda" else ("float32", "bfloat16"):
        device = choose(options, name)
        dtype = torch.float32 if name in ("float32", "tf32") else getattr(torch, name)
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        rates[name] = 2 * side**3 / seconds_of(lambda a=one, b=other: a @ b, device, 10) / 1e12
    source = torch.empty(side * side * 8, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device, 10) / 1e12
    detector = drawn_model(Settings(), device).eval().detector
    counter = FlopCounterMode(display=False)  # Which on a CPU does not know oneDNN's operations.
    with counter:
        detector(torch.randn(1, 3, *options.size, device=device))
    return {
        "teraflops": rates,
        "terabytes": moved,
        "frame_teraflop": counter.get_total_flops() / 1e12,
        "size": list(options.size),
        "machine": machine(),
    }


def measure_precision(options: argparse.Namespace) -> dict[str, Any]:
    """Largest and root mean square distance from the published detector's golden numbers, in their deviations."""
    import numpy as np
    import torch
    from helpers.golden_weights import fill_seeded, golden_files, load_golden, published_settings

    from fdta.model.fdta import FDTA
    from fdta.model.inference import optimized

    found: dict[str, dict[str, list[float]]] = {}
    for file in golden_files("detr_*"):
        golden = load_golden(file)
        config, seed = str(golden["config"]), int(golden["seed"])
        model = FDTA(published_settings(config)).eval()
        fill_seeded(model.detector, config, seed, "detector.")
        height, width = golden["sizes"].max(0)
        images = torch.zeros(len(golden["sizes"]), 3, height, width)
        padding = torch.ones(len(images), height, width, dtype=torch.bool)
        for index, (h, w) in enumerate(golden["sizes"]):
            drawn = np.random.default_rng([seed, index]).standard_normal((3, h, w), np.float32)
            images[index, :, :h, :w], padding[index, :h, :w] = torch.from_numpy(drawn), False
        for name in PRECISIONS if options.device == "cuda" else ("float32", "bfloat16"):
            device = choose(options, name)
            dtype = torch.float32 if name in ("float32", "tf32") else getattr(torch, name)
            with torch.inference_mode():
                output = optimized(model.to(device), dtype).detector(images.to(device), padding.to(device))
            compared = {"logits": output.logits, "boxes": output.boxes_cxcywh, "embeddings": output.embeddings}
            rows = found.setdefault(name, {})
            for (key, actual), expected in zip(
                compared.items(), ("pred_logits", "pred_boxes", "embeddings"), strict=True
            ):
                wanted = golden[expected]
                distance = np.abs(actual.float().cpu().numpy() - wanted) / wanted.std()
                largest, mean = float(distance.max()), float(np.sqrt((distance**2).mean()))
                before = rows.get(key, [0.0, 0.0])
                rows[key] = [max(before[0], largest), max(before[1], mean)]
    return {"distances": found}


def measure_compiled(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of the detector alone: as written, compiled by torch, and as a CUDA graph."""
    import torch

    from fdta.evaluate.timing import drawn_model
    from fdta.experiment.settings import Settings
    from fdta.model.graphs import Graphed
    from fdta.model.inference import optimized

    device = choose(options, "float32")
    found: dict[str, Any] = {}
    for name in ("float32", "bfloat16"):
        detector = optimized(drawn_model(Settings(), device), getattr(torch, name)).detector
        images = torch.randn(1, 3, *options.size, device=device)
        graph = Graphed(lambda x, d=detector: d(x).logits, "detector", detector.constants)
        ways: dict[str, Callable[[], object]] = {
            "eager": lambda d=detector, x=images: d(x),
            "graph": lambda g=graph, x=images: g(x),
        }
        if options.device == "cuda":
            compiled = torch.compile(detector)
            ways["compiled"] = lambda c=compiled, x=images: c(x)
        rows = found[name] = {}
        for way, call in ways.items():
            try:
                with torch.inference_mode():
                    rows[way] = 1000 * seconds_of(call, device, 10 if options.device == "cuda" else 1)
            except Exception as error:  # The compiler's, of whatever kind: the other ways are measured nevertheless.
                rows[way] = None
                rows[f"{way} error"] = str(error)[:300]
    return {"milliseconds": found}


def measure_video(options: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of `fdta track` on a video, drawn boxes included, by the paper's model with drawn weights."""
    import tempfile

    import torch

    from fdta.evaluate.timing import drawn_model
    from fdta.experiment.settings import Settings
    from fdta.model.checkpoint import save_model

    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        model, tracks, video = (Path(folder) / name for name in ("model.pt", "tracks.txt", "video.mp4"))
        save_model(model, drawn_model(settings, torch.device("cpu")), settings, "drawn/full/seed-0")
        command = [sys.executable, "-m", "fdta", "track", str(options.video), "--weights", str(model)]
        command += ["--device", options.device, "--dtype", "bfloat16", "--output", str(tracks), "--video", str(video)]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise SystemExit(done.stderr[-END:])
        return {
            "whole_command_seconds": time.monotonic() - began,
            "told": (done.stdout + done.stderr).strip().splitlines()[-5:],
            "video_bytes": video.stat().st_size,
        }


MEASURES = {
    "peak": measure_peak,
    "precision": measure_precision,
    "compiled": measure_compiled,
    "video": measure_video,
}


def markdown(found: dict[str, Any]) -> str:
    """Tables of what was found, as docs/benchmarks.md has them."""
    lines: list[str] = []

    def table(title: str, columns: list[str], rows: dict[str, list[object]]) -> None:
        lines.extend([f"| {title} | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"])
        lines.extend(f"| {name} | {' | '.join(map(_text, row))} |" for name, row in rows.items())
        lines.append("")

    good = {name: part for name, part in found.items() if "error" not in part}
    peak = good.get("peak", {})
    if peak:
        lines += [f"{peak['machine']}; a frame of {peak['size'][0]} x {peak['size'][1]} needs "]
        lines[-1] += f"{peak['frame_teraflop']:.2f} TFLOP; a copy moves {peak['terabytes']:.2f} TB/s.\n"
        table("product of large matrices", ["TFLOP/s"], {name: [rate] for name, rate in peak["teraflops"].items()})
    if "precision" in good:
        distances = good["precision"]["distances"]
        keys = ("logits", "boxes", "embeddings")
        rows: dict[str, list[object]] = {
            name: [value for key in keys for value in row[key]] for name, row in distances.items()
        }
        table("distance from golden", [f"{key}, {kind}" for key in keys for kind in ("largest", "rms")], rows)
    rows = {}
    for name, part in good.items():
        if name.startswith("infer-"):
            milliseconds, dtype = part["milliseconds"], name.removeprefix("infer-")
            graphs = part.get("as_tracked", {}).get("milliseconds")
            best = graphs or milliseconds["total"]
            rate = peak.get("teraflops", {}).get(dtype)
            share = 100 * peak["frame_teraflop"] / (best / 1000) / rate if rate else None
            rows[dtype] = [*milliseconds.values(), graphs, share, part["peak_mebibytes"]]
            columns = [*milliseconds, "total with graphs", "% of peak", "peak memory (MiB)"]
    if rows:
        table("tracking, ms a frame", columns, rows)
    if "compiled" in good:
        ways = ("eager", "compiled", "graph")
        measured = good["compiled"]["milliseconds"]
        table(
            "detector, ms a frame", list(ways), {name: [row.get(way) for way in ways] for name, row in measured.items()}
        )
    rows = {}
    for name, part in good.items():
        if name.startswith("train-"):
            _, dtype, clips = name.split("-")
            ours = part["ours"]
            rows[f"{dtype}, clips {clips}"] = [*part["parts"].values(), ours["milliseconds"], ours["peak_mebibytes"]]
            columns = [*part["parts"], "step", "peak memory (MiB)"]
    if rows:
        table("training, ms a step", columns, rows)
    if "video" in good:
        lines.append(f"video: {good['video']['whole_command_seconds']:.1f} s; {good['video']['told'][-1]}\n")
    if "tests" in good:
        lines.append(f"tests: {good['tests']['summary']}\n")
    lines += [f"{name} failed.\n" for name in found if name not in good]
    return "\n".join(lines)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:.0f}"  # type: ignore[str-format]


if __name__ == "__main__":
    sys.exit(main())
