"""Gates that are but a global phase are dropped; the unitary stays the same up to that phase."""

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.phases import drop_phases
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from tests.conftest import read_gates

PAPER = instruction_table(GatePool(["h", "cx", "z", "x", "ccx", "swap"]), 3)
PAULI = instruction_table(GatePool(["x", "y", "z", "s", "cx"]), 2)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("", ""),
        ("h 0", "h 0"),
        ("x 0; z 0; x 0", "z 0"),
        ("x 1; z 1; x 1; z 1; ccx 0 1 2", "ccx 0 1 2"),
        ("x 1; z 1; x 1; ccx 0 1 2; z 1", "ccx 0 1 2"),
        ("x 0; x 0", ""),
        ("x 0; z 0", "x 0; z 0"),
    ],
)
def test_what_is_dropped(given: str, left: str) -> None:
    result = drop_phases(ids_from_circuits([Circuit(3, read_gates(given))], PAPER, 6), PAPER)
    assert result.shape == (1, 6)
    assert circuits_from_ids(result, PAPER) == [Circuit(3, read_gates(left))]


def test_three_paulis_are_a_phase() -> None:
    ids = ids_from_circuits([Circuit(2, read_gates("cx 0 1; x 1; s 0; y 1; z 1"))], PAULI, 5)
    assert circuits_from_ids(drop_phases(ids, PAULI), PAULI) == [Circuit(2, read_gates("cx 0 1; s 0"))]


@pytest.mark.parametrize("table", [PAPER, PAULI], ids=["paper", "pauli"])
def test_unitaries_stay_the_same_up_to_a_phase(table: InstructionTable) -> None:
    ids = random_ids(np.random.default_rng(0), table, 300, 0, 8)
    before = ids.copy()
    result = drop_phases(ids, table)
    np.testing.assert_array_equal(ids, before, err_msg="the input was changed")
    products = np.einsum("nij,nij->n", unitaries(result, table).conj(), unitaries(ids, table))
    np.testing.assert_allclose(np.abs(products), 2**table.num_qubits)
    assert (gate_count(result) <= gate_count(ids)).all()
    assert (gate_count(result) < gate_count(ids)).any()
    np.testing.assert_array_equal(drop_phases(result, table), result)
    np.testing.assert_array_equal(drop_phases(ids[5:6], table), result[5:6], err_msg="depends on its neighbours")
