"""What every gate must pass, and a new entry of `GATES` gets by itself: one entry is all that a gate takes.

Qiskit and stim are the oracles. Gates that are no entries yet take part, as proof that nothing else is needed.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import stim
import torch
from matplotlib import image
from qiskit import qasm2
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends import qiskit
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, Gate, GatePool, Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.labels import (
    prefix_rank_vectors,
    ranks_of_states,
    schmidt_rank_vectors,
    tableau_maps,
)
from quantum_diffusion.circuits.matrices import as_two_channels, infidelities
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.phases import drop_phases
from quantum_diffusion.circuits.prompts import GATES_PROMPTS, gates_prompt, parse_gates_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.simulate import statevectors, unitaries
from quantum_diffusion.circuits.tokenizer import VALID, circuits_from_ids, decode_tokens, encode_ids, ids_from_circuits
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.models import condition_encoder
from quantum_diffusion.models.condition_encoder import tokenize_prompts
from quantum_diffusion.pipeline.checkpoint import load_pipeline, save_pipeline
from quantum_diffusion.pipeline.decoding import DeviceDecoder
from quantum_diffusion.tasks.left_to_do import StatesLeft, UnitariesLeft
from quantum_diffusion.tasks.prefix_labels import schmidt_rank_prefixes
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig


def _sx(phase: complex) -> Matrix:
    other = np.conj(phase)
    return np.array([[phase, other], [other, phase]], dtype=np.complex128) / np.sqrt(2)


def _iswap(phase: complex) -> Matrix:
    return np.array([[1, 0, 0, 0], [0, 0, phase, 0], [0, phase, 0, 0], [0, 0, 0, 1]], dtype=np.complex128)


NEW = {
    gate.name: gate
    for gate in (
        Gate("sx", 0, 1, lambda: _sx(np.exp(0.25j * np.pi)), "sxdg", True, "a { h a; s a; h a; }"),
        Gate("sxdg", 0, 1, lambda: _sx(np.exp(-0.25j * np.pi)), "sx", True, "a { h a; sdg a; h a; }"),
        Gate("iswap", 0, 2, lambda: _iswap(1j), "iswapdg", True, "a,b { s a; s b; h a; cx a,b; cx b,a; h b; }"),
        # One that Qiskit lacks.
        Gate("iswapdg", 0, 2, lambda: _iswap(-1j), "iswap", True, "a,b { h b; cx b,a; cx a,b; h a; sdg b; sdg a; }"),
        Gate("ccz", 2, 1, GATES["z"].target_matrix, "ccz", False, "a,b,c { h c; ccx a,b,c; h c; }"),
    )
    if gate.name not in GATES
}

HEADER = {
    *("u3", "u2", "u1", "cx", "id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "rx", "ry", "rz"),
    *("cz", "cy", "ch", "ccx", "crz", "cu1", "cu3"),
}
"""The gates of `qelib1.inc` as first published (arXiv 1707.03429); not all readers have a later copy."""


@pytest.fixture(autouse=True)
def _with_new_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, gate in NEW.items():
        monkeypatch.setitem(GATES, name, gate)
    added = tuple(name for name in NEW if name not in condition_encoder.WORDS)
    monkeypatch.setattr(condition_encoder, "WORDS", (*condition_encoder.WORDS, *added))


@pytest.fixture(params=[*GATES, *NEW])
def gate(request: pytest.FixtureRequest, _with_new_gates: None) -> Gate:
    return GATES[request.param]


def table_of(gate: Gate, *others: str, spare: int = 1) -> InstructionTable:
    """Return the instructions of a gate, its inverse and others, on some more qubits than the gate needs."""
    names = dict.fromkeys((gate.name, gate.inverse, *others))
    return instruction_table(GatePool(names), gate.num_qubits + spare)


def placements(gate: Gate, num_qubits: int) -> list[Circuit]:
    """Return a circuit for each order of qubits that the gate may be given."""
    split = gate.num_controls
    orders = itertools.permutations(range(num_qubits), gate.num_qubits)
    return [Circuit(num_qubits, (Instruction(gate.name, qubits[:split], qubits[split:]),)) for qubits in orders]


def each_instruction(table: InstructionTable) -> Ids:
    return np.arange(1, len(table) + 1, dtype=np.int16)[:, None]


def drawn(table: InstructionTable, count: int = 60, most: int = 16) -> Ids:
    return random_ids(np.random.default_rng(0), table, count, 0, most)


def qiskits(ids: Ids, table: InstructionTable) -> Matrix:
    backend = QiskitBackend()
    return np.array([backend.unitary(circuit) for circuit in circuits_from_ids(ids, table)])


# ---- the entry


def test_the_matrix_is_unitary_and_qiskits_on_every_placement(gate: Gate) -> None:
    matrix = gate.target_matrix()
    assert (matrix.shape, matrix.dtype) == ((2**gate.num_targets,) * 2, np.complex128)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-15)
    matrix[:] = 0  # a caller may write into it
    assert gate.target_matrix().any()
    assert GATES[gate.name] is gate
    standard = get_standard_gate_name_mapping().get(gate.name)
    assert standard is None or gate.num_controls == getattr(standard, "num_ctrl_qubits", 0)

    table = table_of(gate)
    # Tokens tell controls from targets, and no more: the order within either must not matter.
    circuits = placements(gate, table.num_qubits)
    ours = unitaries(ids_from_circuits(circuits, table, 1), table)
    np.testing.assert_allclose(ours, [QiskitBackend().unitary(circuit) for circuit in circuits], atol=1e-14)


def test_the_tableau_moves_as_stims(gate: Gate) -> None:
    table = instruction_table(GatePool([gate.name]), gate.num_qubits + 1)
    matrices = qiskits(each_instruction(table), table)
    try:
        tableaux = [stim.Tableau.from_unitary_matrix(matrix, endian="little") for matrix in matrices]
    except ValueError:  # it takes a Pauli to what is none
        assert not gate.is_clifford
        return
    assert gate.is_clifford
    for ours, tableau in zip(tableau_maps(table)[1:], tableaux, strict=True):
        x_to_x, x_to_z, z_to_x, z_to_z, _, _ = tableau.to_numpy()
        np.testing.assert_array_equal(ours, np.block([[x_to_x.T, z_to_x.T], [x_to_z.T, z_to_z.T]]))


def test_the_inverse_undoes_it(gate: Gate) -> None:
    inverse = GATES[gate.inverse]
    assert inverse.inverse == gate.name
    assert (inverse.num_controls, inverse.num_targets) == (gate.num_controls, gate.num_targets)
    assert inverse.is_clifford == gate.is_clifford
    table = table_of(gate)
    matrices = qiskits(each_instruction(table), table)
    for number in each_instruction(table)[:, 0]:
        other = matrices[table.inverse[number] - 1]
        np.testing.assert_allclose(other @ matrices[number - 1], np.eye(len(other)), atol=1e-14)


def test_it_is_symmetric_when_its_qubits_may_change_places(gate: Gate) -> None:
    first, *others = [QiskitBackend().unitary(circuit) for circuit in placements(gate, gate.num_qubits)]
    assert gate.is_symmetric == all(np.allclose(first, other) for other in others)
    table = table_of(gate)
    same = table.canonical[1:, None] == table.canonical[1:]
    matrices = qiskits(each_instruction(table), table)
    np.testing.assert_array_equal(same, np.isclose(matrices[:, None], matrices).all(axis=(2, 3)))


# ---- tokens and words


@pytest.mark.parametrize("before", [(), ("h", "cx"), ("ccx", "t")], ids="_".join)
def test_tokens_are_written_and_read_on_every_placement(gate: Gate, before: tuple[str, ...]) -> None:
    pool = GatePool(dict.fromkeys((*before, gate.name)))
    number = pool.names.index(gate.name) + 1
    for num_qubits in range(max(each.num_qubits for each in pool), 6):
        table = instruction_table(pool, num_qubits)
        circuits = placements(gate, num_qubits)
        ids = ids_from_circuits(circuits, table, 2)
        tokens = encode_ids(ids, table)
        for (instruction,), cells in zip((circuit.instructions for circuit in circuits), tokens, strict=True):
            expected = np.zeros((num_qubits, 2), dtype=np.int8)
            expected[list(instruction.controls), 0] = -number
            expected[list(instruction.targets), 0] = number
            np.testing.assert_array_equal(cells, expected)
        report = decode_tokens(tokens, pool)
        assert report.counts == {VALID: len(circuits)}
        np.testing.assert_array_equal(report.ids, ids)
        np.testing.assert_array_equal(DeviceDecoder(table)(torch.from_numpy(tokens)).numpy(), ids)
        assert len(np.unique(ids[:, 0])) == (table.gate_index == number - 1).sum()  # every placement took part


@pytest.mark.parametrize("begin", GATES_PROMPTS)
def test_prompts_name_it(gate: Gate, begin: str) -> None:
    pool = GatePool(GATES)
    prompt = gates_prompt([gate.name], pool, begin)
    assert parse_gates_prompt(prompt, pool, begin) == (gate.name,)
    vocabulary = (*condition_encoder.WORDS, "prepare")
    words = tokenize_prompts([prompt], vocabulary)[0].tolist()
    assert [vocabulary[word - 1] for word in words] == [begin.split()[0].lower(), "using", gate.name]


# ---- other languages


def test_openqasm_says_it_and_is_read_back(gate: Gate) -> None:
    backend = QiskitBackend()
    num_qubits = gate.num_qubits + 1
    for circuit in placements(gate, num_qubits):
        text = Circuit(num_qubits, circuit.instructions * 2).to_qasm2()
        definitions = re.findall(r"gate (\w+) [\w,]+ \{ (.*); \}", text)
        lacking = {gate.name} - HEADER
        assert [name for name, _ in definitions] == [*lacking], (
            "what the header lacks is defined once, and nothing else"
        )
        assert {step.split()[0] for _, body in definitions for step in body.split("; ")} <= HEADER
        theirs = qasm2.loads(text)
        once = backend.unitary(circuit)
        np.testing.assert_allclose(Operator(theirs).data, once @ once, atol=1e-14)
        for native in (theirs, backend.read_qasm(text), backend.to_native(circuit).compose(backend.to_native(circuit))):
            assert backend.from_native(native).instructions == circuit.instructions * 2


def test_pictures_show_it(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no LaTeX
    backend = QiskitBackend()
    circuit = placements(gate, 3)[0]
    text = backend.draw_text(circuit)
    others = [other for name, other in GATES.items() if name != gate.name]
    assert text not in [backend.draw_text(placements(other, 3)[0]) for other in others]
    touched = [line for line in text.splitlines() if re.match(r" *q_\d", line) and re.search(r"[^─ ]", line[6:])]
    assert len(touched) == gate.num_qubits
    pixels = []
    for name, one in {"with": circuit, "without": Circuit(3, ())}.items():
        backend.save_drawing([one], tmp_path / f"{name}.png")
        pixels.append(image.imread(tmp_path / f"{name}.png"))
    assert (pixels[0] < 1).sum() > (pixels[1] < 1).sum()


# ---- bulk work


def test_simulation_equals_qiskits(gate: Gate) -> None:
    table = table_of(gate, "h", "t")
    ids = drawn(table)
    theirs = qiskits(ids, table)
    np.testing.assert_allclose(unitaries(ids, table), theirs, atol=1e-10)
    np.testing.assert_allclose(statevectors(ids, table), theirs[:, :, 0], atol=1e-10)


def test_simplification_keeps_the_unitary(gate: Gate) -> None:
    table = table_of(gate, "x")
    ids = drawn(table, 200)
    matrices = unitaries(ids, table)
    for simplify in (cancel_inverse_neighbours, normal_form, optimize):
        shorter = simplify(ids, table)
        assert ((shorter != 0).sum(axis=1) <= (ids != 0).sum(axis=1)).all()
        np.testing.assert_allclose(unitaries(shorter, table), matrices, atol=1e-12)
        there = each_instruction(table)
        assert not simplify(np.concatenate([there, table.inverse[there]], axis=1), table).any(), "both together vanish"
    for shorter in (drop_phases(ids[:50], table), qiskit.optimize(ids[:50], table)):
        assert infidelities(unitaries(shorter, table), matrices[:50]).max() < 1e-12


def test_it_is_taken_off_what_is_left_to_do(gate: Gate) -> None:
    table = table_of(gate)
    ids = np.pad(each_instruction(table), ((0, 0), (0, 1)))
    rank = torch.tensor([[0, 2]]).expand(len(ids), 2)  # the gate is known, the step behind it is not
    matrices = unitaries(ids, table)
    identity = as_two_channels(np.eye(2**table.num_qubits, dtype=np.complex128))
    targets = torch.from_numpy(as_two_channels(matrices))
    left = UnitariesLeft(table)
    for result in (
        left.for_steps(targets, torch.from_numpy(ids).long(), rank)[:, 1],
        left.remainder(targets, len(ids), torch.device("cpu")).update(torch.from_numpy(ids).long(), rank),
    ):
        np.testing.assert_allclose(result, np.broadcast_to(identity, result.shape), atol=1e-6)
    targets = torch.from_numpy(as_two_channels(matrices[:, :, :1]))
    made = StatesLeft(table).for_steps(targets, torch.from_numpy(ids).long(), rank)[:, 1]
    np.testing.assert_allclose(made, targets.expand_as(made), atol=1e-6)


@pytest.mark.parametrize("others", [("h", "s", "cx"), ("h", "t", "cx")], ids="_".join)
def test_labels_equal_those_of_state_vectors(gate: Gate, others: tuple[str, ...]) -> None:
    table = table_of(gate, *others)
    ids = drawn(table, 400)
    ranks = schmidt_rank_vectors(ids, table)
    np.testing.assert_array_equal(ranks, ranks_of_states(statevectors(ids, table)))
    prefixes = prefix_rank_vectors(ids, table)
    np.testing.assert_array_equal(prefixes[:, -1], ranks)
    on_device = schmidt_rank_prefixes(table)(torch.from_numpy(ids).long())
    np.testing.assert_array_equal(on_device.numpy(), prefixes == 2)
    few = circuits_from_ids(ids[:40], table)
    np.testing.assert_array_equal(ranks[:40], [QiskitBackend().schmidt_rank_vector(circuit) for circuit in few])


# ---- what was saved before


@pytest.mark.parametrize("where", ["in front", "at the end"])
def test_a_saved_model_samples_the_same_after_a_gate_was_added(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    pipeline = DiffusionTrainer(make_config()).setup_model(dataset)
    save_pipeline(pipeline, tmp_path / "saved", "", {})
    prompts = list(pipeline.config.prompts) * 2
    expected = pipeline.sample(prompts, seed=3)

    added = Gate("added", 0, 1, GATES["x"].target_matrix, "added", True, "a { x a; }")
    words, gates = condition_encoder.WORDS, dict(GATES)
    for name in reversed(gates):  # what is deleted last comes back first: the order is the old one then
        monkeypatch.delitem(GATES, name)
    is_first = where == "in front"
    for name, gate in ({"added": added} | gates if is_first else gates | {"added": added}).items():
        monkeypatch.setitem(GATES, name, gate)
    monkeypatch.setattr(condition_encoder, "WORDS", ("added", *words) if is_first else (*words, "added"))

    opened = load_pipeline(tmp_path / "saved")
    assert opened.gate_pool == pipeline.gate_pool
    assert opened.config.vocabulary == words
    samples = opened.sample(prompts, seed=3)
    np.testing.assert_array_equal(samples.ids, expected.ids)
    np.testing.assert_array_equal(samples.matches, expected.matches)
