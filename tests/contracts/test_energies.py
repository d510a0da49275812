"""Searches for the lowest energy: what counts as lowest, what is returned, said and refused. Qiskit is the judge.

Models have random weights: sampling and refinement alone must find short circuits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import qasm2
from qiskit.quantum_info import SparsePauliOp, Statevector

import quantum_diffusion as qd
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import CompileConfig, DatasetConfig, PrepareConfig, SampleConfig
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.checkpoint import save_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.compiling import extension_for
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.energy import EnergyTask
from quantum_diffusion.tasks.refinement import lowest_energy, refine_excess
from quantum_diffusion.tasks.rotations import rotations_of
from tests.conftest import MakeConfig

ISING = "-1*ZZ-0.5*XI-0.5*IX"
ISING_3 = "-1*ZZI-1*IZZ-0.7*XII-0.7*IXI-0.7*IIX"
DEGENERATE = "-1*ZZ"
FLAT = "2*II"
GATES = ("h", "cx", "rx", "ry", "rz")


def matrix_of(text: str) -> Matrix:
    """Return a Hamiltonian, by Qiskit's words for products of Pauli matrices."""
    terms = [term.rsplit("*", 1) for term in text.replace("-", " -").replace("+", " +").split()]
    matrix: Matrix = SparsePauliOp.from_list([(letters, float(weight)) for weight, letters in terms]).to_matrix()
    return matrix


def energy_of(circuit: Circuit, text: str) -> float:
    """Return the energy of the state that a circuit's OpenQASM program prepares."""
    state = Statevector(qasm2.loads(circuit.to_qasm2()))
    return float(state.expectation_value(SparsePauliOp.from_operator(matrix_of(text))).real)


def build(make_config: MakeConfig, gates: tuple[str, ...] = GATES, num_qubits: int = 2, steps: int = 6) -> Any:
    """Return an untrained model of states."""
    data = DatasetGenerator(
        DatasetConfig(
            gate_set=gates,
            num_qubits=num_qubits,
            condition_type="STATE",
            num_samples=30,
            max_gates=steps,
            n_jobs=1,
        )
    ).generate()[0]
    config = make_config(
        "policy",
        model_params={"depth": 1, "feed_forward": 1},
        scheduler_params={"suffix_share": 1, "order": "left_to_right"},
        sections={"state_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
    )
    return DiffusionPipeline(pipeline_config(config, data), seed=5)


def find(pipeline: DiffusionPipeline, text: str, **options: Any) -> Compilation:
    task = EnergyTask(matrix_of(text))
    return find_exact(pipeline.extended(task), task.ground_state, **{"max_tries": 256, **options})


def check(result: Compilation, text: str, tolerance: float = 0.0) -> None:
    """Check what is said of circuits, and that those which are accepted may be."""
    levels = np.linalg.eigvalsh(matrix_of(text))
    width = levels[-1] - levels[0] or 1.0
    assert result.best is not None
    for found in result.circuits or (result.best,):
        energy = energy_of(found.circuit, text)
        assert found.figures["energy"] == pytest.approx(energy, abs=1e-10)
        assert found.infidelity == pytest.approx((energy - levels[0]) / width, abs=1e-10)
        assert found.is_exact == (found.infidelity < 1e-10)
        assert found.words.startswith(f"energy {found.figures['energy']:.12g}, ")
        assert found.words.endswith(" above the lowest possible")
    for found in result.circuits:
        assert found.infidelity < max(tolerance, 1e-10)


# ---- the task


@pytest.mark.parametrize("text", [ISING, DEGENERATE, FLAT, "1*XX+1*YY+1*ZZ"])
@pytest.mark.parametrize("num_qubits", [2, 3])
def test_distances_are_shares_of_the_range_of_energies(text: str, num_qubits: int) -> None:
    """On more qubits than the Hamiltonian has, too, which do not count."""
    rng = np.random.default_rng(0)
    table = instruction_table(GatePool(("h", "cx", "rx", "rzz")), num_qubits)
    ids = random_ids(rng, table, 20, 0, 6)
    angles = table.random_angles(ids, rng)
    task, levels = EnergyTask(matrix_of(text)), np.linalg.eigvalsh(matrix_of(text))
    found = task.distances(ids, np.zeros((1, 4, 1), dtype=np.complex128), table, angles)
    wide = "+".join(f"{weight.real}*{'I' * (num_qubits - 2)}{letters}" for letters, weight in terms_of(text))
    for distance, circuit in zip(found, circuits_from_ids(ids, table, angles=angles), strict=True):
        energy = energy_of(circuit, wide.replace("+-", "-"))
        assert distance == pytest.approx((energy - levels[0]) / (np.ptp(levels) or 1.0), abs=1e-12)
        assert task.measure.figures(float(distance))["energy"] == pytest.approx(energy, abs=1e-12)


def terms_of(text: str) -> list[tuple[str, complex]]:
    return SparsePauliOp.from_operator(matrix_of(text)).to_list()


def test_a_smaller_circuit_than_the_hamiltonian_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="the Hamiltonian acts on 3 qubits, but the circuits have 2"):
        find_exact(build(make_config).extended(EnergyTask(matrix_of(ISING_3))), np.eye(4)[0])


