"""What circuits cost, counted by hand, and weights of several costs."""

import math

import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import COSTS, cost_of
from quantum_diffusion.errors import ConfigError
from tests.conftest import read_gates

CIRCUIT = Circuit(4, read_gates("h 0; t 1; cx 0 1; tdg 2; ccx 0 1 2; swap 1 2; s 3"))


@pytest.mark.parametrize(("name", "cost"), [("gates", 7), ("two_qubit_gates", 1 + 2 + 1), ("t_count", 2), ("depth", 4)])
def test_costs(name: str, cost: int) -> None:
    assert COSTS[name](CIRCUIT) == cost_of(name)(CIRCUIT) == cost
    assert cost_of(name)(Circuit(2, ())) == 0


def test_several_costs_are_summed_with_their_weights() -> None:
    assert cost_of({"depth": 0.5, "t_count": 10, "gates": 0})(CIRCUIT) == 0.5 * 4 + 10 * 2


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("dept", "objective: unknown cost 'dept': did you mean 'depth'"),
        ({"gates": 1, "cx": 2}, "objective: unknown cost 'cx'"),
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
