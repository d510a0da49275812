"""Parses a command line into presets, keys with values and Hydra's options, and refuses everything else by name.

Whatever reaches Hydra is known to be readable; the schema checks the keys later.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from quantum_diffusion.config.presets import GROUPS, SUFFIXES, Presets, layered, path_of
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.translation import translated
from quantum_diffusion.config.validation import Section, all_fields, fields_at, nested_sections
from quantum_diffusion.errors import ConfigError, unknown_name

OWN_OPTIONS = ("--help", "--json", "--dry-run")
"""Options that `cli` handles itself."""

_REFUSED = {
    "--shell-completion": "use `quantum-diffusion completion SHELL`",
    "--experimental-rerun": "a pickled job can run code; give the settings, e.g. training=MODEL/training_config.yaml",
    "--config-name": "choose a preset, e.g. training=quick_test_srv, or a file of your own, training=FILE.yaml",
    "--config-path": "add a folder of presets of your own with --config-dir=FOLDER",
}
"""Hydra options that are not supported, and what to use instead."""


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
        section: The section that the command reads ("training").
        overrides: `KEY=VALUE` for Hydra; keys begin with `++`, so that Hydra accepts unknown ones too.
        chosen: The file of every preset in `overrides`, by group and name.
        is_sweep: Whether -m was given.
        shown: What --cfg prints: "job", "hydra" or "all"; None runs the command.
        resolve: Whether to resolve interpolations in printed values.
        package: The part to print, a dotted key; None prints all.
        options: Further Hydra options, which only print something.
    """

    section: str
    overrides: tuple[str, ...]
    chosen: dict[str, dict[str, Path]]
    is_sweep: bool = False
    shown: str | None = None
    resolve: bool = False
    package: str | None = None
    options: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    """Parser of the options, most of them Hydra's; it raises errors instead of printing them."""

    def __init__(self) -> None:
        super().__init__(prog="quantum-diffusion", add_help=False)
        self.add_argument("overrides", nargs="*")
        self.add_argument("--config-dir", "-cd")
        self.add_argument("--multirun", "-m", action="store_true")
        self.add_argument("--run", "-r", action="store_true")  # the default
        self.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
        self.add_argument("--resolve", action="store_true")
        self.add_argument("--package", "-p")
        kinds = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
        self.add_argument("--info", "-i", nargs="?", const="all", choices=kinds)
        self.add_argument("--hydra-help", action="store_true")
        self.add_argument("--shell-completion", "-sc", action="store_true")
        self.add_argument("--experimental-rerun")
        self.add_argument("--config-name", "-cn")
        self.add_argument("--config-path", "-cp")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: see `quantum-diffusion COMMAND --help` for the options")

    def split(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options and, as `overrides`, everything else."""
        found, unknown = self.parse_known_intermixed_args(list(arguments))
        for argument in unknown:
            names = [name for name in self._option_string_actions if name.startswith("--") and name not in _REFUSED]
            names += OWN_OPTIONS
            raise ConfigError(unknown_name("option", argument.partition("=")[0], names))
        for name, mend in _REFUSED.items():
            if getattr(found, name.strip("-").replace("-", "_")):
                raise ConfigError(f"Hydra's option {name} is not supported: {mend}")
        return found


def parse_arguments(arguments: Sequence[str], command_section: str) -> Arguments:
    """Parse a command line.

    Args:
        arguments: The command line without the program's name and the command.
        command_section: The section the command reads ("training"); keys of other sections are refused.

    Raises:
        ConfigError: An option, preset or section is unknown or not for this command, or an argument is unreadable.
    """
    found = _Parser().split(arguments)
    presets = own_presets(found.config_dir)
    groups = [group for group in (command_section, "debug") if presets.names(group)]
    chosen: dict[str, dict[str, Path]] = {group: {} for group in groups}
    overrides = []
    for argument in found.overrides:
        key, equals, _ = argument.partition("=")
        name = key.lstrip("+~")
        first, dot, rest = name.partition(".")
        if name == "hydra.mode":
            raise ConfigError(f"{argument!r} is not supported: leave it out, and use -m for a sweep")
        if first.partition("/")[0] == "hydra":
            overrides.append(argument)
        elif argument.startswith("~") and not (name == "debug" or _is_leaf(name, command_section)):
            raise ConfigError(
                f"{argument!r} would remove a whole section: give ~ a single key to reset to its default, e.g. "
                "~training.training.max_steps"
            )
        elif not equals and not argument.startswith("~"):
            example, *_ = next(all_fields(SECTIONS[command_section], command_section))
            raise ConfigError(f"cannot read {argument!r}: expected key=value, e.g. {example}=...")
        elif argument in ("~debug", "debug=null"):
            overrides = [override for override in overrides if not override.startswith("debug=")]
        elif name in groups:
            names = _choose(argument, name, presets, found.multirun, chosen[name])
            overrides.append(f"{name}={','.join(names)}")
        elif first == command_section and dot and rest:
            overrides.append(_prepared(argument, command_section, found.multirun))
        elif first in SECTIONS:
            raise ConfigError(f"{argument!r} has no effect on this command: it reads {command_section}.KEY=VALUE")
        else:
            raise ConfigError(unknown_name("key", name, [*groups, f"{command_section}.KEY"]))
    options = [f"--info={found.info}"] if found.info else []
    options += ["--hydra-help"] if found.hydra_help else []
    return Arguments(
        command_section,
        tuple(_in_our_names(overrides, command_section, chosen.get(command_section, {}))),
        chosen,
        found.multirun,
        found.cfg,
        found.resolve,
        found.package,
        tuple(options),
    )


def own_presets(folder: str | None) -> Presets:
    """Return our presets, plus those in a user's folder; None adds none."""
    return Presets(None if folder is None else path_of(folder))


def presets_of(arguments: Sequence[str]) -> Presets:
    """Return the presets that a command line can use; its other arguments are ignored."""
    return own_presets(_Parser().split([entry for entry in arguments if entry not in ("-h", "--help")]).config_dir)


# ------------------------------------------------------------------------------------------------- presets


def _choose(argument: str, group: str, presets: Presets, is_sweep: bool, chosen: dict[str, Path]) -> list[str]:
    """Return Hydra's names of the presets that an override chooses, and record their files in `chosen`."""
    from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString

    value: Any = _parsed(argument).value()
    if isinstance(value, Glob):
        texts = value.filter(presets.names(group))
        if not texts:
            raise ConfigError(f"{argument!r} matches no preset (available: {', '.join(presets.names(group))})")
    elif isinstance(value, ChoiceSweep):
        texts = [entry.text if isinstance(entry, QuotedString) else str(entry) for entry in value.list]
    else:
        texts = [str(value) if isinstance(value, str | int | float) else argument.partition("=")[2]]
    if len(texts) > 1 and not is_sweep:
        raise ConfigError(f"{argument!r} chooses several presets: add -m to run a job for each")
    return [_registered(text, group, presets, chosen) for text in texts]


def _registered(text: str, group: str, presets: Presets, chosen: dict[str, Path]) -> str:
    """Register a preset, given by name or file; returns the name that Hydra will know it by."""
    if text.endswith(SUFFIXES):
        file = path_of(text)
        if not file.is_file():
            raise ConfigError(f"{group}={text}: no such file: give a YAML file of settings, or a preset's name")
    else:
        file = presets.find(group, text)
    stem = re.sub(r"[^A-Za-z0-9_]", "_", Path(text).stem if text.endswith(SUFFIXES) else text)
    if not isinstance(_parsed(f"{group}={stem}").value(), str):  # Hydra would not read nan, null or 1e5 as a name
        stem = f"_{stem}"
    name, number = stem, 1
    while chosen.get(name, file) != file:  # another file of that name
        number += 1
        name = f"{stem}_{number}"
    chosen[name] = file
    return name


# --------------------------------------------------------------------------------------------------- values


def with_keys(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Add the keys to values given without one, in order: `toffoli` becomes `compile.target='toffoli'`.

    Args:
        arguments: A command line.
        keys: The keys; one that ends in `...` takes all remaining values, as a list.

    Raises:
        ConfigError: There are more values than keys; a command without such keys is left for `parse_arguments`.
    """
    waiting, every, result, before = list(keys), [], [], ""
    for argument in arguments:
        is_value = "=" not in argument and not argument.startswith(("-", "~", "+")) and before not in _WITH_VALUE
        before = argument
        if not is_value or not keys:
            result.append(argument)
        elif not waiting:
            raise ConfigError(_too_many(argument, keys))
        elif waiting[0].endswith("..."):
            every.append(argument)
        else:
            result.append(_with_key(waiting.pop(0), argument))
    return [*result, f"{waiting[0].removesuffix('...')}={written(every)}"] if every else result


def _too_many(value: str, keys: Sequence[str]) -> str:
    """Word the refusal of a value that comes after every key has one."""
    if len(keys) > 1:
        return f"unexpected value {value!r}: this command takes only {' and '.join(keys)} without a key"
    as_list = ", written as 1,2,2" if _takes_list(keys[0], keys[0].partition(".")[0]) else ""
    return f"unexpected value {value!r}: only one {keys[0]} is taken{as_list}; give other settings as KEY=VALUE"


def _with_key(key: str, text: str) -> str:
    """Return KEY=VALUE; a list of numbers needs no brackets."""
    is_list = re.fullmatch(r"\[?[\d,\s]*\]?", text) and _takes_list(key, key.partition(".")[0])
    return f"{key}=[{text.strip('[]')}]" if is_list else f"{key}={written(text)}"


_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")
"""Options whose value is the next argument."""


def written(value: Any) -> str:
    """Write a value in Hydra's grammar; text is quoted, so that it is taken literally."""
    if hasattr(value, "tolist"):  # numpy numbers and arrays
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, str | os.PathLike):
        escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + end[2].replace("'", "\\'"), os.fspath(value))
        return "'" + escaped.replace("${", "\\${") + "'"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(written, value)) + "]"
    return repr(value)