def test_a_model_of_other_targets_is_refused() -> None:
    with pytest.raises(ConfigError, match="the task EnergyTask is for states, but the model for unitaries"):
        qd.load("pretrained:unitary_3q").pipeline.extended(EnergyTask(matrix_of(ISING)))


# ---- refinement


def test_steps_are_those_of_the_formula() -> None:
    """The slope by differences, and the matrix from the derivatives of A^(1/2) v."""
    rng = np.random.default_rng(1)
    table = instruction_table(GatePool(("cx", "rx", "rzz", "u")), 2)
    ids = random_ids(rng, table, 5, 4, 4)
    rotations = rotations_of(table)
    numbers, values = rotations.in_order(ids, table.random_angles(ids, rng))
    levels, vectors = np.linalg.eigh(matrix_of("1*XX+0.3*ZI-0.7*IY"))
    levels = (levels - levels[0]) / np.ptp(levels)
    excess, root = (vectors * power @ vectors.conj().T for power in (levels, levels**0.5))
    place, matrix = torch.from_numpy(numbers), torch.from_numpy(excess)

    def residuals(angles: Any) -> Any:
        gates = rotations.gates(place, torch.from_numpy(angles)).numpy()
        state = np.zeros((5, 4, 1), dtype=np.complex128)
        state[:, 0] = 1
        for step in range(gates.shape[1]):
            state = gates[:, step] @ state
        return (root @ state)[..., 0]

    slope, metric = rotations.excess_slope(place, torch.from_numpy(values), matrix)
    moved = np.zeros((5, values.shape[1], 4), dtype=np.complex128)
    for column in range(values.shape[1]):
        shift = np.zeros_like(values)
        shift[:, column] = 1e-5
        moved[:, column] = (residuals(values + shift) - residuals(values - shift)) / 2e-5
    # generators are those of rotations up to a phase, which A^(1/2) v turns by: compare what no phase changes
    now = residuals(values)
    reached = rotations.excess(place, torch.from_numpy(values), matrix).numpy()
    np.testing.assert_allclose(reached, np.linalg.norm(now, axis=1) ** 2, atol=1e-12)
    expected = -np.einsum("nld,nd->nl", moved.conj(), now).real
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-8)
    np.testing.assert_allclose(metric.numpy(), np.einsum("nld,nmd->nlm", moved.conj(), moved).real, atol=1e-8)


def test_two_ways_of_refining_find_the_same_energies() -> None:
    rng = np.random.default_rng(0)
    table = instruction_table(GatePool(("cx", "rx", "ry", "rzz")), 3)
    ids = random_ids(rng, table, 24, 4, 8)
    angles = table.random_angles(ids, rng)
    levels = np.linalg.eigvalsh(matrix_of(ISING_3))
    excess = (matrix_of(ISING_3) - levels[0] * np.eye(8)) / np.ptp(levels)
    held = np.zeros(angles.shape, dtype=np.bool_)
    held[:, :2] = True
    (found, reached), (others, energies) = (
        search(ids, angles, excess, table, fixed=held) for search in (refine_excess, lowest_energy)
    )
    assert np.median(np.abs(reached - energies)) < 1e-5
    for moved in (found, others):
        np.testing.assert_allclose(np.exp(1j * moved[:, :2]), np.exp(1j * angles[:, :2]), atol=1e-12)
    task = EnergyTask(matrix_of(ISING_3))
    nothing = np.zeros((1, 8, 1), dtype=np.complex128)
    np.testing.assert_allclose(task.distances(ids, nothing, table, found), reached, atol=1e-12)
    best, precise = task.refine(ids, angles, nothing, table)
    np.testing.assert_allclose(task.distances(ids, nothing, table, best), precise, atol=1e-12)
    assert precise.min() <= reached.min()


# ---- the search


def test_the_lowest_energy_of_a_chain_is_found(make_config: MakeConfig) -> None:
    result = find(build(make_config), ISING, num_circuits=2)
    assert result.search == "refinement"
    assert result.circuits
    check(result, ISING)
    assert [len(found.circuit) for found in result.circuits] == sorted(len(found.circuit) for found in result.circuits)


