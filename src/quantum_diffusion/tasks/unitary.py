"""The unitary task: circuits of chosen gates that implement a given unitary, up to a global phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable
from quantum_diffusion.circuits.invariants import Invariant, broken_invariants
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import EXACT, matrix_keys, pad_unitary, qubits_of_unitary
from quantum_diffusion.circuits.prompts import COMPILE_PROMPT
from quantum_diffusion.circuits.simulate import random_images, unitaries
from quantum_diffusion.tasks.targets import TargetTask


class UnitaryTask(TargetTask):
    """Circuits for given unitaries, complex [d, d] with d = 2**q; qubit 0 is the lowest bit of the basis index."""

    name = "UNITARY"
    asked = "unitaries"
    command = "compile"
    encoder = step_encoder = "unitary_encoder"
    array = "U"
    symmetries = ("permute_qubits", "invert")
    prompt_begin = COMPILE_PROMPT
    qiskit_competes = True

    def qubits_of(self, target: Any) -> int:
        """Return the number of qubits of a unitary; see `qubits_of_unitary`."""
        return qubits_of_unitary(target)

    def columns(self, num_qubits: int) -> int:
        """Return the number of columns of a unitary."""
        return int(2**num_qubits)

    def targets_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Matrix:
        """Return the unitaries of circuits, complex128 [N, D, D]; see `Task.targets_of`."""
        return unitaries(ids, table, angles)

    def keys_of(self, ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Keys:
        """Return hashes of the images of a random state, which identify unitaries; see `Task.keys_of`."""
        return matrix_keys(random_images(ids, table, angles)[:, :, None])

    def pad(self, targets: NDArray[Any], num_qubits: int) -> Matrix:
        """Extend unitaries to more qubits by the identity; see `pad_unitary`."""
        return pad_unitary(targets, num_qubits)

    def completing(self, unitaries: Matrix, target: Matrix) -> Matrix:
        """Return the unitaries: each completes a remainder equal to itself; see `TargetTask.completing`."""
        return unitaries

    def corner(self, target: Matrix, num_qubits: int) -> Matrix:
        """Return the unitary on the first qubits."""
        return target[: 2**num_qubits, : 2**num_qubits]

    def acts_on(self, target: Matrix, qubit: int) -> bool:
        """Tell whether every circuit for the target must act on a qubit; see `TargetTask.acts_on`."""
        return _least_infidelity_without(_normalized(target), qubit) > EXACT

    def joins(self, target: Matrix, part: NDArray[np.integer]) -> bool:
        """Tell whether every circuit for the target must join two sets of qubits; see `TargetTask.joins`."""
        return _least_infidelity_apart(_normalized(target), part) > EXACT

    def broken_invariants(self, target: Matrix, gates: Sequence[str]) -> list[Invariant]:
        """Return the groups of all circuits of the gates that lack the target; see `circuits.invariants`."""
        return broken_invariants(target, gates)

    def by_qiskit(self, target: Matrix, gates: Sequence[str]) -> Circuit | None:
        """Return Qiskit's circuit of the gates for a unitary; see `synthesize`."""
        from quantum_diffusion.circuits.backends.synthesis import synthesize  # only evaluations need it

        return synthesize(target, gates)

    def product_formulas(self, target: Matrix, gates: Sequence[str]) -> Iterator[Circuit]:
        """Yield product formulas for a unitary whose logarithm has few Pauli terms; see `trotterize`."""
        from quantum_diffusion.circuits.backends.synthesis import trotterize

        return trotterize(target, gates)


def _normalized(target: Matrix) -> Matrix:
    """Rescale a matrix that is unitary up to rounding to the norm of a unitary."""
    scaled: Matrix = target * (np.sqrt(len(target)) / np.linalg.norm(target))
    return scaled


def _least_infidelity_without(target: Matrix, qubit: int) -> float:
    """Return a lower bound on the infidelity of all circuits that do not act on a qubit."""
    blocks = target.reshape(-1, 2, 2**qubit, len(target) // 2 ** (qubit + 1), 2, 2**qubit)
    rest = np.einsum("aibcid->abcd", blocks)
    # Up to its norm, the best matrix on the other qubits is this partial trace.
    return 1 - float(np.linalg.norm(rest)) ** 2 / (2 * len(target))


def _least_infidelity_apart(target: Matrix, part: NDArray[np.integer]) -> float:
    """Return a lower bound on the infidelity of all circuits without gates between `part` and the other qubits."""
    num_qubits = len(target).bit_length() - 1
    rows = num_qubits - 1 - part  # qubit 0 is the last axis
    axes = np.concatenate([rows, rows + num_qubits])
    split = np.moveaxis(target.reshape((2,) * (2 * num_qubits)), axes, range(len(axes))).reshape(4 ** len(part), -1)
    # The overlap with a product is at most the largest operator-Schmidt coefficient times the product's norm.
    return 1 - float(np.linalg.norm(split, 2)) ** 2 / len(target)
