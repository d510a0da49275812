"""Standard output and error of a command: what cannot be shown never ends the work.

A reader may go, a disk be full, a terminal hang up or lack characters. The command goes on, and saves and returns what
it would have without.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, Literal, TextIO

_PLAIN = str.maketrans("─═│║┤├╡╞┌┐└┘┬┴┼╥╨╩╫╪╬■░«»…", "-=||||||+++++++++++++@:<>~")
"""What circuits and tables are drawn with, one character for one, so that they stay aligned."""

_REPLACED = "quantum_diffusion.replaced"
"""Name of the way in which characters are encoded that an encoding lacks."""


def guard_output() -> None:
    """Let no failure of standard output or error reach the program, from now on until the process ends.

    For a process that is ours: called when a command starts, and when a job starts in a worker process.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get its number, and all that native code prints
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    _put("stdout", _guarded(sys.stdout, 1))
    _put("stderr", _guarded(sys.stderr, 2))


@contextlib.contextmanager
def output_to(stream: TextIO) -> Iterator[None]:
    """Let what is printed or logged to standard output go to another stream."""
    before = sys.stdout
    _put("stdout", stream)
    try:
        yield
    finally:
        _put("stdout", before)


def _put(name: Literal["stdout", "stderr"], stream: TextIO) -> None:
    before = getattr(sys, name)
    setattr(sys, name, stream)
    for handler in logging.getLogger().handlers:  # they keep the stream they were made with
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(stream)


def _guarded(stream: TextIO | None, number: int) -> TextIO:
    codecs.register_error(_REPLACED, _replaced)
    if stream is None:  # closed when Python started, /dev/null by now
        return io.TextIOWrapper(_Descriptor(number, lost=True), encoding="utf-8", errors=_REPLACED)  # type: ignore[type-var]
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):  # a notebook's or a test's: not the process's own
        return stream
    return io.TextIOWrapper(  # type: ignore[type-var]
        _Descriptor(descriptor),  # unbuffered, as Python's own under `python -u`
        encoding=stream.encoding,
        errors=_REPLACED,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def is_lost(stream: TextIO) -> bool:
    """Tell whether a guarded stream was closed from the start or lost output for another reason than a gone reader."""
    buffer = getattr(stream, "buffer", None)
    return isinstance(buffer, _Descriptor) and buffer.lost


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor; when that fails, the descriptor becomes /dev/null, also for native code and children."""

    def __init__(self, descriptor: int, lost: bool = False) -> None:
        self._descriptor = descriptor
        self.lost = lost

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another program that has the pipe set it so
                select.select([], [self._descriptor], [])
            except OSError as problem:
                self._fall_silent(problem)
                break
        return len(data)

    def _fall_silent(self, problem: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._descriptor)
        os.close(nowhere)
        self.lost = problem.errno != errno.EPIPE
        if self.lost:  # else it was a reader who has seen enough, as `head` has
            print(f"warning: nothing more is shown, for it cannot be written: {problem.strerror}", file=sys.stderr)
