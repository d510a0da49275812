"""What a search has found of one target: every candidate simplified, simulated in that form, and kept or counted.

A circuit is called exact only by the simulation of the very form in which it is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import cost_of
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.phases import drop_phases
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import SearchObjective
from quantum_diffusion.tasks.targets import TargetTask


@dataclass(frozen=True)
class CompiledCircuit:
    """A simplified circuit and how far it is from its target.

    Attributes:
        circuit: The circuit, over the gates that were allowed.
        infidelity: 1 - |tr(V^dagger U)|^2 / D^2 of this circuit's V and the target U (1 - |<v|u>|^2 of states), by
            simulation in float64.
    """

    circuit: Circuit
    infidelity: float

    @property
    def is_exact(self) -> bool:
        """Whether the circuit is the target up to a global phase."""
        return self.infidelity < EXACT


@dataclass(eq=False, kw_only=True)
class Found:
    """The circuits of one target that a search has come by.

    Attributes:
        task: What the target is.
        target: complex128 [d, ...], on its own qubits.
        pool: The gates that are allowed.
        num_qubits: Qubits of the target.
        most_gates: Longer circuits are dropped, counted in the form in which they are returned.
        tolerance: Infidelity up to which a circuit counts; below `EXACT` it always does.
        objective: What makes a circuit cheap.
        may_simplify: Whether circuits may be simplified.
        best: The circuit of least infidelity; None without any.
        num_exact: Candidates that were exact, of any length.
        num_too_long: Those of them that were dropped for their length.
    """

    task: TargetTask
    target: Matrix
    pool: GatePool
    num_qubits: int
    most_gates: int
    tolerance: float
    objective: SearchObjective
    may_simplify: bool
    best: CompiledCircuit | None = None
    num_exact: int = 0
    num_too_long: int = 0
    _circuits: dict[Circuit, CompiledCircuit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cost = cost_of(self.objective)

    def __len__(self) -> int:
        """Return how many distinct circuits count."""
        return len(self._circuits)

    def add(self, candidates: Sequence[Circuit]) -> int:
        """Simplify and simulate candidates over the pool's gates; returns how many there were."""
        columns = self.target.reshape(1, len(self.target), -1)
        distances = partial(self.task.distances, targets=columns)
        simplify = self.task.simplify if self.may_simplify else None
        results = _verify(candidates, self.pool, self.num_qubits, distances, simplify)
        for result in results:
            self.num_exact += result.is_exact
            if len(result.circuit) > self.most_gates:
                self.num_too_long += result.is_exact
                continue
            if result.is_exact or result.infidelity <= self.tolerance:
                self._circuits.setdefault(result.circuit, result)
            if self.best is None or result.infidelity < self.best.infidelity:
                self.best = result
        return len(results)

    def cheapest(self, count: int) -> tuple[CompiledCircuit, ...]:
        """Return so many circuits, or fewer where fewer were found, cheapest first."""

        def order(found: CompiledCircuit) -> tuple[float, ...]:
            return self._cost(found.circuit), len(found.circuit), found.infidelity

        return tuple(sorted(self._circuits.values(), key=order)[:count])


def _verify(
    circuits: Sequence[Circuit],
    pool: GatePool,
    num_qubits: int,
    distances: Callable[..., NDArray[np.float64]],
    simplify: Callable[[Ids, InstructionTable], Ids] | None,
) -> list[CompiledCircuit]:
    """Simulate circuits over a pool's gates, simplified where they may be, which brings in no other gate.

    Results are equal where their normal forms are. `distances` returns the infidelity of circuits by their ids;
    `simplify` is None where they may not be.
    """
    table = instruction_table(pool, num_qubits)
    ids = ids_from_circuits(circuits, table, max(map(len, circuits), default=0))
    simplified = ids if simplify is None else normal_form(simplify(ids, table), table)
    ids, origin = np.unique(simplified, axis=0, return_inverse=True)
    if simplify is not None:
        exact = distances(ids, table=table) < EXACT  # only these are worth the dearer rule
        ids[exact] = normal_form(simplify(drop_phases(ids[exact], table), table), table)
    results = [
        CompiledCircuit(circuit, infidelity)
        for circuit, infidelity in zip(circuits_from_ids(ids, table), distances(ids, table=table).tolist(), strict=True)
    ]
    return [results[row] for row in origin.reshape(-1)]
