"""A lookup table of all short circuits by their unitaries, from which beam search takes the last gates.

Matrices that are equal up to a global phase have equal keys; equal keys still have to be verified by simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import from_two_channels, matrix_keys
from quantum_diffusion.circuits.reachable import reach
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.tasks.targets import TargetTask

_MOST_ENTRIES = 2**20
"""Maximum entries of the unitaries computed for one length; for 3 qubits and 21 instructions, up to three gates fit."""

_MOST_OF_ONE_GATE = 2**24
"""The limit for circuits of one gate if they exceed `_MOST_ENTRIES`; beyond it, only the empty circuit is kept."""


class Completions:
    """Short circuits over chosen instructions, indexed by the remainders of a target that they complete.

    Args:
        task: Task of the target.
        target: complex128 [D, R].
        instructions: Ids of the instructions to use, without "no gate".
        table: The instructions the ids number.
    """

    def __init__(
        self, task: TargetTask, target: Matrix, instructions: tuple[int, ...], table: InstructionTable
    ) -> None:
        short = _short_circuits(instructions, table)
        completed = task.completing(short.unitaries, target)
        own = completed is short.unitaries  # does not depend on the target
        self._keys, self._rows = short.lookup if own else _lookup(completed)
        self._ids = short.ids
        self._completed = completed.reshape(len(completed), -1)

    @property
    def most_gates(self) -> int:
        """Number of gates of the longest circuit."""
        return int(self._ids.shape[1])

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], Ids]:
        """Look up remainders by their keys, uint64 [B]; return the rows found and a shortest completion for each."""
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        rows = np.flatnonzero(self._keys[place] == keys)
        return rows, self._ids[self._rows[place[rows]]]

    def infidelities(self, missing: Tensor, most: int | None = None) -> NDArray[np.float64]:
        """Return the infidelities of remainders with those that the first circuits complete, [B, N].

        Args:
            missing: The remainders, float32 [B, 2, D, R].
            most: Number of circuits N, of which the first is empty; None means all.
        """
        completed = self._completed[:most]
        flat = from_two_channels(missing.cpu().numpy()).reshape(len(missing), -1)
        norms = np.linalg.norm(flat, axis=1)[:, None] * np.linalg.norm(completed[0])  # all have the same norm
        return np.asarray(1 - (np.abs(flat @ completed.conj().T) / norms) ** 2)

    def find_near(self, missing: Tensor, tolerance: float) -> tuple[NDArray[np.int64], Ids]:
        """Look up remainders like `find`, with a shortest completion within the tolerance."""
        near = self.infidelities(missing) <= tolerance
        rows = np.flatnonzero(near.any(axis=1))
        return rows, self._ids[near[rows].argmax(axis=1)]


def keys_of(matrices: Tensor) -> Keys:
    """Return a key for each matrix float32 [N, 2, D, R], the same for matrices equal up to a global phase."""
    return matrix_keys(from_two_channels(matrices.cpu().numpy()))


@dataclass(frozen=True, eq=False)
class _ShortCircuits:
    """Circuits of few gates, shorter ones first: int16 [N, d], and their unitaries complex128 [N, D, D]."""

    ids: Ids
    unitaries: Matrix

    @cached_property
    def lookup(self) -> tuple[Keys, NDArray[np.int64]]:
        """Sorted keys of the unitaries, and the index of a shortest circuit for each."""
        return _lookup(self.unitaries)


def _lookup(matrices: Matrix) -> tuple[Keys, NDArray[np.int64]]:
    """Return the sorted keys of matrices, and the index of the first matrix with each."""
    keys, first = np.unique(matrix_keys(matrices), return_index=True)
    return keys, first


@lru_cache(maxsize=64)
def _short_circuits(instructions: tuple[int, ...], table: InstructionTable) -> _ShortCircuits:
    """Return a shortest circuit for each unitary that few of the given instructions produce."""
    chosen = np.array(instructions, dtype=np.int16)
    gates, identity = unitaries(chosen[:, None], table), np.eye(2**table.num_qubits, dtype=np.complex128)
    most = _MOST_ENTRIES if len(chosen) * identity.size <= _MOST_ENTRIES else _MOST_OF_ONE_GATE
    of_length = [np.zeros((1, 0), dtype=np.int16)]
    made = []
    for length, reached in enumerate(reach(identity, gates, most)):
        if length:
            last = chosen[reached.gates][:, None]
            of_length.append(np.concatenate([of_length[-1][reached.parents], last], axis=1))
        made.append(reached.matrices)
    longest = len(of_length) - 1
    ids = np.concatenate([np.pad(some, ((0, 0), (0, longest - some.shape[1]))) for some in of_length])
    return _ShortCircuits(ids, np.concatenate(made))
