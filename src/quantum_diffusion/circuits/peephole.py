"""Peephole optimisation: fewer gates of the same pool for exactly the same unitary, global phase included.

Stronger than `simplify`, yet fast enough for data generation: all decisions are precomputed in tables for a pool and a
number of qubits, and numpy looks them up for thousands of circuits at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable, compact, gate_count
from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.circuits.peephole_tables import PASS, Rules, Window, rules_of
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours

MAX_INSTRUCTIONS = 4096
"""The tables hold every pair of instructions: 80 MB for 4096 of them."""

_BLOCK = 16_384  # circuits at once: with fewer numpy's overhead dominates, more do not fit the cache

_Index = NDArray[np.int64]
_Flags = NDArray[np.bool_]


def optimize(ids: Ids, table: InstructionTable) -> Ids:
    """Rewrite circuits with fewer gates until no rule applies.

    There are two rules. First, a gate merges with an earlier one, past gates it commutes with, if their product is the
    identity or a single gate. Second, gates on the same one, two or three qubits that can be brought together are
    replaced by the shortest word for their product that the tables hold. A new multi-qubit gate is only placed on
    qubits on which the replaced gates had one, so that couplings stay respected.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number. With more than `MAX_INSTRUCTIONS`, only inverse neighbours are
            cancelled; with more than `MAX_QUBITS_FOR_TRIPLES` qubits, only windows of one and two qubits are searched.
            For pools with angles see `merge_rotations`.

    Returns:
        int16 [N, T], gates at the start of each circuit, zeros at the end; never more gates than before. The result for
        a circuit does not depend on the others, and optimizing it again changes nothing.
    """
    if table.pool.num_angles:
        return merge_rotations(ids, table.angles[ids], table)[0]
    if len(table) > MAX_INSTRUCTIONS:
        return cancel_inverse_neighbours(ids, table)
    return apply_rules(ids, rules_of(table.pool, table.num_qubits))


# ------------------------------------------------------------------------------------------------- passes


def apply_rules(ids: Ids, rules: Rules) -> Ids:
    """Apply rules to circuits until none applies; see `optimize`."""
    joined = ids.copy()
    _join_gates(joined, rules.meeting[0], rules.uses_qubit)
    joined = compact(joined)
    # Nearly a third of random circuits are the same once their gates are joined; of few gates, nearly all are.
    _, first, which = np.unique(row_keys(joined), return_index=True, return_inverse=True)
    result = joined[first]
    counts = gate_count(result)
    by_length = np.argsort(counts, kind="stable")  # blocks of similar length have few empty time steps
    for start in range(0, len(result), _BLOCK):
        rows = by_length[start : start + _BLOCK]
        num_steps = counts[rows[-1]]
        result[rows, :num_steps] = _optimize_block(result[rows, :num_steps], rules)
    return np.asarray(result[which])


def _optimize_block(ids: Ids, rules: Rules) -> Ids:
    """Apply the rules, reading forwards and backwards in turn, until neither changes a circuit; [N, T] in and out.

    The gates of ids must have been joined, reading forwards. Windows are searched greedily from the front, so reading
    backwards finds others.
    """
    result = ids.copy()
    rows = np.arange(len(ids))
    idle = np.zeros(len(ids), dtype=np.int64)  # turns since the last change
    changed = np.zeros((len(ids), rules.uses_qubit.shape[1]), dtype=np.int64)  # when, for each qubit
    searched = np.full((2, len(rules.windows)), -1)  # when, for each window
    clock = itertools.count()
    for turn in itertools.cycle((0, 1)):
        if not len(rows):
            break
        onward, back = (slice(None, None, direction) for direction in ((-1, 1) if turn else (1, -1)))
        block = np.ascontiguousarray(result[rows][:, onward])
        before = gate_count(block)
        joined = _joined_pairs(block, rules.joins)
        for number, window in enumerate(rules.windows):
            # The qubits must be joined by gates, and a repeated search only pays off where something has changed.
            promising = np.count_nonzero(joined[:, window.pairs], axis=1) >= len(window.qubits) - 1
            promising &= (changed[:, window.qubits] >= searched[turn, number]).any(axis=1)
            now = next(clock)
            searched[turn, number] = now
            shortened = _shorten_windows(block, np.flatnonzero(promising), window, turn)
            changed[shortened[:, None], window.qubits] = now
        block = np.ascontiguousarray(block[:, ::-1])
        changed[_join_gates(block, rules.meeting[1 - turn], rules.uses_qubit)] = next(clock)
        result[rows] = compact(block[:, back])
        idle = np.where(gate_count(block) < before, 0, idle + 1)
        kept = idle < 2
        rows, idle, changed = rows[kept], idle[kept], changed[kept]
    return result


def _join_gates(ids: Ids, meeting: NDArray[np.int16], uses_qubit: _Flags) -> _Flags:
    """Move each gate of ids [N, T] back to one it can merge with, in place; return the changed qubits, bool [N, Q]."""
    changed = np.zeros((len(ids), uses_qubit.shape[1]), dtype=np.bool_)
    steps = np.ascontiguousarray(ids.T)
    for step in range(1, len(steps)):
        rows = np.flatnonzero(steps[step])
        walking = steps[step, rows].astype(np.int64)
        for earlier in range(step - 1, -1, -1):
            met = meeting.take(steps[earlier].take(rows).astype(np.int64) * len(meeting) + walking)
            joins = np.flatnonzero(met >= 0)
            if len(joins):
                joining = rows[joins]
                changed[joining] |= uses_qubit[walking[joins]] | uses_qubit[steps[earlier, joining]]
                steps[earlier, joining] = met[joins]
                steps[step, joining] = NO_GATE
            going = np.flatnonzero(met == PASS)
            if not len(going):
                break
            rows, walking = rows[going], walking[going]
    ids[:] = steps.T
    return changed


def _joined_pairs(ids: Ids, joins: _Flags) -> _Flags:
    """Return which pairs of qubits share a gate, bool [N, pairs], for ids [N, T]."""
    joined = np.zeros((len(ids), joins.shape[1]), dtype=np.bool_)
    for step in range(ids.shape[1]):
        joined |= joins[ids[:, step]]
    return joined


def _shorten_windows(ids: Ids, rows: _Index, window: Window, turn: int) -> _Index:
    """Shorten some rows of ids [N, T] on a window's qubits, in place; return the rows that changed.

    In turn 1, circuits are read backwards.
    """
    block = ids[rows]
    stream = _stream(block, window)
    if stream is None:
        return rows[:0]
    first, end, state, place = _scan(stream, window, turn)
    if not len(first):
        return rows[:0]

    sizes = end - first
    stretch = np.repeat(np.arange(len(first)), sizes)
    rank = np.arange(len(stretch)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    gates = first[stretch] + rank
    columns = stream.column[gates]
    changed, at = np.unique(stream.row[gates], return_inverse=True)
    replaced = block[changed]
    replaced[at, columns] = window.ids[window.automata[turn].word_gate(state[stretch], rank)]
    # All gates keep their order, except that those of a stretch are brought together.
    keys = np.tile(2 * np.arange(ids.shape[1]), (len(changed), 1))
    keys[at, columns] = place[stretch]
    ids[rows[changed]] = np.take_along_axis(replaced, np.argsort(keys, axis=1, kind="stable"), axis=1)
    return np.asarray(rows[changed])


@dataclass(frozen=True, eq=False, slots=True)
class _Stream:
    """The gates inside a window's qubits, circuit after circuit, in one list of G gates.

    Attributes:
        row: int64 [G], the circuit.
        column: int64 [G], the time step.
        gate: int16 [G], the instruction.
        local: int64 [G], the instruction, numbered within the window.
        between: int64 [G], the local instructions, as bits, that do not commute with all gates between the previous
            gate and this one.
        edge: int64 [G], the time step of the first gate between them, if there is any.
    """

    row: _Index
    column: _Index
    gate: Ids
    local: _Index
    between: _Index
    edge: _Index


def _stream(ids: Ids, window: Window) -> _Stream | None:
    """List the gates of ids [N, T] inside the window; None if there are none."""
    num_steps = ids.shape[1]
    places = np.flatnonzero(window.matters[ids])
    gates = ids.ravel()[places]
    local = window.local[gates]
    inside = np.flatnonzero(local >= 0)
    if not len(inside):
        return None
    # For a circuit's first gate these belong to another circuit; harmless, as no stretch is open then.
    between = np.roll(np.bitwise_or.reduceat(window.clash[gates], inside), 1)
    edge = np.append(places, 0)[np.roll(inside, 1) + 1] % num_steps
    row, column = np.divmod(places[inside], num_steps)
    return _Stream(row, column, gates[inside], local[inside], between, edge)


def _scan(stream: _Stream, window: Window, turn: int) -> tuple[_Index, _Index, _Index, _Index]:
    """Find stretches of gates that have a shorter word, in all circuits at once.

    A stretch takes the gates of the stream one by one. Gates in between move to its left while they commute with all
    of it; from the first that does not, they stay on its right, and the stretch may only take gates that commute with
    them. It ends before a gate it may not take. If its product leaves the table, it drops its first gate and goes on.

    Returns:
        For each stretch, its first gate and the one after its last (positions in the stream), the state of its product,
        and twice the time step of its new place; int64.
    """
    counts = np.bincount(stream.row)
    starts = np.cumsum(counts) - counts
    longest_first = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts > 1)]  # one gate is no stretch
    counts, starts = counts[longest_first], starts[longest_first]
    longest = counts.max(initial=0)
    num_open = np.searchsorted(-counts, -np.arange(longest))  # circuits with more gates than 0, 1, ...

    automaton = window.automata[turn]
    first, root = starts.copy(), window.roots[turn][stream.gate[starts]]
    state = automaton.step[root, stream.local[starts]].astype(np.int64)
    taken = 1 << stream.local[starts]  # local instructions, as bits
    barred = np.zeros_like(starts)  # local instructions that do not commute with the gates on the right
    border = np.zeros_like(starts)  # the place just before the gates on the right
    found: list[tuple[_Index, ...]] = []

    def close(rows: _Index, end: _Index) -> _Flags:
        shorter: _Flags = automaton.length[state[rows]] < end - first[rows]
        rows, end = rows[shorter], end[shorter]
        place = np.where(barred[rows] == 0, 2 * stream.column[end - 1], border[rows])
        found.append((first[rows], end, state[rows], place))
        return shorter

    for step in range(1, longest):
        here = slice(num_open[step])
        now = starts[here] + step
        local, between = stream.local[now], stream.between[now]
        np.copyto(border[here], 2 * stream.edge[now] - 1, where=barred[here] == 0)
        barred[here] |= np.where((between & taken[here] | barred[here]) != 0, between, 0)
        bit = 1 << local
        after = automaton.step.take(state[here] * automaton.step.shape[1] + local)
        stopped = np.flatnonzero((after < 0) | (barred[here] & bit != 0))
        if len(stopped):
            end = now[stopped]
            done = close(stopped, end) | (barred[stopped] != 0)
            begin = np.where(done, end, first[stopped] + 1)
            onward = automaton.follow(root[stopped], stream.local, begin, end + 1)
            begin = np.where(onward < 0, end, begin)
            after[stopped] = np.where(onward < 0, automaton.step[root[stopped], local[stopped]], onward)
            first[stopped] = begin
            fresh = stopped[begin == end]
            taken[fresh] = barred[fresh] = 0
        state[here] = after
        taken[here] |= bit
    close(np.arange(len(counts)), starts + counts)
    first, end, state, place = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = (automaton.word_groups[state] <= _groups_between(window.groups[stream.gate], first, end)).all(axis=1)
    return first[kept], end[kept], state[kept], place[kept]


def _groups_between(groups: _Flags, first: _Index, end: _Index) -> _Flags:
    """Return which sets of qubits occur in gates first..end - 1 of a list, bool [stretches, sets]."""
    found = np.zeros((len(first), groups.shape[1]), dtype=np.bool_)
    for offset in range(int((end - first).max(initial=0))):
        going = np.flatnonzero(first + offset < end)
        found[going] |= groups[first[going] + offset]
    return found
