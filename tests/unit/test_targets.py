"""Unitaries from names, files and circuits, against Qiskit's; and what is refused, hostile files included."""

from __future__ import annotations

import codecs
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit import Parameter
from qiskit.circuit.library import CCZGate, CSwapGate, MCXGate, QFTGate, ZGate
from qiskit.quantum_info import Operator, Statevector, random_unitary

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.errors import QuantumDiffusionError
from quantum_diffusion.search.unitaries import target_unitary
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
    ("name", "gate"),
    [
        ("qft", QFTGate(4)),
        ("qft:2", QFTGate(2)),
        ("toffoli", MCXGate(2)),
        ("toffoli:4", MCXGate(3)),
        ("ccz", CCZGate()),
        ("ccz:4", ZGate().control(3, annotated=False)),
        ("fredkin", CSwapGate()),
    ],
)
def test_names(name: str, gate: Any) -> None:
    np.testing.assert_allclose(target_unitary(name, 4), Operator(gate).data, atol=1e-12)


def test_the_peres_gate_and_the_adder_compute() -> None:
    for value in range(8):
        a, b, c = value & 1, value >> 1 & 1, value >> 2
        column = target_unitary("peres", 4)[:, value]
        assert column[a | (a ^ b) << 1 | (c ^ a & b) << 2] == 1
        for d in (0, 1):
            column = target_unitary("adder", 4)[:, value | d << 3]
            carry, total = divmod(a + b + c, 2)
            assert column[a | (a ^ b) << 1 | total << 2 | (d ^ carry) << 3] == 1


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


def test_files_of_one_kind_under_every_name(tmp_path: Path) -> None:
    matrix = random_unitary(4, seed=0).data
    np.save(tmp_path / "u", np.asfortranarray(matrix))
    np.savez(tmp_path / "u.NPZ.npz", any=matrix)
    for name in ("U.NPY", "u.dat", "u"):
        (tmp_path / "u.npy").rename(tmp_path / name) if name == "U.NPY" else None
        (tmp_path / name).write_bytes((tmp_path / "U.NPY").read_bytes())
        np.testing.assert_array_equal(target_unitary(tmp_path / name, 2), matrix)
    np.testing.assert_array_equal(target_unitary(tmp_path / "u.NPZ.npz", 2), matrix)
    parts = np.stack([matrix.real, matrix.imag]).astype(np.float32)  # as data sets hold it
    np.testing.assert_allclose(target_unitary(parts, 2), matrix, atol=1e-6)


def test_a_rounded_matrix_is_refused_with_what_mends_it() -> None:
    exact = random_unitary(8, seed=0).data
    rounded = exact.real.astype(np.float16) + 1j * exact.imag.astype(np.float16)
    said = refusal(rounded)
    assert re.search(r"differs from the identity by 0\.00\d+, more than 1e-05", said)
    assert "scipy.linalg.polar(matrix.astype(complex))[0]" in said
    mended = target_unitary(scipy.linalg.polar(rounded.astype(complex))[0], 3)
    assert 1 - abs(np.vdot(mended, exact) / 8) ** 2 < 1e-6


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


BELL = "qubit[2] q;\nh q[0];\ncx q[0], q[1];\n"


