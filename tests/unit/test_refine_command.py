"""What `quantum-diffusion refine` finds, shows, writes and refuses; Hamiltonians as targets; angles in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import qasm2
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_unitary
from scipy.linalg import expm

import quantum_diffusion as qd
from quantum_diffusion.circuits.angles import angle_in_words
from quantum_diffusion.circuits.backends.synthesis import trotterize
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import infidelities
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import statevectors, unitaries
from quantum_diffusion.cli import run_command
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.search.angles import LowestEnergy, minimize_energy
from quantum_diffusion.search.closed_forms import closed_forms
from quantum_diffusion.search.states import target_state
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.tasks.refinement import lowest_energy, polished
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.rotations import rotations_of

HEADER = 'OPENQASM 2.0; include "qelib1.inc";'
FOURIER = "qreg q[2]; h q[1]; cp(1) q[0],q[1]; h q[0]; swap q[0],q[1];"
PAIR = "qreg q[2]; ry(1) q[0]; cx q[0],q[1]; ry(1) q[0]; ry(1) q[1];"
ISING = "-1*ZZ-0.5*XI-0.5*IX"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tests run here, beside two circuits."""
    monkeypatch.chdir(tmp_path)
    for name, gates in (("fourier", FOURIER), ("pair", PAIR), ("fixed", "qreg q[1]; h q[0];")):
        Path(f"{name}.qasm").write_text(HEADER + gates)
    return tmp_path


def test_energies_are_minimised_in_python() -> None:
    pair = qd.Circuit.from_qasm('include "qelib1.inc"; qreg q[2]; ry(1) q[0]; cx q[0],q[1]; ry(1) q[0]; ry(1) q[1];')
    found = qd.refine(pair, energy="-1*ZZ-0.5*XI-0.5*IX")
    assert isinstance(found, LowestEnergy)
    assert found.energy == pytest.approx(-np.sqrt(2), abs=1e-9)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command("refine", ["hydra.run.dir=.", "hydra.output_subdir=null", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def circuit_of(gates: str) -> qd.Circuit:
    return qd.Circuit.from_qasm(HEADER + gates)


# ---- the command


def test_the_angles_of_a_structure_are_found_shown_and_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "fourier.qasm", "refine.target=qft:2", "refine.save_folder=found")
    assert (status, err) == (0, "")
    assert "P(π/2)" in out, "the angle is rounded to what it is"
    assert "exact (infidelity" in out
    native = qasm2.load("found/refined.qasm")
    assert infidelities(Operator(native).data[None], target_unitary("qft:2", 2)[None])[0] < 1e-12
    assert dict(native.count_ops()) == {"h": 2, "cp": 1, "swap": 1}
    assert json.loads(Path("found/summary.json").read_text())["refine"]["target"] == "qft:2"

    status, _, err = run(capsys, "fourier.qasm", "refine.target=qft:2", "refine.save_folder=found")
    assert (status, err) == (2, "error: 'found' already exists: choose another refine.save_folder\n")


def test_a_state_and_an_energy_are_reached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "pair.qasm", f"refine.state=ground:{ISING}")
    assert status == 0
    assert "exact" in out
    status, out, err = run(capsys, "pair.qasm", f"refine.energy={ISING}", "refine.save_folder=low")
    assert (status, err) == (0, "")
    assert out.startswith("energy -1.41421356237")
    matrix = SparsePauliOp(["ZZ", "XI", "IX"], [-1, -0.5, -0.5]).to_matrix()
    state = Statevector(qasm2.load("low/refined.qasm")).data
    assert (state.conj() @ matrix @ state).real == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-9)


