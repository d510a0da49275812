"""Simplification by cancelling inverse neighbours: exact, complete, and never longer.

The oracle is a slow checker that reads "inverse" off matrices and "neighbour" off shared qubits; it knows
neither the relations of instruction tables nor the stack that the fast pass keeps.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from tests.conftest import WITHOUT_ANGLES, read_gates

POOLS = {
    "h_cx": ("h", "cx"),
    "no_inverse": ("s", "t", "cx"),
    "phases": ("s", "sdg", "t", "tdg", "z"),
    "clifford": tuple(name for name, gate in GATES.items() if gate.is_clifford),
    "three_qubit": ("ccx", "cswap", "swap", "h"),
    "full": WITHOUT_ANGLES,
}
CASES = [
    pytest.param(names, num_qubits, id=f"{label}-{num_qubits}")
    for label, names in POOLS.items()
    for num_qubits in (1, 2, 3, 4)
    if max(GATES[name].num_qubits for name in names) <= num_qubits
]


class SlowSimplifier:
    """Finds cancelling pairs by trying every pair; ids of the table's instructions are its only input."""

    def __init__(self, table: InstructionTable) -> None:
        every = np.arange(len(table) + 1, dtype=np.int16)
        matrices = unitaries(every[:, None], table)
        self.qubits = [{int(q) for q in row if q >= 0} for row in table.operands]
        identity = np.eye(matrices.shape[1])
        self.undoes = {
            (a, b)
            for a in every[1:].tolist()
            for b in every[1:].tolist()
            if self.qubits[a] == self.qubits[b] and np.allclose(matrices[b] @ matrices[a], identity, atol=1e-12)
        }

    def first_pair(self, circuit: list[int]) -> tuple[int, int] | None:
        for i, first in enumerate(circuit):
            for j in range(i + 1, len(circuit)):
                if (first, circuit[j]) in self.undoes:
                    return i, j
                if self.qubits[first] & self.qubits[circuit[j]]:
                    break
        return None

    def reduce(self, circuit: list[int]) -> list[int]:
        circuit = [i for i in circuit if i]
        while (pair := self.first_pair(circuit)) is not None:
            del circuit[pair[1]], circuit[pair[0]]
        return circuit


def check_contract(ids: Ids, table: InstructionTable) -> Ids:
    """Assert what holds of every simplification and needs no slow checker; return the result."""
    before = ids.copy()
    result = cancel_inverse_neighbours(ids, table)
    np.testing.assert_array_equal(ids, before, err_msg="the input was changed")
    assert (result.shape, result.dtype) == (ids.shape, ids.dtype)
    np.testing.assert_allclose(unitaries(result, table), unitaries(ids, table), atol=1e-12, rtol=0)
    np.testing.assert_array_equal(cancel_inverse_neighbours(result, table), result)
    assert (gate_count(result) <= gate_count(ids)).all()
    assert ((gate_count(ids) - gate_count(result)) % 2 == 0).all()  # gates go in pairs
    used = result != 0
    assert (used[:, :-1] >= used[:, 1:]).all(), "gates are not at the start"
    return result


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_contract_at_volume(names: tuple[str, ...], num_qubits: int) -> None:
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(num_qubits), table, 1500, 0, 25)
    result = check_contract(ids, table)
    assert (gate_count(result) < gate_count(ids)).any()  # there was something to do


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_no_pair_is_left_and_no_gate_too_many_is_taken(names: tuple[str, ...], num_qubits: int) -> None:
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(10 + num_qubits), table, 150, 5, 30)
    result = cancel_inverse_neighbours(ids, table)
    slow = SlowSimplifier(table)
    for circuit, simplified in zip(ids.tolist(), result.tolist(), strict=True):
        simplified = [i for i in simplified if i]
        assert slow.first_pair(simplified) is None
        # Which of several equal gates goes is free, but what is left is not: reduced words of such a group
        # are unique up to the order of gates on other qubits (and the two names of a symmetric gate).
        assert _names(simplified, table) == _names(slow.reduce(circuit), table)


def _names(circuit: list[int], table: InstructionTable) -> Counter[int]:
    return Counter(int(table.canonical[i]) for i in circuit)


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_labels_stay(names: tuple[str, ...], num_qubits: int) -> None:
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(20 + num_qubits), table, 1500, 0, 25)
    np.testing.assert_array_equal(
        schmidt_rank_vectors(cancel_inverse_neighbours(ids, table), table), schmidt_rank_vectors(ids, table)
    )


