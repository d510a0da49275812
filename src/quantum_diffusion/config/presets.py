"""Preset files: found in our folder or a user's, read safely, merged, and completed with the defaults.

Hydra receives complete presets and reads no file itself, so that errors read the same for every file.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

import quantum_diffusion
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.translation import pipeline_settings, translated
from quantum_diffusion.config.validation import Part, Section, nested_sections
from quantum_diffusion.errors import ConfigError, first_line, unknown_name

GROUPS = ("datasets", "training", "evaluation")
"""The sections that have presets."""

SUFFIXES = (".yaml", ".yml")
MISSING = "???"
"""Hydra's and OmegaConf's marker for a required value."""

_LARGEST_FILE = 2**20
_MOST_VALUES = 100_000
"""Maximum number of values in a YAML file with all aliases expanded: nested aliases can multiply without bound."""

Values = dict[str, Any]


def config_folder() -> Path:
    """Return the folder of presets: the installed package's own, or the repository's in an editable install."""
    package = Path(quantum_diffusion.__file__).parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"the presets (conf/config.yaml) are missing beside {package}: install the package again")


@dataclass(frozen=True)
class Presets:
    """The presets that can be chosen by name.

    Attributes:
        own: A user's folder of additional presets, laid out like ours (`training/NAME.yaml`, ...); None for none.
    """

    own: Path | None = None

    def names(self, group: str) -> list[str]:
        """Return the presets of a group ("datasets", "training", "evaluation", "debug"), sorted.

        Raises:
            ConfigError: The user's folder cannot be read, or has a preset with the name of one of ours.
        """
        return sorted(self._files(group))

    def find(self, group: str, name: str) -> Path:
        """Return the file of a preset.

        Raises:
            ConfigError: There is no preset of that name.
        """
        files = self._files(group)
        if name not in files:
            raise ConfigError(unknown_name(f"{group} preset", name, files))
        return files[name]

    def _files(self, group: str) -> dict[str, Path]:
        files = _files_in(config_folder() / group)
        if self.own is None:
            return files
        if not self.own.is_dir():
            raise ConfigError(
                f"--config-dir={str(self.own)!r} is not a folder: give one that holds e.g. {group}/NAME.yaml"
            )
        added = _files_in(self.own / group)
        for name in added:
            if name in files:
                raise ConfigError(
                    f"{str(added[name])!r} has the name of a built-in preset, {group}={name}: rename the file"
                )
        return files | added

    def load(self, group: str, file: Path) -> Values:
        """Return a preset's values, merged with the presets it builds on and completed with all defaults.

        Args:
            group: The section it configures, a key of `SECTIONS`; "debug" presets hold values by section and are not
                completed.
            file: Its file; its `defaults:` names presets of the same group, or files beside it.

        Raises:
            ConfigError: A file is missing, unreadable or not a mapping; the message names file, line and problem.
        """
        values = self.given(group, file)
        return completed(SECTIONS[group], values) if group in SECTIONS else values

    def given(self, group: str, file: Path) -> Values:
        """Return what `load` does, without the defaults."""
        values: Values = {}
        for path, content in self._layers(group, file, ()):
            values = layered(SECTIONS.get(group, Section), values, _in_our_names(path, group, content, values))
        return values

    def _layers(self, group: str, file: Path, chain: tuple[Path, ...]) -> list[tuple[Path, Values]]:
        """Return the layers of a preset and their files in merge order, the base first."""
        real = Path(os.path.realpath(file))
        if real in chain:
            raise ConfigError(f"{str(file)!r} builds on itself through {str(chain[-1])!r}: change its `defaults`")
        content = read_yaml(file)
        if group == "training":
            content = pipeline_settings(content) or content
        bases = content.pop("defaults", [])
        package = _package_of(file)
        if package not in (None, "_global_", group):
            raise ConfigError(f"{str(file)!r} begins with `@package {package}`: expected {group} or _global_, or none")
        if package == "_global_" and group in SECTIONS:
            content = content.get(group) or {}
        _check_nesting(file, SECTIONS.get(group, Section), content)
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise ConfigError(
                f"{str(file)!r}: `defaults` is {bases!r}, expected a list of {group} presets, e.g. [default, _self_]"
            )
        layers: list[tuple[Path, Values]] = []
        for base in [*bases, *(["_self_"] if "_self_" not in bases else [])]:
            if base == "_self_":
                layers.append((file, content))
            else:
                layers += self._layers(group, self._base(group, base, file), (*chain, real))
        return layers

    def _base(self, group: str, name: str, file: Path) -> Path:
        """Return the file that a name in a preset's `defaults` refers to."""
        name = name.removeprefix(f"/{group}/")
        if name.endswith(SUFFIXES):
            return file.parent / path_of(name)
        beside = [path for path in (file.with_name(name + suffix) for suffix in SUFFIXES) if path.is_file()]
        if name not in self._files(group) and beside:
            return beside[0]
        try:
            return self.find(group, name)
        except ConfigError as problem:
            raise ConfigError(f"{str(file)!r}: `defaults`: {problem}") from None


