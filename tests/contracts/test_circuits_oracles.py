"""Unitaries, Schmidt rank vectors and exports against Qiskit and stim, which share no code with ours.

Stim labels Clifford circuits by the volume (a qubit is separable exactly when its Bloch vector has length
one); Qiskit's operators and state vectors check everything else on a few hundred circuits a gate pool.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import stim
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends.base import CircuitBackend
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.files import NUMBERED, numbered, write_circuits
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.labels import (
    prefix_rank_vectors,
    ranks_of_states,
    schmidt_rank_vectors,
)
from quantum_diffusion.circuits.matrices import as_two_channels, from_two_channels, infidelities, pieces
from quantum_diffusion.circuits.prompts import srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import statevectors, unitaries
from quantum_diffusion.circuits.tokenizer import (
    circuits_from_ids,
    decode_tokens,
    encode_ids,
    ids_from_circuits,
)
from quantum_diffusion.errors import GateSetError

CLIFFORD = tuple(name for name, gate in GATES.items() if gate.is_clifford)
POOLS = {
    "h_cx": ("h", "cx"),
    "clifford": CLIFFORD,
    "clifford_t": ("t", "h", "cx", "s", "tdg"),
    "paper_unitary": ("h", "cx", "z", "x", "ccx", "swap"),
    "three_qubit": ("cswap", "h", "ccx"),
    "full": tuple(GATES),
    "full_reversed": tuple(reversed(GATES)),
}
CASES = [
    pytest.param(names, num_qubits, id=f"{label}-{num_qubits}")
    for label, names in POOLS.items()
    for num_qubits in (2, 3, 4)
    if max(GATES[name].num_qubits for name in names) <= num_qubits
]


def draw(
    names: tuple[str, ...], num_qubits: int, num_circuits: int, max_gates: int, seed: int = 0
) -> tuple[Ids, InstructionTable]:
    table = instruction_table(GatePool(names), num_qubits)
    return random_ids(np.random.default_rng(seed), table, num_circuits, 0, max_gates), table


def stim_ranks(ids: Ids, table: InstructionTable) -> np.ndarray:
    tableaux = {}
    for gate in table.pool:
        alone = instruction_table(GatePool([gate.name]), gate.num_qubits).instructions[0]
        matrix = QiskitBackend().unitary(Circuit(gate.num_qubits, (alone,)))
        tableaux[gate.name] = stim.Tableau.from_unitary_matrix(matrix, endian="little")
    ranks = np.empty((len(ids), table.num_qubits), dtype=np.int8)
    for row, circuit in enumerate(ids.tolist()):
        simulator = stim.TableauSimulator()
        simulator.set_num_qubits(table.num_qubits)
        for step in (table.instructions[number - 1] for number in circuit if number):
            simulator.do_tableau(tableaux[step.gate], step.qubits)
        for qubit in range(table.num_qubits):
            ranks[row, qubit] = 1 if simulator.peek_bloch(qubit)[0] else 2
    return ranks


# ---- unitaries


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_unitaries_and_states_equal_qiskits(names: tuple[str, ...], num_qubits: int) -> None:
    ids, table = draw(names, num_qubits, 60, 14)
    backend = QiskitBackend()
    theirs = np.array([backend.unitary(circuit) for circuit in circuits_from_ids(ids, table)])
    np.testing.assert_allclose(unitaries(ids, table), theirs, atol=1e-10)
    np.testing.assert_allclose(statevectors(ids, table), theirs[:, :, 0], atol=1e-10)


@pytest.mark.parametrize("names", POOLS.values(), ids=POOLS)
def test_simulation_of_nothing(names: tuple[str, ...]) -> None:
    table = instruction_table(GatePool(names), 3)
    assert unitaries(np.zeros((0, 5), dtype=np.int16), table).shape == (0, 8, 8)
    np.testing.assert_array_equal(unitaries(np.zeros((2, 0), dtype=np.int16), table), [np.eye(8)] * 2)
    assert schmidt_rank_vectors(np.zeros((0, 5), dtype=np.int16), table).shape == (0, 3)
    np.testing.assert_array_equal(schmidt_rank_vectors(np.zeros((2, 4), dtype=np.int16), table), [[1, 1, 1]] * 2)
    assert prefix_rank_vectors(np.zeros((2, 0), dtype=np.int16), table).shape == (2, 0, 3)


# ---- Schmidt rank vectors


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_labels_equal_qiskits(names: tuple[str, ...], num_qubits: int) -> None:
    ids, table = draw(names, num_qubits, 120, 16, seed=1)
    backend = QiskitBackend()
    theirs = np.array([backend.schmidt_rank_vector(circuit) for circuit in circuits_from_ids(ids, table)])
    np.testing.assert_array_equal(schmidt_rank_vectors(ids, table), theirs)
    assert {1, 2} == set(theirs.ravel().tolist())  # both answers must have been at stake


@pytest.mark.parametrize("names", [("h", "t", "cx"), ("h", "t", "ccx", "tdg", "cswap")], ids=["ht_cx", "ht_ccx"])
def test_labels_of_long_non_clifford_circuits_equal_qiskits(names: tuple[str, ...]) -> None:
    ids, table = draw(names, 6, 60, 80, seed=2)
    backend = QiskitBackend()
    theirs = [backend.schmidt_rank_vector(circuit) for circuit in circuits_from_ids(ids, table)]
    np.testing.assert_array_equal(schmidt_rank_vectors(ids, table), theirs)


@pytest.mark.parametrize("names", [POOLS["h_cx"], CLIFFORD], ids=["h_cx", "clifford"])
@pytest.mark.parametrize(
    ("num_qubits", "num_circuits", "max_gates"),
    [
        (1, 100, 8),
        (3, 10_000, 12),
        (5, 5_000, 20),
        (8, 5_000, 30),
        (9, 500, 40),
        (12, 300, 60),
        (20, 300, 100),
        (33, 30, 150),
    ],
)
def test_clifford_labels_equal_stims(
    names: tuple[str, ...], num_qubits: int, num_circuits: int, max_gates: int
) -> None:
    names = tuple(name for name in names if GATES[name].num_qubits <= num_qubits)
    ids, table = draw(names, num_qubits, num_circuits, max_gates, seed=3)
    np.testing.assert_array_equal(schmidt_rank_vectors(ids, table), stim_ranks(ids, table))


@pytest.mark.parametrize("num_qubits", [2, 3, 4, 5, 6])
def test_tableau_path_equals_state_vector_path(num_qubits: int) -> None:
    ids, table = draw(CLIFFORD, num_qubits, 4000, 5 * num_qubits, seed=4)
    np.testing.assert_array_equal(schmidt_rank_vectors(ids, table), ranks_of_states(statevectors(ids, table)))


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_prefix_labels_are_labels_of_prefixes(names: tuple[str, ...], num_qubits: int) -> None:
    ids, table = draw(names, num_qubits, 200, 12, seed=5)
    prefixes = prefix_rank_vectors(ids, table)
    assert prefixes.shape == (200, 12, num_qubits)
    for step in range(12):
        np.testing.assert_array_equal(prefixes[:, step], schmidt_rank_vectors(ids[:, : step + 1], table))


@pytest.mark.parametrize("names", [("h", "cx"), ("h", "t", "cx")])
def test_labels_are_small_numbers(names: tuple[str, ...]) -> None:
    table = instruction_table(GatePool(names), 2)
    ids = random_ids(np.random.default_rng(0), table, 5, 0, 6)
    assert schmidt_rank_vectors(ids, table).dtype == prefix_rank_vectors(ids, table).dtype == np.int8


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_pieces_are_all_circuits_in_turn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for fitting in (0, 1, 3, 100):
        monkeypatch.setattr("quantum_diffusion.circuits.matrices._PIECE_BYTES", 16 * 64 * fitting)
        found = pieces(count, 64)
        assert [row for piece in found for row in range(count)[piece]] == list(range(count))
        assert max(piece.stop - piece.start for piece in found) == min(count, max(fitting, 1))


def test_infidelities_do_not_depend_on_scale_and_stored_matrices_become_double() -> None:
    table = instruction_table(GatePool(["h", "t", "cx"]), 2)
    ids = random_ids(np.random.default_rng(0), table, 6, 5, 6)
    first, second = unitaries(ids, table), unitaries(ids[::-1], table)
    expected = infidelities(first, second)
    assert expected.max() > 0.5
    for one, other in ((2.0, 1.0), (1.0, 2.0), (0.3j, 0.7)):
        np.testing.assert_allclose(infidelities(one * first, other * second), expected, atol=1e-12)
    stored = from_two_channels(as_two_channels(first).astype(np.float16))
    assert stored.dtype == np.complex128
    assert infidelities(stored, first).max() < 1e-6


def test_state_vector_labels_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, table = draw(POOLS["full"], 3, 50, 12, seed=6)
    whole, whole_prefixes = schmidt_rank_vectors(ids, table), prefix_rank_vectors(ids, table)
    monkeypatch.setattr("quantum_diffusion.circuits.labels._STATE_BYTES", 16 * 8 * 7)  # 7 states a block
    np.testing.assert_array_equal(schmidt_rank_vectors(ids, table), whole)
    np.testing.assert_array_equal(prefix_rank_vectors(ids, table), whole_prefixes)


@pytest.mark.parametrize("num_qubits", [6, 12, 18])
def test_state_vector_labels_of_evenly_spread_states(num_qubits: int) -> None:
    # All amplitudes are equally small, and so are the minors that tell the two entangled qubits.
    spread = [Instruction("h", (), (qubit,)) for qubit in range(num_qubits)]
    phases = [Instruction("t", (), (qubit,)) for qubit in range(num_qubits)]
    table = instruction_table(GatePool(["h", "t", "cz"]), num_qubits)
    apart = Circuit(num_qubits, (*spread, *phases))
    joined = Circuit(num_qubits, (*spread, Instruction("cz", (1,), (4,)), *phases))
    ids = ids_from_circuits([apart, joined], table, 2 * num_qubits + 1)
    expected = [[1] * num_qubits, [2 if qubit in (1, 4) else 1 for qubit in range(num_qubits)]]
    assert schmidt_rank_vectors(ids, table).tolist() == expected


@pytest.mark.parametrize("num_qubits", [8, 9, 32, 33, 64])
def test_labels_at_the_word_sizes_of_the_tableau(num_qubits: int) -> None:
    # A GHZ state of all qubits but the last, which stays alone.
    table = instruction_table(GatePool(["h", "cx"]), num_qubits)
    chain = [Instruction("h", (), (0,))] + [Instruction("cx", (q,), (q + 1,)) for q in range(num_qubits - 2)]
    ids = ids_from_circuits([Circuit(num_qubits, tuple(chain))], table, num_qubits)
    assert schmidt_rank_vectors(ids, table)[0].tolist() == [2] * (num_qubits - 1) + [1]


def test_labels_beyond_the_tableaus_word_are_refused() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 65)
    bell = Circuit(65, (Instruction("h", (), (63,)), Instruction("cx", (63,), (64,))))
    with pytest.raises((GateSetError, ValueError), match="64"):
        schmidt_rank_vectors(ids_from_circuits([bell], table, 2), table)


def test_prompt_is_genqcs() -> None:
    assert srv_prompt(np.array([1, 2, 2], dtype=np.int8)) == "Generate SRV: [1, 2, 2]"
    assert srv_prompt([2, 2]) == "Generate SRV: [2, 2]"


# ---- exports and the backend


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_qasm_loads_in_qiskit_as_the_same_unitary(names: tuple[str, ...], num_qubits: int) -> None:
    ids, table = draw(names, num_qubits, 40, 12, seed=7)
    ours = unitaries(ids, table)
    for circuit, unitary in zip(circuits_from_ids(ids, table), ours, strict=True):
        native = qasm2.loads(circuit.to_qasm2())
        assert native.num_qubits == num_qubits
        np.testing.assert_allclose(Operator(native).data, unitary, atol=1e-10)


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_tokens_and_qiskit_give_the_circuit_back(names: tuple[str, ...], num_qubits: int) -> None:
    ids, table = draw(names, num_qubits, 60, 12, seed=8)
    circuits = circuits_from_ids(ids, table)
    report = decode_tokens(encode_ids(ids, table), table.pool, table.angles[ids])
    assert report.valid.all()
    assert circuits_from_ids(report.ids, table) == circuits
    backend = QiskitBackend()
    assert [backend.from_native(backend.to_native(circuit)) for circuit in circuits] == circuits
    assert [backend.from_native(qasm2.loads(circuit.to_qasm2())) for circuit in circuits] == circuits


def test_backend_numbers_qubits_across_registers_and_drops_barriers() -> None:
    from qiskit import QuantumRegister

    native = QuantumCircuit(QuantumRegister(1, "a"), QuantumRegister(2, "b"))
    native.barrier()
    native.cx(2, 0)
    native.barrier(1)
    expected = Circuit(3, (Instruction("cx", (2,), (0,)),))
    backend: CircuitBackend[QuantumCircuit] = QiskitBackend()
    assert backend.from_native(native) == expected


def _with(method: str, *arguments: object) -> QuantumCircuit:
    native = QuantumCircuit(2, 2)
    native.h(0)
    getattr(native, method)(*arguments)
    return native


@pytest.mark.parametrize(
    ("native", "message"),
    [
        pytest.param(_with("measure", 0, 0), r"operation 1 .*'measure'.*remove_final_measurements", id="measure"),
        pytest.param(_with("reset", 1), r"operation 1 .*'reset'", id="reset"),
        pytest.param(
            _with("ryy", 0.1, 0, 1), r"operation 1 .*'ryy', expected one of ccx, .* z: rewrite.*transpile", id="ryy"
        ),
        pytest.param(_with("ch", 0, 1), r"is 'ch', expected", id="ch"),
        pytest.param(_with("cx", 0, 1, None, 0), r"is 'cx_o0', expected", id="control-on-zero"),
    ],
)
def test_backend_refuses_what_circuits_cannot_hold(native: QuantumCircuit, message: str) -> None:
    with pytest.raises(GateSetError, match=message):
        QiskitBackend().from_native(native)


def test_backend_refuses_a_known_name_with_another_meaning() -> None:
    native = qasm2.loads(
        'OPENQASM 2.0; include "qelib1.inc"; gate cswap a,b,c { ccx a,b,c; } qreg q[3]; cswap q[0],q[1],q[2];'
    )
    with pytest.raises(GateSetError, match="redefines gate 'cswap'"):
        QiskitBackend().from_native(native)


def test_text_drawing_shows_every_wire_and_gate() -> None:
    drawing = QiskitBackend().draw_text(Circuit(3, (Instruction("h", (), (0,)), Instruction("cx", (0,), (2,)))))
    assert all(part in drawing for part in ("q_0", "q_1", "q_2", "┤ H ├", "■", "┤ X ├"))


def test_text_drawings_are_as_wide_as_asked() -> None:
    long = Circuit(2, 30 * (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
    lines = {width: QiskitBackend().draw_text(long, width).splitlines() for width in (None, 60, 20, 1)}
    assert [lines[None].index(line) for line in lines[None] if line.startswith("q_1")] == [3], "never wrapped"
    assert 50 < max(map(len, lines[60])) <= 60
    assert max(map(len, lines[20])) <= 20
    assert lines[1] == lines[20], "the least that Qiskit can draw in"
    assert all(line == line.rstrip() for line in lines[60])
    assert lines[None][0].startswith(" "), "wires begin below each other"


def test_drawings_are_one_png_and_leave_no_pyplot_figure(tmp_path: Path) -> None:
    from matplotlib import image, pyplot

    ids, table = draw(POOLS["full"], 3, 4, 30)
    circuits = [*circuits_from_ids(ids, table), Circuit(1, ())]
    backend = QiskitBackend()
    backend.save_drawing(circuits, tmp_path / "titled.png", [f"asked [1, 2, 2]: got {i}" for i in range(5)])
    backend.save_drawing(circuits[-1:], tmp_path / "bare.png")
    assert pyplot.get_fignums() == []
    titled, bare = (image.imread(tmp_path / name) for name in ("titled.png", "bare.png"))
    assert titled.shape[0] > bare.shape[0]
    for picture in (titled, bare):
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == 1).all()  # white, and nothing is cut off at the edge
        assert (picture[..., :3] < 0.5).any()


def test_drawing_needs_a_circuit_and_one_title_each(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        QiskitBackend().save_drawing([], tmp_path / "a.png")
    with pytest.raises(ValueError, match="2 titles for 1 circuits"):
        QiskitBackend().save_drawing([Circuit(1, ())], tmp_path / "a.png", ["one", "two"])
    assert not list(tmp_path.iterdir())


def test_circuits_are_written_by_number_with_what_was_asked(tmp_path: Path) -> None:
    bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
    named = numbered([bell, Circuit(2, bell.instructions[:1])])
    assert list(named) == ["00001.qasm", "00002.qasm"]
    assert all(re.fullmatch(NUMBERED, name) for name in named)
    write_circuits(tmp_path, named, "bell", ["two gates", "one gate"])
    assert [path.name for path in sorted(tmp_path.iterdir())] == list(named), "no picture was asked for"
    for (name, circuit), title in zip(named.items(), ("two gates", "one gate"), strict=True):
        comment, program = (tmp_path / name).read_text(encoding="utf-8").split("\n", 1)
        assert comment == f"// bell: {title}"
        assert program == circuit.to_qasm2()
    write_circuits(tmp_path, named, "bell", picture="circuits.png", language="qasm3")
    text = (tmp_path / "00001.qasm").read_text(encoding="utf-8")
    assert text == f"// bell: verified by simulation\n{bell.to_qasm3()}"
    assert (tmp_path / "circuits.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    write_circuits(tmp_path / "empty", {}, "bell", picture="circuits.png")
    assert not list((tmp_path / "empty").iterdir())
    with pytest.raises(ValueError, match="shorter"):
        write_circuits(tmp_path, named, "bell", ["one title"])


def test_a_picture_shows_the_first_circuits_and_its_failure_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    named = numbered([Circuit(1, ())] * 30)
    drawn: list[tuple[int, Path, list[str]]] = []

    def save(self: QiskitBackend, circuits: list[Circuit], path: Path, titles: list[str]) -> None:
        drawn.append((len(circuits), path, list(titles)))
        raise OSError("the disk is full")

    monkeypatch.setattr(QiskitBackend, "save_drawing", save)
    write_circuits(tmp_path, named, "nothing", [str(number) for number in range(30)], "circuits.png")
    assert drawn == [(24, tmp_path / "circuits.png", [str(number) for number in range(24)])]
    assert "the picture 'circuits.png'" in caplog.text
    assert len(list(tmp_path.iterdir())) == 30
