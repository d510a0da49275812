"""Frequent pairs of gates against counting by hand: every renaming of the qubits tried, merges made one by one."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest

from quantum_diffusion.circuits import pairs
from quantum_diffusion.circuits.circuit import Instruction
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.pairs import FrequentPairs, frequent_pairs
from quantum_diffusion.circuits.random import random_ids

CASES = [("h cx", 3), ("h cx z x ccx swap", 3), ("cz cswap t", 4), ("cx", 2), ("h", 1), ("ccx cswap cz cy h", 5)]

Sides = tuple[tuple[str, frozenset[int], frozenset[int]], ...]


def sides(pair: tuple[Instruction, Instruction], letters: dict[int, int]) -> Sides:
    """What a pair is with other names of its qubits; the qubits of cz are all alike."""
    return tuple(
        (one.gate, frozenset(), frozenset(letters[q] for q in one.qubits))
        if GATES[one.gate].is_symmetric
        else (one.gate, frozenset(letters[q] for q in one.controls), frozenset(letters[q] for q in one.targets))
        for one in pair
    )


def read(name: str) -> tuple[Instruction, Instruction]:
    """The pair that a name stands for, on qubits 0 to 25."""
    found = []
    for part in name.split(", "):
        gate, *letters = part.split()
        qubits = tuple(map("abcdefghijklmnopqrstuvwxyz".index, letters))
        number = GATES[gate].num_controls
        found.append(Instruction(gate, qubits[:number], qubits[number:]))
    return found[0], found[1]


def is_alike(one: tuple[Instruction, Instruction], other: tuple[Instruction, Instruction]) -> bool:
    """Whether some renaming of the qubits makes two pairs the same."""
    qubits = [sorted({q for instruction in pair for q in instruction.qubits}) for pair in (one, other)]
    if len(qubits[0]) != len(qubits[1]):
        return False
    plain = sides(other, {q: q for q in qubits[1]})
    return any(
        sides(one, dict(zip(qubits[0], names, strict=True))) == plain for names in itertools.permutations(qubits[1])
    )


def by_hand(ids: Ids, table: InstructionTable, most: int) -> FrequentPairs:
    circuits = [[table.instructions[number - 1] for number in row if number] for row in ids.tolist()]
    known: list[tuple[Instruction, Instruction]] = []

    def kind(pair: tuple[Instruction, Instruction]) -> int | None:
        if not {*pair[0].qubits} & {*pair[1].qubits}:
            return None
        for number, seen in enumerate(known):
            if is_alike(pair, seen):
                return number
        known.append(pair)
        return len(known) - 1

    kinds = [[kind(pair) for pair in itertools.pairwise(circuit)] for circuit in circuits]
    counts = Counter(number for row in kinds for number in row if number is not None)
    names = {
        number: one.name
        for one in frequent_pairs(ids, table, 10**6).pairs
        for number in counts
        if is_alike(read(one.name), known[number])
    }
    assert len(names) == len(counts), "every kind has a name of its own"
    assert len({*names.values()}) == len(names)
    chosen = sorted(counts, key=lambda number: (-counts[number], names[number]))[:most]
    length = 0
    for row, circuit in zip(kinds, circuits, strict=True):
        used: set[int] = set()
        merges = 0
        for number in chosen:
            for place, found in enumerate(row):
                if found == number and not used & {place, place + 1}:
                    used |= {place, place + 1}
                    merges += 1
        length += len(circuit) - merges
    return FrequentPairs(
        tuple(pairs.GatePair(names[number], counts[number], sum(number in row for row in kinds)) for number in chosen),
        len(circuits),
        sum(map(len, circuits)) / len(circuits),
        length / len(circuits),
    )


@pytest.mark.parametrize(("gates", "num_qubits"), CASES)
@pytest.mark.parametrize("most", [1, 4])
def test_pairs_are_those_counted_by_hand(
    gates: str, num_qubits: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = instruction_table(GatePool(gates.split()), num_qubits)
    ids = random_ids(np.random.default_rng(0), table, 60, 0, 9)
    ids[::3, 2] = 0  # steps without a gate separate nothing
    found, expected = frequent_pairs(ids, table, most), by_hand(ids, table, most)
    assert found.pairs == expected.pairs
    assert found.num_circuits == expected.num_circuits
    assert found.mean_length == pytest.approx(expected.mean_length)
    assert found.merged_length == pytest.approx(expected.merged_length)
    monkeypatch.setattr(pairs, "_MOST_CODES", 0)
    assert frequent_pairs(ids, table, most) == found, "however they are counted"


def test_runs_are_merged_two_by_two() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    found = frequent_pairs(np.array([[1, 1, 1, 1, 1], [2, 2, 0, 0, 0]], dtype=np.int16), table)
    assert [(pair.name, pair.count, pair.circuits) for pair in found.pairs] == [("h a, h a", 5, 2)]
    assert (found.mean_length, found.merged_length) == (3.5, 2.0)
    alone = frequent_pairs(np.array([[1, 1, 1, 1, 1]], dtype=np.int16), table)
    assert (alone.mean_length, alone.merged_length) == (5.0, 3.0)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (4, 1), (2, 6)])
def test_circuits_without_pairs(shape: tuple[int, int]) -> None:
    table = instruction_table(GatePool(["h"]), 1)
    found = frequent_pairs(np.zeros(shape, dtype=np.int16), table)
    assert found == FrequentPairs((), shape[0], 0.0, 0.0)


def test_a_sample_takes_less_than_two_seconds() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 8)
    ids = random_ids(np.random.default_rng(0), table, 2**16, 2, 24)
    started = time.process_time()
    frequent_pairs(ids, table)
    assert time.process_time() - started < 2
