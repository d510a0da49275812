"""Schmidt rank vectors: which qubits of a circuit's output state are entangled with the rest.

Entry q is the rank of qubit q's reduced state: 1 (separable from the rest) or 2 (entangled). Data generation and
verification use it. Clifford circuits are labelled by their stabilizer tableau, all others by their state vector.
"""

from __future__ import annotations

from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Gate
from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.simulate import Complex, apply_step
from quantum_diffusion.errors import GateSetError

SchmidtRanks = NDArray[np.int8]

MINOR_TOLERANCE = 1e-9
"""Minors above this mean entanglement. In float64 the largest 2x2 minor of a product state is about 1e-16, that of an
evenly spread entangled state of n qubits about 2**(1 - n): 2e-6 for 20 qubits."""

_STATE_BYTES = 64 * 2**20
"""Memory for one block of state vectors."""


def schmidt_rank_vectors(ids: Ids, table: InstructionTable) -> SchmidtRanks:
    """Label circuits with their Schmidt rank vector (SRV).

    Args:
        ids: int16 [N, T]; the circuits act on |0...0>.
        table: The instructions the ids number; at most 64 qubits for Clifford pools, about 20 for others.

    Returns:
        int8 [N, Q] of 1 and 2.

    Raises:
        GateSetError: There are more than 64 qubits.

    Reference:
        Fürrutter, Muñoz-Gil, Briegel, "Quantum circuit synthesis with diffusion models", arXiv 2311.02041.
    """
    return _ranks(ids, table, every_prefix=False)


def prefix_rank_vectors(ids: Ids, table: InstructionTable) -> SchmidtRanks:
    """Label every prefix of circuits; see `schmidt_rank_vectors`.

    Returns:
        int8 [N, T, Q]; entry t is the label after the first t + 1 time steps.
    """
    return _ranks(ids, table, every_prefix=True)


