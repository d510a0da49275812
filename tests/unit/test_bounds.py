"""What a search still looks for once it has found circuits: cheaper ones, and of equal costs shorter ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.tokenizer import ids_from_circuits
from quantum_diffusion.search.bounds import Bound
from quantum_diffusion.search.found import Found
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.targets import TargetTask
from tests.conftest import read_gates

TABLE = instruction_table(GatePool(["h", "cx"]), 2)
TASK = TASKS["UNITARY"]
LONG = "cx 1 0; h 0; h 0; h 1; cx 0 1; h 1; cx 0 1; h 0; h 0"


def found(objective: Any) -> Found:
    """Return what has been found when LONG has, unsimplified: nine gates, three of them cx."""
    assert isinstance(TASK, TargetTask)
    circuit = Circuit(2, read_gates(LONG))
    target = TASK.targets_of(ids_from_circuits([circuit], TABLE, 9), TABLE)[0]
    result = Found(
        task=TASK,
        target=target,
        pool=TABLE.pool,
        num_qubits=2,
        most_gates=12,
        tolerance=0.0,
        objective=objective,
        may_simplify=False,
    )
    result.add([circuit])
    assert len(result) == 1
    return result


def open_to(bound: Bound, begun: str) -> set[str]:
    """Return the kinds of gates that may follow some gates."""
    ids = ids_from_circuits([Circuit(2, read_gates(begun))], TABLE, 12)
    numbers = np.flatnonzero(bound.affordable(ids)[0, 1:])
    return {TABLE.instructions[number].gate for number in numbers}


@pytest.mark.parametrize(
    ("objective", "most_gates", "begun", "may_follow"),
    [
        ("gates", 8, "h 0; h 1; h 0; h 1; h 0; h 1; h 0", {"h", "cx"}),
        ("gates", 8, "h 0; h 1; h 0; h 1; h 0; h 1; h 0; h 1", set()),
        ("two_qubit_gates", 12, "cx 0 1", {"h", "cx"}),
        ("two_qubit_gates", 12, "cx 0 1; cx 0 1; h 0; h 1; h 0; h 1", {"h", "cx"}),  # as many cx, but fewer gates
        ("two_qubit_gates", 12, "cx 0 1; cx 0 1; h 0; h 1; h 0; h 1; h 0; h 1; h 0", {"h"}),
        ("two_qubit_gates", 12, "cx 0 1; cx 0 1; cx 0 1; h 0; h 0; h 0; h 0; h 0; h 0", set()),
        ("depth", 12, "h 0; h 1; cx 0 1; h 0; cx 0 1; h 0; cx 0 1", {"h", "cx"}),
        ("depth", 12, "h 0; h 0; h 0; h 0; h 0; h 0; h 0; h 0; h 0", set()),
        ({"two_qubit_gates": 2, "gates": 1}, 12, "cx 0 1; cx 0 1; cx 0 1; h 0; h 0; h 0; h 0", {"h"}),
    ],
)
def test_only_what_may_become_cheaper_is_extended(
    objective: Any, most_gates: int, begun: str, may_follow: set[str]
) -> None:
    bound = Bound(found(objective), TABLE, most_gates=20, wanted=1)
    assert bound.most_gates() == most_gates
    assert open_to(bound, begun) == may_follow


def test_nothing_is_left_out_before_enough_are_found_or_if_any_will_do() -> None:
    for wanted in (2, None):
        bound = Bound(found("two_qubit_gates"), TABLE, most_gates=20, wanted=wanted)
        assert bound.most_gates() == 12
        assert open_to(bound, "cx 0 1; cx 0 1; cx 0 1; cx 0 1; cx 0 1") == {"h", "cx"}
    assert Bound(found("gates"), TABLE, most_gates=5, wanted=None).most_gates() == 5