def _check_nesting(file: Path, schema: type[Section], content: Values) -> None:
    """Refuse dotted keys and values in place of sections, which merging would otherwise hide."""
    for key, value in content.items():
        if "." in key:
            first, _, rest = key.partition(".")
            raise ConfigError(f"{str(file)!r}: write {key!r} as {rest!r} nested under {first!r}")
        if _section_of(schema, key) is not Section and not isinstance(value, Mapping | None):
            raise ConfigError(f"{str(file)!r}: {key}: expected nested keys, given {value!r}")


def _in_our_names(file: Path, group: str, content: Values, below: Values) -> Values:
    """Translate a file's settings from the names of the field; `below` is what the files it builds on give."""
    try:
        if group in SECTIONS:
            return translated(group, content, below)
        return {
            key: translated(key, part) if key in SECTIONS and isinstance(part, dict) else part
            for key, part in content.items()
        }
    except ConfigError as problem:
        raise ConfigError(f"{str(file)!r}: {problem}") from None


def path_of(text: str) -> Path:
    """Return text as a path, with ~ expanded to the home folder.

    Raises:
        ConfigError: There is no home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text!r} begins with ~, but you have no home folder: set HOME, or give the path") from None


def _files_in(folder: Path) -> dict[str, Path]:
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as problem:
        raise ConfigError(f"cannot read the folder of presets {str(folder)!r}: {problem.strerror}") from problem
    return {name.rpartition(".")[0]: folder / name for name in names if name.endswith(SUFFIXES)}


# ---------------------------------------------------------------------------------------------------- YAML


def read_yaml(file: Path) -> Values:
    """Read a preset file as plain values; interpolations such as ${...} stay unresolved.

    Raises:
        ConfigError: The file cannot be read; the message names the file, the line if known, and the problem.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as problem:
        raise ConfigError(f"cannot read {str(file)!r}: {problem.strerror}") from problem
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{str(file)!r} is larger than {_LARGEST_FILE // 2**20} MiB: give a file of settings")
    try:
        text = content.decode("utf-8-sig")
        check_extent(text)
        loaded = OmegaConf.load(io.StringIO(text))
        values = OmegaConf.to_container(loaded, resolve=False)
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise ConfigError(f"{str(file)!r}, line {line}: not valid UTF-8: save it as UTF-8") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{str(file)!r}{where}: {problem.problem or first_line(problem)}") from None
    except RecursionError:
        raise ConfigError(f"{str(file)!r}: its values are nested too deeply") from None
    except Exception as problem:  # OmegaConf's and Python's errors on odd keys, huge numbers and single values
        raise ConfigError(f"{str(file)!r}: {first_line(problem)}: expected keys and values") from None
    if not isinstance(loaded, DictConfig) or not isinstance(values, dict):
        raise ConfigError(f"{str(file)!r} holds a list: expected keys and values, e.g. num_epochs: 3")
    return {str(key): value for key, value in values.items()}


def _package_of(file: Path) -> str | None:
    """Return NAME of Hydra's comment `# @package NAME`, None without one; under `_global_`, values are by section."""
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        for line in opened:
            if line.strip() and not line.startswith("#"):
                break
            found = re.match(r"#\s*@package\s+(\S+)", line)
            if found:
                return found[1]
    return None


def check_extent(text: str) -> None:
    """Refuse aliases that expand to very many values or to themselves, before anything expands them."""

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # until it is known: an alias of itself has no end
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    sizes: dict[int, int] = {}
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and size(root) > _MOST_VALUES:
        raise ValueError(f"with its aliases expanded it has more than {_MOST_VALUES:,} values")


# -------------------------------------------------------------------------------------------------- layers


def layered(schema: type[Section], below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return values merged with others that take precedence, mapping by mapping.

    If a part of the model changes its type, the parameters of the old type are dropped.

    Args:
        schema: The section of the values; `Section` itself if unknown.
        below: Plain values.
        above: Plain values that take precedence.
    """
    result = dict(below)
    for key, value in above.items():
        lower, part = result.get(key), _section_of(schema, key)
        if not isinstance(value, Mapping) or not isinstance(lower, Mapping):
            result[key] = value
            continue
        if issubclass(part, Part) and part.params_class(lower) is not part.params_class({**lower, **value}):
            lower = {name: entry for name, entry in lower.items() if name != "params"}
        result[key] = layered(part, lower, value)
    return result


def completed(schema: type[Section], values: Mapping[str, Any]) -> Values:
    """Return values completed with the schema's defaults, and `MISSING` for required ones."""
    result: Values = {}
    for name, field in schema.model_fields.items():
        part = _section_of(schema, name)
        if issubclass(schema, Part) and name == "params":
            part = schema.params_class(values) or Section
        if part is not Section and isinstance(values.get(name, {}), Mapping):
            result[name] = completed(part, values.get(name, {}))
        elif name in values:
            result[name] = values[name]
        else:
            result[name] = MISSING if field.is_required() else _plain(field.get_default(call_default_factory=True))
    return result | {name: value for name, value in values.items() if name not in result}


def _section_of(schema: type[Section], name: str) -> type[Section]:
    """Return the section nested under a key; `Section` itself if there is none, or several."""
    field = schema.model_fields.get(name)
    sections = [] if field is None else nested_sections(field.annotation)
    return sections[0] if len(sections) == 1 else Section


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
