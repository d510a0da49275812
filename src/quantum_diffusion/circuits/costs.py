"""What a circuit costs, in the ways that searches can be asked to keep low."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from quantum_diffusion.arguments import shown
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import ConfigError, unknown_name


def two_qubit_gates(circuit: Circuit) -> int:
    """Return the gates on two qubits or more, one of k qubits counted k - 1 times."""
    return sum(len(step.controls) + len(step.targets) - 1 for step in circuit.instructions)


def t_count(circuit: Circuit) -> int:
    """Return the gates t and tdg."""
    return sum(step.gate in ("t", "tdg") for step in circuit.instructions)


def depth(circuit: Circuit) -> int:
    """Return the layers of gates that can be done at once."""
    levels = [0] * circuit.num_qubits
    for step in circuit.instructions:
        qubits = (*step.controls, *step.targets)
        level = 1 + max(levels[qubit] for qubit in qubits)
        for qubit in qubits:
            levels[qubit] = level
    return max(levels)


COSTS: dict[str, Callable[[Circuit], int]] = {
    "gates": len,
    "two_qubit_gates": two_qubit_gates,
    "t_count": t_count,
    "depth": depth,
}
"""By the names of `compile.objective`, which may weigh several."""


def cost_of(objective: str | Mapping[Any, float]) -> Callable[[Circuit], float]:
    """Return what tells the cost of a circuit: by a name of `COSTS`, or as a sum of several times their weights.

    Raises:
        ConfigError: There is no such name.
    """
    weights: Any = {objective: 1.0} if isinstance(objective, str) else objective
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(f"objective is {shown(weights)}: give one of {', '.join(COSTS)}, or several with weights")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
            raise ConfigError(f"objective: the weight of {name} is {shown(weight)}: give a number of at least 0")
    for name in weights:
        if name not in COSTS:
            raise ConfigError(f"objective: {unknown_name('cost', name, list(COSTS))}")
    weighted = [(COSTS[name], weight) for name, weight in weights.items()]
    return lambda circuit: sum(weight * cost(circuit) for cost, weight in weighted)
