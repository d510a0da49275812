"""The tables of the peephole optimiser: which gates merge or commute, and the shortest words of short products.

They are made once for a pool and a number of qubits; `peephole` looks decisions up in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Ids,
    InstructionTable,
    instruction_table,
)
from quantum_diffusion.circuits.simulate import Complex, unitaries

MAX_QUBITS_FOR_TRIPLES = 12
"""The number of windows on three qubits grows with the cube of the number of qubits."""

MAX_WIDTH = 3  # qubits of a window
_MAX_STATES = 10_000  # of an automaton; int16 holds them
_MAX_PRODUCTS = 200_000  # tried for an automaton, in less than 0.1 s; more saves only another 1 % of gates
_MAX_LOCAL = 62  # the instructions of a window are bits of an int64
_CHUNK = 2048  # states whose successors are found at once
STOP, PASS = -1, -2  # a gate meets another that it can neither merge with nor pass; one that it can pass
_TOLERANCE = 1e-9  # float64 leaves about 1e-15

_Index = NDArray[np.int64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Automaton:
    """Products of a pool's L instructions on a few qubits: S states, of which 0 is the identity.

    Attributes:
        step: int16 [S, L], the state after one more instruction, -1 if the product is not in the table.
        length: int16 [S], length of the shortest word for a state.
        words: int8 [S, longest + 1], that word, padded with -1.
        word_groups: bool [S, groups], the sets of two or more qubits that a word's instructions act on.
    """

    step: NDArray[np.int16]
    length: NDArray[np.int16]
    words: NDArray[np.int8]
    word_groups: _Flags

    def word_gate(self, state: _Index, rank: _Index) -> NDArray[np.int8]:
        """Return gate number `rank` of each state's word, -1 past its end."""
        return np.asarray(self.words[state, np.minimum(rank, self.words.shape[1] - 1)])

    def follow(self, root: _Index, local: _Index, first: _Index, end: _Index) -> _Index:
        """Return the state after instructions first..end - 1 of the list `local`, -1 if it is not in the table."""
        state = root.copy()
        for offset in range(int((end - first).max(initial=0))):
            going = np.flatnonzero((first + offset < end) & (state >= 0))
            state[going] = self.step[state[going], local[first[going] + offset]]
        return state


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """A few qubits, and how the instructions relate to them.

    Attributes:
        qubits: int64, the qubits in ascending order.
        pairs: int64, their pairs as columns of `Rules.joins`.
        ids: int16 [L + 1], the instructions inside by local number; the last, number -1, is NO_GATE.
        local: int64 [K+1], the local number of an instruction inside, else -1.
        clash: int64 [K+1], for an instruction not inside, the local ones it does not commute with, as bits.
        matters: bool [K+1], whether an instruction is inside or clashes.
        groups: bool [K+1, groups], the set of two or more of the qubits that an instruction inside acts on.
        automata: For circuits read forwards and backwards.
        roots: int64 [K+1], for circuits read forwards and backwards: the state of the identity, in which a stretch with
            an instruction starts; 0 unless the automata join those of several pools.
    """

    qubits: _Index
    pairs: _Index
    ids: Ids
    local: _Index
    clash: _Index
    matters: _Flags
    groups: _Flags
    automata: tuple[Automaton, Automaton]
    roots: tuple[_Index, _Index]


@dataclass(frozen=True, eq=False, slots=True)
class Rules:
    """The lookup tables of the passes.

    Attributes:
        meeting: int16 [K+1, K+1], for circuits read forwards and backwards: the product of a gate (row) and a later one
            (column) if it is one gate or NO_GATE, else `PASS` if they commute and `STOP` if not.
        uses_qubit: bool [K+1, Q].
        joins: bool [K+1, pairs], whether an instruction acts on both qubits.
        windows: In order of size, smallest first.
    """

    meeting: tuple[NDArray[np.int16], NDArray[np.int16]]
    uses_qubit: _Flags
    joins: _Flags
    windows: tuple[Window, ...]


