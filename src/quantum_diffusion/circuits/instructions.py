"""The instruction vocabulary: numbers every gate of a pool on every choice of qubits.

Generation, simplification, labels and the masked diffusion process handle circuits in bulk as arrays of these ids, one
per time step; the tokenizer converts between ids and cell tokens.
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

NO_GATE = 0
"""The id of a time step without a gate."""

_MAX_OPERANDS = max(gate.num_qubits for gate in GATES.values())


class InstructionTable:
    """All instructions of a gate pool on `num_qubits` qubits; id 0 is "no gate", ids 1..K are instructions.

    The ids are ordered by gate (pool order), then by controls, then by targets. Treat the arrays as read-only.

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
        inverse: int16 [K+1], canonical id of the inverse instruction, -1 if the pool has none.
    """

    def __init__(self, pool: GatePool, num_qubits: int) -> None:
        pool.check_fits(num_qubits)
        self.pool = pool
        self.num_qubits = num_qubits

        placements = [
            (index, controls, targets)
            for index, gate in enumerate(pool)
            for controls in itertools.combinations(range(num_qubits), gate.num_controls)
            for targets in itertools.combinations([q for q in range(num_qubits) if q not in controls], gate.num_targets)
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
        for row, (index, controls, targets) in enumerate(placements, start=1):
            self.gate_index[row] = index
            self.operands[row, : len(controls) + len(targets)] = controls + targets
            self.columns[row, list(controls)] = -(index + 1)
            self.columns[row, list(targets)] = index + 1
        self.uses_qubit = self.columns != 0
        self.instructions = tuple(Instruction(pool.names[i], controls, targets) for i, controls, targets in placements)
        self.canonical, self.inverse = _relations(self.instructions)

    def __len__(self) -> int:
        """Number of instructions, "no gate" not counted."""
        return len(self.gate_index) - 1

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

    def key(gate: Gate, instruction: Instruction) -> tuple[object, ...]:
        if gate.is_symmetric:
            return (gate.name, frozenset(instruction.qubits))
        return (gate.name, instruction.controls, instruction.targets)

    first_with: dict[tuple[object, ...], int] = {}
    canonical = [NO_GATE]
    for number, step in enumerate(instructions, start=1):
        canonical.append(first_with.setdefault(key(GATES[step.gate], step), number))
    inverse = [-1] + [first_with.get(key(GATES[GATES[step.gate].inverse], step), -1) for step in instructions]
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


def compact(ids: Ids) -> Ids:
    """Move the gates of each circuit to its start, keeping their order; [N, T] in and out."""
    order = np.argsort(ids == NO_GATE, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)
