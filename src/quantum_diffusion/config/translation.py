"""Translates settings written with the names of genQC and torch into ours, in preset files and on the command line.

What they are translated to is the table in `known_names`; what has no meaning here is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from quantum_diffusion.config.known_names import ALIKE, IMPLIED, TRANSLATIONS, VALUES, Translation, Values
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.validation import fields_at
from quantum_diffusion.errors import ConfigError

_Path = tuple[str, ...]


def translated(section: str, values: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> Values:
    """Return a section's settings under our names.

    Example:
        >>> translated("training", {"training": {"lr": 0.001, "loss": "MSELoss"}})
        {'training': {'loss': 'mse', 'learning_rate': 0.001}}

    Args:
        section: Key of `SECTIONS`.
        values: Plain, nested settings of the section, those of one source: a file, or a command line.
        below: What the sources that these settings are merged over give, under our names.

    Raises:
        ConfigError: A setting has no meaning here, or is given twice.
    """
    below = below or {}
    found: dict[tuple[str, ...], tuple[Translation, dict[str, Any]]] = {}
    places: dict[str, _Path] = {}
    result: Values = {}
    for path, value in _leaves(section, values):
        row = _row(section, path)
        if row is not None:
            translation, name = row
            if name in places:
                one, two = (".".join((section, *place)) for place in (places[name], path))
                raise ConfigError(f"{one} is given twice, also as {two}: leave one out")
            places[name] = path
            found.setdefault(translation.names, (translation, {}))[1][name] = value
        else:
            _put(result, path, value)
    meant: list[tuple[Values, bool]] = []
    for translation, given in found.values():
        for key, value in _apply(section, translation, given, below).items():
            if _get(result, _split(key)) not in (None, value):
                raise ConfigError(
                    f"{section}.{key} is given twice, also as {' and '.join(map(repr, given))}: leave one out"
                )
            _put(result, _split(key), value)
        meant.append((translation.imply(given), True))
    _imply(section, result, below, meant)
    return result


def _imply(section: str, result: Values, below: Mapping[str, Any], meant: list[tuple[Values, bool]]) -> None:
    """Name the values of settings as ours, and add what they mean beside; each is (values, below comes first)."""
    for path, value in list(_leaves(section, result)):
        key, before, ours = ".".join(path), _get(below, path), _value(section, path, value)
        _put(result, path, ours)
        alike = ALIKE.get(key, ())
        is_alike = before is not None and (before == ours or (before in alike and ours in alike))
        meant.append((IMPLIED.get((key, _last(value)), {}), is_alike))
    while meant:
        implied, below_first = meant.pop(0)
        for key, value in implied.items():
            path = _split(key)
            if _get(result, path) is None and not (below_first and _get(below, path) is not None):
                _put(result, path, _value(section, path, value))
                meant.append((IMPLIED.get((key, _last(value)), {}), False))


def _apply(section: str, translation: Translation, given: Mapping[str, Any], below: Mapping[str, Any]) -> Values:
    before = _get(below, _split(translation.keys[0])) if translation.keys else None
    try:
        return translation.translate(translation.recall(before) | dict(given))
    except ValueError as problem:
        raise ConfigError(f"{section}: {' and '.join(map(repr, given))} {problem}") from None


def pipeline_settings(description: Mapping[str, Any]) -> Values | None:
    """Return the settings of training in the `config.yaml` of a genQC model folder, under genQC's names.

    What follows from the data set, the device, and the paths of files is left out.

    Args:
        description: The content of the file.

    Returns:
        Network, text encoder and process; None if it does not describe a genQC pipeline.
    """
    target, params = description.get("target"), description.get("params")
    if not isinstance(target, str) or not target.startswith("genQC.pipeline.") or not isinstance(params, Mapping):
        return None
    result: Values = {"training": {name: params[name] for name in _GUIDANCE if name in params}}
    for part, left_out in _LEFT_OUT.items():
        content = params.get(part)
        if isinstance(content, Mapping) and isinstance(content.get("params"), Mapping):
            kept = {name: value for name, value in content["params"].items() if name not in left_out}
            result[part] = {"type": content.get("target"), "params": kept}
    if target.endswith(".DiffusionPipeline") and _last(_get(result, ("scheduler", "type"))) == "ddimscheduler":
        result["scheduler"]["params"]["guidance_mode"] = "cfg++"
    return result


_GUIDANCE = ("enable_guidance_train", "guidance_train_p")
_LEFT_OUT = {
    "model": ("num_clrs",),
    "scheduler": ("device", "solver_order"),
    "text_encoder": ("freeze", "max_length"),  # genQC, too, counts the tokens of the prompts again
}


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


def _split(key: str) -> _Path:
    return tuple(key.split("."))


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
