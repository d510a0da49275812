"""The instruction table: how many there are, which are the same or undo each other, which a device runs.

The relations are compared with what the instructions' unitaries say.
"""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import (
    InstructionTable,
    compact,
    gate_count,
    instruction_table,
)
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.errors import GateSetError
from tests.conftest import WITHOUT_ANGLES

LINE = [(0, 1), (1, 2), (2, 3)]
STAR = [(0, 1), (0, 2), (0, 3)]


def names_and_qubits(table: InstructionTable, rows: np.ndarray) -> set[tuple[str, frozenset[int]]]:
    return {
        (table.pool.names[table.gate_index[row]], frozenset(np.flatnonzero(table.uses_qubit[row]).tolist()))
        for row in rows
    }


@pytest.mark.parametrize("num_qubits", [3, 4, 8])
def test_every_gate_stands_once_on_every_choice_of_qubits(num_qubits: int) -> None:
    table = InstructionTable(GatePool(GATES), num_qubits)
    for index, gate in enumerate(table.pool):
        every = np.flatnonzero(table.gate_index == index)
        rows = np.unique(table.first[every])
        expected = comb(num_qubits, gate.num_controls) * comb(num_qubits - gate.num_controls, gate.num_targets)
        assert len(rows) == expected
        assert len(every) == expected * len(gate.grid)
        assert len(np.unique(table.columns[rows], axis=0)) == expected
        operands = table.operands[rows]
        assert (operands[:, : gate.num_qubits] >= 0).all()
        assert (operands[:, gate.num_qubits :] == -1).all()
        assert (table.uses_qubit[rows].sum(axis=1) == gate.num_qubits).all()
    assert len(table) == len(table.gate_index) - 1
    assert (np.diff(table.gate_index[1:]) >= 0).all()  # ordered by gate


@pytest.mark.parametrize(("num_qubits", "count"), [(2, 4), (3, 9), (8, 64)])
def test_counts_of_h_and_cx(num_qubits: int, count: int) -> None:
    assert len(InstructionTable(GatePool(["h", "cx"]), num_qubits)) == count


def test_no_gate_is_number_zero() -> None:
    table = InstructionTable(GatePool(["h", "ccx"]), 3)
    assert table.gate_index[0] == -1
    assert (table.operands[0] == -1).all()
    assert not table.columns[0].any()
    assert not table.uses_qubit[0].any()
    assert (table.canonical[0], table.inverse[0]) == (0, -1)


def test_order_of_ids_is_gate_then_controls_then_targets() -> None:
    table = InstructionTable(GatePool(["cx", "h"]), 3)
    assert table.operands[1:].tolist() == [
        [0, 1, -1], [0, 2, -1], [1, 0, -1], [1, 2, -1], [2, 0, -1], [2, 1, -1],
        [0, -1, -1], [1, -1, -1], [2, -1, -1],
    ]  # fmt: skip


@pytest.mark.parametrize("names", [("h", "cx"), ("cz", "s", "t", "tdg"), WITHOUT_ANGLES], ids=["h_cx", "some", "full"])
def test_canonical_and_inverse_say_what_the_unitaries_say(names: tuple[str, ...]) -> None:
    table = InstructionTable(GatePool(names), 3)
    matrices = unitaries(np.arange(len(table) + 1, dtype=np.int16)[:, None], table)
    for a in range(1, len(table) + 1):
        same = [b for b in range(1, len(table) + 1) if np.allclose(matrices[a], matrices[b])]
        assert table.canonical[a] == same[0]
        undo = [b for b in range(1, len(table) + 1) if np.allclose(matrices[b] @ matrices[a], np.eye(8))]
        assert table.inverse[a] == (undo[0] if undo else -1)


def test_missing_inverses_are_minus_one() -> None:
    table = InstructionTable(GatePool(["s", "t", "sdg"]), 1)
    assert table.inverse.tolist() == [-1, 3, -1, 1]


def test_narrow_circuits_and_huge_tables_are_refused() -> None:
    with pytest.raises(GateSetError, match="'ccx' acts on 3 qubits"):
        InstructionTable(GatePool(["ccx"]), 2)
    with pytest.raises(GateSetError, match=r"42570 instructions, more than the 32767.*fewer qubits"):
        InstructionTable(GatePool(["ccx"]), 45)


