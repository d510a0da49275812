"""Unitaries from names, files and circuits, against Qiskit's; and what is refused, hostile files included."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit import Parameter
from qiskit.circuit.library import MCXGate, QFTGate
from qiskit.quantum_info import Operator, Statevector, random_unitary

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.evaluation.targets import target_unitary
from tests.conftest import read_gates


def many_gates() -> QuantumCircuit:
    """A circuit of gates that the package does not have."""
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cswap(0, 1, 2)
    circuit.rxx(0.2, 0, 1)
    circuit.append(QFTGate(3), [0, 1, 2])
    return circuit


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize(
    ("name", "gate"), [("qft", QFTGate(4)), ("qft:2", QFTGate(2)), ("toffoli", MCXGate(2)), ("toffoli:4", MCXGate(3))]
)
def test_names(name: str, gate: Any) -> None:
    np.testing.assert_allclose(target_unitary(name, 4), Operator(gate).data, atol=1e-12)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5])
def test_ghz_prepares_the_state(num_qubits: int) -> None:
    state = Statevector(target_unitary(f"ghz:{num_qubits}", 5)[:, 0])
    wanted = np.zeros(2**num_qubits)
    wanted[[0, -1]] = np.sqrt(0.5)
    np.testing.assert_allclose(state.data, wanted, atol=1e-12)


def test_random_circuits_depend_on_seed_gates_and_length() -> None:
    def draw(name: str = "random", seed: int = 0) -> np.ndarray:
        return target_unitary(name, 3, gates=("x", "ccx"), num_gates=5, seed=seed)

    np.testing.assert_array_equal(draw(), draw())
    np.testing.assert_array_equal(draw(), draw("random:3"))
    np.testing.assert_array_equal(draw(), draw("random:3:5"))
    assert any((draw() != draw(seed=seed)).any() for seed in range(1, 4))
    assert np.isin(draw(), [0, 1]).all(), "x and ccx permute the basis"
    one = np.abs(draw("random:2:1"))  # ccx does not fit
    assert one.shape == (4, 4)
    assert np.trace(one) == 0


def test_circuits() -> None:
    given = many_gates()
    np.testing.assert_allclose(target_unitary(given, 3), Operator(given).data, atol=1e-12)
    ours = Circuit(2, read_gates("h 1; cx 1 0"))
    native = QuantumCircuit(2)
    native.h(1)
    native.cx(1, 0)
    np.testing.assert_allclose(target_unitary(ours, 2), Operator(native).data, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_files_of_matrices(dtype: type, tmp_path: Path) -> None:
    matrix = random_unitary(4, seed=0).data.astype(dtype)
    np.save(tmp_path / "u.npy", matrix)
    read = target_unitary(tmp_path / "u.npy", 2)
    assert read.dtype == np.complex128
    np.testing.assert_array_equal(read, matrix)
    np.save(tmp_path / "real.npy", np.eye(2, dtype=np.int64)[::-1])
    np.testing.assert_array_equal(target_unitary(str(tmp_path / "real.npy"), 2), [[0, 1], [1, 0]])


def test_files_of_circuits(tmp_path: Path) -> None:
    file = tmp_path / "circuit.qasm"
    file.write_text(qasm2.dumps(many_gates()))
    np.testing.assert_allclose(target_unitary(file, 3), Operator(many_gates()).data, atol=1e-12)
    file.write_text(Circuit(3, read_gates("swap 0 2; cswap 0 1 2")).to_qasm2())
    assert target_unitary(file, 3).shape == (8, 8)


def test_open_qasm_3(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_qasm3_import")
    file = tmp_path / "circuit.qasm"
    file.write_text("// a comment\n" + qasm3.dumps(many_gates()))
    np.testing.assert_allclose(target_unitary(file, 3), Operator(many_gates()).data, atol=1e-12)


def test_circuits_of_own_gates(tmp_path: Path) -> None:
    file = tmp_path / "circuit.qasm"
    file.write_text(f"{HEAD}{''.join(BOMB[:8])}g7 q[1]; // 128 times x\ng0 q; barrier q;\n")
    np.testing.assert_allclose(target_unitary(file, 2), np.eye(4)[::-1], atol=1e-12)


# --------------------------------------------------------------------------------------------- what is refused


def refusal(target: Any, num_qubits: int = 3) -> str:
    with pytest.raises(QuantumDiffusionError) as caught:
        target_unitary(target, num_qubits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tofoli", "unknown target 'tofoli': did you mean 'toffoli'?"),
        ("unitary.txt", "a path that ends in .npy, .qasm"),
        ("", "unknown target ''"),
        ("qft:three", "cannot read the target 'qft:three': expected qft or e.g. qft:3 (qubits)"),
        ("qft:0", "cannot read the target 'qft:0'"),
        ("qft:3:4", "cannot read the target 'qft:3:4'"),
        ("random:3:4:5", "random:3:8 (qubits, gates)"),
        ("qft:4", "the target has 4 qubits, but the model writes circuits of at most 3"),
        ("toffoli:9999", "the target has 9999 qubits"),
    ],
)
def test_names_that_are_refused(name: str, said: str) -> None:
    assert said in refusal(name)


def test_the_toffoli_gate_does_not_fit_two_qubits() -> None:
    assert "the target has 3 qubits" in refusal("toffoli", 2)


def measured() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    return circuit


def open_parameter() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("angle"), 0)
    return circuit


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (measured(), "the circuit has no unitary (Cannot apply operation with classical bits: measure)"),
        (open_parameter(), "give every parameter a value"),
        (QuantumCircuit(40), "the target has 40 qubits"),  # before its 16 TiB are asked for
        ([[1, 0], [0, 1]], "the target is a list"),
        (None, "the target is a NoneType"),
        (np.eye(3), "the target has shape (3, 3)"),
        (np.eye(16), "the target has 4 qubits"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.full((2, 2), 1e300), "not unitary"),
        (np.ones((2, 2)), "not unitary: U^dagger U differs from the identity by 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_objects_that_are_refused(target: Any, said: str) -> None:
    assert said in refusal(target)


def lying_header(file: Path) -> None:
    with file.open("wb") as stream:
        header = {"descr": "<c16", "fortran_order": False, "shape": (2**20, 2**20)}
        np.lib.format.write_array_header_1_0(stream, header)


class Trap:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


def cut_short(file: Path) -> None:
    np.save(file, np.eye(8))
    file.write_bytes(file.read_bytes()[:-1])


def an_archive(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, u=np.eye(2))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: None, "there is no such file"),
        (lambda file: file.mkdir(), "there is no such file"),
        (lambda file: file.write_bytes(b""), "is no array of numbers"),
        (lambda file: file.write_bytes(b"\x93NUMPY" + bytes(range(200))), "is no array of numbers"),
        (lambda file: file.write_bytes(pickle.dumps(Trap())), "is no array of numbers"),
        (lambda file: np.save(file, np.array([Trap()]), allow_pickle=True), "is no array of numbers"),
        (lambda file: file.write_bytes(bytes(5 * 2**20)), "has more than 4 MiB"),
        (lying_header, "is no array of numbers"),
        (cut_short, "is no array of numbers"),
        (an_archive, "is no array of numbers"),
        (lambda file: np.save(file, np.array(3.0)), "the target has shape ()"),
        (lambda file: np.save(file, np.full((2, 2), "a")), "the target holds <U1, not numbers"),
        (lambda file: np.save(file, np.eye(8)[:4]), "the target has shape (4, 8)"),
    ],
)
def test_matrices_that_are_refused(write: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "u.npy"
    write(file)
    message = refusal(str(file))
    assert message.startswith(f"{str(file)!r}: ")
    assert said in message


HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\n'
BOMB = ["gate g0 a {x a;}\n", *(f"gate g{n} a {{g{n - 1} a; g{n - 1} a;}} // twice\n" for n in range(1, 46))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "declares no qubits: give a circuit of one or more"),
        ("hello", "no readable OpenQASM 2"),
        (HEAD + "h q[7];", "no readable OpenQASM 2 (<input>:4,4: index 7 is out-of-range"),
        (HEAD + "warp q[0];", "'warp' is not defined in this scope"),
        (HEAD + "creg c[2]; measure q -> c;", "the circuit has no unitary"),
        (HEAD + "reset q[0];", "the circuit has no unitary"),
        (HEAD + "creg c[1]; if(c==1) x q[0];", "the circuit has no unitary"),
        (HEAD + "opaque black a; black q[0];", "the circuit has no unitary"),
        (HEAD.replace("[2]", "[50]"), "the target has 50 qubits"),
        (HEAD.replace("[2]", " [ 1000000000 ]"), "registers of 1000000000 bits or more: give at most 64"),
        (HEAD + "creg c[1000000000];", "registers of 1000000002 bits"),
        (HEAD + "qreg a[40]; qreg b[40];", "registers of 82 bits"),
        ("OPENQASM 3.0; /* // */ qubit[1000000000] q;", "registers of 1000000000 bits"),
        (
            "OPENQASM 3.0; const int n = 1; qubit[n] q;",
            "declares a register of size 'n': write the size as a plain number",
        ),
        ("OPENQASM 3.0; " + "qubit q; " * 65, "registers of 65 bits"),
        (HEAD + "".join(BOMB) + "g45 q[0];", "own gates that stand for more than 100,000 operations"),
        (HEAD + "".join(BOMB[:12]) + "g11 q[0];" * 100, "own gates that stand for more than 100,000 operations"),
        ('OPENQASM 2.0; include "other.inc";', "unable to find 'other.inc'"),
    ],
)
def test_circuits_that_are_refused(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.inc").write_text("")  # a file never names another one
    Path("circuit.qasm").write_text(text)
    message = refusal("circuit.qasm")
    assert message.startswith("'circuit.qasm': ")
    assert said in message


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "u.npy", np.eye(2))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    message = refusal(tmp_path / "u.npy")
    assert message.endswith("cannot be read (Permission denied): make it readable, or give another file")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "circuit.qasm").write_bytes(b"\xff\xfe\x00")
    assert "is no text" in refusal(tmp_path / "circuit.qasm")


@pytest.mark.parametrize("text", ["qubit q; warp q;", "qubit[2] q; bit c = measure q[0];", "garbage((", "(" * 5000])
def test_open_qasm_3_that_is_refused(text: str, tmp_path: Path) -> None:
    pytest.importorskip("qiskit_qasm3_import")
    (tmp_path / "circuit.qasm").write_text(f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{text}\n')
    message = refusal(tmp_path / "circuit.qasm")
    assert "no readable OpenQASM 3" in message or "the circuit has no unitary" in message


def test_open_qasm_3_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit.utils import optionals

    monkeypatch.setattr(optionals.HAS_QASM3_IMPORT, "_bool", False)
    (tmp_path / "circuit.qasm").write_text("OPENQASM 3.0;\nqubit q;\n")
    message = refusal(tmp_path / "circuit.qasm")
    assert "pip install 'quantum-diffusion[qasm3]'" in message
