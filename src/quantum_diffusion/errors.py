"""The exceptions this package raises for its users, and helpers that word their messages.

Every module above may use it. A message says what was given, what was expected and what to do.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class QuantumDiffusionError(Exception):
    """Base class of every error that a user can cause and fix.

    Attributes:
        exit_status: Exit status of a command that fails with it: 1 if the work failed, 2 if the input is wrong.
    """

    exit_status = 1


class InputError(QuantumDiffusionError):
    """The input is wrong: a setting, a file or a combination of them."""

    exit_status = 2


class ConfigError(InputError):
    """A preset, key, value or combination of settings is invalid."""


class TooManyQubitsError(ConfigError):
    """A request needs more qubits than the model has."""


class DatasetFormatError(InputError):
    """A data set folder is missing, damaged, in another format or inconsistent with its description."""


class IncompatibleDatasetsError(InputError):
    """Data sets, or a data set and a model, do not share a vocabulary."""


class CheckpointError(InputError):
    """A saved pipeline or training checkpoint cannot be written, read or used."""


class SourceError(InputError):
    """A source of a report is missing, damaged or of an unsupported kind."""


class GateSetError(InputError):
    """A gate is unknown, repeated or does not fit its qubits, or a circuit cannot be read."""


class TrainingDivergedError(QuantumDiffusionError):
    """The loss became NaN or infinite; the last good state is saved."""


class TeamError(QuantumDiffusionError):
    """The processes of a distributed run have different settings, or lost contact with each other."""


class OutOfMemoryError(QuantumDiffusionError):
    """Main or GPU memory ran out; the message says during what, and which setting to lower."""


_LACK_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory(?! in static TLS)|unable to allocate|_ALLOC_FAILED|"
    r"invalid buffer size|numel is too large|storage size calculation overflowed|"
    r"failed to map segment from shared object(?!: Operation not permitted)",
    re.IGNORECASE,
)
"""Messages of torch (CPU, CUDA, MPS) and of the system's loader; they share no exception class."""


@contextmanager
def memory_for(doing: str, mend: str) -> Iterator[None]:
    """Replace any out-of-memory error by one line that says what to do; let every other error pass.

    Args:
        doing: The work done inside, e.g. "training with training.training.batch_size=4096 on cuda".
        mend: The advice, e.g. "lower training.training.batch_size".

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    try:
        yield
    except Exception as problem:
        if not lacks_memory(problem):
            raise
        raise OutOfMemoryError(f"out of memory while {doing}: {mend}") from problem


def lacks_memory(problem: BaseException) -> bool:
    """Return whether an exception means that memory ran out, whichever library raised it."""
    if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno == errno.ENOMEM):
        return True
    # joblib raises TerminatedWorkerError when the system kills a worker, which it hardly does for another reason.
    if type(problem).__name__ in ("OutOfMemoryError", "TerminatedWorkerError"):
        return not isinstance(problem, QuantumDiffusionError)
    return isinstance(problem, RuntimeError | ImportError) and bool(_LACK_OF_MEMORY.search(str(problem)))


@contextmanager
def only_warn(what: str) -> Iterator[None]:
    """Turn any exception raised inside into a warning; for pictures and logs, which must not stop a command.

    Args:
        what: What is being made, e.g. "the picture 'loss_curve.png'".
    """
    try:
        yield
    except Exception as problem:  # any: each drawing library has its own exceptions
        logger.warning("%s could not be made: %s", what, first_line(problem))


def first_line(problem: BaseException) -> str:
    """Return the first line of an exception's message, shortened in the middle; the class name if it has none."""
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:100]} ... {line[-95:]}"  # the cause is often at the end


def quoted(given: object, most: int = 60) -> str:
    """Quote what a user gave for use in a message; a long text is cut.

    Args:
        given: Text or any other value.
        most: Maximum number of characters to show.

    Returns:
        One line: the `repr` of the value, followed by its length if it was cut.

    Example:
        >>> quoted("ghz:3"), quoted("x" * 5000, most=5)
        ("'ghz:3'", "'xxxxx'... (5,000 characters)")
    """
    if isinstance(given, str):
        return repr(given) if len(given) <= most else f"{given[:most]!r}... ({len(given):,} characters)"
    text = " ".join(repr(given).split())
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def quoted_path(path: str | os.PathLike[str]) -> str:
    """Quote a path for use in a message; only a very long one is cut."""
    return quoted(os.fspath(path), most=255)


def counted(count: int, what: str, several: str | None = None) -> str:
    """Write a count with its noun, in the singular or plural.

    Args:
        count: The number.
        what: The singular.
        several: The plural; None adds an "s".

    Example:
        >>> counted(1, "gate"), counted(2000, "gate"), counted(2, "try", "tries")
        ('1 gate', '2,000 gates', '2 tries')
    """
    return f"{count:,} {what if count == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """Write a time in seconds in a readable unit.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def nearest_name(given: object, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to the given one, ignoring case; None if none is close."""
    names = {name.casefold(): name for name in valid}
    near = difflib.get_close_matches(str(given).casefold(), names, n=1, cutoff=0.65)
    return names[near[0]] if near else None


def unknown_name(kind: str, given: object, valid: Iterable[str], meant: str | None = None) -> str:
    """Word the message for an unknown name.

    Args:
        kind: What the name stands for, as a user would call it ("optimizer").
        given: The name that was given.
        valid: The accepted names.
        meant: The name to suggest; None suggests the valid name with the closest spelling, if there is one.

    Returns:
        One line with the suggestion, and the valid names if they are few or there is no suggestion.

    Example:
        >>> unknown_name("optimizer", "adm", ["adam", "sgd"])
        "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"
        >>> unknown_name("optimizer", "lion", ["adam", "sgd"])
        "unknown optimizer 'lion' (valid: adam, sgd)"
    """
    names = sorted(valid)
    meant = meant or nearest_name(given, names)
    hint = f": did you mean {meant!r}?" if meant else ""
    choices = "" if meant and len(names) > 15 else f" (valid: {', '.join(names) if names else 'none'})"
    return f"unknown {kind} {quoted(given)}{hint}{choices}"
