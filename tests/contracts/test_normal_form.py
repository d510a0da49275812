"""The normal form: one for all circuits that differ only by order of independent gates and by pairs that cancel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from tests.conftest import WITHOUT_ANGLES

TABLES = [
    instruction_table(GatePool(names), num_qubits)
    for names, num_qubits in ((("h", "cx"), 3), (("h", "cz", "s", "sdg"), 3), (WITHOUT_ANGLES, 4))
]


def disturb(ids: Ids, table: InstructionTable, rng: np.random.Generator) -> Ids:
    """Exchange neighbouring gates on different qubits and insert pairs that cancel; the circuits stay the same."""
    disturbed = []
    for row in ids:
        gates = [int(i) for i in row if i]
        for _ in range(20):
            if len(gates) > 1:
                at = int(rng.integers(len(gates) - 1))
                if not (table.uses_qubit[gates[at]] & table.uses_qubit[gates[at + 1]]).any():
                    gates[at : at + 2] = gates[at + 1], gates[at]
        pairs = [i for i in range(1, len(table) + 1) if table.inverse[i] > 0]
        for first in rng.choice(pairs, 2):
            at = int(rng.integers(len(gates) + 1))
            gates[at:at] = [int(first), int(table.inverse[first])]
        disturbed.append(gates + [0] * (ids.shape[1] + 4 - len(gates)))
    return np.array(disturbed, dtype=np.int16)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(table.pool.names)[:12])
def test_equal_circuits_have_equal_forms_and_the_unitary_stays(table: InstructionTable) -> None:
    rng = np.random.default_rng(0)
    ids = random_ids(rng, table, 500, 0, 10)
    form = normal_form(ids, table)
    other = normal_form(disturb(ids, table, rng), table)
    assert np.array_equal(other[:, : ids.shape[1]], form)
    assert not other[:, ids.shape[1] :].any()
    assert np.array_equal(normal_form(form, table), form)
    assert (gate_count(form) <= gate_count(ids)).all()
    assert np.abs(unitaries(form, table) - unitaries(ids, table)).max() < 1e-12


def test_different_circuits_have_different_forms() -> None:
    """All words of up to four gates on two qubits, against classes found by rewriting one step at a time."""
    table = instruction_table(GatePool(["h", "cx", "cz"]), 2)
    words = [word for length in range(5) for word in itertools.product(range(1, len(table) + 1), repeat=length)]
    parent = {word: word for word in words}

    def root(word: tuple[int, ...]) -> tuple[int, ...]:
        while parent[word] != word:
            word = parent[word]
        return word

    for word in words:
        for at, gate in enumerate(word):
            neighbours = [(*word[:at], int(table.canonical[gate]), *word[at + 1 :])]
            if at + 1 < len(word):
                rest = word[:at], word[at + 2 :]
                if not (table.uses_qubit[gate] & table.uses_qubit[word[at + 1]]).any():
                    neighbours.append((*rest[0], word[at + 1], gate, *rest[1]))
                if table.inverse[gate] == table.canonical[word[at + 1]]:
                    neighbours.append((*rest[0], *rest[1]))
            for neighbour in neighbours:
                parent[root(neighbour)] = root(word)
    ids = np.array([[*word, *[0] * (4 - len(word))] for word in words], dtype=np.int16)
    forms = [tuple(row) for row in normal_form(ids, table).tolist()]
    classes = [root(word) for word in words]
    assert len(set(forms)) == len(set(classes)) == len(set(zip(forms, classes, strict=True)))


def test_empty_arrays() -> None:
    assert normal_form(np.zeros((0, 5), dtype=np.int16), TABLES[0]).shape == (0, 5)
    assert normal_form(np.zeros((3, 0), dtype=np.int16), TABLES[0]).shape == (3, 0)
