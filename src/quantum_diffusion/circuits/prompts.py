"""Writes and parses prompts in genQC's format: for a Schmidt rank vector, or listing the gates a circuit may use.

Data sets store them, and tasks read what users ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.errors import ConfigError, quoted

SRV_PROMPT, COMPILE_PROMPT, PREPARE_PROMPT = "Generate SRV: ", "Compile using: ", "Prepare using: "
"""Prefixes of prompts; the last, for states, is not in genQC."""

GATES_PROMPTS = (COMPILE_PROMPT, PREPARE_PROMPT)
"""Prefixes of prompts that list gates."""

_SRV = re.compile(r"\s*Generate\s+SRV\s*:\s*\[\s*([12](?:\s*,\s*[12])*)\s*\]\s*")
_NAME = r"['\"][a-z]+['\"]"
_GATES = re.compile(rf"\s*(\w+)\s+using\s*:\s*\[\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\]\s*")


def srv_prompt(ranks: Iterable[int] | NDArray[np.integer]) -> str:
    """Return the prompt for a Schmidt rank vector, as genQC writes it.

    Example:
        >>> srv_prompt([1, 2, 2])
        'Generate SRV: [1, 2, 2]'
    """
    return f"{SRV_PROMPT}{[int(rank) for rank in ranks]}"


def parse_srv_prompt(prompt: str, num_qubits: int) -> tuple[int, ...]:
    """Read the Schmidt rank vector from a prompt; spaces do not matter.

    Args:
        prompt: E.g. "Generate SRV: [1, 2, 2]".
        num_qubits: Maximum number of entries.

    Raises:
        ConfigError: The prompt has another form, has too many entries, or no pure state has that vector.
    """
    match = _SRV.fullmatch(prompt)
    if match is None:
        raise ConfigError(f"prompt {quoted(prompt)} is not of the form 'Generate SRV: [1, 2, 2]'")
    label = tuple(int(entry) for entry in match[1].split(","))
    if len(label) > num_qubits:
        raise ConfigError(
            f"the Schmidt rank vector {quoted(list(label))} has {len(label)} qubits, but the model has {num_qubits}"
        )
    if sum(entry == 2 for entry in label) == 1:
        raise ConfigError(
            f"the Schmidt rank vector {quoted(list(label))} asks for a single entangled qubit, which is "
            "impossible: ask for none, or at least two"
        )
    return label


def gates_prompt(gates: Sequence[str], pool: GatePool, begin: str = COMPILE_PROMPT) -> str:
    """Return the prompt that allows some gates of a pool, listed in the pool's order.

    Args:
        gates: Names of gates.
        pool: Their pool.
        begin: Prefix of the prompt.

    Example:
        >>> gates_prompt(["cx", "h"], GatePool(["h", "cx", "x"]))
        "Compile using: ['h', 'cx']"
    """
    return f"{begin}{[name for name in pool.names if name in gates]}"


def parse_gates_prompt(prompt: str, pool: GatePool, begin: str = COMPILE_PROMPT) -> tuple[str, ...]:
    """Read the gates from a prompt; their order, spaces and the kind of quotes do not matter.

    Args:
        prompt: E.g. "Compile using: ['h', 'cx']".
        pool: The gates that may be named.
        begin: Required prefix of the prompt.

    Raises:
        ConfigError: The prompt has another form, or names a gate outside the pool or twice.
    """
    match = _GATES.fullmatch(prompt)
    gates = tuple(re.findall(r"\w+", match[2])) if match and match[1] == begin.split()[0] else ()
    if not gates:
        raise ConfigError(f"prompt {quoted(prompt)} is not of the form \"{begin}['h', 'cx']\"")
    unknown = [name for name in gates if name not in pool.names]
    if unknown:
        raise ConfigError(
            f"prompt {quoted(prompt)} allows {quoted(unknown[0])}, but the model's gates are {list(pool.names)}"
        )
    if len(set(gates)) < len(gates):
        raise ConfigError(f"prompt {quoted(prompt)} names a gate twice: give each gate once")
    return gates
