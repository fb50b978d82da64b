"""Signals that ask a training to stop: it ends at the next step, with its state saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""What schedulers send, and what Ctrl-C does."""


class Stopped(Exception):
    """A training ended on a signal, `number`, with its state saved; the message is for the user."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """While in the block, the first signal is noted as `number` instead of ending the process; a second ends it.

    Outside of the main thread, which alone may handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._raises = False

    def __enter__(self) -> StopRequest:
        main = threading.current_thread() is threading.main_thread()
        self._handlers = {number: signal.signal(number, self._note) for number in STOPPING} if main else {}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def unless_stopped(self, work: Callable[[], T], otherwise: T) -> T:
        """Result of `work`, which a signal ends where it stands; then, or after an earlier signal, `otherwise`."""
        try:
            self._raises = True
            try:
                return otherwise if self.number is not None else work()
            finally:
                self._raises = False
        except _Now:
            return otherwise

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        if self._raises:
            raise _Now

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class _Now(BaseException):
    """Ends the work of `unless_stopped`."""
