"""Base classes of configuration sections, and the messages for invalid values.

pydantic checks the values; its errors become one line that names the key, what was given and what was expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from quantum_diffusion.config.known_names import KEYS, NEEDLESS_KEYS, VALUES
from quantum_diffusion.errors import ConfigError, nearest_name, unknown_name


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    if not TYPE_CHECKING:  # type checkers know the fields by name

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigError(type(self).__name__ + _join(_explain(error, type(self)))) from None

        # pydantic's own marker: nested sections are then built without this __init__, so that errors keep their path.
        __init__.__pydantic_base_init__ = True

    @field_validator("*", mode="before")
    @classmethod
    def _read_plainly(cls, value: Any, info: ValidationInfo) -> Any:
        """Read paths as text, and keep pydantic from reading true as 1: the word "true" is refused as a number."""
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        is_misplaced = isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool
        return str(value).lower() if is_misplaced else value


Kinds = Mapping[str, type[Section]]
"""Sections by type name; an alias, because `type` is a field in classes that use it."""


class Part(Section):
    """A part of a model that has several types, each with its own `params`."""

    kinds: ClassVar[Kinds]
    """The parameter class of each type."""

    @classmethod
    def params_class(cls, values: Mapping[str, Any]) -> type[Section] | None:
        """Return the parameter class for the values of a part; None for an unknown type."""
        kind = values.get("type", cls.model_fields["type"].default)
        return cls.kinds.get(kind) if isinstance(kind, str) else None

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, data: Any) -> Any:
        return with_params(data, cls.model_fields["type"].default, cls.kinds)


def with_params(data: Any, default: str, classes: Mapping[str, type[Section]]) -> Any:
    """Build the `params` of a {type, params} section with the class of its type."""
    if not isinstance(data, Mapping):
        return data
    kind, params = data.get("type", default), data.get("params")
    if not isinstance(kind, str) or kind not in classes:
        return {key: value for key, value in data.items() if key != "params"}  # only the type is wrong
    try:
        return {**data, "type": kind, "params": classes[kind].model_validate({} if params is None else params)}
    except ValidationError as error:
        raise ValueError("params" + _join(_explain(error, classes[kind]))) from None


class Rule(NamedTuple):
    """A rule about incompatible values of a section.

    Attributes:
        broken: Whether the section breaks it.
        message: What is wrong and what to do.
    """

    broken: bool
    message: str


def refuse(rules: Iterable[Rule]) -> None:
    """Raise the message of the first broken rule; pydantic reports it.

    Raises:
        ValueError: A rule is broken.
    """
    for rule in rules:
        if rule.broken:
            raise ValueError(rule.message)


ConfigT = TypeVar("ConfigT", bound=Section)


def validate(schema: type[ConfigT], values: Any, prefix: str) -> ConfigT:
    """Turn plain values into a typed configuration.

    Args:
        schema: The section to build.
        values: Plain mapping, e.g. from YAML.
        prefix: Dotted key under which users know the section ("training").

    Raises:
        ConfigError: A key or value is invalid; the message names it and what was expected.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(prefix + _join(_explain(error, schema, prefix))) from None


def _join(located: tuple[str, str]) -> str:
    location, message = located
    return f".{location}: {message}" if location else f": {message}"


_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_type": "text (to write a number as text, use two kinds of quotes: \"'3'\")",
    "tuple_type": "a list, e.g. [a,b]",
    "too_short": "a list of {min_length} or more entries",
    "too_long": "a list of at most {max_length} entries",
    **dict.fromkeys(("model_type", "model_attributes_type"), "nested keys, written .KEY=VALUE"),
}
"""What was expected, by pydantic's error type; braces are filled from the error's context."""

_LIMITED = ("greater_than_equal", "greater_than", "less_than_equal", "less_than", "multiple_of")


def _explain(error: ValidationError, schema: type[Section], prefix: str = "") -> tuple[str, str]:
    """Return the most important error as (dotted location, message): unknown keys first, missing ones last.

    Args:
        error: pydantic's error.
        schema: The section that was checked.
        prefix: Its dotted key in the whole configuration; "" if unknown.
    """
    order = {"extra_forbidden": 0, "missing": 2}
    worst = min(error.errors(include_url=False), key=lambda found: order.get(found["type"], 1))
    path = [str(part) for part in worst["loc"]]
    location, kind, context = ".".join(path), worst["type"], worst.get("ctx", {})
    given = "null" if worst["input"] is None else repr(worst["input"])
    if kind == "extra_forbidden":
        return location, _unknown_key(path, schema, prefix)
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", context["expected"])
        known = VALUES.get(str(worst["input"]).rpartition(".")[2].casefold())
        meant = known if known in valid else nearest_name(str(worst["input"]).rpartition(".")[2], valid)
        return location, unknown_name("value", worst["input"], valid, meant)
    if kind == "missing" and isinstance(worst["loc"][-1], int):
        return ".".join(path[:-1]), f"expected a list of {worst['loc'][-1] + 1} entries, given {given}"
    if kind == "missing":
        return location, "is required: give it as key=value"
    if kind == "value_error":
        text = str(context["error"])
        nested = re.match(r"params(\S*?): (.*)", text)
        return (f"{location}.params{nested[1]}".lstrip("."), nested[2]) if nested else (location, text)
    if kind in _LIMITED and str(worst["input"]).strip().lower() == "nan":
        return location, f"expected a finite number, given {given}"
    if kind == "string_too_short":
        return location, "is empty: give a value"
    if kind in _EXPECTED:
        limits = {name: plain(value) for name, value in context.items()}
        return location, f"expected {_EXPECTED[kind].format(**limits)}, given {given}"
    message = str(worst["msg"])
    return location, f"{message[0].lower()}{message[1:]}, given {given}"


