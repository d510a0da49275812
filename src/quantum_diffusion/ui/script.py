"""Writes the Python program that repeats a search of the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from quantum_diffusion.ui.requests import FindRequest


def python_script(request: FindRequest, command: str, options: Mapping[str, Any]) -> str:
    """Return a program that finds the same circuits, unless a time limit cuts its search short.

    Args:
        request: The request.
        command: The model's method.
        options: The method's arguments by name.
    """
    lines = ["import quantum_diffusion as qd", "", f"model = qd.load({_literal(request.model)})"]
    asked = "" if request.srv is None else repr(list(request.srv))
    if request.target is not None:
        target = request.target
        if target.name is not None:
            asked = _literal(target.name.strip())
        elif target.file is not None:
            asked = _literal(PurePath(target.file.replace("\\", "/")).name or "target.npy")
            lines.append("# the file that was uploaded")
        else:
            asked = _literal("target.qasm")
            lines.append("# the program that was pasted, saved as target.qasm")
    arguments = "".join(f", {name}={_value(value)}" for name, value in options.items())
    lines += [f"found = model.{command}({asked}{arguments})", "print(found)"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Return a value as Python source; text is always a literal."""
    if isinstance(value, str):
        return _literal(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(key)}: {entry!r}' for key, entry in value.items())}}}"
    return repr(value)


def _literal(text: str) -> str:
    """Return text as a Python literal, in double quotes where possible."""
    return f'"{text}"' if text.isprintable() and not {'"', "\\"} & {*text} else ascii(text)
