"""A table of all short circuits by what they do, where a search looks up how to end.

Two matrices that are equal up to a global phase have equal keys; the other way round, simulation has to confirm it.
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
"""Of the unitaries of all circuits of a length, whose distinct ones are kept: of 3 qubits and 21 instructions, those of
up to three gates."""

_MOST_OF_ONE_GATE = 2**24
"""The same for circuits of one gate, where these are more; beyond it there is only the circuit without any."""


class Completions:
    """Short circuits over chosen instructions, and the remainders of a target that they end.

    Args:
        task: What the target is.
        target: complex128 [D, R].
        instructions: Numbers of the instructions to use, "no gate" not among them.
        table: What they number.
    """

    def __init__(
        self, task: TargetTask, target: Matrix, instructions: tuple[int, ...], table: InstructionTable
    ) -> None:
        short = _short_circuits(instructions, table)
        completed = task.completing(short.unitaries, target)
        own = completed is short.unitaries  # the same for every target
        self._keys, self._rows = short.lookup if own else _lookup(completed)
        self._ids = short.ids
        self._completed = completed.reshape(len(completed), -1)

    @property
    def most_gates(self) -> int:
        """Gates of the longest of them."""
        return int(self._ids.shape[1])

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], Ids]:
        """Look up remainders by their keys, uint64 [B]: the rows that are found, and a shortest end for each."""
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        rows = np.flatnonzero(self._keys[place] == keys)
        return rows, self._ids[self._rows[place[rows]]]

    def infidelities(self, missing: Tensor, most: int | None = None) -> NDArray[np.float64]:
        """Return how far remainders float32 [B, 2, D, R] are from what the first circuits end, [B, N].

        Args:
            missing: The remainders.
            most: How many circuits; the first has no gate. None takes all.
        """
        completed = self._completed[:most]
        flat = from_two_channels(missing.cpu().numpy()).reshape(len(missing), -1)
        norms = np.linalg.norm(flat, axis=1)[:, None] * np.linalg.norm(completed[0])  # those of all are equal
        return np.asarray(1 - (np.abs(flat @ completed.conj().T) / norms) ** 2)

    def find_near(self, missing: Tensor, tolerance: float) -> tuple[NDArray[np.int64], Ids]:
        """Look up remainders as `find`, with a shortest end that comes near enough."""
        near = self.infidelities(missing) <= tolerance
        rows = np.flatnonzero(near.any(axis=1))
        return rows, self._ids[near[rows].argmax(axis=1)]


def keys_of(matrices: Tensor) -> Keys:
    """Return a key for each matrix float32 [N, 2, D, R], equal where they are equal up to a global phase."""
    return matrix_keys(from_two_channels(matrices.cpu().numpy()))


@dataclass(frozen=True, eq=False)
class _ShortCircuits:
    """Circuits of few gates, shorter ones first: int16 [N, d], and their unitaries complex128 [N, D, D]."""

    ids: Ids
    unitaries: Matrix

    @cached_property
    def lookup(self) -> tuple[Keys, NDArray[np.int64]]:
        """Keys of the unitaries in order, and a shortest circuit of each."""
        return _lookup(self.unitaries)


def _lookup(matrices: Matrix) -> tuple[Keys, NDArray[np.int64]]:
    """Return the keys of matrices in order, and the first matrix of each."""
    keys, first = np.unique(matrix_keys(matrices), return_index=True)
    return keys, first


@lru_cache(maxsize=64)
def _short_circuits(instructions: tuple[int, ...], table: InstructionTable) -> _ShortCircuits:
    """Return circuits of few gates of some instructions: for each unitary that they make, a shortest one."""
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
