"""The training loop: one for the detector alone and for the whole, for CPU and CUDA."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fdta.data.clips import ClipBatch, ClipDataset, collate
from fdta.errors import InputError
from fdta.files import write_text
from fdta.model import checkpoint
from fdta.params import TrainingSettings
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor

LINE_STEPS = 100
"""Steps between the lines that are printed where nobody watches a progress bar."""

Objective = Callable[[ClipBatch, int], tuple[Tensor, dict[str, Tensor]]]
"""From a batch and the epoch to the total loss and its terms."""


@dataclass
class Progress:
    """Where a training stands, and what it recorded."""

    step: int = 0
    epoch_seconds: float = 0.0
    records: list[dict[str, Any]] | None = None


def fit(
    model: nn.Module,
    objective: Objective,
    dataset: ClipDataset,
    settings: TrainingSettings,
    *,
    folder: Path,
    name: str,
    origin: str,
    seed: int,
    device: torch.device,
    workers: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train `model` in place, writing ``folder/NAMEhistory.jsonl``.

    A killed training goes on from ``folder/NAMEresume.pt`` and ends with the weights of an uninterrupted one, bit for
    bit on CPU: the data depend on seed, epoch and position alone, and each step seeds its own random numbers. A state
    of another `origin`, what the training is made of, is not gone on from.

    Raises:
        InputError: the loss is no longer finite.
    """
    optimizer = build_optimizer(model, settings)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    steps_per_epoch = -(-dataset.sampler.clips // settings.batch)
    resume_path, history_path = folder / f"{name}resume.pt", folder / f"{name}history.jsonl"
    progress = _resume(resume_path, origin, model, optimizer)
    records = progress.records or []
    bar = tqdm(total=steps_per_epoch * settings.epochs, initial=progress.step, disable=not sys.stderr.isatty())
    saved_at = time.monotonic()

    def save_progress() -> None:
        state = {
            "format": checkpoint.FORMAT,
            "origin": origin,
            "step": progress.step,
            "epoch_seconds": progress.epoch_seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "records": json.dumps(records),
        }
        checkpoint.save(resume_path, state)
        _write_history(history_path, records)

    for epoch in range(progress.step // steps_per_epoch, settings.epochs):
        model.train()
        done = progress.step - epoch * steps_per_epoch
        for batch in _batches(dataset, epoch, settings.batch, done, workers, device):
            began = time.monotonic()
            torch.manual_seed(seed * 1_000_003 + progress.step)
            factor = rate_factor(progress.step, steps_per_epoch, settings)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            total, terms = objective(batch.to(device), epoch)
            if not torch.isfinite(total):
                raise InputError(f"{folder}: the loss is {total.item()} at step {progress.step}; lower learning_rate")
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            clip_gradients(model, settings.clip_norm)
            optimizer.step()
            progress.step += 1
            seconds = time.monotonic() - began
            progress.epoch_seconds += seconds
            records.append(
                {
                    "kind": "step",
                    "step": progress.step,
                    "epoch": epoch,
                    "losses": {"total": total.item(), **{key: term.item() for key, term in terms.items()}},
                    "learning_rate": settings.learning_rate * factor,
                    "seconds": round(seconds, 4),
                }
            )
            bar.set_postfix_str(f"epoch {epoch + 1} loss {total.item():.3f}", refresh=False)
            bar.update()
            if bar.disable and progress.step % LINE_STEPS == 0:
                print(f"step {progress.step}/{bar.total}  loss {total.item():.3f}  {seconds:.2f} s", file=sys.stderr)
            if time.monotonic() - saved_at > settings.checkpoint_seconds:
                save_progress()
                saved_at = time.monotonic()
        scores: dict[str, float] = {}
        last = epoch + 1 == settings.epochs
        if validate and settings.validate_every and (last or (epoch + 1) % settings.validate_every == 0):
            model.eval()
            scores = validate()
        records.append({"kind": "epoch", "epoch": epoch, "seconds": round(progress.epoch_seconds, 3), "scores": scores})
        progress.epoch_seconds = 0.0
        told = "  ".join(f"{key} {value:.1f}" for key, value in scores.items())
        bar.write(f"epoch {epoch + 1}/{settings.epochs}  {records[-1]['seconds']:.0f} s  {told}", file=sys.stderr)
        if not last:
            save_progress()
            saved_at = time.monotonic()
    bar.close()
    model.eval()
    _write_history(history_path, records)


def finish(folder: Path, name: str) -> None:
    """Remove what a finished training needs no more."""
    (folder / f"{name}resume.pt").unlink(missing_ok=True)


def _batches(
    dataset: ClipDataset, epoch: int, size: int, done: int, workers: int, device: torch.device
) -> Iterator[ClipBatch]:
    clips = [(epoch, position, *clip) for position, clip in enumerate(dataset.sampler.epoch(epoch))]
    batches = [clips[i : i + size] for i in range(0, len(clips), size)][done:]
    return iter(
        DataLoader(
            _Clips(dataset),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
    )


class _Clips(torch.utils.data.Dataset[ClipBatch]):
    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, clip: tuple[int, int, int, tuple[int, ...]]) -> ClipBatch:
        return self.dataset.clip(*clip)


def _resume(path: Path, origin: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    if not path.is_file():
        return Progress()
    state = checkpoint.load(path)
    if state["origin"] != origin:
        print(f"{path}: of other settings, data or start; training anew", file=sys.stderr)
        return Progress()
    checkpoint.fill(model, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["step"], state["epoch_seconds"], json.loads(state["records"]))


def _write_history(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