@st.composite
def id_arrays(draw: st.DrawFn) -> tuple[Ids, InstructionTable]:
    """Ids over few instructions, so that cancelling and nested pairs are frequent; empty steps included."""
    names = draw(st.sampled_from(list(POOLS.values())))
    num_qubits = draw(st.integers(max(GATES[name].num_qubits for name in names), 4))
    table = instruction_table(GatePool(names), num_qubits)
    favourites = draw(st.lists(st.integers(0, len(table)), min_size=1, max_size=5))
    num_circuits, num_steps = draw(st.integers(0, 3)), draw(st.integers(0, 14))
    cells = draw(
        st.lists(st.sampled_from(favourites), min_size=num_circuits * num_steps, max_size=num_circuits * num_steps)
    )
    return np.array(cells, dtype=np.int16).reshape(num_circuits, num_steps), table


@settings(max_examples=250, deadline=None)
@given(id_arrays())
def test_contract_on_any_ids(case: tuple[Ids, InstructionTable]) -> None:
    check_contract(*case)


@settings(max_examples=100, deadline=None)
@given(id_arrays())
def test_a_circuit_followed_by_its_inverse_vanishes(case: tuple[Ids, InstructionTable]) -> None:
    ids, table = case
    assume((table.inverse[ids[ids != 0]] >= 0).all())  # the pool can undo every gate
    backwards = np.where(ids == 0, 0, table.inverse[ids])[:, ::-1].astype(np.int16)
    assert not cancel_inverse_neighbours(np.hstack([ids, backwards]), table).any()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("h 0", "h 0"),
        ("h 0; h 0", ""),
        ("h 0; h 0; h 0", "h 0"),
        ("h 0; h 1", "h 0; h 1"),
        # inverses of another name, in both orders
        ("s 0; sdg 0", ""),
        ("tdg 1; t 1", ""),
        ("s 0; s 0", "s 0; s 0"),
        ("t 0; sdg 0", "t 0; sdg 0"),
        # controls and targets
        ("cx 0 1; cx 0 1", ""),
        ("cx 0 1; cx 1 0", "cx 0 1; cx 1 0"),
        ("cy 2 0; cy 2 0", ""),
        ("cz 0 1; cz 0 1", ""),
        ("cz 0 1; cz 1 0", ""),
        ("cz 2 0; h 1; cz 0 2", "h 1"),
        ("cz 0 1; cz 1 2", "cz 0 1; cz 1 2"),
        ("swap 0 2; swap 0 2", ""),
        ("ccx 0 1 2; ccx 0 1 2", ""),
        ("ccx 0 1 2; ccx 0 2 1", "ccx 0 1 2; ccx 0 2 1"),
        ("cswap 1 0 2; cswap 1 0 2", ""),
        ("cswap 1 0 2; cswap 0 1 2", "cswap 1 0 2; cswap 0 1 2"),
        ("cx 0 1; cy 0 1", "cx 0 1; cy 0 1"),
        # across gates on other qubits, not across gates on shared ones
        ("h 0; cx 1 2; h 0", "cx 1 2"),
        ("cx 0 1; h 2; t 3; cx 0 1", "h 2; t 3"),
        ("cx 0 1; h 1; cx 0 1", "cx 0 1; h 1; cx 0 1"),
        ("x 0; cx 0 1; x 0", "x 0; cx 0 1; x 0"),
        ("cx 0 1; x 1", "cx 0 1; x 1"),
        ("x 1; cx 0 1", "x 1; cx 0 1"),
        ("ccx 0 1 2; cx 0 2; ccx 0 1 2", "ccx 0 1 2; cx 0 2; ccx 0 1 2"),
        # nested and staggered pairs
        ("h 0; cx 0 1; cx 0 1; h 0", ""),
        ("h 0; h 1; cx 0 1; cx 0 1; h 1; h 0", ""),
        ("cx 0 1; x 1; h 0; h 0; x 1; cx 0 1", ""),
        ("h 0; s 0; sdg 0; h 0; h 0", "h 0"),
        ("cx 0 1; cx 1 2; cx 1 2; cx 2 3; cx 0 1", "cx 2 3"),
        ("h 3; h 0; cx 0 3; cx 0 3; h 0; t 1; h 3", "t 1"),
    ],
)
def test_cases(before: str, after: str) -> None:
    table = instruction_table(GatePool(WITHOUT_ANGLES), 4)
    ids = ids_from_circuits([Circuit(4, read_gates(before))], table, 10)
    assert circuits_from_ids(cancel_inverse_neighbours(ids, table), table) == [Circuit(4, read_gates(after))]


def test_empty_steps_between_gates_do_not_count() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    h0, h1 = 1, 2
    ids = np.array([[0, h0, 0, 0, h0, 0], [h0, 0, h1, 0, 0, h0], [0, 0, h0, 0, h1, 0]], dtype=np.int16)
    expected = [[0] * 6, [h1, 0, 0, 0, 0, 0], [h0, h1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(cancel_inverse_neighbours(ids, table), expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0)])
def test_empty_arrays(shape: tuple[int, int]) -> None:
    table = instruction_table(GatePool(["h", "cx"]), 3)
    result = cancel_inverse_neighbours(np.zeros(shape, dtype=np.int16), table)
    assert (result.shape, result.dtype) == (shape, np.int16)
