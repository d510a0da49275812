"""Gate pools: token numbers, equality, and messages that tell a user what to change.

The gates themselves are checked in `tests/contracts/test_gate_harness.py`.
"""

from __future__ import annotations

import pytest

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.errors import GateSetError, QuantumDiffusionError


def test_tokens_follow_the_order_of_names() -> None:
    pool = GatePool(["cx", "h", "t"])
    assert pool.names == ("cx", "h", "t")
    assert [gate.name for gate in pool] == ["cx", "h", "t"]
    assert (len(pool), pool.padding_token, pool.vocabulary_size) == (3, 4, 5)


def test_pools_are_equal_when_their_order_is() -> None:
    assert GatePool(["h", "cx"]) == GatePool(("h", "cx")) == GatePool(name for name in ("h", "cx"))
    assert GatePool(GatePool(["h", "cx"])) == GatePool(["h", "cx"])
    assert GatePool(["h", "cx"]) != GatePool(["cx", "h"])
    assert GatePool(["h", "cx"]) != ("h", "cx")
    assert len({GatePool(["h", "cx"]), GatePool(["h", "cx"]), GatePool(["cx", "h"])}) == 2
    assert repr(GatePool(["h", "cx"])) == "GatePool(['h', 'cx'])"


@pytest.mark.parametrize(
    ("names", "is_clifford"),
    [(["h", "cx"], True), (["h", "s", "cy", "swap"], True), (["h", "t"], False), (["h", "cx", "ccx"], False)],
)
def test_a_pool_is_clifford_when_every_gate_is(names: list[str], is_clifford: bool) -> None:
    assert GatePool(names).is_clifford is is_clifford


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the gate set is empty.*'h', 'cx'"),
        ("hcx", "'hcx': give a list of names"),
        (["h", "cxx"], "unknown gate 'cxx': did you mean 'cc?x'"),
        (["h", "CSWAP"], "unknown gate 'CSWAP': did you mean 'cswap'"),
        (["h", "measure"], f"unknown gate 'measure' .valid: {', '.join(sorted(GATES))}"),
        (["swapp"], "did you mean 'swap'"),
        ([None], "unknown gate None"),
        (["h", "cx", "h", "cx", "t"], r"repeats \['cx', 'h'\]: name each gate once"),
    ],
)
def test_wrong_gate_sets_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(GateSetError, match=message) as caught:
        GatePool(names)
    assert isinstance(caught.value, QuantumDiffusionError)


def test_gates_wider_than_the_circuits_are_refused() -> None:
    pool = GatePool(["h", "cx", "ccx"])
    pool.check_fits(3)
    with pytest.raises(GateSetError, match=r"'ccx' acts on 3 qubits, but the circuits have 2: .*num_qubits to 3"):
        pool.check_fits(2)
    with pytest.raises(GateSetError, match="'cx' acts on 2 qubits, but the circuits have 1"):
        pool.check_fits(1)
