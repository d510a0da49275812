"""The state task: circuits of chosen gates that prepare a given state from |0...0>, up to a global phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Angles,
    Ids,
    InstructionTable,
    compact,
    gates_first,
    instruction_table,
)
from quantum_diffusion.circuits.invariants import Invariant, broken_by_state
from quantum_diffusion.circuits.matrices import EXACT, matrix_keys, pad_state, qubits_of_state
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.prompts import PREPARE_PROMPT
from quantum_diffusion.circuits.simulate import apply_step, statevectors
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.tasks.base import Candidates
from quantum_diffusion.tasks.targets import TargetTask


class StateTask(TargetTask):
    """Circuits for given states, complex [d] with d = 2**q; qubit 0 is the lowest bit of the basis index."""

    name = "STATE"
    asked = "states"
    command = "prepare"
    encoder = step_encoder = "state_encoder"
    array = "S"
    symmetries = ("permute_qubits",)
    prompt_begin = PREPARE_PROMPT
    words = ("prepare",)

    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> Candidates:
        """Draw circuits as for unitaries and drop gates that leave the state unchanged; see `Task.draw`."""
        drawn = super().draw(config, rng)
        if config.optimize == "none":
            return drawn
        # Other rules could introduce gates that a circuit's prompt does not allow.
        table = instruction_table(GatePool(config.gate_set), config.num_qubits)
        exact = drawn.angles if table.pool.num_angles else None
        dropped = returns(drawn.ids, table, exact)
        kept = np.where(dropped, NO_GATE, drawn.ids).astype(np.int16)
        ids, angles = gates_first(kept, np.where(dropped[..., None], 0.0, drawn.angles))
        return Candidates(ids, drawn.labels, angles)

    def simplify(self, ids: Ids, table: InstructionTable) -> Ids:
        """Return circuits with fewer gates that prepare the same states; see `without_returns`."""
        return optimize(without_returns(super().simplify(ids, table), table), table)

    def qubits_of(self, target: Any) -> int:
        """Return the number of qubits of a state; see `qubits_of_state`."""
        return qubits_of_state(target)

    def columns(self, num_qubits: int) -> int:
        """Return 1: a state has a single column."""
        return 1

    def targets_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Matrix:
        """Return the states that circuits prepare from |0...0>, complex128 [N, D, 1]; see `Task.targets_of`."""
        return statevectors(ids, table, angles)[:, :, None]

    def pad(self, targets: NDArray[Any], num_qubits: int) -> Matrix:
        """Extend states to more qubits by |0>; see `pad_state`."""
        return pad_state(targets, num_qubits)

    def completing(self, unitaries: Matrix, target: Matrix) -> Matrix:
        """Return the states that the circuits map to the target, [N, D, 1]; see `TargetTask.completing`."""
        completed: Matrix = unitaries.conj().swapaxes(1, 2) @ target
        return completed

    def corner(self, target: Matrix, num_qubits: int) -> Matrix:
        """Return the state on the first qubits, [2**num_qubits, 1]."""
        return target[: 2**num_qubits]

    def acts_on(self, target: Matrix, qubit: int) -> bool:
        """Tell whether a qubit of the target is not in |0>; see `TargetTask.acts_on`."""
        ones = target.reshape(-1, 2, 2**qubit)[:, 1]
        return float(np.linalg.norm(ones) ** 2) > EXACT

    def broken_invariants(self, target: Matrix, gates: Sequence[str]) -> list[Invariant]:
        """Return the groups of all circuits of the gates that do not prepare the state; see `circuits.invariants`."""
        return broken_by_state(target.reshape(-1), gates)

    def words_of(self, group: Invariant) -> str:
        """Describe the states that a group prepares; see `TargetTask.words_of`."""
        return f"all of them prepare {group.states}"

    def joins(self, target: Matrix, part: NDArray[np.integer]) -> bool:
        """Tell whether the target entangles some qubits with the others; see `TargetTask.joins`."""
        num_qubits = len(target).bit_length() - 1
        axes = num_qubits - 1 - part  # qubit 0 is the last axis
        split = np.moveaxis(target.reshape((2,) * num_qubits), axes, range(len(axes))).reshape(2 ** len(part), -1)
        # The overlap with a product is at most the largest Schmidt coefficient.
        return 1 - float(np.linalg.norm(split, 2)) ** 2 > EXACT


def without_returns(ids: Ids, table: InstructionTable) -> Ids:
    """Drop every stretch of a circuit that `returns` to the same state.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.

    Returns:
        int16 [N, T], gates at the front.
    """
    return compact(np.where(returns(ids, table), NO_GATE, ids).astype(np.int16))


def returns(ids: Ids, table: InstructionTable, angles: Angles | None = None) -> NDArray[np.bool_]:
    """Tell which steps are in a stretch of a circuit that returns to the same state, up to a global phase.

    The simplest are gates that leave the state unchanged, such as a controlled gate whose control is |0>.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.
        angles: float64 [N, T, A]; None takes those of the ids.

    Returns:
        bool [N, T].
    """
    count, steps = ids.shape
    states = np.zeros((count, 2**table.num_qubits, 1), dtype=np.complex128)
    states[:, 0] = 1
    keys = [matrix_keys(states)]
    for step in range(steps):
        apply_step(states, ids[:, step], table, None if angles is None else angles[:, step])
        keys.append(matrix_keys(states))
    seen = np.stack(keys, axis=1)  # [N, T + 1], the state before each step and at the end
    stays = np.zeros((count, steps), dtype=np.bool_)
    place = np.zeros(count, dtype=np.int64)
    rows = np.arange(count)
    while len(rows):
        alike = seen[rows] == seen[rows, place][:, None]
        place = steps - alike[:, ::-1].argmax(axis=1)  # the last time step that starts from that state
        rows, place = rows[place < steps], place[place < steps]
        stays[rows, place] = True
        place += 1
    return ~stays