def test_any_state_of_a_degenerate_ground_space_counts(make_config: MakeConfig) -> None:
    """With rx alone |00> and |11> are reached, and with entangling gates superpositions."""
    pipeline = build(make_config)
    products = find(pipeline, DEGENERATE, gates=["rx"], num_circuits=2)
    check(products, DEGENERATE)
    assert len(products.circuits[0].circuit) == 0
    task = EnergyTask(matrix_of(DEGENERATE))
    bell = np.array([1, 0, 0, 1]) / 2**0.5  # asked for by itself, products are refused
    with pytest.raises(ConfigError, match=r"joins qubits .* with the others"):
        find_exact(pipeline, bell, gates=["rx"])
    other = find_exact(pipeline.extended(task), bell, gates=["rx"], max_tries=64)
    check(other, DEGENERATE)
    assert other.circuits
    several = find(pipeline, DEGENERATE, gates=["rx", "cx"], max_gates=3, num_circuits=500, max_tries=1024)
    check(several, DEGENERATE)
    states = [np.abs(Statevector(qasm2.loads(found.circuit.to_qasm2())).data) for found in several.circuits]
    assert any(0.01 < state[0] < 0.99 for state in states)


def test_without_entangling_gates_the_best_product_state_is_returned(make_config: MakeConfig) -> None:
    """Both qubits have one angle, by symmetry; the search says how far its energy is from the lowest."""
    angles = np.linspace(0, np.pi, 20001)
    mean_field = (-(np.cos(angles) ** 2) - np.sin(angles) * 0.5 * 2).min()
    result = find(build(make_config), ISING, gates=["ry"])
    check(result, ISING)
    assert not result.circuits
    assert result.best is not None
    assert result.best.figures["energy"] == pytest.approx(mean_field, abs=1e-7)
    assert len(result.best.circuit) == 2, "of circuits of the same energy the shortest"
    lowest = np.linalg.eigvalsh(matrix_of(ISING))[0]
    words = f"energy {result.best.figures['energy']:.12g}, {mean_field - lowest:.2g} above the lowest possible"
    assert words in result.summary
    share = result.best.infidelity
    enough = find(build(make_config), ISING, gates=["ry"], tolerance=share + 1e-6)
    check(enough, ISING, share + 1e-6)
    assert len(enough.circuits[0].circuit) == 2
    assert not find(build(make_config), ISING, gates=["ry"], tolerance=share - 1e-6).circuits


def test_limits_and_constraints_are_kept(make_config: MakeConfig) -> None:
    pipeline = build(make_config, num_qubits=3)
    result = find(pipeline, ISING_3, edit=Edit(coupling=((0, 1),)), max_gates=4, tolerance=0.2, num_circuits=3)
    check(result, ISING_3, 0.2)
    assert result.circuits
    for found in result.circuits:
        assert len(found.circuit) <= 4
        assert all(sorted(step.qubits) == [0, 1] for step in found.circuit.instructions if len(step.qubits) == 2)
    still = find(pipeline, ISING_3, edit=Edit(fixed_qubits=(2,)), max_tries=64)
    check(still, ISING_3)
    assert still.best is not None
    assert all(2 not in step.qubits for step in still.best.circuit.instructions)

    start = Circuit(3, (Instruction("ry", (), (0,), (0.3,)),))
    kept = find(pipeline, ISING_3, edit=Edit(start=start, keep=(0,)), max_tries=64)
    check(kept, ISING_3)
    assert kept.best is not None
    assert kept.best.circuit.instructions[0] == start.instructions[0]
    assert kept.kept == f"have energy {energy_of(start, ISING_3):.12g}, {above(start):.2g} above the lowest possible"


def above(circuit: Circuit) -> float:
    return energy_of(circuit, ISING_3) - float(np.linalg.eigvalsh(matrix_of(ISING_3))[0])


@pytest.mark.parametrize("search", ["beam", "sampling"])
def test_gates_without_angles_are_judged_by_energy(make_config: MakeConfig, search: Any) -> None:
    pipeline = build(make_config, ("h", "x", "cx", "t"))
    pair = find(pipeline, "-1*XX-1*ZZ", search=search, max_tries=4096)
    check(pair, "-1*XX-1*ZZ")
    assert pair.search == search
    assert pair.circuits[0].circuit.gate_counts == {"h": 1, "cx": 1}
    near = find(pipeline, ISING, search=search, max_tries=64, tolerance=0.3)
    check(near, ISING, 0.3)
    assert near.circuits
    far = find(pipeline, ISING, search=search, max_tries=64, gates=["t"])
    check(far, ISING)
    assert not far.circuits
    assert not far.never_exact


