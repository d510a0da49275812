"""The least gates that a target needs, by meeting in the middle: all short circuits from both of its sides.

It says how good found circuits are where targets are small; for others it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import matrix_keys
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.tasks.targets import TargetTask

_AT_ONCE = 2**22
"""Entries of the matrices that are made at once."""


class Optimum:
    """What the circuits of few gates make, all that is different up to a global phase.

    Args:
        task: What targets are.
        table: The instructions.
        allowed: bool [K+1], the instructions that circuits may use.
        most_entries: Of all matrices that are made of those of one length; it bounds how deep is looked, from the start
            and from each target. The default takes some hundredths of a second: 3 gates each of 21 on 3 qubits.
    """

    def __init__(
        self, task: TargetTask, table: InstructionTable, allowed: NDArray[np.bool_], most_entries: int = 2**19
    ) -> None:
        numbers = np.flatnonzero(allowed)
        self._gates = unitaries(numbers[numbers != NO_GATE, None].astype(np.int16), table).astype(np.complex64)
        self._most_entries = most_entries
        self._made = list(self._levels(task.targets_of(np.zeros((1, 1), dtype=np.int16), table), self._gates))

    @property
    def depth(self) -> int:
        """Gates of the longest circuits that are known."""
        return len(self._made) - 1

    @property
    def sizes(self) -> list[int]:
        """How many different things circuits of 0, 1, 2, ... gates make that shorter ones do not."""
        return [len(keys) for keys in self._made]

    def least_gates(self, target: Matrix, known: int) -> int | None:
        """Return the fewest gates of circuits of a target.

        Args:
            target: complex128 [D, R].
            known: Gates of some circuit of it.

        Returns:
            The fewest; None where they are more than was looked at.
        """
        excluded = -1
        for undone, keys in enumerate(self._levels(target[None], self._gates.conj().swapaxes(1, 2))):
            for made in range(excluded + 1 - undone, self.depth + 1):
                if np.isin(keys, self._made[made]).any():
                    return made + undone
            excluded = self.depth + undone
            if known <= excluded + 1:
                return known
        return None

    def _levels(self, start: Matrix, gates: NDArray[np.complexfloating]) -> Iterator[Keys]:
        """Yield the keys of what 0, 1, 2, ... gates make of a start, [1, D, R], that fewer do not make."""
        matrices: NDArray[np.complexfloating] = start.astype(np.complex64)
        keys = seen = matrix_keys(matrices)
        yield keys
        while 0 < (entries := matrices.size * len(gates)) <= self._most_entries:
            pieces = np.array_split(matrices, -(-entries // _AT_ONCE))
            longer, found = [], []
            for piece in pieces:
                made = (gates @ piece[:, None]).reshape(-1, *start.shape[1:])
                every, first = np.unique(matrix_keys(made), return_index=True)
                new = ~np.isin(every, seen)
                longer.append(made[first[new]])
                found.append(every[new])
            keys, first = np.unique(np.concatenate(found), return_index=True)
            matrices = np.concatenate(longer)[first]
            seen = np.union1d(seen, keys)
            yield keys