@lru_cache(maxsize=64)
def rules_of(pool: GatePool, num_qubits: int) -> Rules:
    """Return the (cached) rules for circuits of a pool."""
    table = instruction_table(pool, num_qubits)
    number = {instruction: row for row, instruction in enumerate(table.instructions, start=1)}
    commutes = _commutes(table)
    meeting = np.where(commutes, np.int16(PASS), np.int16(STOP))
    pairs = list(itertools.combinations(range(num_qubits), 2))
    windows = []
    for width in range(1, min(num_qubits, MAX_WIDTH) + 1):
        local_table = _local_table(pool, width)
        if local_table is None:
            continue
        searched = len(local_table) <= _MAX_LOCAL and (width < 3 or num_qubits <= MAX_QUBITS_FOR_TRIPLES)
        automata = (
            (_automaton(local_table.pool, width, False), _automaton(local_table.pool, width, True))
            if searched
            else None
        )
        products = _products(local_table)
        for qubits in itertools.combinations(range(num_qubits), width):
            moved = [number[_moved(instruction, dict(enumerate(qubits)))] for instruction in local_table.instructions]
            ids = np.array([*moved, NO_GATE], dtype=np.int16)
            both = np.ix_(ids[:-1], ids[:-1])
            meeting[both] = np.where(products >= 0, ids[products], meeting[both])
            if automata is not None:
                columns = [pairs.index(pair) for pair in itertools.combinations(qubits, 2)]
                windows.append(_window(qubits, columns, ids, commutes, _groups(local_table), automata))
    joins = table.uses_qubit[:, np.array(pairs, dtype=np.int64).reshape(-1, 2)].all(axis=2)
    return Rules((meeting, np.ascontiguousarray(meeting.T)), table.uses_qubit, joins, tuple(windows))


def _window(
    qubits: tuple[int, ...],
    pairs: list[int],
    ids: Ids,
    commutes: _Flags,
    local_groups: _Flags,
    automata: tuple[Automaton, Automaton],
) -> Window:
    inside = ids[:-1]
    local = np.full(len(commutes), -1)
    local[inside] = np.arange(len(inside))
    clash = np.where(local < 0, ~commutes[:, inside] @ (1 << np.arange(len(inside))), 0)
    matters = (local >= 0) | (clash != 0)
    groups = np.zeros((len(commutes), local_groups.shape[1]), dtype=np.bool_)
    groups[inside] = local_groups
    root = np.zeros_like(local)
    columns = np.array(pairs, dtype=np.int64)
    return Window(np.array(qubits), columns, ids, local, clash, matters, groups, automata, (root, root))


def _local_table(pool: GatePool, width: int) -> InstructionTable | None:
    """Return the table of the pool's gates that fit `width` qubits; None if there are none."""
    names = [gate.name for gate in pool if gate.num_qubits <= width]
    return instruction_table(GatePool(names), width) if names else None


def _moved(instruction: Instruction, qubits: Mapping[int, int]) -> Instruction:
    controls, targets = (tuple(qubits[q] for q in part) for part in (instruction.controls, instruction.targets))
    return Instruction(instruction.gate, controls, targets)


def _matrices(table: InstructionTable) -> Complex:
    """Return the unitary of each instruction, complex128 [K, D, D]."""
    return unitaries(np.arange(1, len(table) + 1, dtype=np.int16)[:, None], table)


def _commutes(table: InstructionTable) -> _Flags:
    """Return which instructions commute, bool [K+1, K+1].

    This depends only on the two gates and the operands they share, so each such pattern is tested once, by matrices.
    """
    operands, gate = table.operands, table.gate_index.astype(np.int32) + 1
    widest = max(gate.num_qubits for gate in table.pool)
    shared = np.zeros((len(operands), len(operands)), dtype=np.int32)
    for a, b in itertools.product(range(widest), repeat=2):
        shared = 2 * shared + ((operands[:, None, a] == operands[:, b]) & (operands[:, None, a] >= 0))
    num_gates = len(table.pool) + 1
    pattern = np.where(shared != 0, (shared * num_gates + gate[:, None]) * num_gates + gate, 0)

    example = np.full(int(pattern.max()) + 1, -1)  # one pair of instructions for each pattern
    example[pattern] = np.arange(pattern.size).reshape(pattern.shape)
    small = instruction_table(table.pool, min(table.num_qubits, 2 * widest - 1))
    number = {instruction: row for row, instruction in enumerate(small.instructions)}
    matrices = _matrices(small)
    commutes = np.ones(len(example), dtype=np.bool_)  # pattern 0: no shared operands
    for code in np.flatnonzero(example >= 0)[1:]:
        pair = [table.instructions[row - 1] for row in divmod(int(example[code]), len(operands))]
        qubits = {qubit: q for q, qubit in enumerate(sorted({*pair[0].qubits, *pair[1].qubits}))}
        first, second = (matrices[number[_moved(instruction, qubits)]] for instruction in pair)
        commutes[code] = np.abs(first @ second - second @ first).max() < _TOLERANCE
    return np.asarray(commutes[pattern])


