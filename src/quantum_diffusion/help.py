"""The text of `--help`: all commands, one command's presets and keys, or one key in full."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.validation import Section, all_fields, describe_values, plain
from quantum_diffusion.errors import ConfigError, unknown_name
from quantum_diffusion.jobs import Command

_REQUIRED = "required"
_KINDS = (
    ("make and check data", ("generate", "inspect", "export-genqc")),
    ("train and evaluate", ("train", "evaluate", "runs", "report")),
    ("use a model", ("sample", "compile", "prepare", "refine", "ui", "models", "push", "pull")),
    ("this program", ("doctor", "completion")),
)
"""The groups of commands in `--help`; commands in none of them come last."""

_OPTIONS = (
    ("--help [KEY]", "explain the command, or one of its keys"),
    ("--json", "print one JSON object on standard output, everything else on standard error"),
    ("--dry-run", "check everything and print what would be done, its size and about how long it takes; do nothing"),
    ("-m", "run a job for each combination of values given as KEY=VALUE,VALUE (docs/training.md, Sweeps)"),
    ("--cfg job", "print the whole configuration instead of running the command"),
    ("--config-dir=FOLDER", "add a folder of your own presets (docs/presets.md)"),
)


def usage() -> str:
    """Return the text of `quantum-diffusion --help`."""
    lines = ["usage: quantum-diffusion COMMAND [key=value ...]"]
    named = {name for _, names in _KINDS for name in names}
    for kind, names in (*_KINDS, ("others", tuple(name for name in COMMANDS if name not in named))):
        rows = [(name, COMMANDS[name].summary) for name in names if name in COMMANDS]
        if rows:
            lines += ["", f"{kind}:", *_rows(rows)]
    lines += ["", "examples:", "  quantum-diffusion sample 1,2,2", "  quantum-diffusion compile --help"]
    return "\n".join(lines)


def help_text(name: str, arguments: Sequence[str] = ()) -> str:
    """Return the help on a command (an example, its presets and keys), or on the keys named after --help.

    Args:
        name: The command.
        arguments: The rest of its command line: keys to explain, and --config-dir, which adds presets.

    Raises:
        ConfigError: The command has no such key.
    """
    from quantum_diffusion.config.command_line import presets_of
    from quantum_diffusion.config.store import SECTIONS

    command = COMMANDS[name]
    keys = list(describe_keys(SECTIONS[command.section], command.section))
    asked = [argument for argument in arguments if not argument.startswith("-") and "=" not in argument]
    if asked:
        return "\n\n".join(_key(key, keys, command.section) for key in asked)
    presets = presets_of([argument for argument in arguments if argument != "--json"]).names(command.section)
    preset = f" [{command.section}=PRESET]" if presets else ""
    lines = [f"usage: quantum-diffusion {name}{preset} [key=value ...]", "", *_wrapped(command.summary)]
    if command.example:
        lines += ["", "example:", f"  quantum-diffusion {name} {command.example}"]
    if presets:
        lines += ["", "presets:", *_wrapped(", ".join(presets), "  ")]
        lines += _wrapped(f"or a file of your own, {command.section}=FILE.yaml", "  ")
    group = None
    for key, values, default, meaning in keys:
        part = key.rpartition(".")[0]
        if part != group:
            lines += ["", f"{part}.*  (values; default)"]
            group = part
        lines.append(f"  {key} ({_short(values)}; {default})")
        lines += _wrapped(_first_sentence(meaning), "      ")
    lines += ["", "options:", *_rows(_OPTIONS)]
    lines += ["", "Quote values with brackets or spaces: 'datasets.gate_set=[h,cx]'."]
    return "\n".join(lines)


def _key(asked: str, keys: Sequence[tuple[str, str, str, str]], section: str) -> str:
    """Explain a key, given in full, without its section, or by its last part alone."""
    names = list(dict.fromkeys(key for key, *_ in keys))
    meant = [name for name in names if name in (asked, f"{section}.{asked}")]
    meant = meant or [name for name in names if name.endswith(f".{asked}")]  # or its last parts alone
    if not meant:
        raise ConfigError(unknown_name("key", asked, [*names, *(name.rpartition(".")[2] for name in names)]))
    lines: list[str] = []
    for name in meant:
        lines += [*([""] if lines else []), name]
        for _, values, default, meaning in (entry for entry in keys if entry[0] == name):  # of each type of a part
            shown = "required" if default == _REQUIRED else f"default: {default}"
            lines += [line for text in (meaning, f"values: {values}", shown) for line in _wrapped(text, "  ")]
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    wide = max(len(name) for name, _ in rows)
    return [
        line
        for name, text in rows
        for line in textwrap.wrap(
            text, _width(), initial_indent=f"  {name:{wide}}  ", subsequent_indent=" " * (wide + 4)
        )
    ]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _width() -> int:
    return min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)


def _short(values: str) -> str:
    return values if len(values) <= 80 else f"{values[:77]}..."


def _first_sentence(text: str) -> str:
    """Return the first sentence of a key's description, for the list in `--help`; `--help KEY` shows all."""
    return re.split(r"(?<!e\.g)(?<!i\.e)\. ", text)[0].rstrip(".")


def required_keys(command: Command) -> str:
    """List the required keys."""
    from quantum_diffusion.config.store import SECTIONS

    keys = describe_keys(SECTIONS[command.section], command.section)
    return " and ".join(key for key, _, default, _ in keys if default == _REQUIRED)


def describe_keys(schema: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, values, default, meaning) of every key of a schema, nested sections included."""
    for key, field, kind in all_fields(schema, prefix):
        default = _REQUIRED if field.is_required() else plain(field.get_default(call_default_factory=True))
        meaning = [*([f"[{kind}]"] if kind else []), *(field.description or "").split()]
        yield key, describe_values(field), default, " ".join(meaning)
