"""What circuits cost, counted by hand, and weights of several costs."""

import itertools
import math

import numpy as np
import pytest
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford, Operator

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.costs import COSTS, LeastCosts, cost_of
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, ids_from_circuits
from quantum_diffusion.errors import ConfigError
from tests.conftest import read_gates

CIRCUIT = Circuit(4, read_gates("h 0; t 1; cx 0 1; tdg 2; ccx 0 1 2; swap 1 2; s 3"))


@pytest.mark.parametrize(("name", "cost"), [("gates", 7), ("two_qubit_gates", 1 + 2 + 1), ("t_count", 2), ("depth", 4)])
def test_costs(name: str, cost: int) -> None:
    assert COSTS[name](CIRCUIT) == cost_of(name)(CIRCUIT) == cost
    assert cost_of(name)(Circuit(2, ())) == 0


def test_several_costs_are_summed_with_their_weights() -> None:
    assert cost_of({"depth": 0.5, "t_count": 10, "gates": 0})(CIRCUIT) == 0.5 * 4 + 10 * 2
    assert cost_of({"cx": 1, "ccx": 6, "swap": 3, "h": 0.1})(CIRCUIT) == 1 + 6 + 3 + 0.1


@pytest.mark.parametrize("name", [name for name, gate in GATES.items() if gate.num_angles])
def test_rotations_are_t_gates_unless_they_are_clifford(name: str) -> None:
    """Of multiples of pi / 4, those that Qiskit makes a stabilizer tableau of; and hardly any other angle."""
    gate = GATES[name]
    qubits = tuple(range(gate.num_qubits))
    controls, targets = qubits[: gate.num_controls], qubits[gate.num_controls :]
    for eighths in itertools.product(range(-8, 9, gate.num_angles), repeat=gate.num_angles):
        angles = tuple(np.pi / 4 * number for number in eighths)
        circuit = Circuit(gate.num_qubits, (Instruction(name, controls, targets, angles),))
        try:
            Clifford.from_operator(Operator(gate.matrix(*angles)))
        except QiskitError:
            assert COSTS["t_count"](circuit) == 1
        else:
            assert COSTS["t_count"](circuit) == 0
    nearly = Circuit(gate.num_qubits, (Instruction(name, controls, targets, (1e-4,) * gate.num_angles),))
    assert COSTS["t_count"](nearly) == 1


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("dept", "objective: unknown cost 'dept': did you mean 'depth'"),
        ({"gates": 1, "cxx": 2}, "objective: unknown cost 'cxx': did you mean 'cx'"),
        ("cx", "objective: cx is a gate: give it a weight, {cx: 1}"),
        ({"cx": 10**400}, "the weight of .cx. is 10+.*: give a number from 0 to 1e.12"),
        ({}, "give one of gates, two_qubit_gates, t_count, depth"),
        (3, "objective is 3"),
        ({"gates": -1}, "the weight of .gates. is -1"),
        ({"gates": math.inf}, "the weight of .gates. is inf"),
        ({"gates": math.nan}, "the weight of .gates. is nan"),
        ({"gates": True}, "the weight of .gates. is True"),
        ({"gates": "2"}, "the weight of .gates. is '2'"),
    ],
)
def test_other_objectives_are_refused(objective: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cost_of(objective)


@pytest.mark.parametrize("objective", [*COSTS, {"gates": 1, "depth": 2, "cx": 0.5, "t_count": 3}])
def test_no_longer_circuit_costs_less_than_its_lower_bound(objective: str | dict[str, float]) -> None:
    table = instruction_table(GatePool(["h", "t", "cx", "ccx", "swap", "rx", "cp"]), 3)
    ids = random_ids(np.random.default_rng(0), table, 200, 6, 6)
    cost = cost_of(objective)
    costs = [cost(circuit) for circuit in circuits_from_ids(ids, table)]
    least = LeastCosts(objective, table)
    for known in range(6):
        begun = np.where(np.arange(6) < known, ids, NO_GATE)
        bounds = least(begun)[np.arange(len(ids)), ids[:, known]]
        assert (bounds <= costs).all()
        if objective in ("gates", "two_qubit_gates") and known == 5:
            assert bounds.tolist() == costs, "these are known exactly"
    nothing = least(np.zeros((1, 6), dtype=np.int16))
    assert nothing.shape == (1, len(table) + 1)
    assert nothing[0, NO_GATE] == 0


def test_dear_gates_are_told_from_cheap_ones() -> None:
    table = instruction_table(GatePool(["h", "cx", "swap", "ccx", "rz"]), 3)

    def excess(objective: str | dict[str, float]) -> dict[str, float]:
        values = LeastCosts(objective, table).excess
        return {step.gate: float(value) for step, value in zip(table.instructions, values[1:], strict=True)}

    assert excess({"cx": 1, "swap": 3, "ccx": 5, "gates": 0.01}) == pytest.approx(
        {"h": 0, "cx": 1 / 3, "swap": 1, "ccx": 5 / 3, "rz": 0}
    )
    assert set(excess("gates").values()) == set(excess("depth").values()) == {0}


@pytest.mark.parametrize(("text", "depth"), [("h 0; h 1; cx 0 1", 2), ("cx 0 1; cx 1 2; h 0", 2), ("h 2; h 2; t 2", 3)])
def test_the_depth_so_far_counts(text: str, depth: int) -> None:
    circuit = Circuit(3, read_gates(text))
    table = instruction_table(GatePool(["h", "t", "cx"]), 3)
    bounds = LeastCosts("depth", table)(ids_from_circuits([circuit], table, 5))
    assert (bounds == depth).all()
    assert COSTS["depth"](circuit) == depth
