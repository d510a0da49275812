"""Simulates many circuits at once: state vectors and unitaries in complex128.

Labels, tasks and verification use it. Qubit q is bit q of the basis index (little-endian, as in Qiskit). Circuits are
grouped by gate and qubits, so that one numpy call handles many. Angles that are not given are those of the ids.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable

Complex = NDArray[np.complex128]

_MAX_QUBITS_FOR_PAIRS = 4
"""Beyond it, multiplying matrices takes longer than applying two gates."""

_PAIRS_BYTES = 2**23
"""Maximum memory for the matrices of all pairs of instructions."""

_PAIRED_AT_ONCE = 256
"""Circuits whose matrices stay in the processor's cache while they are multiplied."""


def statevectors(ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Complex:
    """Run circuits on |0...0>.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.
        angles: float64 [N, T, A]; None takes those of the ids, on the grid.

    Returns:
        complex128 [N, D] with D = 2**num_qubits.
    """
    states = np.zeros((len(ids), 2**table.num_qubits, 1), dtype=np.complex128)
    states[:, 0] = 1
    return _apply(states, ids, table, angles)[:, :, 0]


def random_images(ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Complex:
    """Return the images of a fixed random state, complex128 [N, D]; unitaries that agree on it are equal."""
    state = np.random.default_rng(0).normal(size=(2**table.num_qubits, 2)).view(np.complex128)  # [D, 1]
    states = np.tile(state / np.linalg.norm(state), (len(ids), 1, 1))
    return _apply(states, ids, table, angles)[:, :, 0]


def unitaries(ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Complex:
    """Return the unitary of each circuit, complex128 [N, D, D]; see `statevectors`."""
    size, steps = 2**table.num_qubits, ids.shape[1]
    may_pair = angles is None and steps > 1 and table.num_qubits <= _MAX_QUBITS_FOR_PAIRS
    if may_pair and 16 * (size * (len(table) + 1)) ** 2 <= _PAIRS_BYTES:
        return _by_pairs(ids, table)
    return _apply(np.tile(np.eye(size, dtype=np.complex128), (len(ids), 1, 1)), ids, table, angles)


def _apply(states: Complex, ids: Ids, table: InstructionTable, angles: Angles | None) -> Complex:
    for step in range(ids.shape[1]):
        apply_step(states, ids[:, step], table, None if angles is None else angles[:, step])
    return states


def _by_pairs(ids: Ids, table: InstructionTable) -> Complex:
    """Return the unitary of each circuit as a product of matrices of two instructions each; see `unitaries`."""
    factors = _pair_matrices(table)
    even = np.pad(ids, ((0, 0), (0, ids.shape[1] % 2))).astype(np.int64)
    numbers = (len(table) + 1) * even[:, ::2] + even[:, 1::2]
    matrices = np.empty((len(ids), *factors.shape[1:]), dtype=np.complex128)
    for start in range(0, len(ids), _PAIRED_AT_ONCE):
        some = slice(start, start + _PAIRED_AT_ONCE)
        product = factors[numbers[some, 0]]
        for column in numbers[some, 1:].T:
            rows = np.flatnonzero(column)
            product[rows] = factors[column[rows]] @ product[rows]
        matrices[some] = product
    return matrices


@lru_cache(maxsize=8)
def _pair_matrices(table: InstructionTable) -> Complex | NDArray[np.float64]:
    """Return the products of all pairs of instructions or "no gate", [(K+1)^2, D, D]; in real numbers if possible."""
    single = unitaries(np.arange(len(table) + 1, dtype=np.int16)[:, None], table)
    products = (single @ single[:, None]).reshape(-1, *single.shape[1:])
    return products if products.imag.any() else np.ascontiguousarray(products.real)


def apply_step(
    states: Complex, step_ids: NDArray[np.int16], table: InstructionTable, angles: Angles | None = None
) -> None:
    """Apply one instruction to each state, in place.

    Args:
        states: complex128 [N, D, R], R columns per circuit (1 for a state vector, D for a unitary).
        step_ids: int16 [N].
        table: The instructions the ids number.
        angles: float64 [N, A]; None takes those of the ids.
    """
    places = table.first[step_ids]
    for instruction in np.unique(places):
        if instruction == NO_GATE:
            continue
        rows = np.flatnonzero(places == instruction)
        gate = GATES[table.pool.names[table.gate_index[instruction]]]
        index = _acted_on(int(instruction), gate.num_controls, gate.num_targets, table)  # [2^m, rest]
        block = states[rows[:, None], index.reshape(-1)]  # [n, 2^m * rest, R]
        shape = (len(rows), index.shape[0], -1)
        given = table.angles[step_ids[rows]] if angles is None else angles[rows]
        matrices = gate.target_matrix(*given.T[: gate.num_angles])
        block = (matrices @ block.reshape(shape)).reshape(block.shape)
        states[rows[:, None], index.reshape(-1)] = block


def _acted_on(instruction: int, num_controls: int, num_targets: int, table: InstructionTable) -> NDArray[np.intp]:
    """Return the basis indices at which the controls are 1, a row per setting of the targets (first target: bit 0)."""
    operands = [int(q) for q in table.operands[instruction] if q >= 0]
    controls, targets = operands[:num_controls], operands[num_controls:]
    basis = np.arange(2**table.num_qubits)
    free = np.ones_like(basis, dtype=np.bool_)
    for qubit in controls:
        free &= (basis >> qubit) & 1 == 1
    for qubit in targets:
        free &= (basis >> qubit) & 1 == 0
    start = basis[free]
    offsets = [
        sum(((setting >> bit) & 1) << qubit for bit, qubit in enumerate(targets)) for setting in range(2**num_targets)
    ]
    return np.stack([start + offset for offset in offsets])
