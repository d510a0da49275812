"""The costs of a circuit that searches can minimize.

`compile.objective` and `sample.objective` name one, or several with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import shown
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.invariants import clifford_misfit
from quantum_diffusion.config.schema import LARGEST_WEIGHT
from quantum_diffusion.errors import ConfigError, quoted, unknown_name

_CLIFFORD = 1e-13
"""Misfit below which a gate with angles counts as a Clifford gate: about 1e-6 radians."""


def two_qubit_gates(circuit: Circuit) -> int:
    """Return the number of gates on two or more qubits; a gate on k qubits counts k - 1 times."""
    return sum(len(step.controls) + len(step.targets) - 1 for step in circuit.instructions)


def t_count(circuit: Circuit) -> int:
    """Return the number of t and tdg gates, and of gates with angles that are not Clifford gates, each counted once."""
    return sum(
        step.gate in ("t", "tdg") or (bool(step.angles) and not _is_clifford(step.gate, step.angles))
        for step in circuit.instructions
    )


@lru_cache(maxsize=4096)
def _is_clifford(gate: str, angles: tuple[float, ...]) -> bool:
    return clifford_misfit(GATES[gate].matrix(*angles)) < _CLIFFORD


def depth(circuit: Circuit) -> int:
    """Return the depth: the number of layers of gates that run in parallel."""
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
"""Cost functions by the names that `compile.objective` uses."""


def _cost(name: str) -> Callable[[Circuit], int]:
    """Return the cost function of a measure, or of a gate: the number of times it occurs."""
    return COSTS[name] if name in COSTS else lambda circuit: sum(step.gate == name for step in circuit.instructions)


def cost_of(objective: str | Mapping[Any, float]) -> Callable[[Circuit], float]:
    """Return the cost function of an objective.

    Args:
        objective: A name in `COSTS`, or for a weighted sum a mapping of such names, and of gates, to weights >= 0. A
            gate counts as often as it occurs.

    Raises:
        ConfigError: A name is unknown, or a weight is not a number of at least 0.
    """
    weights: Any = {objective: 1.0} if isinstance(objective, str) else objective
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(f"objective is {shown(weights)}: give one of {', '.join(COSTS)}, or several with weights")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight <= LARGEST_WEIGHT:  # type: ignore[operator]
            said = f"objective: the weight of {quoted(name)} is {shown(weight)}"
            raise ConfigError(f"{said}: give a number from 0 to {LARGEST_WEIGHT:g}")
    for name in weights:
        if name in GATES and isinstance(objective, str):
            raise ConfigError(f"objective: {name} is a gate: give it a weight, {{{name}: 1}}")
        if name not in COSTS and name not in GATES:
            raise ConfigError(f"objective: {unknown_name('cost', name, [*COSTS, *GATES])}")
    weighted = [(_cost(name), weight) for name, weight in weights.items()]
    return lambda circuit: sum(weight * cost(circuit) for cost, weight in weighted)


class LeastCosts:
    """Lower bounds on what partial circuits cost once they are complete.

    Angles are taken as not yet known: each may make a Clifford gate.

    Args:
        objective: What `cost_of` takes.
        table: The instructions of the circuits.
    """

    def __init__(self, objective: str | Mapping[Any, float], table: InstructionTable) -> None:
        weights: Mapping[Any, float] = {objective: 1.0} if isinstance(objective, str) else objective
        each = [Circuit(table.num_qubits, (step,)) for step in table.instructions]
        self._of_each = np.zeros(len(each) + 1)
        for name, weight in weights.items():
            if name != "depth":
                free = table.num_angles[1:] > 0 if name == "t_count" else False
                self._of_each[1:] += weight * np.where(free, 0, [_cost(name)(circuit) for circuit in each])
        self._of_a_layer = weights.get("depth", 0.0)
        self._uses_qubit = table.uses_qubit
        self._first_of_kind = np.unique(table.gate_index, return_index=True)[1]

    @property
    def excess(self) -> NDArray[np.float64]:
        """How much dearer each instruction is than the cheapest, float64 [V], as a multiple of the mean dearer gate."""
        above: NDArray[np.float64] = np.maximum(self._of_each - self._of_each[1:].min(), 0)
        kinds = above[self._first_of_kind]
        return above / kinds[kinds > 0].mean() if kinds.any() else above

    def __call__(self, ids: Ids) -> NDArray[np.float64]:
        """Return a bound for each extension of partial circuits, ids int [W, T], by an instruction: float64 [W, V]."""
        spent = self._of_each[ids].sum(axis=1)
        if self._of_a_layer:
            spent = spent + self._of_a_layer * self._depths(ids)
        costs: NDArray[np.float64] = spent[:, None] + self._of_each
        return costs

    def _depths(self, ids: Ids) -> NDArray[np.int64]:
        layers = np.zeros((len(ids), self._uses_qubit.shape[1]), dtype=np.int64)  # of each qubit's last gate
        for step in ids.T:
            uses = self._uses_qubit[step]
            here = 1 + np.where(uses, layers, 0).max(axis=1, keepdims=True)
            layers = np.where(uses, here, layers)
        depths: NDArray[np.int64] = layers.max(axis=1)
        return depths