@pytest.mark.parametrize(
    "text",
    {
        "no version": 'include "stdgates.inc";\n' + BELL,
        "no version, no header": BELL.replace("h q[0]", "U(pi/2, 0, pi) q[0]").replace("cx", "ctrl @ U(pi, 0, pi)"),
        "a comment before": '/* a\n tool */ OPENQASM 3.0;\ninclude "stdgates.inc";\n' + BELL,
        "version 3": 'OPENQASM 3;\ninclude "stdgates.inc";\n' + BELL,
        "version 3.1": '// by hand\n\nOPENQASM\t3.1 ;\ninclude "stdgates.inc";\n' + BELL,
        "lines of Windows": ('OPENQASM 3.0;\ninclude "stdgates.inc"; // a\n' + BELL).replace("\n", "\r\n"),
    }.items(),
    ids=lambda item: item[0],
)
def test_every_way_to_begin_open_qasm_3(text: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("qiskit_qasm3_import")
    (tmp_path / "bell.qasm3").write_bytes(text[1].encode())
    assert Operator(target_unitary(tmp_path / "bell.qasm3", 2)).equiv(target_unitary("ghz:2", 2))


OLD_BELL = 'include "qelib1.inc";\nqreg q[2];\nh q[0];\ncx q[0], q[1];\n'


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "no version": OLD_BELL.encode(),
        "version 2": b"OPENQASM 2;" + OLD_BELL.encode(),
        "a comment before": b"/* two\nlines */ OPENQASM 2.0; // 3.0\n" + OLD_BELL.encode(),
        "a byte-order mark": codecs.BOM_UTF8 + b"OPENQASM 2.0;\n" + OLD_BELL.encode(),
        "UTF-16": f"OPENQASM 2.0;\n{OLD_BELL}".encode("utf-16"),
        "a comment in Latin-1": b"// f\xfcr zwei Qubits\nOPENQASM 2.0;\n" + OLD_BELL.encode(),
        "lines of Windows": b"// a\r\nOPENQASM 2.0;\r\n" + OLD_BELL.replace("\n", " // b\r\n").encode(),
        "lines of old": b"// a\rOPENQASM 2.0;\r" + OLD_BELL.replace("\n", "\r").encode(),
        "tabs": b"OPENQASM\t2.0;" + OLD_BELL.replace(" ", "\t").encode(),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_to_begin_open_qasm_2(name: str, content: bytes, tmp_path: Path) -> None:
    for file in ("bell.QASM", "bell.txt", "bell.inc", "bell"):
        (tmp_path / file).write_bytes(content)
        assert Operator(target_unitary(tmp_path / file, 2)).equiv(target_unitary("ghz:2", 2)), name


@pytest.mark.parametrize("name", ["u.csv", "u.mat", "u.txt", "u"])
def test_files_of_other_kinds_are_named(name: str, tmp_path: Path) -> None:
    np.savetxt(tmp_path / name, np.eye(2))
    said = refusal(str(tmp_path / name))
    assert "the file is of an unknown kind: save an array with numpy.save (.npy), or a circuit as OpenQASM" in said


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
        ("anything", "the path of a .npy or .qasm file"),
        ("unitary.npy", "'unitary.npy': there is no such file: give the path of a file"),
        ("some/where", "'some/where': there is no such file: give the path of a file"),
        ("", "the target is empty: give a name (adder, ccz,"),
        ("qft:three", "cannot read the target 'qft:three': expected qft, or e.g. qft:3 (qubits)"),
        ("qft:0", "the target 'qft:0' is out of range: give numbers of at least 1, and at most 3 qubits"),
        ("   ", "the target is empty"),
        ("x" * 4000, "... (4,000 characters) (valid: adder,"),
        ("ghz:99999999999", "the target has 99999999999 qubits, but the model writes circuits of at most 3"),
        (
            "ghz:" + "9" * 5000,
            "... (5,004 characters) is out of range: give numbers of at least 1, and at most 3 qubits",
        ),
        ("random:3:10000", "the target has 10,000 random gates: give 1 to 9,999"),
        ("/dev/null", "'/dev/null': the path is a device or pipe: give the path of a file"),
        ("qft:3:4", "cannot read the target 'qft:3:4'"),
        ("random:3:4:5", "random:3:8 (qubits, gates)"),
        ("qft:4", "the target has 4 qubits, but the model writes circuits of at most 3"),
        ("toffoli:9999", "the target has 9999 qubits"),
        ("fredkin:3", "cannot read the target 'fredkin:3': expected fredkin"),
        ("adder", "the target has 4 qubits, but the model writes circuits of at most 3"),
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
        (np.stack([np.eye(4)] * 3), "the target has shape (3, 4, 4): give one matrix [D, D]"),
        (np.stack([np.eye(4)] * 2), "a real array [2, D, D] holds the real and imaginary parts of one matrix"),
        (np.ma.masked_array(np.eye(4), mask=np.eye(4) == 1), "masked entries: give an array without a mask"),
        (np.ma.masked_array(np.zeros((2, 4, 4)), mask=True), "masked entries: give an array without a mask"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.full((2, 2), 1e300), "not unitary"),
        (np.ones((2, 2)), "not unitary: U^dagger U differs from the identity by 2"),
        (np.array([[0, 1], [1, None]]), "the target holds object, not numbers"),
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


def an_archive(**arrays: np.ndarray) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: None, "there is no such file"),
        (lambda file: file.mkdir(), "the path is a folder: give a file"),
        (lambda file: file.write_bytes(b""), "is not an array of numbers"),
        (lambda file: file.write_bytes(b"\x93NUMPY" + bytes(range(200))), "is not an array of numbers"),
        (lambda file: file.write_bytes(pickle.dumps(Trap())), "is not an array of numbers"),
        (lambda file: np.save(file, np.array([Trap()]), allow_pickle=True), "is not an array of numbers"),
        (lambda file: file.write_bytes(bytes(5 * 2**20)), "has more than 4 MiB"),
        (lying_header, "is not an array of numbers"),
        (cut_short, "is not an array of numbers"),
        (an_archive(), "holds 0 arrays: save a single one with numpy.save"),
        (an_archive(a=np.eye(2), b=np.eye(2)), "holds 2 arrays: save a single one with numpy.save"),
        (an_archive(a=np.zeros(2**21)), "it has more than 4 MiB when unpacked"),
        (an_archive(a=np.array([Trap()])), "is not an array of numbers"),
        (lambda file: np.save(file, np.zeros((0, 0))), "the target has shape (0, 0)"),
        (lambda file: np.save(file, np.zeros((2, 3, 3))), "the target has shape (3, 3)"),
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
        ("OPENQASM 2.0;", "declares no qubits: declare at least one"),
        (" \n", "the OpenQASM text is empty: give one whole program"),
        ("hello", "cannot read the text as OpenQASM 2"),
        (HEAD + "h q[7];", "cannot read the text as OpenQASM 2 (line 4, column 5: index 7 is out-of-range"),
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
        (HEAD + "".join(BOMB) + "g45 q[0];", "custom gates of the program expand to more than 100,000 operations"),
        (
            HEAD + "".join(BOMB[:12]) + "g11 q[0];" * 100,
            "custom gates of the program expand to more than 100,000 operations",
        ),
        ('OPENQASM 2.0; include "other.inc";', "unable to find 'other.inc'"),
        (HEAD + "/* two\nlines */ h q[7]; // h\n", "(line 5, column 14: index 7"),
        (HEAD + "/* never closed\nh q[0];", "(line 4, column 1: needed a start-of-statement token"),
        (HEAD + "h q[0];\0\0", "(line 4, column 8: encountered"),
        (HEAD.replace("2.0", "2.1"), "(line 1, column 10: can only handle OpenQASM 2.0, but given 2.1)"),
        (HEAD.replace("2.0", "4.0"), "the program is in OpenQASM 4, which is not supported: give OpenQASM 2 or 3"),
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
    assert message.endswith("cannot be read (Permission denied): make it readable, or give another one")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "circuit.qasm").write_bytes(b"\xff\xfe\x00")
    assert "is not a text" in refusal(tmp_path / "circuit.qasm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("qubit q; warp q;", "cannot read the text as OpenQASM 3 (line 3, column 10: gate 'warp' is not defined.)"),
        ("qubit q;\n  h q h;", "cannot read the text as OpenQASM 3 (line 4, column 7: unexpected 'h')"),
        ("qubit q; h q", "cannot read the text as OpenQASM 3 (line 4, column 1: unexpected '<EOF>')"),
        ("qubit q; h q;\0", "cannot read the text as OpenQASM 3 (line 3, column 14: token recognition error"),
        ("qubit[2] q; bit c = measure q[0];", "the circuit has no unitary"),
        ("garbage((", "cannot read the text as OpenQASM 3 (line 4, column 1: unexpected"),
        ("(" * 5000, "cannot read the text as OpenQASM 3 ("),
    ],
)
def test_open_qasm_3_that_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("qiskit_qasm3_import")
    (tmp_path / "circuit.qasm").write_text(f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{text}\n')
    assert said in refusal(tmp_path / "circuit.qasm")
    assert capsys.readouterr().err == ""


def test_open_qasm_3_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit.utils import optionals

    monkeypatch.setattr(optionals.HAS_QASM3_IMPORT, "_bool", False)
    (tmp_path / "circuit.qasm").write_text("OPENQASM 3.0;\nqubit q;\n")
    message = refusal(tmp_path / "circuit.qasm")
    assert "pip install 'quantum-diffusion[qasm3]'" in message
