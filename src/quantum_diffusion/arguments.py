"""What callers in Python give, checked where it enters, as the schema checks what commands give.

Only public functions ask; below them arguments are what their types say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from quantum_diffusion.errors import ConfigError

T = TypeVar("T")

PRESETS_HINT = "which quantum_diffusion.config.store.compose makes of presets"
"""How to get a configuration."""


def check_kind(value: object, kind: type[T] | tuple[type[T], ...], name: str, hint: str = "") -> T:
    """Return a value that is of a kind.

    Args:
        value: What was given.
        kind: The class it must be of, or several of which it must be of one.
        name: The argument, as the caller knows it.
        hint: How to get one.

    Raises:
        ConfigError: It is of another kind.
    """
    if not isinstance(value, kind):
        paths = " or ".join(map(_import_path, kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigError(f"{name} is {shown(value)}: give a {paths}{hint and ', '}{hint}")
    return value


def _import_path(kind: type) -> str:
    """Name a class by the path that callers import it by: of its module, or of the package that offers it."""
    if kind.__module__ == "builtins":
        return kind.__name__
    package = kind.__module__.rpartition(".")[0]
    is_offered = getattr(sys.modules.get(package), kind.__name__, None) is kind
    return f"{package if is_offered else kind.__module__}.{kind.__name__}"


def check_path(value: object, name: str) -> Path:
    """Return a path that was given as text or as a path.

    Raises:
        ConfigError: It is neither, or names nothing.
    """
    if value == "":
        raise ConfigError(f"{name} is empty: give a path, as text or pathlib.Path")
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise ConfigError(f"{name} is {shown(value)}: give a path, as text or pathlib.Path")
    return Path(value)


def check_whole(value: Any, name: str) -> int:
    """Return a whole number of Python or numpy as Python's.

    Raises:
        ConfigError: It is none, though it may be true or 2.0.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: give a whole number")
    return int(value)


def check_count(value: Any, name: str, least: int = 0) -> int:
    """Return a whole number that is at least `least`; see `check_whole`."""
    count = check_whole(value, name)
    if count < least:
        raise ConfigError(f"{name} is {shown(count)}: give {least} or more")
    return count


def check_number(value: Any, name: str) -> None:
    """Refuse what is no number of Python or numpy.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: give a number")


def check_list(values: Any, name: str, example: str) -> list[Any]:
    """Return what was given one by one and in an order, in anything but a text, as a list.

    Args:
        values: What was given.
        name: The argument, as the caller knows it.
        example: How one is written.

    Raises:
        ConfigError: It is a text, or no collection.
    """
    if isinstance(values, str | bytes | set | dict) or not isinstance(values, Iterable) or np_scalar(values):
        raise ConfigError(f"{name} is {shown(values)}: give a list, e.g. {example}")
    return list(values)


def np_scalar(values: object) -> bool:
    """Tell whether an array of numpy has no dimension, and so nothing one by one."""
    return getattr(values, "shape", None) == ()


def check_texts(values: Any, name: str, example: str) -> list[str]:
    """Return texts as a list; see `check_list`."""
    texts = check_list(values, name, example)
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"{name} has {shown(text)}: give texts, e.g. {example}")
    return [str(text) for text in texts]  # numpy has texts of its own


def check_wholes(values: Any, name: str, example: str) -> tuple[int, ...]:
    """Return whole numbers as a tuple; see `check_list`."""
    return tuple(check_whole(value, name) for value in check_list(values, name, example))


def shown(value: object) -> str:
    """Show a value in a message: short, and on one line."""
    if isinstance(value, str | bytes | int | float | list | tuple | dict | os.PathLike | None):
        text = " ".join(repr(value).split())
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"a {type(value).__name__}"