def _products(table: InstructionTable) -> _Index:
    """Return the number of the instruction equal to the product of two, the first (row) and the next (column); [K, K].

    Numbers start at 0; K is the identity. -1 means none, or one on a set of qubits that neither of the two acts on.
    """
    matrices, groups = _matrices(table), _groups(table)
    together = matrices @ matrices[:, None]  # [K, K, D, D]
    result = np.full(together.shape[:2], -1)
    result[_equal(together, np.eye(matrices.shape[1]))] = len(table)
    for number in reversed(range(len(table))):  # the first of several equal ones wins
        may_act = ~groups[number].any() | (groups @ groups[number])
        result[_equal(together, matrices[number]) & (may_act[:, None] | may_act)] = number
    return result


def _groups(table: InstructionTable) -> _Flags:
    """Return which set of two or more qubits each instruction acts on, bool [K, sets]."""
    qubits = range(table.num_qubits)
    groups = [set(group) for size in qubits[1:] for group in itertools.combinations(qubits, size + 1)]
    rows = [[set(instruction.qubits) == group for group in groups] for instruction in table.instructions]
    return np.array(rows, dtype=np.bool_).reshape(len(table), len(groups))


def _equal(matrices: Complex, matrix: Complex | NDArray[np.float64]) -> _Flags:
    return np.asarray(np.abs(matrices - matrix).max(axis=(-2, -1)) < _TOLERANCE)


@lru_cache(maxsize=192)
def _automaton(pool: GatePool, width: int, backwards: bool) -> Automaton:
    """Enumerate the products of the pool's gates on `width` qubits, fewest gates first.

    A circuit read backwards is the transposed circuit, made of transposed gates. Products are compared by one matrix
    element in each of two random bases: if both agree to five digits, the unitaries are the same.
    """
    table = _local_table(pool, width)
    assert table is not None
    gates = _matrices(table)
    if backwards:
        transposed = gates.swapaxes(1, 2)
        if np.array_equal(gates, transposed):
            return _automaton(pool, width, False)
        gates = transposed
    count, size = gates.shape[:2]
    limit = min(_MAX_STATES, _MAX_PRODUCTS // count)

    rng = np.random.default_rng(0)
    images, probes = rng.normal(size=(2, 2, 1, 2 * size)).view(np.complex128)  # of the states, [2, S, D]; [2, 1, D]
    probed_gates = np.einsum("kpi,gij->kjg", probes, gates)  # numbers all products without computing their images
    multipliers = rng.integers(-(2**62), 2**62, (2, 2))
    keys = _keys((images @ probes.swapaxes(1, 2))[:, :, 0], multipliers)  # of the states, [S]
    parent, last = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    product_keys: list[_Index] = []
    done = 0
    while done < len(keys):
        found = _keys((images[:, done : done + _CHUNK] @ probed_gates).reshape(2, -1), multipliers)
        product_keys.append(found)
        if len(keys) < limit:
            different, where = np.unique(found, return_index=True)
            new = np.sort(where[~np.isin(different, keys)])[: limit - len(keys)]
            keys = np.append(keys, found[new])
            parent, last = np.append(parent, done + new // count), np.append(last, new % count)
            before, factors = images[:, done + new // count, :, None], gates[new % count]
            images = np.concatenate([images, (factors @ before)[..., 0]], axis=1)
        done += len(found) // count

    order, wanted = np.argsort(keys), np.concatenate(product_keys)
    known = keys[order]
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    step = np.where(known[place] == wanted, order[place], -1).reshape(-1, count)
    length, words = _words(parent, last)
    groups = _groups(table)
    word_groups = np.append(groups, np.zeros_like(groups[:1]), axis=0)[words]  # [S, longest + 1, groups]
    return Automaton(step.astype(np.int16), length, words, np.asarray(word_groups.any(axis=1)))


def _keys(elements: Complex, multipliers: _Index) -> _Index:
    """Return a hash of each column of matrix elements [2, M] that ignores rounding, int64 [M]."""
    numbers = np.rint(elements.view(np.float64) * 1e5).astype(np.int64).reshape(*elements.shape, 2)
    keys: _Index = np.einsum("kmc,kc->m", numbers, multipliers)
    return keys


def _words(parent: _Index, last: _Index) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return the lengths [S] of words and the words [S, longest + 1], given each one's parent and last gate."""
    lengths = [0]
    for state in parent[1:].tolist():  # a parent has a smaller number
        lengths.append(lengths[state] + 1)
    length = np.array(lengths, dtype=np.int16)
    words = np.full((len(length), length.max() + 1), -1, dtype=np.int8)
    for position in range(length.max()):
        states = np.flatnonzero(length == position + 1)
        words[states] = words[parent[states]]
        words[states, position] = last[states]
    return length, words