def test_the_nearest_circuit_is_shown_where_none_is_exact(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "pair.qasm", "refine.target=qft:2", "refine.starts=4")
    assert status == 3
    assert "not exact (infidelity" in out
    assert "raise refine.starts, set refine.tolerance above it, or give a circuit with more gates" in err
    assert run(capsys, "pair.qasm", "refine.target=qft:2", "refine.starts=4", "refine.tolerance=0.9")[0] == 0
    Path("one.qasm").write_text(HEADER + "qreg q[2]; rz(1) q[0];")
    status, out, err = run(capsys, "one.qasm", f"refine.energy={ISING}", "refine.starts=2")
    assert status == 3
    assert "above the lowest possible" in out
    assert "of the range above the lowest: raise refine.starts" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fourier.qasm"], "give one of target, state and energy"),
        (["fourier.qasm", "refine.target=qft:2", "refine.state=ghz:2"], "give one of target, state and energy"),
        (["fixed.qasm", "refine.target=qft:1"], "the circuit has no gates with angles"),
        (["fourier.qasm", "refine.target=qft:3"], "the target has more qubits than the circuit, 2"),
        (["nowhere.qasm", "refine.target=qft:2"], "refine.circuit: 'nowhere.qasm'"),
        (["fourier.qasm", "refine.energy=XYZ"], "acts on 3 qubits and the circuit has 2"),
        (["fourier.qasm", "refine.energy=XY+Q"], "cannot read the Hamiltonian"),
        (["fourier.qasm", "refine.energy=XX+Y"], "operators on 1 and 2 qubits"),
        (["fourier.qasm", "refine.energy=1e9*XX"], "beyond 1000"),
        (["fourier.qasm", "refine.target=qft:2", "refine.starts=0"], "refine.starts"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    for dry in ([], ["--dry-run"]):
        status, _, err = run(capsys, *arguments, *dry)
        assert status == 2
        assert said in err
        assert err.count("\n") == 1


def test_a_dry_run_says_what_would_be_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "fourier.qasm", "refine.target=qft:2", "refine.save_folder=found", "--dry-run")
    assert (status, err) == (0, "")
    assert "2 qubits, 4 gates, 1 angle" in out
    assert not Path("found").exists()


