"""Prompts that name the gates a circuit may use, written and read as genQC writes them.

Those that ask for a Schmidt rank vector are beside the labels (`labels.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.errors import ConfigError


def gates_prompt(gates: Sequence[str], pool: GatePool) -> str:
    """Return the prompt that allows some gates of a pool; they are listed in the pool's order.

    Example:
        >>> gates_prompt(["cx", "h"], GatePool(["h", "cx", "x"]))
        "Compile using: ['h', 'cx']"
    """
    return f"Compile using: {[name for name in pool.names if name in gates]}"


def parse_gates_prompt(prompt: str, pool: GatePool) -> tuple[str, ...]:
    """Read the gates from a prompt; any order is read, since data sets of genQC may list them in another.

    Args:
        prompt: E.g. "Compile using: ['h', 'cx']".
        pool: The gates that may be named.

    Raises:
        ConfigError: The prompt is of another form, or names a gate outside the pool or twice.
    """
    gates = tuple(re.findall(r"'([a-z]+)'", prompt))
    if not gates or prompt != f"Compile using: {list(gates)}":
        raise ConfigError(f"prompt {prompt!r} is not of the form \"Compile using: ['h', 'cx']\"")
    unknown = [name for name in gates if name not in pool.names]
    if unknown:
        raise ConfigError(f"prompt {prompt!r} allows {unknown[0]!r}, but the model's gates are {list(pool.names)}")
    if len(set(gates)) < len(gates):
        raise ConfigError(f"prompt {prompt!r} names a gate twice: give each gate once")
    return gates
