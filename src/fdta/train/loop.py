"""The training loop: one for the detector alone and for the whole, for CPU and CUDA, one process and several."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fdta.data.clips import ClipBatch, ClipDataset
from fdta.distributed import average_gradients, gather, rank, world_size
from fdta.errors import InputError
from fdta.model import checkpoint
from fdta.model.settings import ModelSettings
from fdta.train.batches import Plan, load
from fdta.train.history import NOTHING_SAVED, History, Saved
from fdta.train.interruption import Stopped, StopRequest
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor
from fdta.train.settings import TrainingSettings

LINE_STEPS = 100
"""Steps between the lines that are printed where nobody watches a progress bar."""
SMALLEST_SCALE = 2.0**-14
"""Of the loss in float16, which is halved whenever gradients overflow; below it they always do."""

Objective = Callable[[ClipBatch, int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""From a batch, the epoch and a source of random numbers to the total loss and its terms."""

_logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    epochs: int = 0
    """Finished ones; an epoch is finished when it is validated."""
    epoch_seconds: float = 0.0
    history: Saved = NOTHING_SAVED
    """What was recorded until then."""


def fit(
    model: nn.Module,
    objective: Objective,
    dataset: ClipDataset,
    settings: TrainingSettings,
    *,
    folder: Path,
    origin: str,
    seed: int,
    device: torch.device,
    workers: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train `model` in place, appending to ``folder/history.jsonl`` at every save.

    A stopped or killed training goes on from ``folder/resume.pt`` and ends with the weights of an uninterrupted
    one, bit for bit on CPU: the data depend on seed, epoch and position alone, and each batch seeds its own random
    numbers. A state of another `origin` (`fdta.provenance.origin`) is not resumed.

    Of several processes (`fdta.distributed`) each reads its share of the clips, and the first validates and writes.

    Raises:
        InputError: loss or gradients are no longer finite, data cannot be read, the state cannot be written, it is of
            another number of processes, or its history is missing.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    first = rank() == 0
    plan = Plan(dataset.sampler, settings.batch, settings.accumulate, rank(), world_size())
    optimizer = build_optimizer(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    base_rates = [group["lr"] for group in optimizer.param_groups]
    resume_path = folder / "resume.pt"
    progress = _resume(resume_path, origin, model, optimizer, scaler)
    if len(set(gather((origin, progress.step)))) > 1:
        raise InputError(f"{folder}: not the same in all processes; keep data/ and models/ where all of them see them")
    history, start = _history(folder, progress.history), progress.epochs
    batches = load(
        dataset, plan, range(start, settings.epochs), progress.step - start * plan.steps_per_epoch, workers, device
    )
    bar = tqdm(
        total=plan.steps_per_epoch * settings.epochs,
        initial=progress.step,
        disable=not (first and sys.stderr.isatty()),
    )

    def save_progress() -> None:
        if not first:
            return
        state = {
            "format": checkpoint.FORMAT,
            "origin": origin,
            "processes": world_size(),
            "step": progress.step,
            "epochs": progress.epochs,
            "epoch_seconds": progress.epoch_seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
        }
        with _explained(resume_path):
            # First, because a state must not count records that are not on disk.
            history.save()
            checkpoint.save(resume_path, state | {"history": asdict(history.saved)})

    def leave(number: int) -> NoReturn:
        save_progress()
        what = f"{signal.Signals(number).name} after step {progress.step} of {bar.total}"
        raise Stopped(f"{folder}: stopped by {what}; the same command resumes from there", number)

    def step(epoch: int, number: int, stop: StopRequest) -> int | None:
        """Step `number` of `epoch`; returns the signal on which all processes are to stop after it."""
        began = time.monotonic()
        waited = 0.0
        factor = rate_factor(progress.step, plan.steps_per_epoch, settings)
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad(set_to_none=True)
        count = plan.batches_of_step(number)
        losses: list[Tensor] = []
        for part in range(count):
            asked = time.monotonic()
            batch = next(batches).to(device)
            waited += time.monotonic() - asked
            drawn = seed * 1_000_003 + progress.step * settings.accumulate + part
            # The objective's own draws are the same in all processes, dropout is not.
            torch.manual_seed(drawn + rank() * 2**40)
            try:
                total, terms = objective(batch, epoch, torch.Generator().manual_seed(drawn))
            except FloatingPointError as error:
                raise InputError(f"{folder}: {error} at step {progress.step}; lower learning_rate") from None
            scaler.scale(total / count).backward()
            losses.append(torch.stack([total, *terms.values()]).detach())
        average_gradients(model.parameters())
        everywhere = gather((torch.stack(losses).mean(0).tolist(), stop.number))
        loss, *parts = (sum(values) / len(everywhere) for values in zip(*(own for own, _ in everywhere), strict=True))
        scaler.unscale_(optimizer)
        finite = clip_gradients(model, settings.clip_norm)
        overflow = scaler.is_enabled() and not finite and scaler.get_scale() > SMALLEST_SCALE
        if not math.isfinite(loss) or not (finite or overflow):
            what = "the gradients are not finite" if math.isfinite(loss) else f"the loss is {loss}"
            _fail(f"{folder}: {what} at step {progress.step}; lower learning_rate")
        scaler.step(optimizer)
        scaler.update()
        progress.step += 1
        seconds = time.monotonic() - began
        progress.epoch_seconds += seconds
        if first:
            history.add(
                {
                    "kind": "step",
                    "step": progress.step,
                    "epoch": epoch,
                    "losses": {"total": loss, **dict(zip(terms, parts, strict=True))},
                    "learning_rate": settings.learning_rate * factor,
                    "seconds": round(seconds, 4),
                    "waited": round(waited, 4),
                }
            )
        bar.set_postfix_str(f"epoch {epoch + 1} loss {loss:.3f}", refresh=False)
        bar.update()
        if first and bar.disable and progress.step % LINE_STEPS == 0:
            _logger.info("step %d/%d  loss %.3f  %.2f s", progress.step, bar.total, loss, seconds)
        return next((signaled for _, signaled in everywhere if signaled is not None), None)

    with bar, closing(batches), StopRequest() as stop:
        if first:
            _remove_unfinished(folder)
        saved_at = time.monotonic()
        for epoch in range(start, settings.epochs):
            model.train()
            for number in range(progress.step - epoch * plan.steps_per_epoch, plan.steps_per_epoch):
                signaled = step(epoch, number, stop)
                if signaled is not None:
                    leave(signaled)
                if time.monotonic() - saved_at > settings.checkpoint_seconds:
                    save_progress()
                    saved_at = time.monotonic()
            scores: dict[str, float] = {}
            last = epoch + 1 == settings.epochs
            if validate and settings.validate_every and (last or (epoch + 1) % settings.validate_every == 0):
                model.eval()
                scores = stop.unless_stopped(validate, {}) if first else {}
                # The others wait here.
                for signaled in gather(stop.number):
                    if signaled is not None:
                        leave(signaled)
            seconds = round(progress.epoch_seconds, 3)
            progress.epochs, progress.epoch_seconds = epoch + 1, 0.0
            if first:
                history.add({"kind": "epoch", "epoch": epoch, "seconds": seconds, "scores": scores})
                told = "  ".join(f"{key} {value:.1f}" for key, value in scores.items())
                bar.write(f"epoch {epoch + 1}/{settings.epochs}  {seconds:.0f} s  {told}", file=sys.stderr)
            if not last:
                save_progress()
                saved_at = time.monotonic()
    model.eval()
    if first:
        with _explained(history.path):
            history.save()


def save_result(folder: Path, model: nn.Module, settings: ModelSettings, run: str) -> None:
    """Write ``folder/model.pt`` of a finished training, and remove the state that it needs no more.

    Raises:
        InputError: the file cannot be written; the state is kept.
    """
    if rank() > 0:
        return
    try:
        checkpoint.save_model(folder / "model.pt", model, settings, run)
    except OSError as error:
        raise InputError(
            f"{folder / 'model.pt'}: cannot be written ({error.strerror}); the state of the training is kept: free "
            f"some room and run the same command again"
        ) from None
    (folder / "resume.pt").unlink(missing_ok=True)


def _fail(message: str) -> NoReturn:
    """End all processes, which all come here, with one line."""
    if rank() == 0:
        raise InputError(message)
    raise SystemExit(2)


def _resume(
    path: Path, origin: str, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    if not path.is_file():
        return Progress()
    state = checkpoint.load(path)
    if state["origin"] != origin or "history" not in state:
        if rank() == 0:
            _logger.info("%s: of another job; training from scratch", path)
        return Progress()
    if state["processes"] != world_size():
        _fail(
            f"{path}: made by {state['processes']} processes, these are {world_size()}; use as many again, or "
            f"remove the file"
        )
    checkpoint.fill(model, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return Progress(state["step"], state["epochs"], state["epoch_seconds"], Saved(**state["history"]))


def _history(folder: Path, saved: Saved) -> History:
    """The history to continue; all processes check it."""
    try:
        return History(folder / "history.jsonl", saved)
    except InputError as error:
        _fail(str(error))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in one line that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); the state saved before is kept: free some room and give "
            f"the same command again"
        ) from None


def _remove_unfinished(folder: Path) -> None:
    """Remove what a kill in the midst of writing left (`fdta.files.whole_file`)."""
    for path in (*folder.glob(".resume.*.pt"), *folder.glob(".history.*.jsonl")):
        path.unlink(missing_ok=True)
