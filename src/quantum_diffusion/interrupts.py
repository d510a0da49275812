"""The signals that ask a process to stop, how they are answered, and the status it then ends with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after an interrupt, whichever signal asked for it (128 + SIGINT, as shells use it)."""


def stop_signals() -> set[signal.Signals]:
    """Return Ctrl-C's signal, that of `kill` and of batch systems, and that of a terminal which hangs up.

    The last one only where it is not ignored: nohup has it ignored, and so it stays.
    """
    hang_up = set() if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else {signal.SIGHUP}
    return {signal.SIGINT, signal.SIGTERM} | hang_up


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Answer a signal by KeyboardInterrupt; but for Ctrl-C only the first, for system and shell both tell of a hang-up.

    A second one would cut short what the first one has to clean up.
    """
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def answered(numbers: Iterable[signal.Signals], answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function answer signals, instead of what did before."""
    previous = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def catch_stop_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, the other stop signals and SIGUSR1 set `stop`; a second Ctrl-C interrupts at once.

    The others may come twice by themselves: from the system and from the shell, or from `timeout`. Does nothing off the
    main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    # SLURM sends SIGTERM before it takes a job's place, or what --signal=USR1@60 asks for.
    with answered({*stop_signals(), signal.SIGUSR1}, request):
        yield
