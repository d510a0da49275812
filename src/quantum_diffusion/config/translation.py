"""Translates settings written with the names of genQC and torch into ours, in preset files and on the command line.

What they are translated to is the table in `known_names`; what has no meaning here is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from quantum_diffusion.config.known_names import IMPLIED, TRANSLATIONS, VALUES, Translation, Values
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.validation import fields_at
from quantum_diffusion.errors import ConfigError

_Path = tuple[str, ...]


def translated(section: str, values: Mapping[str, Any]) -> Values:
    """Return a section's settings under our names.

    Example:
        >>> translated("training", {"training": {"lr": 0.001, "loss": "MSELoss"}})
        {'training': {'loss': 'mse', 'learning_rate': 0.001}}

    Args:
        section: Key of `SECTIONS`.
        values: Plain, nested settings of the section, those of one source: a file, or a command line.

    Raises:
        ConfigError: A setting has no meaning here, or is given under both names.
    """
    found: dict[tuple[str, ...], tuple[Translation, dict[str, Any]]] = {}
    result: Values = {}
    implied: Values = {}
    for path, value in _leaves(section, values):
        row = _row(section, path)
        if row is not None:
            translation, name = row
            found.setdefault(translation.names, (translation, {}))[1][name] = value
        else:
            _put(result, path, value)
    for translation, given in found.values():
        for key, value in _apply(section, translation, given).items():
            if _get(result, tuple(key.split("."))) not in (None, value):
                raise ConfigError(
                    f"{section}.{key} is given twice, also as {' and '.join(map(repr, given))}: leave one out"
                )
            _put(result, tuple(key.split(".")), value)
    for path, value in list(_leaves(section, result)):
        implied |= IMPLIED.get((".".join(path), _last(value)), {})
        _put(result, path, _value(section, path, value))
    for key, value in implied.items():
        if _get(result, tuple(key.split("."))) is None:
            _put(result, tuple(key.split(".")), value)
    return result


def _apply(section: str, translation: Translation, given: Mapping[str, Any]) -> Values:
    try:
        return translation.translate(given)
    except ValueError as problem:
        raise ConfigError(f"{section}: {' and '.join(map(repr, given))} {problem}") from None


def _row(section: str, path: _Path) -> tuple[Translation, str] | None:
    """Return the translation of a key and the name it is found by; None if the key is ours or unknown."""
    if fields_at(SECTIONS[section], path):
        return None
    for translation in TRANSLATIONS.get(section, ()):
        for name in translation.names:
            parts = tuple(name.split("."))
            if path[-len(parts) :] == parts:
                return translation, name
    return None


def _leaves(section: str, values: Mapping[str, Any], above: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Yield (path, value) of all settings; a mapping that is translated as a whole, or empty, is one setting."""
    for name, value in values.items():
        path = (*above, str(name))
        if isinstance(value, Mapping) and value and _row(section, path) is None:
            yield from _leaves(section, value, path)
        else:
            yield path, value


def _value(section: str, path: _Path, value: Any) -> Any:
    """Return a value of a choice under our name, and everything else as it is."""
    if isinstance(value, list):
        return [_value(section, path, entry) for entry in value]
    if not isinstance(value, str):
        return value
    valid = [choice for field in fields_at(SECTIONS[section], path) for choice in _choices(field.annotation)]
    meant = VALUES.get(_last(value), _last(value))
    return meant if value not in valid and meant in valid else value


def _last(value: Any) -> str:
    """Return the last part of a class path, without case: `torch.optim.Adam` is adam."""
    return str(value).rpartition(".")[2].casefold()


def _choices(annotation: Any) -> Sequence[Any]:
    """Return the values that a type chooses among, however deep in it they stand; none if it does not choose."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _get(values: Any, path: _Path) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _put(values: Values, path: _Path, value: Any) -> None:
    *above, last = path
    for name in above:
        below = values.get(name)
        values[name] = dict(below) if isinstance(below, Mapping) else {}
        values = values[name]
    values[last] = value
