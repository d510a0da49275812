"""Merging and refining rotations at volume: the unitary stays, angles come back, known rules hold, Qiskit agrees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, Gate, GatePool, Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.matrices import infidelities
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.simulate import statevectors, unitaries
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.tasks.refinement import refine

POOLS = {
    "all": tuple(GATES),
    "diagonal": ("rz", "p", "cp", "crz", "rzz", "cz", "s", "sdg", "cx", "x"),
    "turning": ("h", "cx", "rx", "ry", "rz", "swap"),
    "preset": ("h", "cx", "ccx", "swap", "rx", "ry", "rz", "cp"),
    "three angles": ("u", "cx", "p", "ry"),
}
QUBITS, STEPS = 3, 12
WITH_ONE_ANGLE = [gate for gate in GATES.values() if gate.num_angles == 1]


def table_of(names: str) -> InstructionTable:
    return instruction_table(GatePool(POOLS[names]), QUBITS)


def periods(ids: Ids, table: InstructionTable) -> NDArray[np.float64]:
    return (table.step * table.num_steps)[ids][..., None]


def draw(table: InstructionTable, count: int, steps: int = STEPS, seed: int = 0) -> tuple[Ids, Angles]:
    """Draw circuits; a quarter each has any angles, zeros among them, multiples of pi / 4, and a few repeated ones."""
    rng = np.random.default_rng(seed)
    ids = random_ids(rng, table, count, 0, steps)
    shape = (*ids.shape, table.pool.num_angles)
    some = rng.random((count, 1, 3)) * 2 * np.pi
    kinds = [
        periods(ids, table) * rng.random(shape),
        np.where(rng.random(shape) < 0.5, 0.0, rng.normal(size=shape)),
        rng.integers(0, 16, shape) * np.pi / 4,
        np.take_along_axis(np.concatenate([some, -some], axis=2), rng.integers(0, 6, (count, 1, steps)), axis=2)[:, 0][
            ..., None
        ]
        * np.ones(shape),
    ]
    angles = np.choose(np.arange(count)[:, None, None] % 4, kinds)
    return ids, np.where(np.arange(shape[2]) < table.num_angles[ids][..., None], angles, 0.0)


def assert_equal_up_to_phase(ours: Matrix, theirs: Matrix, atol: float = 1e-12) -> None:
    overlap = np.einsum("nij,nij->n", theirs.conj(), ours)
    np.testing.assert_allclose(ours * (overlap.conj() / np.abs(overlap))[:, None, None], theirs, atol=atol)


def assert_same_circuits(one: tuple[Ids, Angles], other: tuple[Ids, Angles], table: InstructionTable) -> None:
    """Compare circuits whose angles may differ by rounding, also across the end of a period."""
    np.testing.assert_array_equal(table.first[one[0]], table.first[other[0]])
    difference = np.abs(one[1] - other[1])
    assert np.minimum(difference, periods(one[0], table) - difference).max(initial=0) < 1e-9


def gate(name: str, *qubits: int, angles: tuple[float, ...] = ()) -> Instruction:
    split = GATES[name].num_controls
    return Instruction(name, qubits[:split], qubits[split:], angles)


def turn(name: str, angle: float, *qubits: int) -> Instruction:
    return gate(name, *qubits, angles=(angle,))


def merged(*steps: Instruction, num_qubits: int = 2) -> list[Instruction]:
    """Merge one circuit; the result must be Qiskit's unitary of the steps."""
    table = instruction_table(GatePool(GATES), 3)
    given = Circuit(3, steps)
    ids, angles = ids_from_circuits([given], table, len(steps)), angles_of_circuits([given], table, len(steps))
    shorter, exact = merge_rotations(ids, angles, table)
    (result,) = circuits_from_ids(shorter, table, angles=exact)
    backend = QiskitBackend()
    assert_equal_up_to_phase(backend.unitary(result)[None], backend.unitary(given)[None])
    return list(result.instructions)