def _prepared(argument: str, section: str, is_sweep: bool) -> str:
    """Return an override in the form that Hydra needs."""
    argument = _with_quoted_home(argument)
    parsed = _parsed(argument)
    key, _, value = argument.partition("=")
    if parsed.is_sweep_override() and not is_sweep:
        if parsed.is_choice_sweep() and "(" not in value and _takes_list(key.lstrip("+"), section):
            return f"++{key.lstrip('+')}=[{value}]"  # sample.srv=1,2,2
        raise ConfigError(f"{argument!r} gives several values: add -m (--multirun) to run a job for each")
    return argument if argument[0] in "+~" else f"++{argument}"


def _in_our_names(overrides: Sequence[str], section: str, chosen: Mapping[str, Path]) -> list[str]:
    """Translate overrides from the names of the field, all at once: some of them mean something only together."""
    result: list[str] = []
    settings: dict[str, Any] = {}
    for override in overrides:
        parsed = _parsed(override) if override.startswith(f"++{section}.") else None
        if parsed is None:
            result.append(override)
        elif parsed.is_sweep_override():
            result.append(_swept_in_our_names(parsed, override, section, chosen))
        else:
            nested = _nested(parsed.key_or_group, parsed.value())
            settings = layered(Section, settings, nested)
            if translated(section, nested) == nested:
                result.append(override)
    given = keys_in([override for override in result if override.startswith(f"++{section}.")])
    for key, value in _flat(_over_presets(settings, section, chosen), section):
        if key not in given:
            is_reference = isinstance(value, str) and value.startswith("${")
            result.append(f"++{key}={value if is_reference else written(value)}")
    return result