def tableau_maps(table: InstructionTable) -> NDArray[np.uint8]:
    """Return the action of each instruction of a Clifford pool on a stabilizer tableau, without signs.

    Returns:
        uint8 [K+1, 2Q, 2Q] of 0 and 1. Rows and columns are X of every qubit, then Z of every qubit; row r marks the
        old columns of the tableau whose sum modulo 2 is the new column r.
    """
    num_qubits, count = table.num_qubits, len(table) + 1
    maps = np.empty((count, 2 * num_qubits, 2 * num_qubits), dtype=np.uint8)
    numbers = np.arange(count)
    for source in range(2 * num_qubits):  # one column at a time, for all instructions at once
        flat = np.zeros((2, num_qubits * count), dtype=np.uint8)
        flat[source // num_qubits, (source % num_qubits) * count : (source % num_qubits + 1) * count] = 1
        for index, gate in enumerate(table.pool):
            rows = numbers[table.gate_index == index]
            operands = table.operands[rows].astype(np.int64) * count + rows[:, None]
            _act(flat[0], flat[1], gate, operands)
        maps[:, :, source] = flat.reshape(2 * num_qubits, count).T
    return maps


def _ranks(ids: Ids, table: InstructionTable, every_prefix: bool) -> SchmidtRanks:
    if table.pool.is_clifford:
        return _tableau_ranks(ids, table, every_prefix)
    block = max(1, _STATE_BYTES // (16 * 2**table.num_qubits))
    parts = [_state_ranks(ids[i : i + block], table, every_prefix) for i in range(0, max(len(ids), 1), block)]
    return np.concatenate(parts)


def _tableau_ranks(ids: Ids, table: InstructionTable, every_prefix: bool) -> SchmidtRanks:
    """Track, for every qubit, the X and Z columns of the n stabilizer generators as n-bit integers.

    Signs do not matter. Qubit q is separable exactly if the generators restrict it to one Pauli axis, that is, if the
    pairs (x, z) over the generators span at most one dimension: x == 0, z == 0 or x == z.
    """
    num_circuits, num_steps = ids.shape
    num_qubits = table.num_qubits
    if num_qubits > 64:
        raise GateSetError(f"labels support at most 64 qubits, but the circuits have {num_qubits}: use fewer qubits")
    dtype = np.uint8 if num_qubits <= 8 else np.uint32 if num_qubits <= 32 else np.uint64
    x = np.zeros((num_qubits, num_circuits), dtype=dtype)
    z = np.repeat(np.array([1 << q for q in range(num_qubits)], dtype=dtype)[:, None], num_circuits, axis=1)
    flat_x, flat_z = x.reshape(-1), z.reshape(-1)

    prefixes = np.empty((num_circuits, num_steps if every_prefix else 0, num_qubits), dtype=np.int8)
    for step in range(num_steps):
        step_ids = ids[:, step]
        step_gates = table.gate_index[step_ids]
        for index, gate in enumerate(table.pool):
            if not _tableau_action(gate):
                continue
            rows = np.flatnonzero(step_gates == index)
            operands = table.operands[step_ids[rows]].astype(np.int64) * num_circuits + rows[:, None]
            _act(flat_x, flat_z, gate, operands)
        if every_prefix:
            prefixes[:, step] = _ranks_of_columns(x, z).T
    return prefixes if every_prefix else np.ascontiguousarray(_ranks_of_columns(x, z).T)


def _ranks_of_columns(x: _Column, z: _Column) -> SchmidtRanks:
    entangled: NDArray[np.bool_] = (x != 0) & (z != 0) & (x != z)
    return entangled.astype(np.int8) + np.int8(1)


_Column = NDArray[np.unsignedinteger]
_Index = NDArray[np.int64]


def _act(x: _Column, z: _Column, gate: Gate, operands: _Index) -> None:
    """Apply a gate to the columns [Q * N] of tableaux, in place; operands [n, qubits] select the columns."""
    places = [(column, operands[:, qubit]) for column in (x, z) for qubit in range(gate.num_qubits)]
    before: dict[int, _Column] = {}
    after = []
    for changed, summands in _tableau_action(gate):
        for number in summands:
            if number not in before:
                column, where = places[number]
                before[number] = column[where]
        after.append((changed, reduce(np.bitwise_xor, [before[number] for number in summands])))
    for changed, values in after:
        column, where = places[changed]
        column[where] = values


@cache
def _tableau_action(gate: Gate) -> list[tuple[int, list[int]]]:
    """Return the tableau columns that a Clifford gate changes, each with the columns whose sum replaces it.

    Columns are X of each of the gate's qubits, then Z of each. Signs are left out, so Paulis change nothing.
    """
    matrix, num_qubits = gate.matrix(), gate.num_qubits
    index, bits = np.arange(2**num_qubits), 2 ** np.arange(num_qubits)
    images = []  # of X of each qubit, then Z of each, as rows of 0 and 1
    for source in [matrix[:, index ^ bit] for bit in bits] + [matrix * np.where(index & bit, -1, 1) for bit in bits]:
        pauli = source @ matrix.conj().T
        flips = abs(pauli[:, 0]).argmax()
        signs = (pauli[index ^ flips, index] / pauli[flips, 0]).real < 0
        images.append([*(flips & bits > 0), *signs[bits]])
    sums = [(column, np.flatnonzero(row).tolist()) for column, row in enumerate(np.transpose(images))]
    return [(column, summands) for column, summands in sums if summands != [column]]


def _state_ranks(ids: Ids, table: InstructionTable, every_prefix: bool) -> SchmidtRanks:
    num_circuits, num_steps = ids.shape
    states = np.zeros((num_circuits, 2**table.num_qubits, 1), dtype=np.complex128)
    states[:, 0] = 1
    prefixes = np.empty((num_circuits, num_steps if every_prefix else 0, table.num_qubits), dtype=np.int8)
    for step in range(num_steps):
        apply_step(states, ids[:, step], table)
        if every_prefix:
            prefixes[:, step] = ranks_of_states(states[:, :, 0])
    return prefixes if every_prefix else ranks_of_states(states[:, :, 0])


def ranks_of_states(states: Complex) -> SchmidtRanks:
    """Return the rank of every qubit's reduced state.

    A qubit is separable if the two halves of the state (qubit = 0, qubit = 1) are parallel, that is, if all 2x2 minors
    vanish. Comparing with the largest column is enough and, unlike the determinant of the reduced density matrix, keeps
    the full precision of the amplitudes.

    Args:
        states: complex128 [N, D], normalised.

    Returns:
        int8 [N, Q] of 1 and 2.
    """
    num_circuits, size = states.shape
    num_qubits = size.bit_length() - 1
    ranks = np.ones((num_circuits, num_qubits), dtype=np.int8)
    rows = np.arange(num_circuits)
    for qubit in range(num_qubits):
        halves = states.reshape(num_circuits, size >> (qubit + 1), 2, 2**qubit)
        zero = halves[:, :, 0].reshape(num_circuits, size // 2)  # [N, D/2]
        one = halves[:, :, 1].reshape(num_circuits, size // 2)
        pivot = np.argmax(np.abs(zero) ** 2 + np.abs(one) ** 2, axis=1)
        minors = zero[rows, pivot, None] * one - one[rows, pivot, None] * zero
        ranks[:, qubit] += (np.abs(minors) > MINOR_TOLERANCE).any(axis=1)
    return ranks
