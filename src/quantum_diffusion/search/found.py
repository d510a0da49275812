"""Collects the circuits found for one target: simplifies and simulates every candidate, and keeps the exact ones.

`search.exact` feeds it. A circuit is called exact only if the returned, simplified form is exact in simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import SearchObjective
from quantum_diffusion.tasks.targets import Measure, TargetTask

MODEL = "model"

_NO_ANGLE = 1e-7
"""Angles below this, in radians, are what refinement leaves of none: they change the infidelity by about 1e-15."""

_SAME_ANGLES = 1e6
"""Steps in a radian below which angles count as equal."""

_SAME_INFIDELITY = 10  # digits after the point, those of `EXACT_ANGLES`


@dataclass(frozen=True)
class CompiledCircuit:
    """A circuit in its final form and its infidelity with the target.

    Attributes:
        circuit: The circuit, over the allowed gates.
        infidelity: 1 - |tr(V^dagger U)|^2 / D^2 of this circuit's V and the target U (1 - |<v|u>|^2 for states),
            simulated in float64; or what the task measures instead.
        source: What it comes from: "model", or "Qiskit" for a closed form.
        exact_below: Infidelity below which it is exact: `EXACT`, or `EXACT_ANGLES` if the gates may have angles.
        measure: How the infidelity is told.
    """

    circuit: Circuit
    infidelity: float
    source: str = MODEL
    exact_below: float = EXACT
    measure: Measure = TargetTask.measure

    @property
    def is_exact(self) -> bool:
        """Whether the circuit implements the target up to a global phase."""
        return self.infidelity < self.exact_below

    @property
    def figures(self) -> dict[str, float]:
        """Its infidelity, or what the task measures instead, by name."""
        return self.measure.figures(self.infidelity)

    @property
    def words(self) -> str:
        """The same in a few words."""
        return self.measure.words(self.infidelity)

    @property
    def shortfall(self) -> tuple[float, int]:
        """What circuits that are not good enough are ranked by: the infidelity but for rounding, then the gates."""
        return round(self.infidelity, _SAME_INFIDELITY), len(self.circuit)


@dataclass(eq=False, kw_only=True)
class Found:
    """The circuits for one target that a search has found.

    Attributes:
        task: Task of the target.
        target: complex128 [d, ...], on its own qubits.
        pool: The allowed gates.
        num_qubits: Number of qubits of the target.
        most_gates: Maximum number of gates of a circuit in its final form; longer ones are dropped.
        tolerance: Accepted infidelity; an infidelity below `EXACT` is always accepted.
        objective: The cost to minimize.
        may_simplify: Whether circuits may be simplified.
        best: The circuit with the lowest infidelity, of several the shortest; None if there is none.
        num_exact: Number of exact candidates, of any length.
        num_too_long: Number of these that were dropped for their length.
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
    _circuits: dict[Circuit, CompiledCircuit] = field(default_factory=dict)  # by `_rounded`

    def __post_init__(self) -> None:
        self._cost = cost_of(self.objective)

    def cost(self, circuit: Circuit) -> float:
        """Return the cost of a circuit by the objective."""
        return self._cost(circuit)

    def __len__(self) -> int:
        """Return the number of distinct accepted circuits."""
        return len(self._circuits)

    def add(self, candidates: Sequence[Circuit], source: str = MODEL) -> int:
        """Simplify and verify candidates, keep the accepted ones, and return how many use only the pool's gates."""
        columns = self.target.reshape(1, len(self.target), -1)
        distances = partial(self.task.distances, targets=columns)
        simplify = self.task.simplify if self.may_simplify else None
        verify = _verify_exact_angles if self.pool.num_angles else _verify
        results = verify(candidates, self.pool, self.num_qubits, distances, simplify)
        for verified in results:
            below = self.task.exact_below(self.pool)
            result = replace(verified, source=source, exact_below=below, measure=self.task.measure)
            self.num_exact += result.is_exact
            if len(result.circuit) > self.most_gates:
                self.num_too_long += result.is_exact
                continue
            if result.is_exact or result.infidelity <= self.tolerance:
                self._circuits.setdefault(_rounded(result.circuit), result)
            if self.best is None or result.shortfall < self.best.shortfall:
                self.best = result
        return len(results)

    def cheapest(self, count: int) -> tuple[CompiledCircuit, ...]:
        """Return at most `count` circuits, cheapest first."""

        def order(found: CompiledCircuit) -> tuple[float, ...]:
            return self._cost(found.circuit), len(found.circuit), found.infidelity

        return tuple(sorted(self._circuits.values(), key=order)[:count])


