"""Keeps a command running when its standard output or error fails.

The reader may exit, the disk fill up, the terminal hang up or lack characters; the command still saves its results and
returns its exit status.
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
"""ASCII stand-ins for the characters of drawings and tables, one for one, so that columns stay aligned."""

_REPLACED = "quantum_diffusion.replaced"
"""Name of the error handler for characters that an encoding lacks."""


def guard_output() -> None:
    """Keep failures of standard output and error from reaching the program, until the process ends.

    Only for our own processes: called when a command starts, and when a job starts in a worker process.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would get its number, and whatever native code prints
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    _put("stdout", _guarded(sys.stdout, 1))
    _put("stderr", _guarded(sys.stderr, 2))


@contextlib.contextmanager
def output_to(stream: TextIO) -> Iterator[None]:
    """Redirect everything printed or logged to standard output to another stream."""
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
    except (OSError, AttributeError):  # a notebook's or a test's stream, not the process's own
        return stream
    return io.TextIOWrapper(  # type: ignore[type-var]
        _Descriptor(descriptor),  # unbuffered, like Python's own under `python -u`
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
    """Tell whether a guarded stream was closed from the start, or lost output other than because its reader exited."""
    buffer = getattr(stream, "buffer", None)
    return isinstance(buffer, _Descriptor) and buffer.lost


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor; after a failure the descriptor is /dev/null, for native code and child processes too."""

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
            except BlockingIOError:  # another program that shares the pipe made it non-blocking
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
        if self.lost:  # otherwise the reader has seen enough, as `head` does
            print(f"warning: further output is dropped, it cannot be written: {problem.strerror}", file=sys.stderr)
