"""What the page may ask, as typed sections: they are checked like settings, and refused in the same words.

A request is data of others. It names models from the list that is offered, and never a file on this machine.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from quantum_diffusion.config.schema import SearchObjective
from quantum_diffusion.config.schema.values import Positive, Scale, Seconds, Text
from quantum_diffusion.config.validation import Rule, Section, refuse, validate
from quantum_diffusion.errors import ConfigError

MOST_CIRCUITS = 24
"""Circuits that a search may be asked for."""

_Short = Annotated[str, Field(min_length=1, max_length=200)]
RequestT = TypeVar("RequestT", bound=Section)


class TargetRequest(Section):
    """A unitary or a state, in one of three ways."""

    name: _Short | None = None
    """A well-known one, such as toffoli or ghz:3."""
    qasm: Text | None = None
    """An OpenQASM program."""
    file: _Short | None = None
    """The name of an uploaded file: .npy, .npz or .qasm."""
    content: str | None = None
    """What is in that file, in base64."""

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
    """One of the models that the page offers."""
    srv: Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=1, max_length=64)] | None = None
    """Schmidt rank vector, for models of these."""
    target: TargetRequest | None = None
    """The target, for models of unitaries or states."""
    gates: Annotated[tuple[_Short, ...], Field(min_length=1, max_length=64)] | None = None
    """Gates to allow, of searches for a target; null allows all."""
    coupling: Annotated[str, Field(max_length=2000)] = "all"
    """Pairs of qubits that gates may join, such as 0-1, 1-2; or line, or all."""
    guidance_scale: Scale | None = None
    """How much a Schmidt rank vector counts; null takes the model's own default."""
    num_circuits: Annotated[int, Field(ge=1, le=MOST_CIRCUITS)] = 4
    """Distinct circuits wanted."""
    max_gates: Positive | None = None
    """Most gates; null is the model's own limit."""
    max_seconds: Seconds | None = None
    """Time to look for cheaper circuits; null ends the search when there are enough."""
    objective: SearchObjective = "gates"
    """What circuits are to have few of."""
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
    """Return the request in a JSON value.

    Raises:
        ConfigError: It is none; the message names what is wrong.
    """
    if not isinstance(body, dict):
        raise ConfigError('the request is no JSON object: give one, e.g. {"model": "pretrained:srv", "srv": [1,2,2]}')
    return validate(schema, body, "request")
