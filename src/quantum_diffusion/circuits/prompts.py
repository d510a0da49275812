"""Prompts, written and read as genQC writes them: for a Schmidt rank vector, or naming the gates a circuit may use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.errors import ConfigError

SRV_PROMPT, COMPILE_PROMPT, PREPARE_PROMPT = "Generate SRV: ", "Compile using: ", "Prepare using: "
"""How prompts begin: those of genQC, and our own for states."""

GATES_PROMPTS = (COMPILE_PROMPT, PREPARE_PROMPT)
"""How prompts begin that list gates."""

_SRV = re.compile(r"\s*Generate\s+SRV\s*:\s*\[\s*([12](?:\s*,\s*[12])*)\s*\]\s*")
_NAME = r"['\"][a-z]+['\"]"
_GATES = re.compile(rf"\s*(\w+)\s+using\s*:\s*\[\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\]\s*")


def srv_prompt(ranks: Iterable[int] | NDArray[np.integer]) -> str:
    """Return the prompt that asks for a Schmidt rank vector, as genQC writes it.

    Example:
        >>> srv_prompt([1, 2, 2])
        'Generate SRV: [1, 2, 2]'
    """
    return f"{SRV_PROMPT}{[int(rank) for rank in ranks]}"


def parse_srv_prompt(prompt: str, num_qubits: int) -> tuple[int, ...]:
    """Read the Schmidt rank vector from a prompt; spaces do not matter.

    Args:
        prompt: E.g. "Generate SRV: [1, 2, 2]".
        num_qubits: Most entries allowed.

    Raises:
        ConfigError: The prompt is of another form, too long, or no pure state has that vector.
    """
    match = _SRV.fullmatch(prompt)
    if match is None:
        raise ConfigError(f"prompt {prompt!r} is not of the form 'Generate SRV: [1, 2, 2]'")
    label = tuple(int(entry) for entry in match[1].split(","))
    if len(label) > num_qubits:
        raise ConfigError(f"prompt {prompt!r} asks for {len(label)} qubits, the model has {num_qubits}")
    if sum(entry == 2 for entry in label) == 1:
        raise ConfigError(f"prompt {prompt!r} entangles a single qubit: no state does, ask for none or at least two")
    return label


def gates_prompt(gates: Sequence[str], pool: GatePool, begin: str = COMPILE_PROMPT) -> str:
    """Return the prompt that allows some gates of a pool; they are listed in the pool's order.

    Args:
        gates: Names of gates.
        pool: The pool they are of.
        begin: How the prompt begins.

    Example:
        >>> gates_prompt(["cx", "h"], GatePool(["h", "cx", "x"]))
        "Compile using: ['h', 'cx']"
    """
    return f"{begin}{[name for name in pool.names if name in gates]}"


def parse_gates_prompt(prompt: str, pool: GatePool, begin: str = COMPILE_PROMPT) -> tuple[str, ...]:
    """Read the gates from a prompt; any order is read, since data sets of genQC may list them in another.

    Spaces and the kind of quotes do not matter.

    Args:
        prompt: E.g. "Compile using: ['h', 'cx']".
        pool: The gates that may be named.
        begin: How the prompt has to begin.

    Raises:
        ConfigError: The prompt is of another form, or names a gate outside the pool or twice.
    """
    match = _GATES.fullmatch(prompt)
    gates = tuple(re.findall(r"\w+", match[2])) if match and match[1] == begin.split()[0] else ()
    if not gates:
        raise ConfigError(f"prompt {prompt!r} is not of the form \"{begin}['h', 'cx']\"")
    unknown = [name for name in gates if name not in pool.names]
    if unknown:
        raise ConfigError(f"prompt {prompt!r} allows {unknown[0]!r}, but the model's gates are {list(pool.names)}")
    if len(set(gates)) < len(gates):
        raise ConfigError(f"prompt {prompt!r} names a gate twice: give each gate once")
    return gates
