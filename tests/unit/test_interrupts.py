"""Signals that ask a process to stop: which they are, and that they end nothing twice."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from quantum_diffusion.interrupts import answered, catch_stop_signals, interrupt, stop_signals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    assert stop_signals() == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert stop_signals() == {signal.SIGINT, signal.SIGTERM}
    stop = threading.Event()
    with catch_stop_signals(stop):
        send(signal.SIGHUP)
    assert not stop.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_interrupts_once(number: signal.Signals) -> None:
    with answered({number}, interrupt):
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)  # while the first one is cleaned up after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_training_is_asked_to_stop_and_only_ctrl_c_insists(number: signal.Signals) -> None:
    stop = threading.Event()
    with catch_stop_signals(stop):
        send(number)
        assert stop.is_set()
        send(*{signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