def assert_steps(found: list[Instruction], *expected: Instruction) -> None:
    """Compare gates, in any order, with angles up to rounding."""

    def key(step: Instruction) -> tuple[str, tuple[int, ...]]:
        return step.gate, step.qubits

    found, wanted = sorted(found, key=key), sorted(expected, key=key)
    assert [key(step) for step in found] == [key(step) for step in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.angles == pytest.approx(other.angles, abs=1e-12)


# ---- merging at volume


@pytest.mark.parametrize("names", POOLS)
def test_merging_keeps_the_unitary_and_is_done_in_one_go(names: str) -> None:
    table = table_of(names)
    ids, angles = draw(table, 4000)
    given = ids.copy(), angles.copy()
    shorter, exact = merge_rotations(ids, angles, table)
    np.testing.assert_array_equal(ids, given[0])
    np.testing.assert_array_equal(angles, given[1])
    assert_equal_up_to_phase(unitaries(shorter, table, exact), unitaries(ids, table, angles))

    counts = (shorter != NO_GATE).sum(axis=1)
    assert (counts <= (ids != NO_GATE).sum(axis=1)).all()
    assert ((shorter != NO_GATE) == (np.arange(STEPS) < counts[:, None])).all(), "gates come first"
    assert ((exact >= 0) & (exact < periods(shorter, table))).all()
    assert not exact[
        np.broadcast_to(np.arange(exact.shape[2]) >= table.num_angles[shorter][..., None], exact.shape)
    ].any()
    np.testing.assert_array_equal(table.on_grid(shorter, exact), shorter)
    assert counts.mean() < (ids != NO_GATE).sum(axis=1).mean() - 0.5, "there was something to merge"
    assert_same_circuits(merge_rotations(shorter, exact, table), (shorter, exact), table)


@pytest.mark.parametrize("names", POOLS)
def test_the_order_of_gates_on_different_qubits_does_not_matter(names: str) -> None:
    table = table_of(names)
    ids, angles = draw(table, 1500, seed=1)
    moved, exact = ids.copy(), angles.copy()
    rng = np.random.default_rng(2)
    for step in rng.integers(0, STEPS - 1, 60):
        apart = ~(table.uses_qubit[moved[:, step]] & table.uses_qubit[moved[:, step + 1]]).any(axis=1)
        rows = np.flatnonzero(apart & (rng.random(len(ids)) < 0.5))
        for array in (moved, exact):
            array[rows, step], array[rows, step + 1] = array[rows, step + 1], array[rows, step].copy()
    assert (moved != ids).any(axis=1).mean() > 0.5
    assert_same_circuits(merge_rotations(moved, exact, table), merge_rotations(ids, angles, table), table)


def test_no_two_gates_that_meet_are_left_to_merge() -> None:
    table = table_of("turning")
    shorter, _ = merge_rotations(*draw(table, 2000), table)
    last = np.full((len(shorter), QUBITS), -1)  # the last gate on each qubit
    for step in range(STEPS):
        here = table.first[shorter[:, step]]
        for qubit in range(QUBITS):
            alone = (here != NO_GATE) & (table.uses_qubit[here].sum(axis=1) == 1) & table.uses_qubit[here][:, qubit]
            assert (last[alone, qubit] != here[alone]).all()
        last = np.where(table.uses_qubit[here], here[:, None], last)


def test_tiny_angles_go_and_the_infidelity_stays() -> None:
    table = table_of("preset")
    ids, angles = draw(table, 500)
    tiny = np.where(table.num_angles[ids][..., None] > 0, 5e-10 * np.sign(np.cos(7 * angles)), 0.0)
    shorter, exact = merge_rotations(ids, tiny, table)
    assert not (table.num_angles[shorter] > 0).any()
    assert infidelities(unitaries(shorter, table, exact), unitaries(ids, table, tiny)).max() < 1e-14


# ---- known rules


def test_rotations_about_z_pass_the_control_and_about_x_the_target() -> None:
    through = gate("cx", 0, 1)
    assert_steps(merged(turn("rz", 0.3, 0), through, turn("rz", 0.5, 0)), turn("rz", 0.8, 0), through)
    assert_steps(merged(turn("rx", 0.3, 1), through, turn("rx", 0.5, 1)), turn("rx", 0.8, 1), through)
    for blocked in (
        [turn("rz", 0.3, 1), through, turn("rz", 0.5, 1)],
        [turn("rx", 0.3, 0), through, turn("rx", 0.5, 0)],
        [turn("ry", 0.3, 0), through, turn("ry", 0.5, 0)],
    ):
        assert_steps(merged(*blocked), *blocked)


def test_diagonal_gates_pass_each_other() -> None:
    first = [turn("rz", 0.3, 0), turn("cp", 0.4, 0, 1), turn("p", 0.5, 0), turn("crz", 0.6, 1, 0)]
    second = [turn("rzz", 0.7, 0, 1), gate("cz", 0, 1), gate("t", 0)]
    result = merged(*first, *second, *first)
    assert_steps(result, *(turn(s.gate, 2 * s.angles[0], *s.qubits) for s in first), *second)


@pytest.mark.parametrize("kind", WITH_ONE_ANGLE, ids=lambda kind: kind.name)
def test_opposite_angles_vanish(kind: Gate) -> None:
    qubits = range(kind.num_qubits)
    assert merged(turn(kind.name, 0.7, *qubits), gate("h", 2), turn(kind.name, -0.7, *qubits)) == [gate("h", 2)]
    assert merged(turn(kind.name, 0.0, *qubits)) == []
    assert merged(turn(kind.name, kind.period, *qubits)) == []
    assert merged(*[turn(kind.name, kind.period / 3, *qubits)] * 3) == []
    assert len(merged(turn(kind.name, kind.period / 2, *qubits))) == 1


def test_crz_comes_back_after_two_turns_only() -> None:
    assert_steps(merged(turn("crz", 3 * np.pi, 0, 1), turn("crz", 3 * np.pi / 2, 0, 1)), turn("crz", np.pi / 2, 0, 1))
    once = [turn("crz", 2 * np.pi, 0, 1)]
    assert_steps(merged(*once), *once)
    assert merged(*once, *once) == []


def test_qubits_of_a_symmetric_gate_may_change_places() -> None:
    for name in ("cp", "rzz"):
        assert [step.angles for step in merged(turn(name, 0.3, 0, 1), turn(name, 0.4, 1, 0))] == [pytest.approx((0.7,))]
    apart = [turn("crz", 0.3, 0, 1), turn("crz", 0.4, 1, 0)]
    assert_steps(merged(*apart), *apart)


def test_gates_without_angles_vanish_with_their_inverses_and_three_angles_stay() -> None:
    assert merged(gate("s", 0), turn("rz", 0.4, 0), gate("sdg", 0), turn("rz", -0.4, 0)) == []
    assert merged(gate("sx", 0), turn("rx", 0.4, 0), gate("sxdg", 0), turn("rx", -0.4, 0)) == []
    assert merged(gate("u", 0, angles=(0.0, 0.0, 0.0))) == []
    stays = [gate("u", 0, angles=(0.1, 0.2, 0.3)), gate("cx", 0, 1)]
    assert_steps(merged(*stays), *stays)


def test_no_circuits_and_empty_circuits_merge_to_themselves() -> None:
    table = table_of("preset")
    for shape in ((0, 5), (3, 0), (2, 4)):
        ids, angles = merge_rotations(np.zeros(shape, dtype=np.int16), np.zeros((*shape, 1)), table)
        assert (ids.shape, angles.shape) == (shape, (*shape, 1))
        assert not ids.any()
        assert not angles.any()


# ---- the grid of angles


@pytest.mark.parametrize("names", POOLS)
def test_the_nearest_angles_on_the_grid_are_at_most_half_a_step_away(names: str) -> None:
    table = table_of(names)
    ids, angles = draw(table, 1000)
    found = table.on_grid(ids, angles)
    np.testing.assert_array_equal(table.first[found], table.first[ids])
    away = (table.angles[found] - angles) % periods(ids, table)
    away = np.minimum(away, periods(ids, table) - away)
    exists = np.arange(angles.shape[2]) < table.num_angles[ids][..., None]
    assert (away <= table.step[ids][..., None] / 2 + 1e-9)[exists].all()
    np.testing.assert_array_equal(table.on_grid(table.first[found], table.angles[found]), found)


def test_angles_just_below_a_period_are_nearest_to_zero() -> None:
    table = table_of("all")
    ids = np.unique(table.first)[:, None]
    exists = np.arange(table.pool.num_angles) < table.num_angles[ids][..., None]
    for below in (1e-3, 1e-12, 0.0):
        np.testing.assert_array_equal(table.on_grid(ids, np.where(exists, periods(ids, table) - below, 0.0)), ids)


# ---- refinement


def of_states(ids: Ids, table: InstructionTable, angles: Angles) -> Matrix:
    return statevectors(ids, table, angles)[:, :, None]


SIMULATE = {"unitaries": unitaries, "states": of_states}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", SIMULATE)
@pytest.mark.parametrize("names", ["preset", "diagonal", "three angles"])
def test_refinement_recovers_moved_angles(names: str, kind: str, device: str) -> None:
    table = table_of(names)
    ids, angles = draw(table, 200, 6)
    targets = SIMULATE[kind](ids, table, angles)
    rng = np.random.default_rng(1)
    moved = angles + 0.1 * rng.normal(size=angles.shape) * (table.num_angles[ids][..., None] > 0)
    phases = np.exp(2j * np.pi * rng.random(len(ids)))[:, None, None]
    found, reached = refine(ids, moved, phases * targets, table, device=torch.device(device))
    simulated = infidelities(SIMULATE[kind](ids, table, found), targets)
    np.testing.assert_allclose(reached, simulated, atol=1e-12)
    assert simulated.max() < 1e-10
    assert ((found >= 0) & (found < periods(ids, table))).all()


@pytest.mark.parametrize("kind", SIMULATE)
def test_refinement_never_worsens_a_circuit(kind: str) -> None:
    table = table_of("all")
    ids, angles = draw(table, 150, 6)
    targets = SIMULATE[kind](*(array[::-1] for array in (ids,)), table, angles[::-1])
    before = infidelities(SIMULATE[kind](ids, table, angles), targets)
    for iterations in (1, 4, 60):
        found, reached = refine(ids, angles, targets, table, iterations=iterations)
        after = infidelities(SIMULATE[kind](ids, table, found), targets)
        assert (after <= before + 1e-12).all()
        np.testing.assert_allclose(reached, after, atol=1e-12)
    turning = (table.num_angles[ids] > 0).any(axis=1)
    assert (after < before - 1e-3)[turning].mean() > 0.2
    np.testing.assert_allclose(after[~turning], before[~turning], atol=1e-12)


def test_fixed_angles_stay_to_the_last_bit() -> None:
    table = table_of("all")
    ids, angles = draw(table, 200, 6)
    angles %= periods(ids, table)
    targets = unitaries(ids[::-1], table, angles[::-1])
    fixed = np.random.default_rng(0).random(angles.shape) < 0.5
    found, _ = refine(ids, angles, targets, table, fixed=fixed)
    np.testing.assert_array_equal(found[fixed], angles[fixed])
    assert (found != angles)[~fixed].any()
    still, reached = refine(ids, angles, targets, table, fixed=np.ones_like(fixed))
    np.testing.assert_array_equal(still, angles)
    np.testing.assert_allclose(reached, infidelities(unitaries(ids, table, angles), targets), atol=1e-12)


def test_one_target_may_be_for_all_circuits() -> None:
    table = table_of("preset")
    ids, angles = draw(table, 50, 5)
    target = unitaries(ids[1:2], table, angles[1:2])
    for one, other in zip(
        refine(ids, angles, target, table), refine(ids, angles, np.repeat(target, 50, axis=0), table), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of("preset")
    ids, angles = draw(table, 60, 5)
    targets = unitaries(ids[::-1], table, angles[::-1])
    whole = refine(ids, angles, targets, table)[1]
    monkeypatch.setattr("quantum_diffusion.tasks.refinement._BYTES", 1)
    np.testing.assert_allclose(refine(ids, angles, targets, table)[1], whole, atol=1e-8)


def test_there_may_be_nothing_to_refine() -> None:
    table = table_of("preset")
    found, reached = refine(np.zeros((0, 4), dtype=np.int16), np.zeros((0, 4, 1)), np.zeros((0, 8, 8)), table)
    assert (found.shape, reached.shape) == ((0, 4, 1), (0,))
    ids = random_ids(np.random.default_rng(0), instruction_table(GatePool(["h", "cx"]), QUBITS), 40, 0, 5)
    circuits = circuits_from_ids(ids, instruction_table(GatePool(["h", "cx"]), QUBITS))
    ids = ids_from_circuits(circuits, table, 5)
    angles = np.zeros((40, 5, 1))
    targets = unitaries(ids[::-1], table)
    found, reached = refine(ids, angles, targets, table)
    np.testing.assert_array_equal(found, angles)
    np.testing.assert_allclose(reached, infidelities(unitaries(ids, table), targets), atol=1e-12)


# ---- other languages


@pytest.mark.parametrize("language", ["qasm2", "qasm3"])
def test_programs_keep_the_angles(language: str) -> None:
    if language == "qasm3":
        pytest.importorskip("qiskit_qasm3_import", reason="the extra qasm3 is not installed")
    table = table_of("all")
    ids, angles = draw(table, 40, 10)
    angles += np.where(np.random.default_rng(3).random(angles.shape) < 0.2, 5e-10, 0.0)
    # Qiskit's writer of OpenQASM 3 takes angles within 1e-9 of a simple fraction of pi for it.
    near = 0 if language == "qasm2" else 1e-9
    for circuit in circuits_from_ids(ids, table, angles=angles):
        again = Circuit.from_qasm(circuit.to_qasm2() if language == "qasm2" else circuit.to_qasm3())
        assert [(step.gate, step.qubits) for step in again.instructions] == [
            (step.gate, step.qubits) for step in circuit.instructions
        ]
        for one, other in zip(circuit.instructions, again.instructions, strict=True):
            assert one.angles == pytest.approx(other.angles, abs=near, rel=0)
        unitary = QiskitBackend().unitary(circuit)
        assert_equal_up_to_phase(QiskitBackend().unitary(again)[None], unitary[None], 1e-12 + 10 * near)