def test_programs_get_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run_command("refine", ["fourier.qasm", "refine.target=qft:2", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == report["status"] == 0
    assert report["circuits"][0]["exact"]
    circuit = qasm2.loads(report["circuits"][0]["qasm"])
    assert infidelities(Operator(circuit).data[None], target_unitary("qft:2", 2)[None])[0] < 1e-12


# ---- from Python


def test_gates_stay_unless_they_may_go() -> None:
    spare = circuit_of("qreg q[2]; rz(0.3) q[0]; rx(1) q[0]; rz(1) q[1]; cp(2) q[0],q[1]; ry(0.2) q[1];")
    target = circuit_of("qreg q[2]; rx(0.7) q[0]; ry(0.4) q[1];")
    kept = qd.refine(spare, target, seed=1)
    assert kept[0].gate_counts == spare.gate_counts
    short = qd.refine(spare, target, seed=1, shorten=True)
    assert short[0].gate_counts == {"rx": 1, "ry": 1}
    assert [step.angles[0] for step in short[0].instructions] == pytest.approx([0.7, 0.4], abs=1e-7)
    with pytest.raises(ConfigError, match="give target or state, and not both"):
        qd.refine(spare)
    with pytest.raises(ConfigError, match="circuit is 'h'"):
        qd.refine("h", target)  # type: ignore[arg-type]


def test_polished_angles_are_exact_to_rounding_errors() -> None:
    rng = np.random.default_rng(0)
    table = instruction_table(GatePool(["h", "cx", "rx", "rz", "cp", "u"]), 3)
    ids = random_ids(rng, table, 20, 8, 8)
    angles = table.random_angles(ids, rng)
    targets = unitaries(ids, table, angles)
    near = np.where(angles == 0, 0.0, angles + 1e-6 * rng.standard_normal(angles.shape))

    def error(tried: np.ndarray) -> float:
        made = unitaries(ids, table, tried)
        phases = np.einsum("nab,nab->n", made.conj(), targets)
        return float(np.abs(made * (phases / abs(phases))[:, None, None] - targets).max())

    assert infidelities(unitaries(ids, table, near), targets).max() < 1e-10
    assert error(near) > 1e-7
    assert error(polished(ids, near, targets, table)) < 1e-13


def test_energies_have_exact_gradients_and_fall() -> None:
    table = instruction_table(GatePool(["h", "cx", "rx", "u", "crz"]), 3)
    rng = np.random.default_rng(0)
    ids = random_ids(rng, table, 4, 8, 8)
    angles = table.random_angles(ids, rng)
    matrix = SparsePauliOp(["XXI", "IZZ", "YIY"], [0.5, -0.3, 0.2]).to_matrix()

    rotations = rotations_of(table)
    numbers, values = map(torch.from_numpy, rotations.in_order(ids, angles))
    given = torch.from_numpy(matrix)
    energies, slopes = rotations.energy(numbers, values, given)
    for place in range(values.shape[1]):
        step = torch.zeros_like(values)
        step[:, place] = 1e-6
        ahead, behind = (rotations.energy(numbers, values + sign * step, given)[0] for sign in (1, -1))
        np.testing.assert_allclose(slopes[:, place], (ahead - behind) / 2e-6, atol=1e-8)

    found, lowest = lowest_energy(ids, angles, matrix, table)
    states = statevectors(ids, table, found)
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", states.conj(), matrix, states).real, lowest, atol=1e-12)
    assert (lowest <= energies.numpy() + 1e-12).all()
    assert (lowest >= np.linalg.eigvalsh(matrix)[0] - 1e-12).all()


def test_an_energy_is_told_beside_the_lowest() -> None:
    result = minimize_energy(circuit_of(PAIR), ISING, starts=8)
    assert result.is_lowest
    assert result.lowest == pytest.approx(-math.sqrt(2))
    assert result.excess < 1e-10
    assert "above the lowest possible" in str(result)


# ---- targets


def test_sums_of_pauli_operators_evolve() -> None:
    matrix = SparsePauliOp(["XXI", "IZZ", "YIY"], [0.5, -0.3, 2.0]).to_matrix()
    evolved = target_unitary("pauli:0.5*XXI - 0.3*IZZ + 2*YIY:t0.25", 3)
    np.testing.assert_allclose(evolved, expm(-0.25j * matrix), atol=1e-12)
    chain = SparsePauliOp(["IXX", "XXI", "IYY", "YYI", "IZZ", "ZZI", "IIZ", "IZI", "ZII"])
    weights = [-0.5, -0.5, -0.4, -0.4, -0.3, -0.3, -0.2, -0.2, -0.2]
    expected = expm(-0.7j * SparsePauliOp(chain.paulis, weights).to_matrix())
    np.testing.assert_allclose(target_unitary("heisenberg:3:Jx0.5:Jy0.4:Jz0.3:h0.2:t0.7", 3), expected, atol=1e-12)


def test_ground_states_have_the_lowest_energy() -> None:
    matrix = SparsePauliOp(["ZZ", "XI", "IX"], [-1, -0.5, -0.5]).to_matrix()
    state = target_state(f"ground:{ISING}", 2)
    assert (state.conj() @ matrix @ state).real == pytest.approx(np.linalg.eigvalsh(matrix)[0])


@pytest.mark.parametrize("text", ["pauli:XX", "pauli:XX:0.3", "pauli:XX:tx", "pauli::t1", "pauli:XX:t1:t2"])
def test_evolutions_that_cannot_be_read_are_told_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected e\.g\."):
        target_unitary(text, 2)


# ---- closed forms


@pytest.mark.parametrize(
    ("names", "num_qubits"), [(("rz", "sx", "cx"), 1), (("rz", "ry", "cp"), 2), (("u", "cx"), 2)], ids=str
)
def test_closed_forms_are_exact_and_shorter_ones_too(names: tuple[str, ...], num_qubits: int) -> None:
    rng = np.random.default_rng(2)
    target = np.linalg.qr(rng.normal(size=(2, 2**num_qubits, 2**num_qubits)) @ np.eye(2**num_qubits) + 0j)[0][0]
    pool = GatePool(fitting(names, num_qubits))
    (circuits,) = closed_forms(unitary_task(), target, pool, num_qubits, 1e-10)
    assert len(circuits) == 2
    assert len(circuits[1]) <= len(circuits[0])
    for circuit in circuits:
        assert infidelities(Operator(circuit.to_qiskit()).data[None], target[None])[0] < 1e-10


def test_there_is_no_closed_form_for_three_qubits_but_diagonals() -> None:
    pool = GatePool(["h", "cx", "p", "cp"])
    random = random_unitary(8, seed=0).data
    assert not list(closed_forms(unitary_task(), random, pool, 3, 1e-10))
    phases = np.diag(np.exp(1j * np.array([0, 0.1, 0.2, 0.3, 0, 0, 0, 0.5])))
    ((circuit, *_),) = closed_forms(unitary_task(), phases, pool, 3, 1e-10)
    assert infidelities(Operator(circuit.to_qiskit()).data[None], phases[None])[0] < 1e-10


CHAIN = "xxz:3:J0.4:delta1:h0.2:t0.25"


@pytest.mark.parametrize("phase", [0.0, 1.0, 3.0, -2.0])
def test_product_formulas_come_nearer_and_nearer_whatever_the_phase(phase: float) -> None:
    target = np.exp(1j * phase) * target_unitary(CHAIN, 3)
    circuits = list(trotterize(target, ("rx", "ry", "rz", "cx")))
    made = np.stack([Operator(circuit.to_qiskit()).data for circuit in circuits])
    missed = infidelities(made, np.broadcast_to(target, made.shape))
    assert len(missed) == 4
    assert missed[0] < 1e-3
    assert missed[3] < missed[1] < missed[0]
    assert all(len(circuits[0]) < len(circuit) for circuit in circuits[1:])


def test_unitaries_that_are_no_evolution_have_no_product_formula() -> None:
    random = random_unitary(8, seed=0).data
    gates = ("h", "rx", "rz", "cx")
    assert not list(trotterize(random, gates))
    assert not list(trotterize(np.exp(0.3j) * np.eye(8), gates)), "nothing to do"
    assert not list(trotterize(target_unitary(CHAIN, 3), ("h", "cx"))), "no angles"
    assert not list(trotterize(target_unitary(CHAIN, 3), ("rz", "cx"))), "Qiskit needs other gates"


@pytest.mark.parametrize(
    ("name", "most"),
    [("toffoli", 15), ("ccz", 13), ("pauli:0.3*XXI+0.2*ZZI+0.1*IIZ:t1", 19), ("pauli:0.5*XYI-0.3*IYZ:t0.25", 20)],
)
def test_sums_of_commuting_operators_are_made_exactly(name: str, most: int) -> None:
    """The Toffoli gate with the textbook's gates (Nielsen and Chuang, figure 4.9)."""
    target = target_unitary(name, 3)
    circuit = next(trotterize(target, ("h", "rx", "rz", "cx")))
    assert infidelities(Operator(circuit.to_qiskit()).data[None], target[None])[0] < 1e-12
    assert len(circuit) <= most


@pytest.mark.parametrize(("tolerance", "most"), [(1e-4, 32), (1e-6, 40)])
def test_evolutions_are_made_by_few_gates(tolerance: float, most: int) -> None:
    """genQC's best of 64 samples is 3.5e-2, with up to 32 gates (arXiv 2506.01666)."""
    target = target_unitary(CHAIN, 3)
    pool = GatePool(["h", "cx", "ccx", "swap", "rx", "ry", "rz", "cp"])
    *rough, (whole, short) = closed_forms(unitary_task(), target, pool, 3, tolerance)
    assert [len(circuits) for circuits in rough] == [1], "the first formula is not good enough"
    for circuit in (whole, short):
        assert infidelities(Operator(circuit.to_qiskit()).data[None], target[None])[0] < tolerance
    assert len(short) <= most < len(whole)


def unitary_task() -> Any:
    return TASKS["UNITARY"]


def fitting(names: tuple[str, ...], num_qubits: int) -> list[str]:
    return [name for name in names if num_qubits > 1 or name not in ("cx", "cp")]


# ---- words


@pytest.mark.parametrize(
    ("angle", "words"),
    [
        (0.0, "0"),
        (math.pi, "π"),
        (2 * math.pi, "2π"),
        (3 * math.pi / 4, "3π/4"),
        (math.pi / 16, "π/16"),
        (-math.pi / 2, "-π/2"),
        (math.pi / 17, "0.185"),
        (math.pi / 2 + 1e-6, "1.57"),
    ],
)
def test_angles_are_written_as_multiples_of_pi_where_they_are(angle: float, words: str) -> None:
    assert angle_in_words(angle) == words
