"""The training loop: one for the detector alone and for the whole, for CPU and CUDA, one process and several."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fdta.data.clips import ClipBatch, ClipDataset
from fdta.distributed import average_gradients, gather, rank, world_size
from fdta.errors import InputError
from fdta.model import checkpoint
from fdta.model.settings import ModelSettings
from fdta.train.batches import Plan, load_batches
from fdta.train.history import NOTHING_SAVED, History, Saved
from fdta.train.interruption import Stopped, StopRequest
from fdta.train.optimizer import build_optimizer, clip_gradients, rate_factor
from fdta.train.settings import TrainingSettings

LINE_STEPS = 100
"""Steps between the lines that are printed where nobody watches a progress bar."""
STATE = {
    "processes": int,
    "step": int,
    "epochs": int,
    "epoch_seconds": float,
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "history": dict,
}
"""Entries of a state from which a training is resumed, beside its origin."""
SMALLEST_SCALE = 2.0**-14
"""Of the loss in float16, which is halved whenever gradients overflow; below it they always do."""

Objective = Callable[[ClipBatch, int], tuple[Tensor, dict[str, Tensor]]]
"""From a batch and the epoch to the total loss and its terms."""

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
    training = _Training(model, objective, dataset, settings, folder, origin, seed, device)
    with training.bar, closing(training.batches(workers)) as batches, StopRequest() as stop:
        if training.first:
            _remove_unfinished(folder)
        for epoch in range(training.progress.epochs, settings.epochs):
            model.train()
            training.epoch(epoch, batches, stop)
            training.end_epoch(epoch, training.scores(epoch, validate, stop))
    model.eval()
    if training.first:
        with _explained(training.history.path):
            training.history.save()


class _Training:
    """A training under way."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        dataset: ClipDataset,
        settings: TrainingSettings,
        folder: Path,
        origin: str,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.objective, self.dataset, self.settings = model, objective, dataset, settings
        self.folder, self.origin, self.seed, self.device = folder, origin, seed, device
        self.first = rank() == 0
        self.plan = Plan(dataset.sampler, settings.batch, settings.accumulate, rank(), world_size())
        self.optimizer = build_optimizer(model, settings)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = _resume(folder / "resume.pt", origin, model, self.optimizer, self.scaler)
        if len(set(gather((origin, self.progress.step)))) > 1:
            raise InputError(
                f"{folder}: not the same in all processes; keep data/ and models/ where all of them see them"
            )
        self.history = _history(folder, self.progress.history)
        self.bar = tqdm(
            total=self.plan.steps_per_epoch * settings.epochs,
            initial=self.progress.step,
            disable=not (self.first and sys.stderr.isatty()),
        )
        self.saved_at = time.monotonic()

    def batches(self, workers: int) -> Generator[ClipBatch, None, None]:
        """What is left to train on."""
        start = self.progress.epochs
        done = self.progress.step - start * self.plan.steps_per_epoch
        return load_batches(self.dataset, self.plan, range(start, self.settings.epochs), done, workers, self.device)

    def epoch(self, epoch: int, batches: Iterator[ClipBatch], stop: StopRequest) -> None:
        """The steps of `epoch` that are left; saves now and then."""
        for number in range(self.progress.step - epoch * self.plan.steps_per_epoch, self.plan.steps_per_epoch):
            signaled = self._step(epoch, number, batches, stop)
            if signaled is not None:
                self._leave(signaled)
            if time.monotonic() - self.saved_at > self.settings.checkpoint_seconds:
                self._save()

    def scores(
        self, epoch: int, validate: Callable[[], dict[str, float]] | None, stop: StopRequest
    ) -> dict[str, float]:
        """Of the model after `epoch`, if it is to be validated then, in the first process."""
        settings, last = self.settings, epoch + 1 == self.settings.epochs
        scores: dict[str, float] = {}
        if validate and settings.validate_every and (last or (epoch + 1) % settings.validate_every == 0):
            self.model.eval()
            scores = stop.unless_stopped(validate, {}) if self.first else {}
            # The others wait here.
            for signaled in gather(stop.number):
                if signaled is not None:
                    self._leave(signaled)
        return scores

    def end_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Note that `epoch` is finished; saves, but for the last epoch."""
        seconds = round(self.progress.epoch_seconds, 3)
        self.progress.epochs, self.progress.epoch_seconds = epoch + 1, 0.0
        if self.first:
            self.history.add({"kind": "epoch", "epoch": epoch, "seconds": seconds, "scores": scores})
            told = "  ".join(f"{key} {value:.1f}" for key, value in scores.items())
            self.bar.write(f"epoch {epoch + 1}/{self.settings.epochs}  {seconds:.0f} s  {told}", file=sys.stderr)
        if epoch + 1 < self.settings.epochs:
            self._save()

    def _step(self, epoch: int, number: int, batches: Iterator[ClipBatch], stop: StopRequest) -> int | None:
        """Step `number` of `epoch`; returns the signal on which all processes are to stop after it."""
        settings, scaler, progress = self.settings, self.scaler, self.progress
        began = time.monotonic()
        factor = rate_factor(progress.step, self.plan.steps_per_epoch, settings)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        own, waited = self._gradients(epoch, number, batches)
        everywhere = gather((list(own.values()), stop.number))
        averages = (sum(values) / len(everywhere) for values in zip(*(found for found, _ in everywhere), strict=True))
        losses = dict(zip(own, averages, strict=True))
        scaler.unscale_(self.optimizer)
        finite = clip_gradients(self.model, settings)
        overflow = scaler.is_enabled() and not finite and scaler.get_scale() > SMALLEST_SCALE
        loss = losses["total"]
        if not math.isfinite(loss) or not (finite or overflow):
            what = "the gradients are not finite" if math.isfinite(loss) else f"the loss is {loss}"
            _fail(f"{self.folder}: {what} at step {progress.step}; lower learning_rate")
        scaler.step(self.optimizer)
        scaler.update()
        progress.step += 1
        seconds = time.monotonic() - began
        progress.epoch_seconds += seconds
        record = {"kind": "step", "step": progress.step, "epoch": epoch, "losses": losses}
        record |= {"learning_rate": settings.learning_rate * factor}
        self._tell(record | {"seconds": round(seconds, 4), "waited": round(waited, 4)})
        return next((signaled for _, signaled in everywhere if signaled is not None), None)

    def _gradients(self, epoch: int, number: int, batches: Iterator[ClipBatch]) -> tuple[dict[str, float], float]:
        """Leave the gradients of a step in the model; its total loss and terms in this process, and the seconds that
        were spent waiting for data."""
        self.optimizer.zero_grad(set_to_none=True)
        count = self.plan.batches_of_step(number)
        losses: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        waited = 0.0
        for part in range(count):
            asked = time.monotonic()
            batch = next(batches).to(self.device)
            waited += time.monotonic() - asked
            # Of dropout.
            drawn = self.seed * 1_000_003 + self.progress.step * self.settings.accumulate + part
            torch.manual_seed(drawn + rank() * 2**40)
            try:
                total, terms = self.objective(batch, epoch)
            except FloatingPointError as error:
                raise InputError(f"{self.folder}: {error} at step {self.progress.step}; lower learning_rate") from None
            self.scaler.scale(total / count).backward()
            losses.append(torch.stack([total, *terms.values()]).detach())
        average_gradients(self.model.parameters())
        return dict(zip(("total", *terms), torch.stack(losses).mean(0).tolist(), strict=True)), waited

    def _tell(self, record: dict[str, Any]) -> None:
        """Note the record of a step, and show it to who watches."""
        step, loss = record["step"], record["losses"]["total"]
        if self.first:
            self.history.add(record)
        self.bar.set_postfix_str(f"epoch {record['epoch'] + 1} loss {loss:.3f}", refresh=False)
        self.bar.update()
        if self.first and self.bar.disable and step % LINE_STEPS == 0:
            _logger.info("step %d/%d  loss %.3f  %.2f s", step, self.bar.total, loss, record["seconds"])

    def _save(self) -> None:
        """Save history and state, from which the training is resumed."""
        if not self.first:
            return
        state = {
            "format": checkpoint.FORMAT,
            "origin": self.origin,
            "processes": world_size(),
            "step": self.progress.step,
            "epochs": self.progress.epochs,
            "epoch_seconds": self.progress.epoch_seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        path = self.folder / "resume.pt"
        with _explained(path):
            # First, because a state must not count records that are not on disk.
            self.history.save()
            checkpoint.save(path, state | {"history": asdict(self.history.saved)})
        self.saved_at = time.monotonic()

    def _leave(self, number: int) -> NoReturn:
        self._save()
        what = f"{signal.Signals(number).name} after step {self.progress.step} of {self.bar.total}"
        raise Stopped(f"{self.folder}: stopped by {what}; the same command resumes from there", number)


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
    state = checkpoint.load(path, origin=str)
    if state["origin"] != origin or "history" not in state:
        if rank() == 0:
            _logger.info("%s: of another job; training from scratch", path)
        return Progress()
    checkpoint.checked(state, path, **STATE)
    if state["processes"] != world_size():
        _fail(
            f"{path}: made by {state['processes']} processes, these are {world_size()}; use as many again, or "
            f"remove the file"
        )
    checkpoint.fill(model, state["model"], path)
    try:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        saved = Saved(**state["history"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        _fail(f"{path}: not the state of this training; remove the file to train from scratch")
    return Progress(state["step"], state["epochs"], state["epoch_seconds"], saved)


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
