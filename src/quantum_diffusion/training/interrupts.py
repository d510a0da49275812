"""How a training run answers the signals that ask it to stop.

The first one only asks: the loop ends after the step it is in, with a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from quantum_diffusion.interrupts import answered, stop_signals


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
