"""Counts frequent pairs of consecutive gates and how much shorter circuits would be with each pair as one gate.

Inspections of data sets report them. A pair is two consecutive instructions that share a qubit, up to relabelling of
the qubits: "h a, cx a b". Byte-pair encoding merges such pairs into gadgets.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact, gate_count

_NOWHERE, _CONTROL, _TARGET = range(3)
_ROLES = 3

_MOST_CODES = 2**22
"""Maximum number of possible instruction pairs to count in a full table; beyond it, those that occur are sorted."""


@dataclass(frozen=True)
class GatePair:
    """Two consecutive gates that share a qubit.

    Attributes:
        name: Both gates with letters for their qubits, controls first: "h a, cx a b".
        count: Number of occurrences, including overlapping ones.
        circuits: Number of circuits in which it occurs.
    """

    name: str
    count: int
    circuits: int


@dataclass(frozen=True)
class FrequentPairs:
    """The most frequent pairs in a set of circuits, and how much merging them would save.

    Attributes:
        pairs: The pairs, the most frequent first.
        num_circuits: Number of circuits examined.
        mean_length: Their mean number of instructions.
        merged_length: The same if each pair counts as one instruction. Occurrences of the most frequent pair are merged
            first, from the beginning of each circuit, then those of the next pair among the remaining instructions.
    """

    pairs: tuple[GatePair, ...]
    num_circuits: int
    mean_length: float
    merged_length: float


def frequent_pairs(ids: Ids, table: InstructionTable, most: int = 10) -> FrequentPairs:
    """Count the pairs of gates in circuits.

    Args:
        ids: int16 [N, T], the circuits.
        table: The instructions that the ids refer to.
        most: Maximum number of pairs to return and to merge.

    Example:
        >>> from quantum_diffusion.circuits.gates import GatePool
        >>> from quantum_diffusion.circuits.instructions import instruction_table
        >>> table = instruction_table(GatePool(["h", "cx"]), 2)  # 1 and 2 are h, 3 and 4 are cx
        >>> frequent_pairs(np.array([[1, 3, 0], [2, 4, 1]]), table, 1).pairs
        (GatePair(name='h a, cx a b', count=2, circuits=2),)
    """
    ids = compact(ids)
    num_circuits, steps = ids.shape
    lengths = gate_count(ids)
    mean_length = float(lengths.mean()) if num_circuits else 0.0
    kinds = np.zeros((num_circuits, max(steps - 1, 0)), dtype=np.int64)
    names: list[str] = [""]  # kind 0 means no pair
    if kinds.size:
        kinds, names = _kinds_of(ids, table)
    counts = np.bincount(kinds.reshape(-1), minlength=len(names))
    counts[0] = 0
    chosen = sorted(np.flatnonzero(counts).tolist(), key=lambda kind: (-counts[kind], names[kind]))[:most]
    pairs = tuple(GatePair(names[kind], int(counts[kind]), int((kinds == kind).any(axis=1).sum())) for kind in chosen)
    saved = sum(int(taken.sum()) for taken in _merged(kinds, chosen))
    return FrequentPairs(pairs, num_circuits, mean_length, mean_length - saved / max(num_circuits, 1))


def _kinds_of(ids: Ids, table: InstructionTable) -> tuple[NDArray[np.int64], list[str]]:
    """Return the kind of pair that starts at each step, int64 [N, T-1], and the name of each kind; see `_kinds`."""
    size = len(table.gate_index)
    codes = ids[:, :-1].astype(np.int64) * size + ids[:, 1:]
    if size**2 > _MOST_CODES:
        distinct, place = np.unique(codes, return_inverse=True)
        kinds, names = _kinds(distinct, table)
        return kinds[place.reshape(codes.shape)], names
    distinct = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=size**2))  # many times faster than sorting
    kind_of = np.zeros(size**2, dtype=np.int64)
    kind_of[distinct], names = _kinds(distinct, table)
    return kind_of[codes], names


def _merged(kinds: NDArray[np.int64], chosen: list[int]) -> list[NDArray[np.bool_]]:
    """Return for each kind where its pairs are merged, bool [N, T-1]; no instruction is merged twice."""
    is_free = np.ones((kinds.shape[1] + 1, len(kinds)), dtype=np.bool_)  # [T, N], so that each step is contiguous
    found = []
    for kind in chosen:
        taken = (kinds == kind).T.copy()
        for step in range(len(taken)):
            taken[step] &= is_free[step] & is_free[step + 1]
            is_free[step : step + 2] &= ~taken[step]
        found.append(taken.T)
    return found


def _kinds(codes: NDArray[np.int64], table: InstructionTable) -> tuple[NDArray[np.int64], list[str]]:
    """Return the kind of each pair of instructions, int64 [P], 0 if they share no qubit, and the name of each kind.

    The order of a gate's controls does not matter, nor that of its targets. So the two gates and the number of qubits
    with each combination of roles determine a pair up to relabelling of the qubits.
    """
    pairs = np.stack(np.divmod(codes, len(table.gate_index)), axis=1)  # [P, 2]
    roles = _roles(table)[pairs]  # [P, 2, Q]
    both = roles[:, 0] * _ROLES + roles[:, 1]
    numbers = np.stack([(both == role).sum(axis=1) for role in range(1, _ROLES**2)], axis=1)
    keys = np.concatenate([table.gate_index[pairs], numbers], axis=1)
    shares = ((roles > _NOWHERE).all(axis=1)).any(axis=1)
    kinds, names = np.zeros(len(codes), dtype=np.int64), [""]
    different, place = np.unique(keys[shares], axis=0, return_inverse=True)
    kinds[shares] = place.reshape(-1) + 1
    for key in different.tolist():
        names.append(_name([table.pool.names[index] for index in key[:2]], key[2:]))
    return kinds, names


def _roles(table: InstructionTable) -> NDArray[np.int64]:
    """Return the role of each qubit in each instruction, [K+1, Q]; symmetric gates have only targets."""
    symmetric = np.array([gate.is_symmetric for gate in table.pool] + [False])  # index -1, "no gate", is the last entry
    is_target = (table.columns > 0) | symmetric[table.gate_index][:, None]
    return np.where(table.uses_qubit, np.where(is_target, _TARGET, _CONTROL), _NOWHERE)


def _name(gates: list[str], numbers: list[int]) -> str:
    """Return the name of a pair; letters go to the qubits by their role in the first gate, then in the second."""
    roles = [divmod(both, _ROLES) for both, number in enumerate(numbers, start=1) for _ in range(number)]
    roles.sort(key=lambda pair: [role or _ROLES for role in pair])
    letters = string.ascii_lowercase[: len(roles)]
    words = []
    for side, gate in enumerate(gates):
        ordered = [
            letter
            for role in (_CONTROL, _TARGET)
            for letter, pair in zip(letters, roles, strict=True)
            if pair[side] == role
        ]
        words.append(" ".join([gate, *ordered]))
    return ", ".join(words)