def _rounded(circuit: Circuit) -> Circuit:
    """Return the circuit with angles rounded to 1e-6, the same for circuits that differ only by rounding errors."""
    steps = [
        replace(step, angles=tuple(round(angle * _SAME_ANGLES) / _SAME_ANGLES for angle in step.angles))
        if step.angles
        else step
        for step in circuit.instructions
    ]
    return Circuit(circuit.num_qubits, tuple(steps))


def _verify(
    circuits: Sequence[Circuit],
    pool: GatePool,
    num_qubits: int,
    distances: Callable[..., NDArray[np.float64]],
    simplify: Callable[[Ids, InstructionTable], Ids] | None,
) -> list[CompiledCircuit]:
    """Simplify circuits over a pool's gates (using no other gate) and return them with their infidelities.

    Args:
        circuits: N circuits.
        pool: Their gates.
        num_qubits: Their number of qubits.
        distances: Returns the infidelities of ids [N, T].
        simplify: Simplifies ids [N, T]; None leaves circuits unchanged.

    Returns:
        N results; circuits with the same normal form share one.
    """
    table = instruction_table(pool, num_qubits)
    ids = ids_from_circuits(circuits, table, max(map(len, circuits), default=0))
    simplified = ids if simplify is None else normal_form(simplify(ids, table), table)
    ids, origin = np.unique(simplified, axis=0, return_inverse=True)
    if simplify is not None:
        exact = distances(ids, table=table) < EXACT  # only these are worth the slower rule
        ids[exact] = normal_form(simplify(drop_phases(ids[exact], table), table), table)
    results = [
        CompiledCircuit(circuit, infidelity)
        for circuit, infidelity in zip(circuits_from_ids(ids, table), distances(ids, table=table).tolist(), strict=True)
    ]
    return [results[row] for row in origin.reshape(-1)]


def _verify_exact_angles(
    circuits: Sequence[Circuit],
    pool: GatePool,
    num_qubits: int,
    distances: Callable[..., NDArray[np.float64]],
    simplify: Callable[[Ids, InstructionTable], Ids] | None,
) -> list[CompiledCircuit]:
    """`_verify` for gates with angles; circuits of the same gates whose angles agree to 1e-6 share a result."""
    if not circuits:
        return []
    table = instruction_table(pool, num_qubits)
    longest = max(map(len, circuits))
    ids, angles = ids_from_circuits(circuits, table, longest), angles_of_circuits(circuits, table, longest)
    if simplify is not None:
        ids, angles = merge_rotations(ids, angles, table, _NO_ANGLE)
    rounded = np.rint(angles * _SAME_ANGLES).astype(np.int64).reshape(len(ids), -1)
    _, first, origin = np.unique(
        np.column_stack([table.first[ids], rounded]), axis=0, return_index=True, return_inverse=True
    )
    ids, angles = ids[first], angles[first]
    written = circuits_from_ids(ids, table, angles=angles)
    found = distances(ids, table=table, angles=angles_of_circuits(written, table, longest)).tolist()
    results = [CompiledCircuit(*result) for result in zip(written, found, strict=True)]
    return [results[row] for row in origin.reshape(-1)]
