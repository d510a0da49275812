"""The Python program that asks what the page was asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from quantum_diffusion.ui.requests import FindRequest


def python_script(request: FindRequest, command: str, options: Mapping[str, Any]) -> str:
    """Write a program that gives the same circuits, where time does not cut its search short.

    Args:
        request: What was asked.
        command: The method of a model that answers it.
        options: Its arguments by name.
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
    """Write a value; texts in it are never more than texts."""
    if isinstance(value, str):
        return _literal(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(key)}: {entry!r}' for key, entry in value.items())}}}"
    return repr(value)


def _literal(text: str) -> str:
    """Write a text as Python does, in double quotes where that is as plain."""
    return f'"{text}"' if text.isprintable() and not {'"', "\\"} & {*text} else ascii(text)
