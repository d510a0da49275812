"""Circuits as data: what they refuse, count and write.

Qiskit checks in `tests/contracts` that the QASM text means the same circuit.
"""

from __future__ import annotations

import dataclasses

import pytest

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.errors import GateSetError, unknown_name

GHZ = Circuit(
    3,
    (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,)), Instruction("cx", (1,), (2,))),
)


def test_circuits_are_values() -> None:
    twin = Circuit(3, (Instruction("h", (), (0,)), *GHZ.instructions[1:]))
    assert twin == GHZ
    assert hash(twin) == hash(GHZ)
    assert Circuit(4, GHZ.instructions) != GHZ
    assert Circuit(3, GHZ.instructions[::-1]) != GHZ
    with pytest.raises(dataclasses.FrozenInstanceError):
        GHZ.num_qubits = 4  # type: ignore[misc]


def test_length_and_counts() -> None:
    assert (len(GHZ), len(Circuit(1, ()))) == (3, 0)
    assert list(GHZ.gate_counts.items()) == [("h", 1), ("cx", 2)]
    assert Circuit(1, ()).gate_counts == {}


def test_qubits_are_controls_then_targets() -> None:
    assert Instruction("ccx", (3, 1), (0,)).qubits == (3, 1, 0)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Instruction("cx", (), (0, 1)), "'cx' takes 1 control and 1 target, given Instruction"),
        (Instruction("cx", (0, 1), (2,)), "'cx' takes 1 control"),
        (Instruction("swap", (0,), (1,)), "'swap' takes 0 controls and 2 targets"),
        (Instruction("h", (), ()), "'h' takes 0 controls and 1 target"),
        (Instruction("cx", (1,), (1,)), "does not fit a circuit of 3 qubits"),
        (Instruction("swap", (), (2, 2)), "does not fit a circuit of 3 qubits"),
        (Instruction("h", (), (3,)), r"targets=\(3,\), angles=\(\)\) does not fit a circuit of 3 qubits"),
        (Instruction("h", (), (-1,)), "does not fit a circuit of 3 qubits"),
        (Instruction("hh", (), (0,)), "unknown gate 'hh': did you mean 'h'"),
    ],
)
def test_impossible_instructions_are_refused(instruction: Instruction, message: str) -> None:
    with pytest.raises(GateSetError, match=message):
        Circuit(3, (*GHZ.instructions, instruction))


def test_qasm_text() -> None:
    assert GHZ.to_qasm2() == (
        'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\nh q[0];\ncx q[0],q[1];\ncx q[1],q[2];\n'
    )


@pytest.mark.parametrize(
    ("given", "valid", "message"),
    [
        ("adm", ["sgd", "adam"], "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"),
        ("zzz", ["sgd", "adam"], "unknown optimizer 'zzz' (valid: adam, sgd)"),
        (3, ["sgd"], "unknown optimizer 3 (valid: sgd)"),
        ("x", [], "unknown optimizer 'x' (valid: none)"),
    ],
)
def test_messages_for_unknown_names(given: object, valid: list[str], message: str) -> None:
    assert unknown_name("optimizer", given, valid) == message
