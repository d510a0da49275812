"""The instruction vocabulary: numbers every gate of a pool on every choice of qubits.

Generation, simplification, labels and the masked diffusion process handle circuits in bulk as arrays of these ids, one
per time step; the tokenizer converts between ids and cell tokens. A gate with angles has an id for each angle on a grid
(ADR 22); arrays of exact angles stand next to the ids where they are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Instruction
from quantum_diffusion.circuits.gates import GATES, Gate, GatePool
from quantum_diffusion.errors import GateSetError

Ids = NDArray[np.int16]

Angles = NDArray[np.float64]
"""Angles in radians [N, T, A], A for the gate of a pool with the most; zeros where a gate has fewer."""

NO_GATE = 0
"""The id of a time step without a gate."""

_MAX_OPERANDS = max(gate.num_qubits for gate in GATES.values())


class InstructionTable:
    """All instructions of a gate pool on `num_qubits` qubits; id 0 is "no gate", ids 1..K are instructions.

    The ids are ordered by gate (pool order), then by controls, then by targets, then by angles. Treat the arrays as
    read-only.

    Args:
        pool: The gate pool.
        num_qubits: Number of qubits; at least that of the widest gate.

    Raises:
        GateSetError: A gate does not fit the qubits.

    Attributes:
        gate_index: int16 [K+1], position of the gate in the pool, -1 for "no gate".
        operands: int8 [K+1, maximum qubits of a gate], controls, then targets, then -1.
        instructions: The K instructions themselves; id k is entry k - 1.
        columns: int8 [K+1, Q], the cell tokens of the instruction (a control is negative).
        uses_qubit: bool [K+1, Q], whether the instruction touches the qubit.
        canonical: int16 [K+1], the same id for instructions with the same unitary (cz may swap its qubits).
        inverse: int16 [K+1], canonical id of the inverse instruction (for gates with angles up to a global phase), -1
            if the pool has none.
        angles: float64 [K+1, A], angles on the grid; A = 0 for pools without angles.
        num_angles: int64 [K+1], number of angles.
        first: int16 [K+1], id of the same gate on the same qubits with all angles 0; the id itself without angles.
        step: float64 [K+1], distance of neighbouring angles on the grid; 1 without angles.
        num_steps: int64 [K+1], values of each angle on the grid; 1 without angles.
        period: float64 [K+1], period of the angles up to a global phase; 1 without angles.
        strides: int64 [K+1, A], by how much the id grows with each angle's number on the grid; 0 for missing angles.
    """

    def __init__(self, pool: GatePool, num_qubits: int) -> None:
        pool.check_fits(num_qubits)
        self.pool = pool
        self.num_qubits = num_qubits

        placements = [
            (index, controls, targets, angles)
            for index, gate in enumerate(pool)
            for controls in itertools.combinations(range(num_qubits), gate.num_controls)
            for targets in itertools.combinations([q for q in range(num_qubits) if q not in controls], gate.num_targets)
            for angles in gate.grid
        ]
        size = len(placements) + 1
        if size > np.iinfo(np.int16).max:
            raise GateSetError(
                f"{pool} on {num_qubits} qubits has {size - 1} instructions, more than the {np.iinfo(np.int16).max} "
                "supported: use fewer qubits or drop the three-qubit gates"
            )
        self.gate_index = np.full(size, -1, dtype=np.int16)
        self.operands = np.full((size, _MAX_OPERANDS), -1, dtype=np.int8)
        self.columns = np.zeros((size, num_qubits), dtype=np.int8)
        self.angles = np.zeros((size, pool.num_angles))
        self.num_angles = np.zeros(size, dtype=np.int64)
        self.first = np.arange(size, dtype=np.int16)
        self.step = np.ones(size)
        self.num_steps = np.ones(size, dtype=np.int64)
        self.strides = np.zeros((size, pool.num_angles), dtype=np.int64)
        gates = list(pool)
        for row, (index, controls, targets, angles) in enumerate(placements, start=1):
            self.gate_index[row] = index
            self.angles[row, : len(angles)] = angles
            self.num_angles[row] = len(angles)
            if angles:
                steps = gates[index].num_steps
                self.step[row], self.num_steps[row] = gates[index].step, steps
                self.strides[row, : len(angles)] = steps ** np.arange(len(angles))[::-1]
            if any(angles):
                self.first[row] = self.first[row - 1]
            self.operands[row, : len(controls) + len(targets)] = controls + targets
            self.columns[row, list(controls)] = -(index + 1)
            self.columns[row, list(targets)] = index + 1
        self.period = self.step * self.num_steps
        self.uses_qubit = self.columns != 0
        self.instructions = tuple(
            Instruction(pool.names[index], controls, targets, angles) for index, controls, targets, angles in placements
        )
        self.canonical, self.inverse = _relations(self.instructions)

    def __len__(self) -> int:
        """Number of instructions, "no gate" not counted."""
        return len(self.gate_index) - 1

    def on_grid(self, ids: NDArray[np.integer], angles: Angles) -> Ids:
        """Return the ids of the same gates with the nearest angles on the grid.

        Args:
            ids: [...], of any angles.
            angles: float64 [..., A], exact angles.

        Returns:
            int16 [...].
        """
        numbers = np.rint(angles / self.step[ids][..., None]).astype(np.int64) % self.num_steps[ids][..., None]
        found: Ids = (self.first[ids] + (numbers * self.strides[ids]).sum(axis=-1)).astype(np.int16)
        return found

    def in_period(self, ids: NDArray[np.integer], angles: Angles) -> Angles:
        """Return angles [..., A] of instructions [...] in [0, period), which changes only the global phase."""
        period = self.period[ids][..., None]
        reduced: Angles = angles % period % period  # twice, for a tiny negative angle rounds up to the period
        return reduced

    def random_angles(self, ids: NDArray[np.integer], rng: np.random.Generator) -> Angles:
        """Return angles [..., A] of instructions [...], uniform in [0, period)."""
        angles: Angles = self.period[ids][..., None] * rng.random((*ids.shape, self.pool.num_angles))
        return angles

    def allowed(self, coupling: Sequence[tuple[int, int]] | None) -> NDArray[np.bool_]:
        """Return which instructions a coupling allows.

        Args:
            coupling: Undirected pairs of connected qubits; None means that all pairs are connected.

        Returns:
            bool [K+1]; a multi-qubit instruction is allowed if edges between its qubits connect them, e.g. in a line.

        Raises:
            GateSetError: An edge names a qubit that does not exist or joins a qubit to itself.
        """
        result = np.ones(len(self) + 1, dtype=np.bool_)
        if coupling is None:
            return result
        for edge in coupling:
            if len({*edge}) != 2 or len(list(edge)) != 2 or not all(0 <= q < self.num_qubits for q in edge):
                raise GateSetError(
                    f"coupling edge {list(edge)} does not join two of the {self.num_qubits} qubits "
                    f"0..{self.num_qubits - 1}"
                )
        edges = {frozenset(edge) for edge in coupling}
        for row in range(1, len(result)):
            result[row] = _is_connected([int(q) for q in self.operands[row] if q >= 0], edges)
        return result


def _relations(instructions: Sequence[Instruction]) -> tuple[Ids, Ids]:
    """Return, for ids 0..K, the first id with the same unitary and the first with the inverse unitary."""

    def key(gate: Gate, instruction: Instruction, angles: tuple[float, ...]) -> tuple[object, ...]:
        steps = tuple(round(angle / gate.step) for angle in angles)  # exact, unlike angles
        if gate.is_symmetric:
            return (gate.name, frozenset(instruction.qubits), steps)
        return (gate.name, instruction.controls, instruction.targets, steps)

    first_with: dict[tuple[object, ...], int] = {}
    canonical, inverse = [NO_GATE], [-1]
    for number, step in enumerate(instructions, start=1):
        canonical.append(first_with.setdefault(key(GATES[step.gate], step, step.angles), number))
    for step in instructions:
        gate = GATES[step.gate]
        inverse.append(first_with.get(key(GATES[gate.inverse], step, gate.inverse_angles(step.angles)), -1))
    return np.array(canonical, dtype=np.int16), np.array(inverse, dtype=np.int16)


def _is_connected(qubits: list[int], edges: set[frozenset[int]]) -> bool:
    reached, frontier = {qubits[0]}, [qubits[0]]
    while frontier:
        here = frontier.pop()
        for other in qubits:
            if other not in reached and frozenset((here, other)) in edges:
                reached.add(other)
                frontier.append(other)
    return len(reached) == len(qubits)


@lru_cache(maxsize=64)
def instruction_table(pool: GatePool, num_qubits: int) -> InstructionTable:
    """Return the (cached) instruction table of a pool; see `InstructionTable` for the arguments."""
    return InstructionTable(pool, num_qubits)


@lru_cache(maxsize=4096)
def in_pool(table: InstructionTable, pool: GatePool) -> Ids:
    """Return the ids that a table's instructions have in the table of a larger pool, int16 [K+1]."""
    larger = instruction_table(pool, table.num_qubits)
    number = {instruction: i for i, instruction in enumerate(larger.instructions, start=1)}
    return np.array([0, *(number[instruction] for instruction in table.instructions)], dtype=np.int16)


def gate_count(ids: Ids) -> NDArray[np.int64]:
    """Return the number of gates of each circuit, int64 [N], for ids [N, T]."""
    counts: NDArray[np.int64] = np.count_nonzero(ids, axis=1)
    return counts


def gates_first(ids: Ids, angles: Angles) -> tuple[Ids, Angles]:
    """Move the gates of each circuit to its start, with their angles [N, T, A]; see `compact`."""
    order = np.argsort(ids == NO_GATE, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(angles, order[..., None], axis=1)


def compact(ids: Ids) -> Ids:
    """Move the gates of each circuit to its start, keeping their order; [N, T] in and out."""
    order = np.argsort(ids == NO_GATE, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)
