"""Handling of the signals that ask a process to stop, and the exit status after an interrupt.

Commands and long-running loops use it to stop cleanly at the next safe point.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after an interrupt by any signal (128 + SIGINT, as in shells)."""


def stop_signals() -> set[signal.Signals]:
    """Return the signals of Ctrl-C, of `kill` and batch systems, and of a closed terminal.

    SIGHUP is left out if it is ignored, so that nohup keeps working.
    """
    hang_up = set() if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else {signal.SIGHUP}
    return {signal.SIGINT, signal.SIGTERM} | hang_up


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Signal handler that raises KeyboardInterrupt, and ignores further signals unless they come from Ctrl-C.

    The system and the shell may both send SIGHUP; the second one would interrupt the cleanup after the first.
    """
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def answered(numbers: Iterable[signal.Signals], answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a signal handler for the duration of the context, then restore the previous handlers."""
    previous = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def catch_stop_signals(stop: threading.Event) -> Iterator[None]:
    """Make Ctrl-C, the other stop signals and SIGUSR1 set `stop`; a second Ctrl-C interrupts at once.

    Only Ctrl-C counts twice: the system, the shell or `timeout` may send the other signals more than once. Outside the
    main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    # SLURM sends SIGTERM before it preempts a job, or the signal requested by --signal=USR1@60.
    with answered({*stop_signals(), signal.SIGUSR1}, request):
        yield
