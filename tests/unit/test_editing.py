"""Edits before sampling: what is refused and in which words, and the arrays an edit becomes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, instruction_table
from quantum_diffusion.config.schema import EditConfig
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError
from quantum_diffusion.pipeline.editing import Edit, plan_edit
from quantum_diffusion.search.sampling import read_edit
from tests.conftest import read_gates

TABLE = instruction_table(GatePool(["h", "cx", "swap"]), 3)
STEPS = 6
START = Circuit(3, read_gates("h 0; cx 0 2; h 1; swap 0 1"))
LINE = ((0, 1), (1, 2))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"keep": (0,)}, r"edit.keep=\[0\] needs a circuit: give it as edit.start"),
        ({"strength": 0.5}, r"edit.strength=0.5 needs a circuit"),
        ({"start": START, "strength": 0}, "edit.strength=0 is out of range: give more than 0, at most 1"),
        ({"start": START, "strength": 1.5}, "edit.strength=1.5 is out of range"),
        ({"start": START, "strength": float("nan")}, "edit.strength=nan is out of range"),
        ({"start": START, "keep": (4,)}, "edit.keep has step 4, but edit.start has 4 gates: give 0 to 3"),
        ({"start": START, "keep": (-1,)}, "edit.keep has step -1"),
        ({"start": Circuit(3, ()), "keep": (0,)}, r"edit.keep=\[0\], but edit.start has no gates"),
        ({"max_gates": 7}, "max_gates=7: the model writes 1 to 6 gates"),
        ({"max_gates": 0}, "max_gates=0: the model writes 1 to 6 gates"),
        ({"min_gates": 7}, "edit.min_gates=7: more than 6 are not possible, give 0 to 6"),
        ({"min_gates": 4, "max_gates": 3}, "edit.min_gates=4: more than 3 are not possible"),
        ({"start": START, "keep": (3,), "max_gates": 3}, "edit.keep has step 3, but max_gates=3: raise it to 4"),
        ({"fixed_qubits": (3,)}, "edit.fixed_qubits has qubit 3, but the model has 3: give 0 to 2"),
        ({"coupling": ((0, 5),)}, "edit.coupling has qubit 5"),
        ({"coupling": ((1, 1),)}, r"edit.coupling has \[1, 1\]: give pairs of two different qubits"),
        ({"start": START, "keep": (1,), "coupling": LINE}, r"step 1, cx on qubits \[0, 2\], which edit.coupling does"),
        ({"start": START, "keep": (3,), "fixed_qubits": (1,)}, r"swap on qubits \[0, 1\], which edit.fixed_qubits"),
        ({"start": Circuit(4, ())}, "edit.start has 4 qubits and 0 gates, but the model has 3 and 6"),
        ({"start": Circuit(1, read_gates("; ".join(["h 0"] * 7)))}, "edit.start has 1 qubit and 7 gates"),
        ({"start": Circuit(1, read_gates("x 0"))}, r"edit.start has the gate 'x', but the model knows \['h', 'cx'"),
    ],
)
def test_impossible_edits_are_refused_in_one_line(edit: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        plan_edit(Edit(**edit), TABLE, STEPS)
    assert "\n" not in str(refused.value)


def test_samples_that_the_edit_leaves_nothing_are_refused() -> None:
    plan = plan_edit(Edit(start=START, keep=(1,), fixed_qubits=(1,)), TABLE, STEPS)
    allowed = np.ones((3, len(TABLE) + 1), dtype=np.bool_)
    plan.check_samples(allowed & plan.allowed, TABLE)
    allowed[2, TABLE.gate_index == 1] = False
    with pytest.raises(ConfigError, match=r"step 1, cx on qubits \[0, 2\], but the prompt of sample 2 allows other"):
        plan.check_samples(allowed & plan.allowed, TABLE)
    none_left = plan_edit(Edit(min_gates=1, fixed_qubits=(0, 1, 2)), TABLE, STEPS)
    with pytest.raises(ConfigError, match="sample 0 allow no gate at all"):
        none_left.check_samples(allowed & none_left.allowed, TABLE)


def test_no_edit_leaves_everything_free() -> None:
    plan = plan_edit(Edit(), TABLE, STEPS)
    everything = np.ones((2, len(TABLE) + 1), dtype=np.bool_)
    assert plan.allowed.all()
    assert plan.step_allowances(everything).all()
    assert not plan.known_steps(plan.step_allowances(everything), np.arange(2)).any()
    assert not plan.bounds_length


def test_bounds_on_gates_are_bounds_on_steps() -> None:
    plan = plan_edit(Edit(start=START, keep=(2,), min_gates=1, max_gates=4), TABLE, STEPS)
    per_step = plan.step_allowances(np.ones((1, len(TABLE) + 1), dtype=np.bool_))[0]
    assert per_step[:, NO_GATE].tolist() == [False] * 3 + [True] * 3, "no step before a kept one is empty"
    assert per_step[:, 1:].all(axis=1).tolist() == per_step[:, 1:].any(axis=1).tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.5, 0.9])
def test_the_share_that_is_redone(strength: float) -> None:
    plan = plan_edit(Edit(start=START, keep=(0,), strength=strength, coupling=LINE), TABLE, STEPS)
    per_step = plan.step_allowances(np.repeat(plan.allowed[None], 400, axis=0))
    known = plan.known_steps(per_step, np.arange(400))
    assert known[:, 0].all()
    assert not known[:, 1].any(), "the line does not connect 0 and 2"
    spared = 5 - int(np.ceil(strength * 5))
    assert set(known[:, 1:].sum(axis=1)) == {min(spared, 4)}
    shares = known[:, 2:].mean(axis=0)
    assert np.abs(shares - min(spared, 4) / 4).max() < 0.1, "each of the others as often"
    assert np.array_equal(plan.known_steps(per_step[:7], np.arange(7)), known[:7])


def test_edits_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "start.qasm"
    file.write_text(START.to_qasm2())
    config = EditConfig(start=str(file), keep=(0, 2), coupling=LINE, fixed_qubits=(2,), min_gates=1)
    edit = read_edit(config)
    assert edit == Edit(start=START, keep=(0, 2), coupling=LINE, fixed_qubits=(2,), min_gates=1)
    assert read_edit(EditConfig()) == Edit()
    with pytest.raises(ConfigError, match=r"edit.start='.*start.qasm' has no effect, as nothing of it is kept: set"):
        read_edit(EditConfig(start=str(file), fixed_qubits=(2,)))
    assert read_edit(EditConfig(start=str(file), strength=0.5)) == Edit(start=START, strength=0.5)
    with pytest.raises(ConfigError, match=r"edit.start='.*missing.qasm': there is no such file"):
        read_edit(EditConfig(start=str(tmp_path / "missing.qasm")))
    file.write_text('OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nch q[0],q[1];\n')
    with pytest.raises(QuantumDiffusionError, match=r"edit.start='.*start.qasm': .*expected one of"):
        read_edit(EditConfig(start=str(file)))
    file.write_text("OPENQASM 2.0;\n")
    with pytest.raises(ConfigError, match=r"edit.start='.*start.qasm': the program declares no qubits"):
        read_edit(EditConfig(start=str(file)))
    file.write_text("no program")
    with pytest.raises(QuantumDiffusionError, match=r"edit.start='.*start.qasm': .*OpenQASM"):
        read_edit(EditConfig(start=str(file)))
