"""Simplification of circuits with angles, up to a global phase: rotations about one axis add up, and zero angles go.

Data generation and searches use it for pools that `peephole` cannot tabulate. Unlike there, a rule must hold for all
angles.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import SOME_ANGLES
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable
from quantum_diffusion.circuits.normal_form import layer_order
from quantum_diffusion.circuits.simulate import unitaries

ZERO = 1e-9
"""Smaller angles, in radians, do nothing: they change the infidelity by less than float64 resolves."""

_COMMUTES = 1e-9


def merge_rotations(ids: Ids, angles: Angles, table: InstructionTable, zero: float = ZERO) -> tuple[Ids, Angles]:
    """Merge each gate with an earlier one that it reaches past gates it commutes with, until nothing merges.

    Two gates of one angle on the same qubits become one, whose angle is the sum; inverse gates without angles and gates
    whose angles are all zero vanish.

    Args:
        ids: int16 [N, T], with any angles.
        angles: float64 [N, T, A].
        table: The instructions the ids number.
        zero: Angles below this, in radians, do nothing.

    Returns:
        Ids with the nearest angles on the grid, and angles in [0, period); gates at the start of each circuit in the
        order of `normal_form`, zeros at the end.
    """
    result, exact = table.first[ids], angles.copy()
    rows = np.arange(len(ids))
    while len(rows):
        part, of_part = result[rows], exact[rows]
        before = np.count_nonzero(part, axis=1)
        _merge_once(part, of_part, table, zero)
        order = layer_order(part, table)
        result[rows] = np.take_along_axis(part, order, axis=1)
        exact[rows] = np.take_along_axis(of_part, order[:, :, None], axis=1)
        rows = rows[np.count_nonzero(part, axis=1) < before]
    _reduce(result, exact, table, zero)
    return table.on_grid(result, exact), exact


def _merge_once(ids: Ids, angles: Angles, table: InstructionTable, zero: float) -> None:
    """Merge gates of ids [N, T], whose angles are all zero, in one pass, in place."""
    _reduce(ids, angles, table, zero)
    relations = _relations(table)
    for step in range(1, ids.shape[1]):
        rows = np.flatnonzero(ids[:, step])
        for earlier in range(step - 1, -1, -1):
            here, there = ids[rows, step], ids[rows, earlier]
            adds = relations.same[there, here] & (table.num_angles[here] == 1)
            cancels = relations.cancels[there, here]
            angles[rows[adds], earlier] += angles[rows[adds], step]
            ids[rows[cancels], earlier] = NO_GATE
            ids[rows[adds | cancels], step] = NO_GATE
            rows = rows[relations.commutes[there, here] & ~(adds | cancels)]
            if not len(rows):
                break
    _reduce(ids, angles, table, zero)


def _reduce(ids: Ids, angles: Angles, table: InstructionTable, zero: float) -> None:
    """Reduce angles to [0, period) and remove gates whose angles are all zero, in place."""
    period = table.period[ids][..., None]
    angles %= period
    angles[np.minimum(angles, period - angles) < zero] = 0.0
    ids[(table.num_angles[ids] > 0) & (angles == 0).all(axis=2)] = NO_GATE
    angles[np.arange(angles.shape[2]) >= table.num_angles[ids][..., None]] = 0.0


class _Relations:
    """How pairs of instructions relate whatever their angles, each bool [K+1, K+1]; only rows of `first` are set.

    Attributes:
        same: They are the same gate on the same qubits (in any order that does not matter).
        cancels: They have no angles and undo each other up to a global phase.
        commutes: They commute.
    """

    def __init__(self, table: InstructionTable) -> None:
        numbers = np.unique(table.first)
        canonical = table.canonical[table.first]
        self.same = (canonical[:, None] == canonical) & (canonical[:, None] != NO_GATE)
        one, other = (_at_angles(numbers, table, factor) for factor in (1.0, 0.7))
        size = len(table) + 1
        self.commutes = np.ones((size, size), dtype=np.bool_)
        self.cancels = np.zeros((size, size), dtype=np.bool_)
        fixed = table.num_angles[numbers] == 0
        for place, number in enumerate(numbers):
            difference = one[place] @ other - other @ one[place]
            self.commutes[number, numbers] = np.abs(difference).max(axis=(1, 2)) < _COMMUTES
            overlap = np.abs(np.einsum("ij,nji->n", one[place], one)) / one.shape[1]
            self.cancels[number, numbers] = fixed & fixed[place] & (overlap > 1 - _COMMUTES)
        self.cancels[NO_GATE] = self.cancels[:, NO_GATE] = False


def _at_angles(numbers: NDArray[np.int16], table: InstructionTable, factor: float) -> NDArray[np.complex128]:
    """Return the unitaries of instructions at angles at which nothing holds by coincidence, [n, D, D]."""
    angles = np.tile(factor * np.array(SOME_ANGLES[: table.pool.num_angles]), (len(numbers), 1, 1))
    return unitaries(numbers[:, None], table, angles)


@lru_cache(maxsize=64)
def _relations(table: InstructionTable) -> _Relations:
    return _Relations(table)
