"""Standard output and error that nobody reads, that are full, closed, or lack characters: writing never fails."""

import errno
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantum_diffusion.output import guard_output

Open = Callable[[int], io.TextIOWrapper]


@pytest.fixture(autouse=True)
def _with_the_streams_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


@pytest.fixture
def opened() -> Iterator[Open]:
    """A function that opens a descriptor as Python opens its standard streams, which never close theirs."""
    descriptors = []

    def opened(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
        descriptors.append(descriptor)
        return open(descriptor, "w", encoding=encoding, closefd=False)

    yield opened
    for descriptor in descriptors:
        os.close(descriptor)


def unread_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def hung_up_terminal() -> int:
    leader, follower = os.openpty()
    os.close(leader)
    return follower


def read_only_file() -> int:
    return os.open(os.devnull, os.O_RDONLY)


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@pytest.mark.parametrize("broken", [unread_pipe, pytest.param(full_disk, marks=FULL), hung_up_terminal, read_only_file])
def test_output_that_cannot_be_written_falls_silent(
    broken: Callable[[], int], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor, errors = broken(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", opened(descriptor))
    monkeypatch.setattr(sys, "stderr", errors)
    guard_output()
    for _ in range(3):
        print("x" * 20_000)
        sys.stdout.flush()
    assert sys.stdout.fileno() == descriptor
    assert os.write(descriptor, b"native code") == 11
    reason = {unread_pipe: 0, full_disk: errno.ENOSPC, hung_up_terminal: errno.EIO, read_only_file: errno.EBADF}[broken]
    warning = f"warning: further output is dropped, it cannot be written: {os.strerror(reason)}\n"
    assert errors.getvalue() == (warning if reason else ""), "a reader that has gone, as `head` does, is nothing to say"


@FULL
def test_errors_that_cannot_be_written_fall_silent(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", opened(full_disk()))
    guard_output()
    print("x" * 20_000, file=sys.stderr, flush=True)


def test_streams_that_are_not_there_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    guard_output()
    for stream in (sys.stdout, sys.stderr):
        print("─", file=stream, flush=True)
        assert not stream.isatty()


def test_a_slow_reader_is_waited_for(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe may be set not to block, by a program that shares it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    monkeypatch.setattr(sys, "stdout", opened(writing))
    guard_output()
    received = bytearray()

    def read() -> None:
        time.sleep(0.1)
        while len(received) < 300_001:
            received.extend(os.read(reading, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    print("x" * 300_000, flush=True)
    reader.join(timeout=20)
    os.close(reading)
    assert received == b"x" * 300_000 + b"\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_text_can_be_shown(encoding: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", opened(writing, encoding))
    guard_output()
    print("┤ H ├─■ é 漢 \udcff", flush=True)
    shown = os.read(reading, 1000).decode(encoding)
    os.close(reading)
    assert (
        shown
        == {
            "ascii": "| H |-@ \\xe9 \\u6f22 \\udcff\n",
            "latin-1": "| H |-@ é \\u6f22 \\udcff\n",
            "cp1252": "| H |-@ é \\u6f22 \\udcff\n",
            "utf-8": "┤ H ├─■ é 漢 \\udcff\n",
        }[encoding]
    )
