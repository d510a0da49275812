"""Checks of the arguments of public Python functions, the counterpart of the schema that checks commands.

Code below the public functions trusts its arguments' types.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from quantum_diffusion.errors import ConfigError

T = TypeVar("T")

PRESETS_HINT = "which quantum_diffusion.config.store.compose makes of presets"
"""Where a caller gets a configuration."""


def check_kind(value: object, kind: type[T] | tuple[type[T], ...], name: str, hint: str = "") -> T:
    """Return a value after checking its class.

    Args:
        value: What was given.
        kind: The class, or several allowed classes.
        name: The argument's name, as the caller knows it.
        hint: How to get such a value.

    Raises:
        ConfigError: The value is of another class.
    """
    if not isinstance(value, kind):
        paths = " or ".join(map(_import_path, kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigError(f"{name} is {shown(value)}: give a {paths}{hint and ', '}{hint}")
    return value


def _import_path(kind: type) -> str:
    """Return the path by which callers import a class: its module's, or that of the package that re-exports it."""
    if kind.__module__ == "builtins":
        return kind.__name__
    package = kind.__module__.rpartition(".")[0]
    is_offered = getattr(sys.modules.get(package), kind.__name__, None) is kind
    return f"{package if is_offered else kind.__module__}.{kind.__name__}"


def check_path(value: object, name: str) -> Path:
    """Return text or a path as a `Path`.

    Raises:
        ConfigError: The value is neither, or is empty.
    """
    if value == "":
        raise ConfigError(f"{name} is empty: give a path, as text or pathlib.Path")
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise ConfigError(f"{name} is {shown(value)}: give a path, as text or pathlib.Path")
    return Path(value)


def check_whole(value: Any, name: str) -> int:
    """Return a Python or numpy integer as an `int`.

    Raises:
        ConfigError: The value is no integer; True and 2.0 are not either.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: give a whole number")
    return int(value)


def check_count(value: Any, name: str, least: int = 0) -> int:
    """Return an integer of at least `least`; see `check_whole`."""
    count = check_whole(value, name)
    if count < least:
        raise ConfigError(f"{name} is {shown(count)}: give {least} or more")
    return count


def check_number(value: Any, name: str) -> None:
    """Refuse anything but a Python or numpy number.

    Raises:
        ConfigError: The value is no number.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: give a number")


def check_finite(value: Any, name: str) -> float:
    """Return a Python or numpy number that is neither infinite nor NaN as a `float`; see `check_number`."""
    check_number(value, name)
    if not math.isfinite(value):
        raise ConfigError(f"{name} is {shown(value)}: give a finite number")
    return float(value)


def check_list(values: Any, name: str, example: str) -> list[Any]:
    """Return an ordered collection as a list.

    Args:
        values: What was given.
        name: The argument's name, as the caller knows it.
        example: An example value for the message.

    Raises:
        ConfigError: The value is text, a set, a mapping or no collection.
    """
    if isinstance(values, str | bytes | set | dict) or not isinstance(values, Iterable) or np_scalar(values):
        raise ConfigError(f"{name} is {shown(values)}: give a list, e.g. {example}")
    return list(values)


def np_scalar(values: object) -> bool:
    """Tell whether a value is a numpy array without dimensions, which cannot be iterated over."""
    return getattr(values, "shape", None) == ()


def check_texts(values: Any, name: str, example: str) -> list[str]:
    """Return texts as a list; see `check_list`."""
    texts = check_list(values, name, example)
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"{name} has {shown(text)}: give texts, e.g. {example}")
    return [str(text) for text in texts]  # numpy strings become Python's


def check_wholes(values: Any, name: str, example: str) -> tuple[int, ...]:
    """Return integers as a tuple; see `check_list`."""
    return tuple(check_whole(value, name) for value in check_list(values, name, example))


def shown(value: object) -> str:
    """Format a value for a message: short, and on one line."""
    if isinstance(value, str | bytes | int | float | list | tuple | dict | os.PathLike | None):
        text = " ".join(repr(value).split())
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"a {type(value).__name__}"