def nested_sections(annotation: Any) -> list[type[Section]]:
    """Return the sections in a field's type; several if a `type` key chooses among them."""
    candidates = [annotation, *get_args(annotation)]
    return [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)]


_LIMITS = (("ge", ">= {}"), ("gt", "> {}"), ("le", "<= {}"), ("lt", "< {}"), ("multiple_of", "multiple of {}"))
_KINDS = {bool: "true, false", int: "whole number", float: "number", str: "text"}


def describe_values(field: FieldInfo) -> str:
    """Describe the valid values of a field in a few words, e.g. "whole number >= 1, or null"."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    words = [_describe_kind(kind, field.metadata) for kind in kinds if kind is not type(None)]
    return " or ".join(words) + (", or null" if type(None) in kinds else "")


def _describe_kind(kind: Any, constraints: Sequence[Any]) -> str:
    if get_origin(kind) is Annotated:
        kind, *own = get_args(kind)
        constraints = [*constraints, *(c for o in own for c in (o.metadata if isinstance(o, FieldInfo) else [o]))]
    if get_origin(kind) is Literal:
        return ", ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) is dict:
        return f"{{name: {_describe_kind(get_args(kind)[1], ())}}}"
    if get_origin(kind) is tuple:
        return f"list of {_describe_kind(get_args(kind)[0], ())}"
    limits = [text.format(f"{getattr(c, name):g}") for name, text in _LIMITS for c in constraints if hasattr(c, name)]
    return " ".join([_KINDS.get(kind, getattr(kind, "__name__", str(kind))), " and ".join(limits)]).strip()


def _unknown_key(path: list[str], schema: type[Section], prefix: str) -> str:
    """Return the message for an unknown key, suggesting a sibling key or one elsewhere in the command's section."""
    name, valid = path[-1], list(_section_at(schema, path[:-1]).model_fields)
    if name.casefold() in NEEDLESS_KEYS:
        return f"unknown key {name!r}: leave it out, {NEEDLESS_KEYS[name.casefold()]}"
    known = KEYS.get(name.casefold(), name)
    last = known.rpartition(".")[2]
    elsewhere = [key for key, *_ in all_fields(schema, prefix) if key.endswith(f".{last}")]
    if last in valid:
        meant: str | None = last
    elif known in elsewhere or not prefix:
        meant = known if "." in known else None
    else:
        meant = elsewhere[0] if elsewhere else None
    return unknown_name("key", name, valid, meant)


def all_fields(schema: type[Section], prefix: str, kind: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """Yield (dotted key, field, kind) for every value of a section, including nested sections.

    The kind names the type of part that a parameter belongs to, if a `type` key chooses among several; else it is "".
    """
    for name, field in schema.model_fields.items():
        sections = nested_sections(field.annotation)
        if not sections:
            yield f"{prefix}.{name}", field, kind
        for nested in sections:
            below = nested.__name__.removesuffix("Params") if len(sections) > 1 else kind
            yield from all_fields(nested, f"{prefix}.{name}", below)


def fields_at(schema: type[Section], path: Sequence[str]) -> list[FieldInfo]:
    """Return the fields at a path of names: none if it does not exist, several if types of a part share the name."""
    schemas = [schema]
    for name in path[:-1]:
        fields = [one.model_fields[name] for one in schemas if name in one.model_fields]
        schemas = [nested for field in fields for nested in nested_sections(field.annotation)]
    return [one.model_fields[path[-1]] for one in schemas if path and path[-1] in one.model_fields]


def _section_at(schema: type[Section], path: list[str]) -> type[Section]:
    for name in path:
        field = schema.model_fields.get(name)
        sections = [] if field is None else nested_sections(field.annotation)
        if not sections:
            break
        schema = sections[0]
    return schema


def plain(value: Any) -> str:
    """Format a value as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return "[" + ",".join(plain(entry) for entry in value) + "]"
    return str(value)
