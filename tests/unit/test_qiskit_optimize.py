"""Qiskit's transpiler on instruction ids: what it shortens, what is refused, and that the unitary stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.transpiler import TranspilerError
from qiskit.transpiler.passmanager import StagedPassManager

from quantum_diffusion.circuits.backends.qiskit import optimize
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from tests.conftest import WITHOUT_ANGLES

POOLS = [
    ("h", "cx"),
    ("h", "cx", "z", "x", "ccx", "swap"),
    ("h", "s", "t", "sdg", "tdg", "z", "cx", "cz"),
    ("t", "cx"),
    WITHOUT_ANGLES,
]
LINE = [(0, 1), (1, 2), (2, 3)]


def assert_same_up_to_phase(one: Ids, other: Ids, table: InstructionTable) -> None:
    products = unitaries(one, table).conj().swapaxes(1, 2) @ unitaries(other, table)
    traces = np.abs(np.trace(products, axis1=1, axis2=2))
    np.testing.assert_allclose(traces, products.shape[1], atol=1e-8)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("names", POOLS, ids=lambda names: "-".join(names)[:16])
def test_contract(names: tuple[str, ...], level: int) -> None:
    table = instruction_table(GatePool(names), 3)
    ids = random_ids(np.random.default_rng(level), table, 80, 0, 18)
    before = ids.copy()
    result = optimize(ids, table, level)
    np.testing.assert_array_equal(ids, before, err_msg="the input was changed")
    assert (result.shape, result.dtype) == (ids.shape, ids.dtype)
    assert_same_up_to_phase(result, ids, table)
    assert (gate_count(result) <= gate_count(ids)).all()
    assert (gate_count(result) < gate_count(ids)).any()
    used = result != 0
    assert (used[:, :-1] >= used[:, 1:]).all(), "gates are not at the start"
    np.testing.assert_array_equal(optimize(ids, table, level), result, err_msg="not deterministic")
    np.testing.assert_array_equal(optimize(ids[:10], table, level), result[:10])


def test_higher_levels_do_not_lose_what_level_1_finds() -> None:
    """Levels 2 and 3 fail on many circuits of a pool that is not universal."""
    table = instruction_table(GatePool(["h", "cx"]), 3)
    ids = random_ids(np.random.default_rng(0), table, 200, 2, 16)
    lengths = [gate_count(optimize(ids, table, level)).mean() for level in (1, 2, 3)]
    assert gate_count(ids).mean() > lengths[0] >= lengths[1] >= lengths[2]


def test_coupling_is_respected() -> None:
    table = instruction_table(GatePool(WITHOUT_ANGLES), 4)
    ids = random_ids(np.random.default_rng(0), table, 80, 0, 20, coupling=LINE)
    assert table.allowed(LINE)[optimize(ids, table, 3)].all()


def test_swaps_are_gates_and_no_permutation_beside_the_circuit() -> None:
    table = instruction_table(GatePool(["h", "swap"]), 3)
    h0 = 1
    swap = int(np.flatnonzero(table.gate_index == 1)[0])
    ids = np.array([[h0, swap, 0, 0], [h0, h0, swap, swap]], dtype=np.int16)
    result = optimize(ids, table, 3)
    assert gate_count(result).tolist() == [2, 0]
    assert_same_up_to_phase(result, ids, table)


def native(*operations: tuple[str, tuple[int, ...]]) -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    for name, qubits in operations:
        getattr(circuit, name)(*qubits)
    return circuit


@pytest.fixture
def let_qiskit_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[QuantumCircuit | Exception], None]:
    def let(answer: QuantumCircuit | Exception) -> None:
        def run(self: StagedPassManager, circuit: QuantumCircuit) -> QuantumCircuit:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(StagedPassManager, "run", run)

    return let


CX, H2 = ("cx", (0, 1)), ("h", (2,))


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (TranspilerError("no translation"), False),
        (native(CX, H2), True),
        (native(H2, CX), True),
        (native(CX), False),  # another unitary
        (native(), False),
        (native(CX, ("sx", (2,))), False),  # a gate outside the pool
        (native(CX, ("z", (0,)), H2), False),  # another that the package knows, but not the pool
        (native(CX, H2, H2, H2, H2, H2), False),  # longer
        (native(("cx", (0, 2)), ("cx", (0, 2)), CX, H2), False),  # other qubits joined
    ],
)
def test_only_good_results_are_taken(
    let_qiskit_answer: Callable[[QuantumCircuit | Exception], None], answer: QuantumCircuit | Exception, accepted: bool
) -> None:
    let_qiskit_answer(answer)
    table = instruction_table(GatePool(["h", "cx"]), 3)
    cx, h2 = (1 + [(step.gate, step.qubits) for step in table.instructions].index(gate) for gate in (CX, H2))
    ids = np.array([[cx, h2, h2, h2, 0]], dtype=np.int16)
    result = optimize(ids, table, 3)
    if accepted:
        assert sorted(result[0].tolist()) == [0, 0, 0, h2, cx]
    else:
        np.testing.assert_array_equal(result, ids)


def test_a_global_phase_is_dropped(let_qiskit_answer: Callable[[QuantumCircuit | Exception], None]) -> None:
    """X z x is z with a phase of -1."""
    x0, z0 = 1, 4
    answer = native(("z", (0,)))
    answer.global_phase = np.pi
    let_qiskit_answer(answer)
    ids = np.array([[x0, z0, x0]], dtype=np.int16)
    assert optimize(ids, instruction_table(GatePool(["x", "z"]), 3), 3).tolist() == [[z0, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (2, 4)])
def test_empty_arrays(shape: tuple[int, int]) -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    result = optimize(np.zeros(shape, dtype=np.int16), table, 3)
    assert (result.shape, result.dtype) == (shape, np.int16)
    assert not result.any()


@pytest.mark.parametrize("level", [0, 4])
def test_other_levels_are_refused(level: int) -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    with pytest.raises(ValueError, match=f"level 1, 2 or 3, given {level}"):
        optimize(np.zeros((1, 1), dtype=np.int16), table, level)