def test_a_search_ends_in_time_and_when_interrupted(make_config: MakeConfig) -> None:
    def interrupt(done: int, most: int) -> None:
        raise KeyboardInterrupt

    pipeline = build(make_config)
    timed = find(pipeline, ISING, max_seconds=0.5)
    check(timed, ISING)
    assert 0.5 < timed.seconds < 5
    stopped = find(pipeline, ISING, gates=["ry"], progress=interrupt, max_tries=128)
    check(stopped, ISING)
    assert stopped.interrupted
    assert stopped.num_sampled < 64


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((3, 3)), np.array([[0, 1], [0, 0]]), np.eye(1), np.full((2, 2), np.nan), "ZZ", np.zeros(4)],
    ids=str,
)
def test_what_is_no_hamiltonian_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"no Hermitian matrix of 2\^q rows"):
        EnergyTask(wrong)


def test_a_constant_takes_no_digits_from_the_others(make_config: MakeConfig) -> None:
    result = find(build(make_config), "1000*II-0.001*ZI-0.0005*IZ", max_tries=64)
    assert result.circuits
    assert result.circuits[0].figures["energy"] == pytest.approx(999.9985, abs=1e-9)


def test_the_model_itself_is_left_as_it_was(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    one, other = (find(pipeline, ISING, seed=3, max_tries=64).circuits for _ in range(2))
    assert one == other
    state = EnergyTask(matrix_of(ISING)).ground_state
    found = find_exact(pipeline, state, gates=["rx"], max_tries=64, tolerance=0.3).best
    assert found is not None
    assert list(found.figures) == ["infidelity"]


# ---- the command and its Python face


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command("prepare", ["hydra.run.dir=.", "hydra.output_subdir=null", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_shows_and_writes_energies(
    make_config: MakeConfig, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pipeline(build(make_config), Path("model"), "{}", {})
    energy = "prepare.objective=energy"
    given = (f"ground:{ISING}", energy, "prepare.model_dir=model", "prepare.save_folder=found", "prepare.seed=1")
    status, out, err = run(capsys, *given)
    assert (status, err) == (0, "")
    lowest, highest = np.linalg.eigvalsh(matrix_of(ISING))[[0, -1]]
    assert f"{lowest:.10g}" in out
    summary = json.loads(Path("found/summary.json").read_text())
    assert (summary["lowest"], summary["highest"]) == (pytest.approx(lowest), pytest.approx(highest))
    assert summary["circuits"][0]["energy"] == pytest.approx(lowest, abs=1e-8)
    circuit = Circuit.from_qasm(Path("found/00001.qasm").read_text())
    assert energy_of(circuit, ISING) == pytest.approx(lowest, abs=1e-8)

    status, out, err = run(capsys, *given[:3], "prepare.gates=[ry]", "prepare.max_tries=64")
    assert status == 3
    assert "the circuit shown is the best one: energy -1.25, 0.16 above the lowest possible (" in out
    assert "set prepare.tolerance above 0.058, the excess energy of the best circuit" in err
    status, out, _ = run(capsys, *given[:3], "--json", "prepare.gates=[ry]", "prepare.max_tries=64")
    report = json.loads(out)
    assert report["nearest"]["energy"] == pytest.approx(-1.25, abs=1e-8)
    assert report["lowest"] == pytest.approx(lowest)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "ghz:2",
            "objective=energy needs a Hamiltonian, but the target of prepare is 'ghz:2': use prepare with a target",
        ),
        ("ground:-1*ZQ", "cannot read the Hamiltonian '-1*ZQ'"),
        ("ground:-1*" + 25 * "Z", "the target has 25 qubits, but the model writes circuits of at most 5"),
    ],
)
def test_what_has_no_energy_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, said: str
) -> None:
    for dry in ([], ["--dry-run"]):
        status, _, err = run(capsys, target, "prepare.objective=energy", *dry)
        assert status == 2
        assert err.count("\n") == 1
        assert said in err
    with pytest.raises(ConfigError) as refused:
        qd.prepare(target, objective="energy")
    assert said in str(refused.value)


def test_an_energy_is_no_cost() -> None:
    only = "energy is an objective of prepare alone, with a target ground:HAMILTONIAN and no weights"
    for schema, given in (
        (CompileConfig, {"target": "qft:2", "objective": "energy"}),
        (SampleConfig, {"srv": (1, 2, 2), "objective": "energy"}),
        (PrepareConfig, {"target": f"ground:{ISING}", "objective": {"energy": 1, "gates": 2}}),
    ):
        with pytest.raises(ConfigError, match=only):
            schema(**given)
    with pytest.raises(ConfigError, match="objective=energy needs a Hamiltonian, but the target of compile is 'qft:2'"):
        qd.compile("qft:2", objective="energy")
    with pytest.raises(ConfigError, match="the target of prepare is 'ndarray'"):
        extension_for("prepare", "energy", np.eye(4)[0])


def test_python_and_pretrained_models_know_energies() -> None:
    found = qd.prepare(f"ground:{DEGENERATE}", objective="energy", gates=["x", "h"])
    check(found, DEGENERATE)
    assert len(found[0]) == 0
    assert found.rows()[0]["energy"] == -1
    assert "-1" in str(found)
