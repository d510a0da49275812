"""The task of states: circuits of chosen gates that make a given state of |0...0>, up to a global phase."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.matrices import EXACT, pad_state, qubits_of_state
from quantum_diffusion.circuits.prompts import PREPARE_PROMPT
from quantum_diffusion.circuits.simulate import statevectors
from quantum_diffusion.tasks.targets import TargetTask


class StateTask(TargetTask):
    """Circuits of given states, complex [d] with d = 2**q; qubit 0 is the lowest bit of the basis index."""

    name = "STATE"
    asked = "states"
    command = "prepare"
    encoder = step_encoder = "state_encoder"
    array = "S"
    symmetries = ("permute_qubits",)
    prompt_begin = PREPARE_PROMPT
    words = ("prepare",)

    def qubits_of(self, target: Any) -> int:
        """Return the number of qubits of a state; see `qubits_of_state`."""
        return qubits_of_state(target)

    def columns(self, num_qubits: int) -> int:
        """Return 1: a state is a single column."""
        return 1

    def targets_of(self, ids: Ids, table: InstructionTable) -> Matrix:
        """Return the states that circuits make of |0...0>, complex128 [N, D, 1]."""
        return statevectors(ids, table)[:, :, None]

    def pad(self, targets: NDArray[Any], num_qubits: int) -> Matrix:
        """Extend states to more qubits, which stay in |0>; see `pad_state`."""
        return pad_state(targets, num_qubits)

    def completing(self, unitaries: Matrix, target: Matrix) -> Matrix:
        """Return the states that circuits take to the target, [N, D, 1]; see `TargetTask.completing`."""
        completed: Matrix = unitaries.conj().swapaxes(1, 2) @ target
        return completed

    def corner(self, target: Matrix, num_qubits: int) -> Matrix:
        """Return a state of its own qubits, the first ones."""
        return target[: 2**num_qubits]

    def acts_on(self, target: Matrix, qubit: int) -> bool:
        """Tell whether a qubit of the target is not in |0>; see `TargetTask.acts_on`."""
        ones = target.reshape(-1, 2, 2**qubit)[:, 1]
        return float(np.linalg.norm(ones) ** 2) > EXACT

    def joins(self, target: Matrix, part: NDArray[np.integer]) -> bool:
        """Tell whether the target entangles some qubits with the others; see `TargetTask.joins`."""
        num_qubits = len(target).bit_length() - 1
        axes = num_qubits - 1 - part  # qubit 0 is the last axis
        split = np.moveaxis(target.reshape((2,) * num_qubits), axes, range(len(axes))).reshape(2 ** len(part), -1)
        # The overlap with a product is at most the largest Schmidt coefficient.
        return 1 - float(np.linalg.norm(split, 2)) ** 2 > EXACT
