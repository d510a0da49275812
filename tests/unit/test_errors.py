"""The wording of a name that is not known."""

from __future__ import annotations

import inspect

import pytest

from quantum_diffusion import errors
from quantum_diffusion.errors import QuantumDiffusionError, unknown_name


@pytest.mark.parametrize(
    ("given", "valid", "message"),
    [
        ("adm", ["sgd", "adam"], "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"),
        ("zzz", ["sgd", "adam"], "unknown optimizer 'zzz': (valid: adam, sgd)"),
        ("zzz", [], "unknown optimizer 'zzz': (valid: none)"),
        (3, ["sgd"], "unknown optimizer 3: (valid: sgd)"),
        (None, ["sgd"], "unknown optimizer None: (valid: sgd)"),
        ("a\nb", ["sgd"], "unknown optimizer 'a\\nb': (valid: sgd)"),
    ],
)
def test_the_nearest_valid_name_is_suggested(given: object, valid: list[str], message: str) -> None:
    assert unknown_name("optimizer", given, valid) == message


def test_many_valid_names_are_left_out_when_one_is_near() -> None:
    names = [f"name{number}" for number in range(16)]
    assert unknown_name("key", "name3x", names) == "unknown key 'name3x': did you mean 'name3'?"
    assert "name15" in unknown_name("key", "zzz", names)


def test_every_error_of_ours_can_be_caught_as_one() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(classes) >= 6
    assert all(issubclass(kind, QuantumDiffusionError) for kind in classes)
