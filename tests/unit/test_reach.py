"""Searches that cannot succeed are refused before anything is sampled; those that can never are."""

import re
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.reach import check_srv_reach, check_target_reach
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.tasks.unitary import UnitaryTask
from tests.conftest import read_gates

TABLE = instruction_table(GatePool(["h", "cx", "swap", "ccx"]), 3)
START = Circuit(3, read_gates("h 0; cx 0 2"))
GHZ = Circuit(3, read_gates("h 0; cx 0 1; cx 1 2"))


@pytest.mark.parametrize(
    ("label", "edit", "said"),
    [
        ((1, 1, 1), {"fixed_qubits": (0, 1, 2)}, "edit.fixed_qubits leave no gates; relax them"),
        ((2, 2, 1), {"fixed_qubits": (1,)}, r"sample.srv=\[2, 2, 1\] entangles qubit 0, but edit.coupling and"),
        ((2, 2), {"coupling": ()}, "leave no gates that join it with another entangled qubit"),
        ((2, 2, 1), {"coupling": ((1, 2),)}, "entangles qubit 0"),
        ((2, 2), {"coupling": ((0, 2), (2, 1))}, "entangles qubit 0"),
        ((2, 2, 2), {"coupling": ((0, 1), (1, 2)), "fixed_qubits": (1,)}, "entangles qubit 0"),
        ((2, 2, 2), {"coupling": ((0, 1),)}, "entangles qubit 2"),
        ((2, 2, 2), {"coupling": ((0, 1), (1, 2), (0, 2)), "max_gates": 9}, "the model writes 1 to 6"),
    ],
)
def test_vectors_out_of_reach(label: tuple[int, ...], edit: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_srv_reach(label, Edit(**edit), TABLE, 6)


def test_too_few_gates_for_a_vector() -> None:
    pairs = instruction_table(GatePool(["h", "cx"]), 3)
    with pytest.raises(
        ConfigError, match=r"needs at least 2 gates, but circuits have at most 1: raise sample\.max_gates .at most 6"
    ):
        check_srv_reach((2, 2, 2), Edit(max_gates=1), pairs, 6)
    with pytest.raises(ConfigError, match="have at most 1: use a model trained on longer circuits"):
        check_srv_reach((2, 2, 2), Edit(), pairs, 1)
    check_srv_reach((2, 2, 1), Edit(coupling=((0, 2), (2, 1))), pairs, 6)  # by way of a qubit in between


@pytest.mark.parametrize(
    ("target", "gates", "edit", "said"),
    [
        ("ghz:3", ("h", "cx"), {"fixed_qubits": (0, 1, 2)}, "the target acts on qubit 0, but compile.gates, edit"),
        ("ghz:3", ("h", "cx"), {"fixed_qubits": (2,)}, "the target acts on qubit 2, but"),
        ("ghz:3", ("h", "cx"), {"coupling": ()}, r"the target joins qubits \[2\] with the others, but"),
        ("ghz:3", ("h",), {}, "leave no gates between them: relax them"),
        ("toffoli", ("h", "cx"), {"coupling": ((0, 1),)}, r"the target joins qubits"),
        ("ghz:2", ("h", "cx"), {"coupling": ((0, 2), (1, 2))}, r"the target joins qubits"),
        (
            "ghz:3",
            ("h",),
            {"start": START, "keep": (1,)},
            r"step 1, cx on qubits \[0, 2\], which compile.gates=\['h'\]",
        ),
        ("ghz:2", ("h", "cx"), {"start": START, "keep": (1,)}, "but the target has 2 qubits: do not keep it"),
    ],
)
def test_unitaries_out_of_reach(target: str, gates: tuple[str, ...], edit: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_target_reach(UnitaryTask(), target_unitary(target, 3), gates, Edit(**edit), TABLE, 6)


@pytest.mark.parametrize(
    ("target", "gates", "edit", "said"),
    [
        (
            "qft:3",
            "h cx",
            {},
            "h and cx is the target: all of them are real, up to a global phase, and the target is not",
        ),
        ("qft:3", "h cx", {}, "add t to compile.gates"),
        ("qft:1", "x", {}, "add h to compile.gates"),
        ("ising:3", "h cx", {}, "no gates without angles make it exactly: set compile.tolerance, e.g. to 0.01"),
        ("xxz:2:delta1:t0.7853981633974483", "x swap", {}, None),
        ("toffoli", "h s cx", {}, "all of them are Clifford, and the target is not: add t or ccx to compile.gates"),
        ("toffoli:2", "h swap", {}, "add cx to compile.gates"),
        ("qft:3", "x cx", {}, "add h and t to compile.gates"),
        ("toffoli", "h cx ccx", {"coupling": ((0, 1), (1, 2))}, None),
        ("toffoli:2", "x cx", {"max_gates": 1}, None),
        (
            "ghz:3",
            "h cx",
            {"max_gates": 1},
            "needs at least 2 gates, but circuits have at most 1: raise compile.max_gates (at most 6)",
        ),
        (
            "toffoli",
            "h cx ccx",
            {"start": START, "keep": (0, 1), "max_gates": 2},
            "is the target (1 was tried): keep fewer gates, or raise",
        ),
        (
            "ghz:2",
            "h cx",
            {"max_gates": 1},
            "no circuit of at most 1 gate is the target (5 were tried): raise compile.max_gates",
        ),
        ("ghz:3", "h cx swap ccx", {"start": GHZ, "keep": (0, 1, 2), "max_gates": 3}, None),
    ],
)
def test_what_gates_and_bounds_allow(target: str, gates: str, edit: dict[str, Any], said: str | None) -> None:
    table = instruction_table(GatePool(["h", "s", "t", "x", "cx", "swap", "ccx"]), 3)
    with pytest.raises(ConfigError, match=re.escape(said)) if said else nullcontext():
        check_target_reach(UnitaryTask(), target_unitary(target, 3), gates.split(), Edit(**edit), table, 6)


def test_gates_that_entangle_nothing() -> None:
    table = instruction_table(GatePool(["h", "swap", "ccx"]), 3)
    with pytest.raises(
        ConfigError, match="entangles qubit 0, but h and swap, the only gates left there, cannot entangle it"
    ):
        check_srv_reach((2, 2, 1), Edit(coupling=((0, 1),)), table, 6)
    check_srv_reach((2, 2, 1), Edit(), table, 6)


def test_few_circuits_are_all_tried() -> None:
    kept = {"start": GHZ, "keep": (0, 1, 2)}
    with pytest.raises(ConfigError, match=r"3 gates with the gates of edit.keep has .* \(1 was tried\): keep fewer"):
        check_srv_reach((2, 2, 1), Edit(**kept, max_gates=3), TABLE, 6)
    check_srv_reach((2, 2, 2), Edit(**kept, max_gates=3), TABLE, 6)
    check_srv_reach((2, 2, 1), Edit(**kept), TABLE, 6)
    with pytest.raises(ConfigError, match=r"no circuit of at most 1 gate has sample.srv=\[2, 2, 1\] \(16 were tried\)"):
        check_srv_reach((2, 2, 1), Edit(max_gates=1), TABLE, 6)


def test_what_some_circuit_reaches_is_never_refused() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        pairs = [(0, 1), (1, 2), (0, 2)]
        coupling = tuple(pair for pair in pairs if rng.random() < 0.5)
        fixed = tuple(qubit for qubit in range(3) if rng.random() < 0.3)
        fine = TABLE.allowed(coupling) & ~TABLE.uses_qubit[:, list(fixed)].any(axis=1)
        fine[0] = False
        if not fine.any():
            continue
        ids = rng.choice(np.flatnonzero(fine), (1, int(rng.integers(1, 7)))).astype(np.int16)
        edit = Edit(coupling=coupling, fixed_qubits=fixed, max_gates=ids.shape[1])
        check_srv_reach(schmidt_rank_vectors(ids, TABLE)[0].tolist(), edit, TABLE, 6)
        check_target_reach(UnitaryTask(), unitaries(ids, TABLE)[0], TABLE.pool.names, edit, TABLE, 6)
