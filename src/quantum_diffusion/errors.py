"""The errors this package raises for its users, and how they are worded.

A message says what was given, what was expected and what to do; everything else is a bug of ours.
"""

from __future__ import annotations

import difflib
import errno
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class QuantumDiffusionError(Exception):
    """Base class of every error that a user can cause and mend.

    Attributes:
        exit_status: Of a command that it ends: 1 where the work failed, 2 where what was given is wrong.
    """

    exit_status = 1


class InputError(QuantumDiffusionError):
    """What was given is wrong: a setting, a file, a combination."""

    exit_status = 2


class ConfigError(InputError):
    """A preset, key or value of the configuration is wrong, or a combination is impossible."""


class TooManyQubitsError(ConfigError):
    """What is asked for has more qubits than the model."""


class DatasetFormatError(InputError):
    """A data set folder is missing, damaged, foreign or not what its own description says."""


class IncompatibleDatasetsError(InputError):
    """Data sets (or a data set and a model) do not speak the same vocabulary."""


class CheckpointError(InputError):
    """A saved pipeline or training checkpoint cannot be written, read or used here."""


class SourceError(InputError):
    """A source of a report is missing, damaged, or nothing that a report can be made of."""


class GateSetError(InputError):
    """A gate is unknown, repeated, or does not fit the qubits it should act on."""


class TrainingDivergedError(QuantumDiffusionError):
    """The loss became NaN or infinite; the last good state has been saved."""


class TeamError(QuantumDiffusionError):
    """The processes that train a model together are not alike, or lost each other."""


class OutOfMemoryError(QuantumDiffusionError):
    """There is not enough memory, of the computer or of its GPU; the message says for what, and what to lower."""


_LACK_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory(?! in static TLS)|unable to allocate|_ALLOC_FAILED|"
    r"invalid buffer size|numel is too large|storage size calculation overflowed|"
    r"failed to map segment from shared object(?!: Operation not permitted)",
    re.IGNORECASE,
)
"""How torch says it, on the CPU, on CUDA and on MPS, and the system of a library; there is no class for all of them."""


@contextmanager
def memory_for(doing: str, mend: str) -> Iterator[None]:
    """Say in one line what memory was lacking for; every other error passes.

    Args:
        doing: What is done inside, e.g. "training with training.training.batch_size=4096 on cuda".
        mend: What to do about it, e.g. "lower training.training.batch_size".

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
    """Tell whether an exception says that memory ran out, whichever library raised it."""
    if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno == errno.ENOMEM):
        return True
    # A worker that the system killed ends joblib's pool; hardly anything but lack of memory does that.
    if type(problem).__name__ in ("OutOfMemoryError", "TerminatedWorkerError"):
        return not isinstance(problem, QuantumDiffusionError)
    return isinstance(problem, RuntimeError | ImportError) and bool(_LACK_OF_MEMORY.search(str(problem)))


@contextmanager
def only_warn(what: str) -> Iterator[None]:
    """Make a warning of whatever goes wrong inside: for pictures, drawings and logs, which never end a command.

    Args:
        what: What could not be made then, e.g. "the picture 'loss_curve.png'".
    """
    try:
        yield
    except Exception as problem:  # any: libraries that draw fail in their own ways
        logger.warning("%s could not be made: %s", what, first_line(problem))


def first_line(problem: BaseException) -> str:
    """Return the first line of what a library says went wrong, the middle left out of a long one; else its kind."""
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:100]} ... {line[-95:]}"  # the cause often stands at the end


def counted(count: int, what: str, several: str | None = None) -> str:
    """Write how many things there are: "1 gate", "2,000 gates", and "2 tries" where several of a try are given.

    Example:
        >>> counted(1, "gate"), counted(2000, "gate"), counted(2, "try", "tries")
        ('1 gate', '2,000 gates', '2 tries')
    """
    return f"{count:,} {what if count == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def nearest_name(given: object, valid: Iterable[str]) -> str | None:
    """Return the valid name that is most likely meant, None where none is near; case does not count."""
    names = {name.casefold(): name for name in valid}
    near = difflib.get_close_matches(str(given).casefold(), names, n=1, cutoff=0.65)
    return names[near[0]] if near else None


def unknown_name(kind: str, given: object, valid: Iterable[str], meant: str | None = None) -> str:
    """Word the message for a name that is not known.

    Args:
        kind: What the name stands for, as a user would call it ("optimizer").
        given: The name that was given.
        valid: The names that would have been accepted.
        meant: What is known to be meant by it; None suggests the valid name that is spelled most alike, if one is.

    Returns:
        One line with what is meant, and the valid names where they are few or it is not clear what is meant.

    Example:
        >>> unknown_name("optimizer", "adm", ["adam", "sgd"])
        "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"
    """
    names = sorted(valid)
    meant = meant or nearest_name(given, names)
    hint = f"did you mean {meant!r}? " if meant else ""
    if meant and len(names) > 15:
        return f"unknown {kind} {given!r}: {hint.strip()}"
    return f"unknown {kind} {given!r}: {hint}(valid: {', '.join(names) if names else 'none'})"
