"""The peephole optimiser: the same unitary to the last phase, never longer, only gates and qubits that may be used.

The oracles are numpy's and Qiskit's unitaries, state vectors of long circuits, stim's tableaus of wide ones, and a
breadth-first search over exact matrices that knows nothing of the optimiser's tables.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_diffusion.circuits import peephole, peephole_tables
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, in_pool, instruction_table
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.peephole_subsets import optimize_subsets
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.simulate import Complex, apply_step, unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from tests.conftest import WITHOUT_ANGLES, read_gates

POOLS = {
    "h_cx": ("h", "cx"),
    "genqc": ("h", "cx", "z", "x", "ccx", "swap"),
    "full": WITHOUT_ANGLES,
    "phases": ("s", "t", "sdg", "tdg", "z", "h", "cx", "cz"),
    "no_inverse": ("s", "t", "cx"),
    "antisymmetric": ("y", "cy", "h"),
    "three_qubit": ("ccx", "cswap", "swap", "h"),
}
CASES = [
    pytest.param(names, num_qubits, id=f"{label}-{num_qubits}")
    for label, names in POOLS.items()
    for num_qubits in (1, 2, 3, 4)
    if max(GATES[name].num_qubits for name in names) <= num_qubits
]
LINE = [(0, 1), (1, 2), (2, 3), (3, 4)]


def joined_sets(ids: Ids, table: InstructionTable) -> list[set[frozenset[int]]]:
    """Return, for each circuit, the sets of two or more qubits that its gates act on."""
    sets = [frozenset()] + [frozenset(instruction.qubits) for instruction in table.instructions]
    return [{sets[i] for i in row if len(sets[i]) > 1} for row in ids.tolist()]


def check_contract(ids: Ids, table: InstructionTable) -> Ids:
    """Assert what holds of every result; return it."""
    before = ids.copy()
    result = optimize(ids, table)
    np.testing.assert_array_equal(ids, before, err_msg="the input was changed")
    assert (result.shape, result.dtype) == (ids.shape, ids.dtype)
    assert ((result >= 0) & (result <= len(table))).all()
    assert np.abs(unitaries(result, table) - unitaries(ids, table)).max(initial=0) < 1e-10
    assert (gate_count(result) <= gate_count(ids)).all()
    np.testing.assert_array_equal(optimize(result, table), result, err_msg="not idempotent")
    used = result != 0
    assert (used[:, :-1] >= used[:, 1:]).all(), "gates are not at the start"
    for after, given_sets in zip(joined_sets(result, table), joined_sets(ids, table), strict=True):
        assert after <= given_sets
    return result


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_contract_at_volume(names: tuple[str, ...], num_qubits: int) -> None:
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(num_qubits), table, 3000, 0, 20)
    result = check_contract(ids, table)
    assert (gate_count(result) <= gate_count(cancel_inverse_neighbours(ids, table))).all()


@st.composite
def id_arrays(draw: st.DrawFn) -> tuple[Ids, InstructionTable]:
    """Ids over few instructions, so that rules apply often and meet; empty steps included."""
    names = draw(st.sampled_from(list(POOLS.values())))
    num_qubits = draw(st.integers(max(GATES[name].num_qubits for name in names), 4))
    table = instruction_table(GatePool(names), num_qubits)
    favourites = draw(st.lists(st.integers(0, len(table)), min_size=1, max_size=6))
    shape = draw(st.integers(0, 3)), draw(st.integers(0, 24))
    size = shape[0] * shape[1]
    cells = draw(st.lists(st.sampled_from(favourites), min_size=size, max_size=size))
    return np.array(cells, dtype=np.int16).reshape(shape), table


@settings(max_examples=200, deadline=None)
@given(id_arrays())
def test_contract_on_any_ids(case: tuple[Ids, InstructionTable]) -> None:
    check_contract(*case)


def test_qiskit_finds_the_same_unitary() -> None:
    table = instruction_table(GatePool(WITHOUT_ANGLES), 3)
    ids = random_ids(np.random.default_rng(5), table, 60, 5, 25)
    backend = QiskitBackend()
    before, after = circuits_from_ids(ids, table), circuits_from_ids(optimize(ids, table), table)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(backend.unitary(one), backend.unitary(other), atol=1e-10, rtol=0)


def outputs(ids: Ids, table: InstructionTable, inputs: Complex) -> Complex:
    states = inputs.copy()
    for step in range(ids.shape[1]):
        apply_step(states, ids[:, step], table)
    return states


@pytest.mark.parametrize(("names", "count"), [(("h", "cx"), 1000), (WITHOUT_ANGLES, 300)], ids=["h_cx", "full"])
def test_long_circuits_act_alike_on_random_product_states(names: tuple[str, ...], count: int) -> None:
    table = instruction_table(GatePool(names), 8)
    rng = np.random.default_rng(3)
    ids = random_ids(rng, table, count, 7, 52)
    states = np.ones((count, 1), dtype=np.complex128)
    for _ in range(8):
        qubit = rng.normal(size=(count, 2, 2)).view(np.complex128)[:, :, 0]
        qubit /= np.linalg.norm(qubit, axis=1, keepdims=True)
        states = (qubit[:, :, None] * states[:, None]).reshape(count, -1)
    result = optimize(ids, table)
    difference = outputs(result, table, states[:, :, None]) - outputs(ids, table, states[:, :, None])
    assert np.abs(difference).max() < 1e-10
    assert (gate_count(result) < gate_count(ids)).mean() > 0.7


@pytest.mark.parametrize("num_qubits", [8, 14])
def test_wide_clifford_circuits_have_the_same_tableau(num_qubits: int) -> None:
    names = tuple(name for name, gate in GATES.items() if gate.is_clifford)
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(4), table, 80, 20, 90)

    gates = {gate.name: stim.Tableau.from_unitary_matrix(gate.matrix(), endian="little") for gate in table.pool}

    def tableau(row: list[int]) -> stim.Tableau:
        result = stim.Tableau(num_qubits)
        for instruction in (table.instructions[number - 1] for number in row if number):
            result.append(gates[instruction.gate], instruction.qubits)
        return result

    for before, after in zip(ids.tolist(), optimize(ids, table).tolist(), strict=True):
        assert tableau(before) == tableau(after)


@pytest.mark.parametrize("names", [("h", "cx"), ("h", "cx", "swap", "z"), ("x", "cx", "cz")], ids="-".join)
def test_two_qubits_get_shortest_circuits(names: tuple[str, ...]) -> None:
    """Against a search over matrices; the groups of these gates on two qubits are small enough to be known whole."""
    table = instruction_table(GatePool(names), 2)
    gates = unitaries(np.arange(1, len(table) + 1, dtype=np.int16)[:, None], table)

    def key(matrix: Complex) -> bytes:
        return (np.rint(matrix * 1000).view(np.float64) + 0.0).tobytes()

    lengths, frontier = {key(np.eye(4, dtype=np.complex128)): 0}, [np.eye(4, dtype=np.complex128)]
    for length in itertools.count(1):
        following = {key(gate @ matrix): gate @ matrix for matrix in frontier for gate in gates}
        frontier = [matrix for name, matrix in following.items() if name not in lengths]
        lengths |= {key(matrix): length for matrix in frontier}
        if not frontier:
            break

    ids = random_ids(np.random.default_rng(6), table, 2000, 0, 24)
    # A gate on both qubits before is needed: without, only gates on one qubit may be used.
    ids[:, 0] = 1 + np.flatnonzero([len(instruction.qubits) == 2 for instruction in table.instructions])[0]
    found = gate_count(optimize(ids, table))
    assert found.tolist() == [lengths[key(matrix)] for matrix in unitaries(ids, table)]


@pytest.mark.parametrize(
    ("pool", "before", "after"),
    [
        ("h cx", "", ""),
        ("h cx", "h 0", "h 0"),
        ("h cx", "h 0; h 0", ""),
        ("h cx", "cx 0 1; h 2; cx 0 1", "h 2"),
        # through neighbours that commute, on the control and on the target
        ("h cx", "cx 0 1; cx 0 2; cx 0 1", "cx 0 2"),
        ("h cx", "cx 0 1; cx 2 1; cx 3 1; cx 0 1", "cx 2 1; cx 3 1"),
        ("x cx", "x 1; cx 0 1; x 1", "cx 0 1"),
        ("z cx", "z 0; cx 0 1; cx 0 2; z 0", "cx 0 1; cx 0 2"),
        ("t tdg cx", "t 0; cx 0 1; tdg 0", "cx 0 1"),
        ("ccx cx", "ccx 0 1 2; cx 3 2; ccx 0 1 2", "cx 3 2"),
        ("h cx", "h 0; cx 0 1; h 0", "h 0; cx 0 1; h 0"),  # not through one that does not
        ("x cx", "x 0; cx 0 1; x 0", "cx 0 1; x 1"),
        # gates that merge
        ("s t", "t 0; t 0", "s 0"),
        ("s t z", "s 0; s 0", "z 0"),
        ("s t z sdg tdg", "t 0; s 0; z 0; tdg 0; s 0", ""),
        ("s z sdg", "z 0; sdg 0", "s 0"),
        ("s t", "s 0; s 0", "s 0; s 0"),  # the pool has no z
        ("s t z cx", "t 0; cx 0 1; t 0; cx 0 2; s 0; z 0", "cx 0 1; cx 0 2"),
        # conjugation by h
        ("h x z", "h 0; x 0; h 0", "z 0"),
        ("h x z", "h 0; z 0; h 0", "x 0"),
        ("h x", "h 0; x 0; h 0", "h 0; x 0; h 0"),
        ("h cx cz", "h 1; cx 0 1; h 1", "cz 0 1"),
        ("h cx cz", "h 1; cz 0 1; h 1", "cx 0 1"),
        ("h cx cz", "h 1; h 2; cx 0 1; h 2; h 1", "cz 0 1"),
        ("h cx", "h 0; h 1; cx 0 1; h 0; h 1", "cx 1 0"),
        ("h ccx x z cx", "h 2; ccx 0 1 2; h 2; h 2; ccx 0 1 2; h 2", ""),
        # pairs and triples of cx
        ("cx swap", "cx 0 1; cx 1 0; cx 0 1", "swap 0 1"),
        ("cx", "cx 0 1; cx 1 0; cx 0 1; cx 1 0", "cx 1 0; cx 0 1"),
        ("cx", "cx 0 1; cx 1 0; cx 0 1; cx 1 0; cx 0 1; cx 1 0", ""),
        ("cx swap", "cx 0 1; cx 1 0; swap 0 1", "cx 1 0"),
        ("cx swap", "cx 0 1; swap 0 1; cx 1 0", "swap 0 1"),
        ("cx", "cx 0 1; cx 1 2; cx 0 1", "cx 0 1; cx 1 2; cx 0 1"),  # cx 0 2 would join other qubits
        ("cx", "cx 0 1; cx 1 2; cx 0 1; cx 0 2", "cx 1 2"),
        ("swap ccx cswap cx", "cx 2 1; ccx 0 1 2; cx 2 1", "cswap 0 1 2"),
        # windows with other gates in between, moved to the left and to the right
        ("h cx", "cx 0 1; cx 0 2; cx 1 0; cx 0 1; cx 1 0", "cx 0 2; cx 1 0; cx 0 1"),
        ("h cx cz", "h 1; cx 0 1; cx 0 2; h 1; h 0", "cz 0 1; cx 0 2; h 0"),
        ("h cx cz", "h 1; h 0; cx 2 0; cx 3 2; h 0; h 1", "cz 0 2; cx 3 2"),
        # global phases count
        ("x y z", "x 0; y 0", "x 0; y 0"),
        ("x y z", "x 0; y 0; x 0; y 0", "x 0; y 0; x 0; y 0"),
        ("x y z", "x 0; y 0; z 0", "x 0; y 0; z 0"),
        ("y cy", "y 0; y 0", ""),
    ],
)
def test_rules(pool: str, before: str, after: str) -> None:
    """The result has as many gates as `after`, which does the same; there may be several of that length."""
    table = instruction_table(GatePool(pool.split()), 4)
    ids = ids_from_circuits([Circuit(4, read_gates(before))], table, 8)
    expected = ids_from_circuits([Circuit(4, read_gates(after))], table, 8)
    result = check_contract(ids, table)
    np.testing.assert_allclose(unitaries(expected, table), unitaries(ids, table), atol=1e-10)
    assert gate_count(result).tolist() == gate_count(expected).tolist(), circuits_from_ids(result, table)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ccx 0 1 2; ccx 0 1 2", ""),
        ("t 0; cx 0 1; t 0; ccx 0 1 2; h 0", "s 0; cx 0 1; ccx 0 1 2; h 0"),
        ("ccx 0 1 2; t 0; ccx 0 1 2; h 2", "t 0; h 2"),
        ("h 0; cswap 0 1 2; cz 0 3; swap 1 2; cswap 0 1 2; h 3", "h 0; cz 0 3; swap 1 2; h 3"),
        ("t 3; cz 3 0; ccx 0 1 2; cx 1 3; ccx 0 1 2; s 0; h 3", "t 3; cz 3 0; cx 1 3; s 0; h 3"),
    ],
)
def test_gates_merge_where_windows_are_too_rich_to_be_searched(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peephole_tables, "_MAX_LOCAL", 0)
    monkeypatch.setattr(peephole, "rules_of", peephole.rules_of.__wrapped__)  # tables of its own
    table = instruction_table(GatePool(WITHOUT_ANGLES), 4)
    texts = (before, "h 0; h 1", before, "h 3")
    ids = ids_from_circuits([Circuit(4, read_gates(text)) for text in texts], table, 8)
    result = check_contract(ids, table)
    assert gate_count(result).tolist() == [len(read_gates(after)), 2, len(read_gates(after)), 1]


@pytest.mark.parametrize(
    ("pool", "text", "most"),
    [
        (
            "cx swap z h x y cz cy s",
            "y 1; x 0; x 0; cy 0 2; h 0; cz 1 0; cy 1 2; z 2; x 2; y 1; cx 0 1; y 1; cy 1 0; cx 1 0",
            7,
        ),
        (
            "h cx",
            "h 1; cx 2 1; cx 0 2; h 2; cx 3 0; cx 1 2; cx 3 2; h 2; cx 2 0; cx 3 2; cx 2 0; cx 1 3; h 2; h 1; h 3",
            10,
        ),
    ],
)
def test_windows_are_searched_again_where_gates_have_joined(pool: str, text: str, most: int) -> None:
    """About one circuit of 50,000 needs it: gates join that others stood between, and leave a window to shorten."""
    num_qubits = 4 if "3" in text else 3
    circuit = Circuit(num_qubits, read_gates(text))
    table = instruction_table(GatePool(pool.split()), num_qubits)
    result = check_contract(ids_from_circuits([circuit], table, len(circuit)), table)
    assert gate_count(result).tolist() == [most]


@pytest.mark.parametrize(
    "names", [("cx",), ("h", "cx", "swap"), ("h", "cz", "ccx", "cswap"), WITHOUT_ANGLES], ids=lambda names: names[-1]
)
def test_coupling_is_respected(names: tuple[str, ...]) -> None:
    table = instruction_table(GatePool(names), 5)
    ids = random_ids(np.random.default_rng(7), table, 4000, 0, 30, coupling=LINE)
    result = optimize(ids, table)
    assert table.allowed(LINE)[result].all()
    assert (gate_count(result) < gate_count(ids)).any()
    for after, before in zip(joined_sets(result, table), joined_sets(ids, table), strict=True):
        assert after <= before


def test_a_circuits_result_depends_on_no_other_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = instruction_table(GatePool(POOLS["genqc"]), 4)
    ids = random_ids(np.random.default_rng(8), table, 600, 0, 24)
    result = optimize(ids, table)
    order = np.random.default_rng(9).permutation(len(ids))
    np.testing.assert_array_equal(optimize(ids[order], table), result[order])
    for row in range(60):
        np.testing.assert_array_equal(optimize(ids[row : row + 1], table), result[row : row + 1])
    wider = np.zeros((len(ids), 31), dtype=np.int16)
    wider[:, 5:29] = ids  # neither empty steps in front nor behind matter
    np.testing.assert_array_equal(optimize(wider, table)[:, :24], result)
    monkeypatch.setattr(peephole, "_BLOCK", 37)
    np.testing.assert_array_equal(optimize(ids, table), result)


def test_the_same_input_gives_the_same_bytes_with_new_tables() -> None:
    table = instruction_table(GatePool(POOLS["phases"]), 3)
    ids = random_ids(np.random.default_rng(10), table, 500, 0, 24)
    result = optimize(ids, table)
    peephole.rules_of.cache_clear()
    peephole_tables._automaton.cache_clear()
    np.testing.assert_array_equal(optimize(ids, table), result)


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("label", ["h_cx", "full", "phases", "antisymmetric"])
def test_tables_of_products_agree_with_matrices(label: str, width: int, backwards: bool) -> None:
    pool = GatePool(POOLS[label])
    automaton = peephole_tables._automaton(pool, width, backwards)
    table = instruction_table(GatePool([gate.name for gate in pool if gate.num_qubits <= width]), width)
    words = automaton.words.astype(np.int16) + 1
    if backwards:  # the words are read from the end
        words = words[:, ::-1]
    matrices = unitaries(np.ascontiguousarray(words), table)
    gates = unitaries(np.arange(1, len(table) + 1, dtype=np.int16)[:, None], table)
    assert (gate_count(words) == automaton.length).all()

    rng = np.random.default_rng(0)
    states = np.concatenate([np.arange(200), rng.integers(0, len(words), 3000)]) % len(words)
    local = rng.integers(0, len(table), len(states))
    after = automaton.step[states, local]
    pair = (matrices[states], gates[local]) if backwards else (gates[local], matrices[states])
    assert (after >= 0).any()
    assert np.abs((pair[0] @ pair[1] - matrices[after])[after >= 0]).max() < 1e-10
    # No two states are the same product.
    assert len(np.unique(np.rint(matrices * 1e4).reshape(len(words), -1), axis=0)) == len(words)


def test_large_vocabularies_only_cancel_inverse_neighbours() -> None:
    table = instruction_table(GatePool(WITHOUT_ANGLES), 16)
    assert len(table) > peephole.MAX_INSTRUCTIONS
    ids = random_ids(np.random.default_rng(11), table, 50, 0, 40)
    np.testing.assert_array_equal(optimize(ids, table), cancel_inverse_neighbours(ids, table))


def test_many_qubits() -> None:
    """Windows on three qubits are not searched there; those on two are."""
    table = instruction_table(GatePool(["h", "cx", "ccx", "swap"]), peephole_tables.MAX_QUBITS_FOR_TRIPLES + 2)
    text = "ccx 0 1 2; cx 9 13; ccx 0 1 2; cx 13 9; cx 9 13"
    ids = ids_from_circuits([Circuit(table.num_qubits, read_gates(text))], table, 6)
    expected = [Circuit(table.num_qubits, read_gates("swap 9 13"))]
    assert circuits_from_ids(optimize(ids, table), table) == expected


@pytest.mark.parametrize("num_qubits", [1, 2, 3])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (3, 5)])
def test_empty_arrays(shape: tuple[int, int], num_qubits: int) -> None:
    table = instruction_table(GatePool(["h"] if num_qubits == 1 else ["h", "cx"]), num_qubits)
    result = optimize(np.zeros(shape, dtype=np.int16), table)
    assert (result.shape, result.dtype) == (shape, np.int16)
    assert not result.any()


@pytest.mark.parametrize("num_qubits", [2, 3, 4])
def test_subsets_are_optimized_as_each_pool_by_itself(num_qubits: int) -> None:
    whole = GatePool(["h", "cx", "t", "ccx", "swap", "tdg"] if num_qubits > 2 else ["h", "cx", "t", "swap", "tdg"])
    table = instruction_table(whole, num_qubits)
    subsets = np.arange(1, 2 ** len(whole), dtype=np.uint32)
    gates = np.random.default_rng(11).permutation(np.repeat(subsets, 40))
    ids, expected = np.zeros((2, len(gates), 16), dtype=np.int16)
    for subset in subsets:
        rows = np.flatnonzero(gates == subset)
        own = instruction_table(GatePool([name for k, name in enumerate(whole.names) if subset >> k & 1]), num_qubits)
        drawn = random_ids(np.random.default_rng(subset), own, len(rows), 0, 16)
        ids[rows] = in_pool(own, whole)[drawn]
        expected[rows] = in_pool(own, whole)[optimize(drawn, own)]
    np.testing.assert_array_equal(optimize_subsets(ids, gates, table), expected)
    some = slice(None, None, 7)
    np.testing.assert_array_equal(optimize_subsets(ids[some], gates[some], table), expected[some])
    assert optimize_subsets(ids[:0], gates[:0], table).shape == (0, 16)
