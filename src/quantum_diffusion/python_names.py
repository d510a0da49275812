"""Rewrites messages, which name keys of the command line, so that they name what a Python caller wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.validation import all_fields
from quantum_diffusion.errors import QuantumDiffusionError


@contextmanager
def named_as_in_python(section: str) -> Iterator[None]:
    """Rewrite messages, which name keys of the command line, to name the arguments that the caller wrote."""
    try:
        yield
    except QuantumDiffusionError as problem:
        problem.args = (in_python(str(problem), section),)
        raise


def in_python(message: str, section: str) -> str:
    """Return a message with Python's names for the keys and values of a section.

    Example:
        >>> in_python("sample.num_circuits is null, see sample.model_params.order", "sample")
        'num is None, see order'
    """
    keys = "|".join(key.removeprefix(f"{section}.") for key, *_ in all_fields(SECTIONS[section], section))
    message = re.sub(rf"^{section}\.(?=\w)|(?<![\w/.]){section}\.(?=({keys})\b)", "", message)
    message = re.sub(r"(?<![\w/.])(model_params|options)\.(?=[a-z])", "", message)
    message = re.sub(r"(?<![\w/.'])edit\.(?=(coupling|fixed_qubits)\b)", "", message)
    message = re.sub(r"(?<![\w/.'])num_circuits\b", "num", message)
    return re.sub(r"(?<![\w/.'])null\b", "None", message)
