"""The errors this package raises for its users, and how they are worded.

A message says what was given, what was expected and what to do; everything else is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantumDiffusionError(Exception):
    """Base class of every error that a user can cause and mend."""


class ConfigError(QuantumDiffusionError):
    """A preset, key or value of the configuration is wrong, or a combination is impossible."""


class DatasetFormatError(QuantumDiffusionError):
    """A data set folder is missing, damaged, foreign or not what its own description says."""


class IncompatibleDatasetsError(QuantumDiffusionError):
    """Data sets (or a data set and a model) do not speak the same vocabulary."""


class CheckpointError(QuantumDiffusionError):
    """A saved pipeline or training checkpoint cannot be written, read or used here."""


class GateSetError(QuantumDiffusionError):
    """A gate is unknown, repeated, or does not fit the qubits it should act on."""


class TrainingDivergedError(QuantumDiffusionError):
    """The loss became NaN or infinite; the last good state has been saved."""


def first_line(problem: BaseException) -> str:
    """Return the first line of what a library says went wrong, the middle left out of a long one; else its kind."""
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:100]} ... {line[-95:]}"  # the cause often stands at the end


def unknown_name(kind: str, given: object, valid: Iterable[str]) -> str:
    """Word the message for a name that is not known.

    Args:
        kind: What the name stands for, as a user would call it ("optimizer").
        given: The name that was given.
        valid: The names that would have been accepted.

    Returns:
        One line with the nearest valid name, if one is near, and the valid names where they are few or none is near.

    Example:
        >>> unknown_name("optimizer", "adm", ["adam", "sgd"])
        "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"
    """
    names = sorted(valid)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if near and len(names) > 15:
        return f"unknown {kind} {given!r}: {hint.strip()}"
    return f"unknown {kind} {given!r}: {hint}(valid: {', '.join(names) if names else 'none'})"
