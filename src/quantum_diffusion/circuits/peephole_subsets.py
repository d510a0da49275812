"""Peephole optimisation of circuits that each keep to a subset of a pool's gates, for several subsets at once.

Data generation uses it. Most of a pass over a few thousand circuits is the overhead of numpy, so the tables of several
subsets are joined: the instructions of each are numbered after those of the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable, in_pool, instruction_table
from quantum_diffusion.circuits.peephole import MAX_INSTRUCTIONS, apply_rules
from quantum_diffusion.circuits.peephole_tables import MAX_WIDTH, PASS, Automaton, Rules, Window, rules_of
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours

_SUBSETS_AT_ONCE = 8
"""With more, the joint tables leave the processor's cache."""


def optimize_subsets(ids: Ids, gates: NDArray[np.uint32], table: InstructionTable) -> Ids:
    """Rewrite circuits with fewer gates, each with gates of its own subset, as `optimize` does for its pool.

    Args:
        ids: int16 [N, T].
        gates: uint32 [N]; bit k allows gate k of the table's pool.
        table: The instructions the ids number.

    Returns:
        int16 [N, T]; see `optimize`.
    """
    if len(table) > MAX_INSTRUCTIONS:
        return cancel_inverse_neighbours(ids, table)
    result = ids.copy()
    groups = gates // np.clip(MAX_INSTRUCTIONS // len(table), 1, _SUBSETS_AT_ONCE)  # the same ones in every shard
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        some = np.unique(gates[rows])
        joint = _joint_tables(tuple(some.tolist()), table)
        numbers = joint.numbers[np.searchsorted(some, gates[rows])[:, None], ids[rows]]
        result[rows] = joint.ids[apply_rules(numbers, joint.rules)]
    return result


@dataclass(frozen=True, eq=False, slots=True)
class _JointTables:
    """The rules of several subsets of a pool.

    Attributes:
        rules: Their rules, for joint numbers.
        numbers: int16 [subsets, K+1], the joint number of an instruction in each subset.
        ids: int16 [J+1], the instruction of each joint number.
    """

    rules: Rules
    numbers: Ids
    ids: Ids


@lru_cache(maxsize=16)
def _joint_tables(subsets: tuple[int, ...], table: InstructionTable) -> _JointTables:
    names = table.pool.names
    pools = [GatePool([name for k, name in enumerate(names) if subset >> k & 1]) for subset in subsets]
    places = [in_pool(instruction_table(pool, table.num_qubits), table.pool)[1:] for pool in pools]
    starts = np.cumsum([1, *map(len, places)])
    numbers = np.zeros((len(pools), len(table) + 1), dtype=np.int16)
    for row, place, start in zip(numbers, places, starts, strict=False):
        row[place] = start + np.arange(len(place))
    ids = np.concatenate([[NO_GATE], *places]).astype(np.int16)
    return _JointTables(_joint_rules([rules_of(pool, table.num_qubits) for pool in pools], starts), numbers, ids)


def _joint_rules(parts: Sequence[Rules], starts: NDArray[np.int64]) -> Rules:
    """Join rules; the instructions of part p are numbered from starts[p], and starts[-1] is the size of the tables."""
    spans = [slice(start, end) for start, end in itertools.pairwise(starts.tolist())]
    meeting = np.full((starts[-1], starts[-1]), PASS, dtype=np.int16)
    for part, span in zip(parts, spans, strict=True):
        own = part.meeting[0][1:, 1:]
        meeting[span, span] = np.where(own > 0, own + (span.start - 1), own)
    windows = []
    for width in range(1, MAX_WIDTH + 1):
        found = [[window for window in part.windows if len(window.qubits) == width] for part in parts]
        present = [(span, own) for span, own in zip(spans, found, strict=True) if own]  # not every one has narrow gates
        if present:
            present_spans, present_windows = zip(*present, strict=True)
            automata = [_joint_automaton([own[0].automata[turn] for own in present_windows]) for turn in (0, 1)]
            for some in zip(*present_windows, strict=True):  # on the same qubits
                windows.append(_joint_window(some, present_spans, (automata[0], automata[1]), starts[-1]))
    uses_qubit, joins = (
        np.concatenate([tables[0][:1], *(own[1:] for own in tables)])
        for tables in ([part.uses_qubit for part in parts], [part.joins for part in parts])
    )
    return Rules((meeting, np.ascontiguousarray(meeting.T)), uses_qubit, joins, tuple(windows))


def _joint_window(
    parts: Sequence[Window], spans: Sequence[slice], automata: tuple[Automaton, Automaton], size: int
) -> Window:
    """Join windows on the same qubits, given the span of each part in tables of some size, and the joint automata."""
    local, clash = np.full(size, -1), np.zeros(size, dtype=np.int64)
    matters, groups = np.zeros(size, dtype=np.bool_), np.zeros((size, parts[0].groups.shape[1]), dtype=np.bool_)
    roots = np.zeros((2, size), dtype=np.int64)
    next_root = np.zeros(2, dtype=np.int64)
    ids = []
    for part, span in zip(parts, spans, strict=True):
        local[span], clash[span] = part.local[1:], part.clash[1:]
        matters[span], groups[span] = part.matters[1:], part.groups[1:]
        roots[:, span] = next_root[:, None]
        next_root += [len(automaton.step) for automaton in part.automata]
        ids.append(part.ids[:-1] + (span.start - 1))
    joint_ids = np.concatenate([*ids, [NO_GATE]]).astype(np.int16)
    first = parts[0]
    return Window(first.qubits, first.pairs, joint_ids, local, clash, matters, groups, automata, (roots[0], roots[1]))


def _joint_automaton(parts: Sequence[Automaton]) -> Automaton:
    """Join automata: states and the instructions in words are numbered part by part, those of `step` are not."""
    states = np.cumsum([0, *(len(part.step) for part in parts)])
    instructions = np.cumsum([0, *(part.step.shape[1] for part in parts)])
    step = np.full((states[-1], max(part.step.shape[1] for part in parts)), -1, dtype=np.int32)
    words = np.full((states[-1], max(part.words.shape[1] for part in parts)), -1, dtype=np.int16)
    for part, state, instruction in zip(parts, states, instructions, strict=False):
        rows = slice(state, state + len(part.step))
        step[rows, : part.step.shape[1]] = np.where(part.step < 0, -1, part.step + state)
        words[rows, : part.words.shape[1]] = np.where(part.words < 0, -1, part.words + instruction)
    length = np.concatenate([part.length for part in parts])
    return Automaton(step, length, words, np.concatenate([part.word_groups for part in parts]))
