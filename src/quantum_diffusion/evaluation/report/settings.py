"""Finds the settings of a command that differ from the defaults, and the command line that reproduces them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantum_diffusion.config.presets import completed
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.tracking.sinks import flat

_PLAIN = re.compile(r"[A-Za-z_./][\w./:-]*")
_WORDS = ("null", "true", "false", "nan", "inf")
"""Words that Hydra does not read as strings."""

_REQUIRED = "???"


@dataclass(frozen=True)
class Setting:
    """A setting that differs from its default.

    Attributes:
        key: Dotted key, as on the command line.
        value: Its value.
        default: Its default; None is the text "null", and a setting without a default has "required".
    """

    key: str
    value: Any
    default: str


def changed_settings(section: str, values: Mapping[str, Any]) -> list[Setting]:
    """Return the settings that differ from the defaults, in the order of the schema.

    Args:
        section: The section of the command ("training").
        values: Its plain values; keys unknown to this version are included.
    """
    schema = SECTIONS[section]
    kinds = {
        key: {"type": part["type"]} for key, part in values.items() if isinstance(part, Mapping) and "type" in part
    }
    plain = flat(completed(schema, {}))
    # Parameters are compared with the defaults of their own type, types with the default type.
    defaults = flat(completed(schema, kinds)) | {key: plain.get(key) for key in plain if key.endswith(".type")}
    return [
        Setting(f"{section}.{key}", value, "required" if default == _REQUIRED else typed(default))
        for key, value in flat(completed(schema, values)).items()
        for default in (defaults.get(key, "-"),)
        if value != default and value != _REQUIRED
    ]


def command_line(name: str, settings: list[Setting], leave_out: tuple[str, ...] = ()) -> str:
    """Return the command with these settings, ready for a shell, one setting per line.

    Args:
        name: The command.
        settings: See `changed_settings`.
        leave_out: Keys to leave out, of no interest to others.
    """
    parts = [shlex.quote(f"{one.key}={typed(one.value)}") for one in settings if one.key not in leave_out]
    return " \\\n  ".join([f"quantum-diffusion {name}", *parts])


def typed(value: Any) -> str:
    """Format a plain value so that Hydra reads it back from the command line.

    Example:
        >>> typed([1, "h"]), typed(None), typed("my data"), typed("1")
        ('[1,h]', 'null', "'my data'", "'1'")
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{typed(entry)}" for key, entry in value.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"
