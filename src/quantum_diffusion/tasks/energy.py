"""The task of energies: circuits whose states have the lowest energy of a Hamiltonian, an extension of the state task.

A model of states writes their gates, asked for one ground state; energies decide, so that any state as low counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable
from quantum_diffusion.circuits.matrices import EXACT_ANGLES, pad_unitary, pieces
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.tasks.state import StateTask
from quantum_diffusion.tasks.targets import Measure


@dataclass(frozen=True)
class EnergyMeasure(Measure):
    """Energies, of which the distance is the excess: how far above the lowest, as a share of the range of all.

    Attributes:
        lowest: The lowest possible energy.
        highest: The highest possible energy.
        constant: What is to be added to all energies.
    """

    lowest: float
    highest: float
    constant: float = 0.0

    name: ClassVar[str] = "excess energy"
    best_effort: ClassVar[bool] = True

    @property
    def range(self) -> float:
        """The difference of the highest and the lowest energy, or 1 if all are the same."""
        return self.highest - self.lowest or 1.0

    def figures(self, distance: float) -> dict[str, float]:
        """Return an energy and its excess by name; see `Measure.figures`."""
        return {"energy": self.energy(distance), "excess": distance}

    def words(self, distance: float) -> str:
        """Return an energy in words; see `Measure.words`."""
        return energy_in_words(self.energy(distance), distance * self.range)

    def energy(self, distance: float) -> float:
        """Return the energy of a circuit."""
        return self.lowest + distance * self.range + self.constant


def energy_in_words(energy: float, above_lowest: float) -> str:
    """Say what an energy is, and how far it is above the lowest possible."""
    return f"energy {energy:.12g}, {above_lowest:.2g} above the lowest possible"


def _check(hamiltonian: object) -> None:
    """Refuse what is not a Hamiltonian."""
    matrix = np.asarray(hamiltonian)
    size = len(matrix) if matrix.ndim == 2 and matrix.dtype.kind in "iufc" else 0
    is_square = matrix.shape == (size, size) and size > 1 and size & (size - 1) == 0
    if not is_square or not np.allclose(matrix, matrix.conj().T):  # NaN is not close, either
        raise ConfigError("the Hamiltonian is no Hermitian matrix of 2^q rows: give one of finite numbers")


class EnergyTask(StateTask):
    """Circuits for the lowest energy of a Hamiltonian; `pipeline.extended(EnergyTask(H))` searches for them.

    Distances of circuits are the excess of their energies, 0 to 1; see `EnergyMeasure`. No target is out of reach: a
    circuit that falls short is the best that the gates allow.

    Args:
        hamiltonian: H, Hermitian, complex128 [D, D]; qubit 0 is the lowest bit of the basis index.

    Raises:
        ConfigError: It is no such matrix.
    """

    def __init__(self, hamiltonian: Matrix) -> None:
        _check(hamiltonian)
        constant = float(np.trace(hamiltonian).real) / len(hamiltonian)  # would take digits from the others
        hamiltonian = hamiltonian - constant * np.eye(len(hamiltonian))
        levels, states = np.linalg.eigh(hamiltonian)
        self.ground_state: Matrix = states[:, 0]  # the target to ask a model for, complex128 [D]
        self.measure = EnergyMeasure(float(levels[0]), float(levels[-1]), constant)
        self._num_qubits = len(levels).bit_length() - 1
        self._excess: Matrix = (hamiltonian - levels[0] * np.eye(len(levels))) / self.measure.range

    def exact_below(self, pool: GatePool) -> float:
        """Return `EXACT_ANGLES` for gates of any kind: unlike angles, states of no other gates come so near."""
        return EXACT_ANGLES

    def distances(
        self, ids: Ids, targets: Matrix, table: InstructionTable, angles: Angles | None = None
    ) -> NDArray[np.float64]:
        """Simulate circuits and return the excess of their energies, whatever the targets; see `TargetTask`."""
        excess = self._on(table)
        parts = []
        for piece in pieces(len(ids), len(excess)):
            states = self.targets_of(ids[piece], table, None if angles is None else angles[piece])[..., 0]
            parts.append(np.einsum("nd,nd->n", states.conj(), states @ excess.T).real)
        distances: NDArray[np.float64] = np.maximum(np.concatenate(parts), 0.0)
        return distances

    def refine(
        self,
        ids: Ids,
        angles: Angles,
        targets: Matrix,
        table: InstructionTable,
        *,
        fixed: NDArray[np.bool_] | None = None,
        iterations: int | None = None,
        device: Any = None,
    ) -> tuple[Angles, NDArray[np.float64]]:
        """Move angles to a local minimum of the energy, whatever the targets; see `TargetTask.refine`.

        Where no circuit reaches the lowest energy, the best one is made precise, unless the iterations are limited.
        """
        from quantum_diffusion.tasks.refinement import lowest_energy, refine_excess  # needs torch

        excess = self._on(table)
        most = {} if iterations is None else {"iterations": iterations}
        found, reached = refine_excess(ids, angles, excess, table, fixed=fixed, device=device, **most)
        if iterations is None and len(ids) and reached.min() >= EXACT_ANGLES:
            best = slice(int(reached.argmin()), int(reached.argmin()) + 1)
            held = None if fixed is None else fixed[best]
            found[best], reached[best] = lowest_energy(ids[best], found[best], excess, table, fixed=held)
        return found, reached

    def outcome_of(
        self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable, angles: Angles | None = None
    ) -> str:
        """Describe a circuit by its energy; see `Task.outcome_of`."""
        exact = None if angles is None else angles[None]
        (excess,) = self.distances(ids[None], self.ground_state[None, :, None], table, exact)
        return f"have {self.measure.words(float(excess))}"

    def _on(self, table: InstructionTable) -> Matrix:
        """Return the excess as a matrix on all qubits of a table.

        Raises:
            ConfigError: They are fewer than those of the Hamiltonian.
        """
        if table.num_qubits < self._num_qubits:
            raise ConfigError(
                f"the Hamiltonian acts on {counted(self._num_qubits, 'qubit')}, but the circuits have "
                f"{table.num_qubits}: give a smaller Hamiltonian, or a state of as many qubits"
            )
        return pad_unitary(self._excess, table.num_qubits)
