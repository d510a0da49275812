"""Finds the minimum number of gates for a target by meet-in-the-middle search over all short circuits.

Evaluation compares the circuits found with this optimum. For large targets the optimum is unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable
from quantum_diffusion.circuits.reachable import reach
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.tasks.targets import TargetTask


class Optimum:
    """All targets reachable with few gates, distinct up to a global phase.

    Args:
        task: Defines the targets.
        table: The instructions.
        allowed: bool [K+1], the instructions that circuits may use.
        most_entries: Maximum number of matrix entries when all circuits of one length are extended by one gate. It
            limits the search depth from the start and from each target. The default takes a few hundredths of a second:
            depth 3 from each side with 21 instructions on 3 qubits.
    """

    def __init__(
        self, task: TargetTask, table: InstructionTable, allowed: NDArray[np.bool_], most_entries: int = 2**19
    ) -> None:
        numbers = np.flatnonzero(allowed)
        self._gates = unitaries(numbers[numbers != NO_GATE, None].astype(np.int16), table).astype(np.complex64)
        self._most_entries = most_entries
        start = task.targets_of(np.full((1, 1), NO_GATE, dtype=np.int16), table)[0].astype(np.complex64)
        self._made = [reached.keys for reached in reach(start, self._gates, most_entries)]

    @property
    def depth(self) -> int:
        """Number of gates of the longest circuits searched from the start."""
        return len(self._made) - 1

    @property
    def sizes(self) -> list[int]:
        """Number of distinct targets whose shortest circuits have 0, 1, 2, ... gates."""
        return [len(keys) for keys in self._made]

    def least_gates(self, target: Matrix, known: int) -> int | None:
        """Return the minimum number of gates for a target.

        Args:
            target: complex128 [D, R].
            known: Number of gates of a known circuit for it.

        Returns:
            The minimum; None if it exceeds the search depth.
        """
        excluded = -1
        inverses = self._gates.conj().swapaxes(1, 2)
        for undone, reached in enumerate(reach(target.astype(np.complex64), inverses, self._most_entries)):
            for made in range(excluded + 1 - undone, self.depth + 1):
                if np.isin(reached.keys, self._made[made]).any():
                    return made + undone
            excluded = self.depth + undone
            if known <= excluded + 1:
                return known
        return None
