"""Circuits with angles that need no model: Qiskit's exact decompositions and product formulas, refined and shortened.

`search.exact` lets them compete with the circuits of a model, named as Qiskit's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.search.refining import Refined, shortened, snapped
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.targets import TargetTask

_EXACT_QUBITS = 2
"""Qubits up to which Qiskit's decomposition of a unitary is short."""

_MOST_SHORTENED = 128
"""Gates beyond which shortening takes longer than it is worth."""

_ITERATIONS = 100


def closed_forms(
    task: TargetTask,
    target: Matrix,
    pool: GatePool,
    num_qubits: int,
    accepted: float,
    deadline: float | None = None,
    allows: Callable[[Circuit], bool] = lambda circuit: True,
) -> Iterator[list[Circuit]]:
    """Yield Qiskit's circuits for a target, each with a shorter one if it is good enough and not long.

    Of unitaries on one or two qubits (Euler angles, the KAK decomposition) and diagonal ones, these are exact
    decompositions; of others, product formulas if the task has any, the shortest first, until one is good enough.

    Args:
        task: Task of the target.
        target: complex128 [d, ...].
        pool: The gates to use.
        num_qubits: Number of qubits of the target.
        accepted: Infidelity at which a circuit is good enough.
        deadline: When to stop shortening, in seconds of `time.perf_counter`; None shortens as far as possible.
        allows: Tells whether a circuit keeps to constraints; others are left out.
    """
    goal = target, pool, num_qubits, accepted, deadline
    off_diagonal = np.abs(target - np.diag(np.diag(target))).max() if target.shape[0] == target.shape[-1] else 1.0
    if num_qubits <= _EXACT_QUBITS or off_diagonal <= accepted:
        circuit = task.by_qiskit(target, pool.names)
        if circuit is not None and allows(circuit):
            yield _with_a_shorter_one(_read(circuit, pool, num_qubits), *goal)
        return
    for circuit in filter(allows, task.product_formulas(target, pool.names)):
        first = _read(circuit, pool, num_qubits)
        table = instruction_table(pool, num_qubits)
        found, reached = refine(first.ids, first.angles, target[None], table, iterations=_ITERATIONS)
        refined = Refined(first.ids, found, reached)
        yield _with_a_shorter_one(refined, *goal)
        if reached[0] < accepted:
            return


def _read(circuit: Circuit, pool: GatePool, num_qubits: int) -> Refined:
    """Return a circuit as ids and angles."""
    table = instruction_table(pool, num_qubits)
    ids = ids_from_circuits([circuit], table, len(circuit))
    return Refined(ids, angles_of_circuits([circuit], table, len(circuit)), np.zeros(1))


def _with_a_shorter_one(
    long: Refined, target: Matrix, pool: GatePool, num_qubits: int, accepted: float, deadline: float | None
) -> list[Circuit]:
    """Return a circuit, and a shorter one with rounded angles if it is good enough and not too long."""
    table = instruction_table(pool, num_qubits)
    if long.infidelities[0] < accepted and long.ids.shape[1] <= _MOST_SHORTENED:
        short = shortened(long, target[None], table, accepted, deadline=deadline)
        long = long.joined(snapped(short, target[None], table, accepted))
    return circuits_from_ids(long.ids, table, angles=long.angles)
