"""What every gate must pass, and a new entry of `GATES` gets by itself: one entry is all that a gate takes.

Qiskit and stim are the oracles. Gates that are no entries yet take part, as proof that nothing else is needed. What
holds of a gate with angles holds for random ones; where they are reduced to a period, only up to a global phase.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stim
import torch
from matplotlib import image
from numpy.typing import NDArray
from qiskit import qasm2
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends import qiskit
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, SOME_ANGLES, Gate, GatePool, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, instruction_table
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
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.simulate import statevectors, unitaries
from quantum_diffusion.circuits.tokenizer import (
    VALID,
    angles_of_circuits,
    circuits_from_ids,
    decode_tokens,
    encode_ids,
    ids_from_circuits,
)
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.models import condition_encoder
from quantum_diffusion.models.condition_encoder import tokenize_prompts
from quantum_diffusion.pipeline.checkpoint import load_pipeline, save_pipeline
from quantum_diffusion.pipeline.decoding import DeviceDecoder
from quantum_diffusion.tasks.left_to_do import StatesLeft, UnitariesLeft
from quantum_diffusion.tasks.prefix_labels import schmidt_rank_prefixes
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.rotations import rotations_of
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig


def _iswap(phase: complex) -> Matrix:
    return np.array([[1, 0, 0, 0], [0, 0, phase, 0], [0, phase, 0, 0], [0, 0, 0, 1]], dtype=np.complex128)


def _of_paulis(*names: str) -> Callable[..., Matrix]:
    """Return a function of t with the values exp(-i t A / 2), A the mean of products of two Paulis of one name."""
    squares = [np.kron(*[GATES[name].target_matrix()] * 2) for name in names]
    values, vectors = np.linalg.eigh(sum(squares) / len(squares))

    def matrix(angle: float | NDArray[np.float64]) -> Matrix:
        turns = np.exp(-0.5j * np.multiply.outer(angle, values))
        return (vectors * turns[..., None, :]) @ vectors.conj().T

    return matrix


_XX = "h a; h b; cx a,b; rz({}) b; cx a,b; h b; h a;"
_YY = "rx(pi/2) a; rx(pi/2) b; cx a,b; rz({}) b; cx a,b; rx(-pi/2) b; rx(-pi/2) a;"

NEW = {
    gate.name: gate
    for gate in (
        Gate("iswap", 0, 2, lambda: _iswap(1j), "iswapdg", True, "a,b { s a; s b; h a; cx a,b; cx b,a; h b; }"),
        # One that Qiskit lacks.
        Gate("iswapdg", 0, 2, lambda: _iswap(-1j), "iswap", True, "a,b { h b; cx b,a; cx a,b; h a; sdg b; sdg a; }"),
        Gate("ccz", 2, 1, GATES["z"].target_matrix, "ccz", False, "a,b,c { h c; ccx a,b,c; h c; }"),
        # With an angle; Qiskit lacks the second, which has twice the period.
        Gate("rxx", 0, 2, _of_paulis("x"), "rxx", False, f"(t) a,b {{ {_XX.format('t')} }}", 1),
        Gate(
            *("hop", 0, 2, _of_paulis("x", "y"), "hop", False),
            *(f"(t) a,b {{ {_XX.format('t/2')} {_YY.format('t/2')} }}", 1, 4 * np.pi),
        ),
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


def random_angles(gate: Gate, *shape: int, seed: int = 0) -> Angles:
    """Return angles of a gate from its whole period, [..., angles]."""
    return gate.period * np.random.default_rng(seed).random((*shape, gate.num_angles))


def placements(gate: Gate, num_qubits: int, angles: tuple[float, ...] | None = None) -> list[Circuit]:
    """Return a circuit for each order of qubits that the gate may be given, with random angles unless some are."""
    split = gate.num_controls
    orders = list(itertools.permutations(range(num_qubits), gate.num_qubits))
    drawn = random_angles(gate, len(orders)).tolist() if angles is None else [angles] * len(orders)
    return [
        Circuit(num_qubits, (Instruction(gate.name, qubits[:split], qubits[split:], tuple(some)),))
        for qubits, some in zip(orders, drawn, strict=True)
    ]


def each_instruction(table: InstructionTable) -> Ids:
    """Return all instructions, one in a circuit; angles are those of the grid."""
    return np.arange(1, len(table) + 1, dtype=np.int16)[:, None]


def drawn(table: InstructionTable, count: int = 60, most: int = 16) -> Ids:
    return random_ids(np.random.default_rng(0), table, count, 0, most)


def drawn_angles(ids: Ids, table: InstructionTable) -> Angles:
    """Return random angles for circuits: zeros where a gate has none."""
    angles = 4 * np.pi * np.random.default_rng(1).random((*ids.shape, table.pool.num_angles))
    angles %= (table.step * table.num_steps)[ids][..., None]
    return np.where(np.arange(angles.shape[2]) < table.num_angles[ids][..., None], angles, 0.0)


def qiskits(ids: Ids, table: InstructionTable, angles: Angles | None = None) -> Matrix:
    backend = QiskitBackend()
    return np.array([backend.unitary(circuit) for circuit in circuits_from_ids(ids, table, angles=angles)])


def assert_same(ours: Matrix, theirs: Matrix, gate: Gate, atol: float) -> None:
    """Compare matrices [..., D, D]: up to a global phase if the gate has angles, which are known up to a period."""
    if gate.num_angles:
        overlap = np.einsum("...ij,...ij->...", theirs.conj(), ours)
        np.testing.assert_allclose(np.abs(overlap), theirs.shape[-1], atol=theirs.shape[-1] * atol)
        ours = ours * (overlap.conj() / np.abs(overlap))[..., None, None]
    np.testing.assert_allclose(ours, theirs, atol=atol)


# ---- the entry


def test_the_matrix_is_unitary_and_qiskits_on_every_placement(gate: Gate) -> None:
    angles = SOME_ANGLES[: gate.num_angles]
    matrix = gate.target_matrix(*angles)
    assert (matrix.shape, matrix.dtype) == ((2**gate.num_targets,) * 2, np.complex128)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-15)
    matrix[:] = 0  # a caller may write into it
    assert gate.target_matrix(*angles).any()
    assert GATES[gate.name] is gate
    standard = get_standard_gate_name_mapping().get(gate.name)
    # genQC writes cp, whose qubits may be exchanged, with two targets.
    controls = 0 if gate.name == "cp" else getattr(standard, "num_ctrl_qubits", 0)
    assert standard is None or gate.num_controls == controls

    table = table_of(gate)
    # Tokens tell controls from targets, and no more: the order within either must not matter.
    circuits = placements(gate, table.num_qubits)
    ours = unitaries(ids_from_circuits(circuits, table, 1), table, angles_of_circuits(circuits, table, 1))
    np.testing.assert_allclose(ours, [QiskitBackend().unitary(circuit) for circuit in circuits], atol=1e-14)


def test_angles_have_the_shortest_period_and_come_in_arrays(gate: Gate) -> None:
    assert bool(gate.grid[0]) == bool(gate.num_angles)
    if not gate.num_angles:
        return
    for many in (random_angles(gate, 5), random_angles(gate, 2, 3)):
        matrices = gate.target_matrix(*np.moveaxis(many, -1, 0))
        one_by_one = [gate.target_matrix(*some) for some in many.reshape(-1, gate.num_angles)]
        expected = np.reshape(one_by_one, (*many.shape[:-1], *one_by_one[0].shape))
        np.testing.assert_allclose(np.broadcast_to(matrices, expected.shape), expected, atol=1e-15)
    for number in range(gate.num_angles):
        (some,) = random_angles(gate, 1)
        for turns, is_same in ((1, True), (-3, True), (1 / 2, False), (1 / 3, False), (1 / 4, False)):
            moved = np.where(np.arange(gate.num_angles) == number, some + turns * gate.period, some)
            overlap = abs(np.vdot(gate.matrix(*some), gate.matrix(*moved))) / 2**gate.num_qubits
            assert (overlap > 1 - 1e-12) == is_same, (number, turns)


def test_the_grid_has_every_step_of_every_angle_once(gate: Gate) -> None:
    grid = np.array(gate.grid)
    assert grid.shape == (gate.num_steps**gate.num_angles, gate.num_angles)
    assert len(np.unique(grid, axis=0)) == len(grid)
    for number in range(gate.num_angles):
        values = np.unique(grid[:, number])
        np.testing.assert_allclose(values, np.arange(gate.num_steps) * gate.period / gate.num_steps, atol=1e-12)


def test_the_tableau_moves_as_stims(gate: Gate) -> None:
    table = instruction_table(GatePool([gate.name]), gate.num_qubits + 1)
    ids = each_instruction(table)
    matrices = qiskits(ids, table, drawn_angles(ids, table))  # with any angles: some on the grid happen to be Clifford
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
        assert_same(other @ matrices[number - 1], np.eye(len(other)), gate, 1e-14)
    for circuit in placements(gate, table.num_qubits):
        (step,) = circuit.instructions
        angles = gate.inverse_angles(step.angles)
        assert all(0 <= angle < gate.period for angle in angles)
        undone = (step, Instruction(gate.inverse, step.controls, step.targets, angles))
        matrix = QiskitBackend().unitary(Circuit(table.num_qubits, undone))
        assert_same(matrix, np.eye(len(matrix)), gate, 1e-14)


def test_it_is_symmetric_when_its_qubits_may_change_places(gate: Gate) -> None:
    circuits = placements(gate, gate.num_qubits, SOME_ANGLES[: gate.num_angles])
    first, *others = [QiskitBackend().unitary(circuit) for circuit in circuits]
    assert gate.is_symmetric == all(np.allclose(first, other) for other in others)
    table = table_of(gate)
    numbers = np.unique(table.first)[1:]
    some = np.tile(SOME_ANGLES[: gate.num_angles], (len(numbers), 1, 1))  # others may give one matrix by coincidence
    matrices = qiskits(numbers[:, None], table, some)
    alike = np.isclose(matrices[:, None], matrices).all(axis=(2, 3))
    np.testing.assert_array_equal(table.canonical[numbers, None] == table.canonical[numbers], alike)
    matrices = qiskits(each_instruction(table), table)
    np.testing.assert_allclose(matrices, matrices[table.canonical[1:] - 1], atol=1e-14)
    assert len(np.unique(table.canonical[1:])) == len(gate.grid) * len(np.unique(table.canonical[numbers])), "no others"


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
        report = decode_tokens(tokens, pool, angles_of_circuits(circuits, table, 2))
        assert report.counts == {VALID: len(circuits)}
        np.testing.assert_array_equal(report.ids, ids)
        # Tokens alone say nothing of angles.
        np.testing.assert_array_equal(decode_tokens(tokens, pool).ids, table.first[ids])
        np.testing.assert_array_equal(DeviceDecoder(table)(torch.from_numpy(tokens)).numpy(), table.first[ids])
        everywhere = np.unique(table.first[table.gate_index == number - 1])
        np.testing.assert_array_equal(np.unique(table.first[ids[:, 0]]), everywhere)  # every placement took part
        distance = table.angles[ids[:, 0], : gate.num_angles] - [circuit.instructions[0].angles for circuit in circuits]
        turned = np.minimum(np.abs(distance), gate.period - np.abs(distance))
        assert turned.max(initial=0) <= gate.step / 2 + 1e-12, "the nearest angle on the grid"


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
        definitions = re.findall(r"gate (\w+) (?:\([\w,]+\) )?[\w,]+ \{ (.*); \}", text)
        lacking = {gate.name} - HEADER
        assert [name for name, _ in definitions] == [*lacking], (
            "what the header lacks is defined once, and nothing else"
        )
        steps = [step for _, body in definitions for step in body.split("; ")]
        assert {re.match(r"\w+", step)[0] for step in steps} <= HEADER
        theirs = qasm2.loads(text)
        once = backend.unitary(circuit)
        assert_same(Operator(theirs).data, once @ once, gate, 1e-14)
        for native in (theirs, backend.read_qasm(text), backend.to_native(circuit).compose(backend.to_native(circuit))):
            assert backend.from_native(native).instructions == circuit.instructions * 2


def test_pictures_show_it(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no LaTeX
    backend = QiskitBackend()
    circuit = placements(gate, 3, SOME_ANGLES[: gate.num_angles])[0]
    text = backend.draw_text(circuit)
    others = [other for name, other in GATES.items() if name != gate.name]
    drawings = [backend.draw_text(placements(other, 3, SOME_ANGLES[: other.num_angles])[0]) for other in others]
    assert text not in drawings
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
    for angles in (None, drawn_angles(ids, table)):
        theirs = qiskits(ids, table, angles)
        np.testing.assert_allclose(unitaries(ids, table, angles), theirs, atol=1e-10)
        np.testing.assert_allclose(statevectors(ids, table, angles), theirs[:, :, 0], atol=1e-10)


def test_simplification_keeps_the_unitary(gate: Gate) -> None:
    table = table_of(gate, "x")
    ids = drawn(table, 200)
    matrices = unitaries(ids, table)
    for simplify in (cancel_inverse_neighbours, normal_form, optimize):
        shorter = simplify(ids, table)
        assert ((shorter != 0).sum(axis=1) <= (ids != 0).sum(axis=1)).all()
        assert_same(unitaries(shorter, table), matrices, gate, 1e-12)
        there = each_instruction(table)
        back = np.concatenate([there, table.inverse[there]], axis=1)
        if simplify is optimize and gate.num_angles > 1:  # it adds up angles of which there is one
            continue
        assert not simplify(back, table).any(), "both together vanish"
    if gate.num_angles:  # what follows is for gates without angles
        return
    for shorter in (drop_phases(ids[:50], table), qiskit.optimize(ids[:50], table)):
        assert infidelities(unitaries(shorter, table), matrices[:50]).max() < 1e-12


def test_merging_keeps_the_unitary_and_the_angles(gate: Gate) -> None:
    table = table_of(gate, "h", "cx", "rz")
    ids = drawn(table, 200)
    angles = drawn_angles(ids, table)
    shorter, exact = merge_rotations(ids, angles, table)
    assert infidelities(unitaries(shorter, table, exact), unitaries(ids, table, angles)).max() < 1e-12
    assert ((shorter != 0).sum(axis=1) <= (ids != 0).sum(axis=1)).all()
    twice = Circuit(gate.num_qubits, placements(gate, gate.num_qubits)[0].instructions * 2)
    ids, angles = ids_from_circuits([twice], table, 2), angles_of_circuits([twice], table, 2)
    shorter, exact = merge_rotations(ids, angles, table)
    if gate.num_angles == 1:
        assert (shorter != 0).sum() == 1
        np.testing.assert_allclose(exact[0, 0, 0], 2 * angles[0, 0, 0] % gate.period, atol=1e-12)


# ---- angles


def test_slopes_are_those_of_finite_differences(gate: Gate) -> None:
    if not gate.num_angles:
        return
    table = table_of(gate, "h", "cx")
    ids = random_ids(np.random.default_rng(3), table, 6, 5, 5)
    ids[:, 2] = 1  # one is the gate
    angles = drawn_angles(ids, table)
    targets = unitaries(ids[::-1], table, angles[::-1])
    rotations = rotations_of(table)

    def overlaps(angles: Angles) -> NDArray[np.float64]:
        return np.abs(np.einsum("nij,nij->n", targets.conj(), unitaries(ids, table, angles)))

    numbers, values = rotations.in_order(ids, angles)
    bras = torch.from_numpy(targets.conj().swapaxes(1, 2).copy())
    arguments = torch.from_numpy(numbers), torch.from_numpy(values), bras
    np.testing.assert_allclose(rotations.overlap(*arguments), overlaps(angles), atol=1e-12)
    slope = rotations.slope(*arguments)[0].numpy().reshape(*ids.shape, -1)  # [N, T, rotations of a step]
    difference = 1e-5
    for step, number in np.ndindex(angles.shape[1:]):
        there, back = angles.copy(), angles.copy()
        there[:, step, number] += difference
        back[:, step, number] -= difference
        is_its = (rotations.angle[ids[:, step]] == number) & rotations.has_angle[ids[:, step]]
        found = np.where(is_its, slope[:, step], 0).sum(axis=1)
        np.testing.assert_allclose(found, (overlaps(there) - overlaps(back)) / (2 * difference), atol=1e-6)
    assert not slope[~rotations.has_angle[ids]].any()
    assert np.abs(slope).max() > 0.01


def test_refinement_finds_the_angles(gate: Gate) -> None:
    if not gate.num_angles:
        return
    table = table_of(gate, "h", "cx")
    circuits = placements(gate, table.num_qubits)
    ids, angles = ids_from_circuits(circuits, table, 3), angles_of_circuits(circuits, table, 3)
    targets = np.array([QiskitBackend().unitary(circuit) for circuit in circuits])
    moved = angles + 0.2 * (table.num_angles[ids] > 0)[..., None]
    found, reached = refine(ids, moved, targets, table)
    assert reached.max() < 1e-12
    assert infidelities(unitaries(ids, table, found), targets).max() < 1e-12
    assert (found >= 0).all()
    assert (found[:, 0] < gate.period).all()


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
    exact = drawn_angles(ids, table)
    made = left.targets_of(torch.from_numpy(ids).long(), torch.from_numpy(exact).float() if exact.shape[2] else None)
    assert_same(torch.complex(*made.unbind(1)).numpy(), unitaries(ids, table, exact), gate, 2e-6)
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
    assert opened.config.vocabulary == pipeline.config.vocabulary
    samples = opened.sample(prompts, seed=3)
    np.testing.assert_array_equal(samples.ids, expected.ids)
    np.testing.assert_array_equal(samples.matches, expected.matches)