def _over_presets(settings: dict[str, Any], section: str, chosen: Mapping[str, Path]) -> dict[str, Any]:
    """Translate settings that are merged over the chosen presets.

    Raises:
        ConfigError: They mean different things over each.
    """
    if section not in GROUPS or translated(section, settings) == settings:
        return translated(section, settings)
    files = chosen or {"default": Presets().find(section, "default")}
    results = [translated(section, settings, Presets().given(section, file)) for file in files.values()]
    if any(result != results[0] for result in results):
        raise ConfigError(
            f"genQC's and torch's names among the settings mean different things over {' and '.join(files)}: give our "
            "names, which --cfg job shows for each"
        )
    return results[0]


def _swept_in_our_names(parsed: Any, override: str, section: str, chosen: Mapping[str, Path]) -> str:
    """Translate each value of a sweep."""
    if not parsed.is_choice_sweep():
        return override
    values = [parsed._convert_value(value) for value in parsed.value().list]
    before = [_nested(parsed.key_or_group, value) for value in values]
    after = [_over_presets(nested, section, chosen) for nested in before]
    if after == before:
        return override
    settings = [list(_flat(one, section)) for one in after]
    key = settings[0][0][0] if settings[0] else parsed.key_or_group
    if any(len(one) != 1 or one[0][0] != key for one in settings):
        raise ConfigError(f"{override!r}: its values set different keys here: sweep over our keys instead")
    return f"++{key}={','.join(written(one[0][1]) for one in settings)}"


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return a value under its dotted key, without the section's name, as nested mappings."""
    for name in reversed(key.split(".")[1:]):
        value = {name: value}
    return dict(value)


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}.{name}")
        else:
            yield f"{above}.{name}", value


def _parsed(argument: str) -> Any:
    """Return what Hydra's parser makes of an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        raise ConfigError(
            f"cannot read {argument!r}: quote values that have spaces or special characters, e.g. "
            "'training.general.dataset=\"./my data\"'"
        ) from None


def keys_in(overrides: Sequence[str]) -> set[str]:
    """Return the dotted keys that overrides set, including keys inside mappings."""

    def below(key: str, value: Any) -> set[str]:
        if not isinstance(value, dict):
            return {key}
        return {key}.union(*(below(f"{key}.{name}", entry) for name, entry in value.items()))

    parsed = map(_parsed, overrides)
    return set().union(*(below(one.key_or_group, one.value()) for one in parsed if not one.is_sweep_override()))


def _with_quoted_home(argument: str) -> str:
    """Quote values that begin with ~/, which Hydra's grammar lacks; quoted values stay as they are."""
    if "'" in argument or '"' in argument:
        return argument
    return re.sub(r"(?<=[=,])((stream:)?~(/([^\s,(){}\[\]$]|\$\{[^}]*\})*)?)(?=,|$)", r"'\1'", argument)


def _takes_list(key: str, section: str) -> bool:
    """Tell whether the value of a dotted key is a list."""
    return any(
        get_origin(kind) is tuple
        for field in fields_at(SECTIONS[section], key.split(".")[1:])
        for kind in (
            field.annotation,
            *(inner for one in get_args(field.annotation) for inner in (one, *get_args(one))),
        )
    )


def _is_leaf(key: str, section: str) -> bool:
    """Tell whether a dotted key holds a value rather than a section; the schema refuses unknown keys later."""
    first, _, rest = key.partition(".")
    fields = fields_at(SECTIONS[section], rest.split("."))
    return first == section and bool(rest) and not any(nested_sections(field.annotation) for field in fields)
