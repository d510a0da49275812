"""Enumerates the unitaries or states that short circuits produce, by length, each once up to a global phase.

The exact search and Qiskit's baseline use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import matrix_keys

_AT_ONCE = 2**22
"""Maximum matrix entries computed at once."""


@dataclass(frozen=True, eq=False)
class Reached:
    """The N matrices that circuits of one length produce and shorter ones do not.

    Attributes:
        keys: uint64 [N], sorted; see `matrix_keys`.
        matrices: complex [N, D, R].
        parents: int64 [N], index of the matrix of the previous length that each was made from.
        gates: int64 [N], index of the gate that made it.
    """

    keys: Keys
    matrices: NDArray[np.complexfloating]
    parents: NDArray[np.int64]
    gates: NDArray[np.int64]


def reach(
    start: NDArray[np.complexfloating], gates: NDArray[np.complexfloating], most_entries: int
) -> Iterator[Reached]:
    """Yield the matrices that 0, 1, 2, ... gates make from a start, while there are new ones.

    Args:
        start: complex [D, R].
        gates: complex [K, D, D], multiplied from the left.
        most_entries: Stops before a length whose matrices would have more entries in total.
    """
    nothing = np.zeros(1, dtype=np.int64)
    reached = Reached(matrix_keys(start[None]), start[None], nothing, nothing)
    seen = reached.keys
    while len(reached.keys):
        yield reached
        entries = reached.matrices.size * len(gates)
        if not 0 < entries <= most_entries:
            return
        parts = []
        for rows in np.array_split(np.arange(len(reached.keys)), -(-entries // _AT_ONCE)):
            made = (gates @ reached.matrices[rows, None]).reshape(-1, *start.shape)
            keys, first = np.unique(matrix_keys(made), return_index=True)
            new = ~np.isin(keys, seen)
            first = first[new]
            parts.append(Reached(keys[new], made[first], rows[first // len(gates)], first % len(gates)))
        keys, first = np.unique(np.concatenate([part.keys for part in parts]), return_index=True)
        reached = Reached(
            keys,
            np.concatenate([part.matrices for part in parts])[first],
            np.concatenate([part.parents for part in parts])[first],
            np.concatenate([part.gates for part in parts])[first],
        )
        seen = np.union1d(seen, keys)
