"""Requests of the page as typed sections, validated like settings and refused with the same messages.

A request is untrusted: it can name models on offer, but never a file on this machine.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from quantum_diffusion.config.schema import SearchObjective
from quantum_diffusion.config.schema.values import Positive, Scale, Seconds, Text
from quantum_diffusion.config.validation import Rule, Section, refuse, validate
from quantum_diffusion.errors import ConfigError

MOST_CIRCUITS = 24
"""Maximum number of circuits per search."""

_Short = Annotated[str, Field(min_length=1, max_length=200)]
RequestT = TypeVar("RequestT", bound=Section)


class TargetRequest(Section):
    """A unitary or a state, given in one of three ways."""

    name: _Short | None = None
    """A name, such as toffoli or ghz:3."""
    qasm: Text | None = None
    """An OpenQASM program."""
    file: _Short | None = None
    """The name of an uploaded file: .npy, .npz or .qasm."""
    content: str | None = None
    """The content of that file, in base64."""

    @model_validator(mode="after")
    def _check(self) -> TargetRequest:
        ways = sum(way is not None for way in (self.name, self.qasm, self.file))
        refuse(
            (
                Rule(ways != 1, "give the target in one way: a name, an OpenQASM program, or a file"),
                Rule((self.file is None) != (self.content is None), "an uploaded file needs its name and its content"),
            )
        )
        return self


class FindRequest(Section):
    """A search."""

    model: _Short
    """One of the models on offer."""
    srv: Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=1, max_length=64)] | None = None
    """Schmidt rank vector, for models of Schmidt rank vectors."""
    target: TargetRequest | None = None
    """The target, for models of unitaries or states."""
    gates: Annotated[tuple[_Short, ...], Field(min_length=1, max_length=64)] | None = None
    """Gates to allow (targets only); null allows all."""
    coupling: Annotated[str, Field(max_length=2000)] = "all"
    """Pairs of qubits that gates may join, such as 0-1, 1-2; or line, or all."""
    guidance_scale: Scale | None = None
    """Guidance scale (Schmidt rank vectors only); null uses the model's default."""
    num_circuits: Annotated[int, Field(ge=1, le=MOST_CIRCUITS)] = 4
    """Number of distinct circuits wanted."""
    max_gates: Positive | None = None
    """Maximum number of gates; null uses the model's limit."""
    max_seconds: Seconds | None = None
    """Time limit in seconds, used in full; null stops as soon as enough circuits are found."""
    objective: SearchObjective = "gates"
    """Cost to minimise."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the search; null draws one."""


class StepsRequest(Section):
    """A circuit to replay, and the search that found it."""

    find: FindRequest
    """The search, with its seed."""
    qasm: Annotated[str, Field(min_length=1, max_length=10**5)]
    """The circuit, as the search gave it."""


class PictureRequest(Section):
    """A circuit to draw."""

    qasm: Annotated[str, Field(min_length=1, max_length=10**5)]
    """The circuit, as a search gave it."""


def read_request(schema: type[RequestT], body: Any) -> RequestT:
    """Return a JSON value as a request.

    Raises:
        ConfigError: The value is no valid request; the message names what is wrong.
    """
    if not isinstance(body, dict):
        raise ConfigError(
            'the request is not a JSON object: give one, e.g. {"model": "pretrained:srv", "srv": [1,2,2]}'
        )
    return validate(schema, body, "request")