def test_tables_are_made_once() -> None:
    assert instruction_table(GatePool(["h", "cx"]), 3) is instruction_table(GatePool(("h", "cx")), 3)
    assert instruction_table(GatePool(["h", "cx"]), 3) is not instruction_table(GatePool(["cx", "h"]), 3)


# ---- coupling


def test_arrays_are_as_small_as_they_are_said_to_be() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    types = {name: getattr(table, name).dtype for name in ("gate_index", "operands", "columns", "canonical", "inverse")}
    assert types == {
        "gate_index": "int16",
        "operands": "int8",
        "columns": "int8",
        "canonical": "int16",
        "inverse": "int16",
    }


def test_the_first_instruction_keeps_to_the_coupling_too() -> None:
    table = instruction_table(GatePool(["cx"]), 3)
    assert names_and_qubits(table, np.flatnonzero(table.allowed([(0, 2)]))[1:]) == {("cx", frozenset({0, 2}))}


def test_without_coupling_everything_is_allowed() -> None:
    table = InstructionTable(GatePool(GATES), 4)
    allowed = table.allowed(None)
    assert allowed.tolist() == [True] * (len(table) + 1)


@pytest.mark.parametrize(
    ("coupling", "triples"),
    [
        pytest.param(LINE, [(0, 1, 2), (1, 2, 3)], id="line"),
        pytest.param(STAR, [(0, 1, 2), (0, 1, 3), (0, 2, 3)], id="star"),
        pytest.param([(0, 1), (1, 2), (0, 2)], [(0, 1, 2)], id="triangle"),
        pytest.param([(0, 1), (2, 3)], [], id="two-pairs"),
        pytest.param([], [], id="no-edge"),
    ],
)
def test_coupled_qubits_are_allowed_in_every_role(
    coupling: list[tuple[int, int]], triples: list[tuple[int, ...]]
) -> None:
    table = InstructionTable(GatePool(GATES), 4)
    places = {1: [(q,) for q in range(4)], 2: coupling, 3: triples}
    # Which qubits of the place are controls must not matter, nor the direction in which an edge is written.
    expected = {(gate.name, frozenset(qubits)) for gate in table.pool for qubits in places[gate.num_qubits]}
    for edges in (coupling, [(b, a) for a, b in coupling], coupling * 2, [list(edge) for edge in coupling]):
        allowed = table.allowed(edges)
        assert allowed[0]
        assert names_and_qubits(table, np.flatnonzero(allowed)[1:]) == expected
        roles = np.flatnonzero(allowed & np.isin(table.gate_index, [table.pool.names.index("ccx")]))
        assert len(roles) == 3 * len(triples)


@pytest.mark.parametrize("edge", [(0, 4), (-1, 0), (2, 2), (0, 1, 2), (0,)])
def test_wrong_edges_are_refused(edge: tuple[int, int]) -> None:
    table = InstructionTable(GatePool(["h", "cx"]), 4)
    with pytest.raises(GateSetError, match=r"coupling edge \[.*\] does not join two of the 4 qubits 0..3"):
        table.allowed([(0, 1), edge])


# ---- arrays of ids


def test_gate_count() -> None:
    counts = gate_count(np.array([[0, 0, 0], [0, 5, 0], [1, 2, 3]], dtype=np.int16))
    assert counts.tolist() == [0, 1, 3]
    assert gate_count(np.zeros((0, 3), dtype=np.int16)).shape == (0,)
    assert gate_count(np.zeros((2, 0), dtype=np.int16)).tolist() == [0, 0]


def test_compact_keeps_the_order_of_gates() -> None:
    ids = np.array([[0, 3, 0, 1, 3], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1]], dtype=np.int16)
    moved = compact(ids)
    assert moved.dtype == np.int16
    assert moved.tolist() == [[3, 1, 3, 0, 0], [0] * 5, [5, 4, 3, 2, 1]]
    assert compact(np.zeros((2, 0), dtype=np.int16)).shape == (2, 0)
