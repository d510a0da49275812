"""Models of gates with angles: what they are shown, what they may not be, and what a search returns.

Models have random weights: sampling and refinement alone must find short circuits. Qiskit is the judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import qasm2
from qiskit.quantum_info import Operator, Statevector, random_unitary

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, GatePool, Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, compact, gate_count, instruction_table
from quantum_diffusion.circuits.matrices import EXACT_ANGLES, as_two_channels, from_two_channels, infidelities
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.config.schema import DatasetConfig, EvaluationConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.evaluation.report.figures import read_evaluation_folder
from quantum_diffusion.evaluation.target_evaluation import evaluate_targets
from quantum_diffusion.models.unitary_encoder import PauliEncoder
from quantum_diffusion.pipeline.augmentation import augment, check_augmentation
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.decoding import AngleGrid
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.search.refining import Refined, shortened, snapped
from quantum_diffusion.search.structures import _Peaks
from tests.conftest import MakeConfig

GATE_SET = ("h", "cx", "rx", "rz", "cp", "crz")
QUBITS, STEPS = 2, 5
ENCODERS: dict[str, dict[str, Any]] = {
    "UNITARY": {"unitary_encoder": {"type": "pauli", "params": {"width": 16, "depth": 1, "remaining": True}}},
    "STATE": {"state_encoder": {"params": {"width": 16, "depth": 1, "remaining": True}}},
}


PROMPT = f"Compile using: {list(GATE_SET)}"


def generate(**changes: Any) -> CircuitDataset:
    values = {
        "gate_set": GATE_SET,
        "num_qubits": QUBITS,
        "condition_type": "UNITARY",
        "num_samples": 60,
        "max_gates": STEPS,
        "n_jobs": 1,
    }
    return DatasetGenerator(DatasetConfig(**{**values, **changes})).generate()[0]


def configuration(make_config: MakeConfig, task: str = "UNITARY", **loop: Any) -> TrainingConfig:
    return make_config(
        "policy",
        model_params={"depth": 1, "feed_forward": 1},
        scheduler_params={"suffix_share": 1, "order": "left_to_right"},
        sections=ENCODERS[task],
        **loop,
    )


def build(make_config: MakeConfig, task: str = "UNITARY", **changes: Any) -> DiffusionPipeline:
    data = generate(condition_type=task, num_samples=30, **changes)
    return DiffusionPipeline(pipeline_config(configuration(make_config, task), data), seed=5)


def circuit(*steps: tuple[Any, ...], num_qubits: int = QUBITS) -> Circuit:
    """Make a circuit of steps (name, angles, qubits)."""
    made = []
    for name, angles, qubits in steps:
        split = GATES[name].num_controls
        made.append(Instruction(name, qubits[:split], qubits[split:], angles))
    return Circuit(num_qubits, tuple(made))


def by_qiskit(one: Circuit) -> Matrix:
    return Operator(qasm2.loads(one.to_qasm2())).data


# ---- what models are shown


@pytest.mark.parametrize("names", [("rx", "crz", "cx"), ("u", "rz", "h")], ids="_".join)
def test_angles_are_right_on_average(names: tuple[str, ...]) -> None:
    table = instruction_table(GatePool(names), 2)
    rng, count = np.random.default_rng(0), 4000
    ids = random_ids(rng, table, 1, 6, 6)
    period = (table.step * table.num_steps)[ids][..., None]
    exists = np.arange(table.pool.num_angles) < table.num_angles[ids][..., None]
    angles = np.where(exists, period * rng.random((*ids.shape, table.pool.num_angles)), 0.0)
    uniform = torch.rand(count, angles[0].size, generator=torch.Generator().manual_seed(1))
    given = torch.from_numpy(ids).long().expand(count, -1), torch.from_numpy(angles).float().expand(count, -1, -1)
    found = AngleGrid(table)(*given, uniform).numpy()
    np.testing.assert_array_equal(table.first[found], np.broadcast_to(table.first[ids], found.shape))
    away = (table.angles[found] - angles + period / 2) % period - period / 2
    step = table.step[ids][..., None]
    assert (np.abs(away) < step)[:, exists[0]].all(), "one of the two neighbours"
    assert (np.abs(away.mean(axis=0)) < 5 * step[0] / 2 / count**0.5).all()
    on_it = torch.from_numpy(table.angles[found]).float()
    again = AngleGrid(table)(torch.from_numpy(found).long(), on_it + 1e-5, 0.5 * uniform).numpy()
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("names", ["permute_qubits", "invert", "permute_qubits,invert"])
def test_an_augmented_circuit_has_the_augmented_unitary(names: str) -> None:
    pool = GatePool(("h", "cx", "rx", "ry", "rz", "p", "cp", "crz", "rzz", "ccx"))
    table, count = instruction_table(pool, 3), 400
    rng = np.random.default_rng(0)
    ids = compact(random_ids(rng, table, count, 0, 6))
    period = (table.step * table.num_steps)[ids][..., None]
    angles = np.where(table.num_angles[ids][..., None] > 0, period * rng.random((*ids.shape, 1)), 0.0)
    sizes = np.stack([np.full(count, 3), gate_count(ids)], axis=1).astype(np.int16)
    batch = Batch(
        tokens=torch.from_numpy(encode_ids(ids, table)),
        prompt_ids=torch.zeros(count, dtype=torch.int32),
        sizes=torch.from_numpy(sizes),
        targets=torch.from_numpy(as_two_channels(unitaries(ids, table, angles))),
        angles=torch.from_numpy(angles).float(),
    )
    noise = Noise(torch.Generator().manual_seed(0))
    for without in (False, True):
        given = Batch(batch.tokens, batch.prompt_ids, batch.sizes, angles=batch.angles) if without else batch
        augmented = augment(given, names.split(","), noise)
        assert augmented.angles is not None
        if augmented.targets is None:
            continue
        made = unitaries(decode_tokens(augmented.tokens.numpy(), pool).ids, table, augmented.angles.double().numpy())
        np.testing.assert_allclose(made, from_two_channels(augmented.targets.numpy()), atol=2e-6)
        moved = (augmented.tokens != batch.tokens).flatten(1).any(dim=1)
        assert moved.float().mean() > 0.3


def test_gates_that_would_leave_the_pool_when_reversed_are_refused() -> None:
    check_augmentation(generate(), ["permute_qubits", "invert"])
    with pytest.raises(ConfigError, match="'u': leave invert out"):
        check_augmentation(generate(gate_set=("h", "cx", "u")), ["invert"])
    with pytest.raises(ConfigError, match="the inverse of 'sx' is another gate"):
        check_augmentation(generate(gate_set=("h", "sx", "rz")), ["invert"])


@pytest.mark.parametrize("num_qubits", [1, 2, 3])
@torch.no_grad()
def test_pauli_encoders_see_the_unitary_but_not_its_phase(num_qubits: int) -> None:
    torch.manual_seed(0)
    encoder = PauliEncoder(num_qubits=num_qubits, condition_dim=8, width=16, depth=1).eval()
    for parameter in encoder.parameters():  # zero-initialised layers would hide mistakes
        parameter.add_(0.3 * torch.randn(parameter.shape))
    side = 2**num_qubits
    matrices = [random_unitary(side, seed=seed).data for seed in range(6)]
    first = matrices[0]
    turned = np.exp(-0.005j * np.arange(side))  # a small turn about all diagonal axes
    matrices += [first.conj(), first.T, first.conj().T, turned[:, None] * first, first * turned, np.eye(side)]
    given = torch.from_numpy(as_two_channels(np.array(matrices)))
    codes = encoder(given)
    assert tuple(codes.shape) == (12, 8)
    for phase in (1j, -1, np.exp(0.3j)):
        other = encoder(torch.from_numpy(as_two_channels(phase * np.array(matrices))))
        torch.testing.assert_close(other, codes, atol=1e-4, rtol=1e-4)
    distances = torch.cdist(codes, codes) + torch.eye(12) * 10
    if num_qubits == 1:  # there transposing and turning may come near to each other
        distances = distances[:6, :6]
    assert distances.min() > 2e-4
    torch.testing.assert_close(encoder(given.view(3, 4, 2, side, side)), codes.view(3, 4, 8))
    assert encoder(torch.zeros(1, 2, side, side)).isfinite().all(), "no unitary at all"


@torch.no_grad()
def test_pauli_numbers_are_those_of_the_transfer_matrix() -> None:
    from qiskit.quantum_info import PTM, pauli_basis

    encoder = PauliEncoder(num_qubits=2, condition_dim=8, width=16, depth=1)
    matrix = random_unitary(4, seed=3).data
    shown = encoder._images(torch.from_numpy(matrix[None]).to(torch.complex64))[0].numpy()
    labels = pauli_basis(2).to_labels()
    assert labels[0] == "II"
    expected = PTM(Operator(matrix)).data.real[1:, 1:]
    np.testing.assert_allclose(np.sort(shown), np.sort(expected.ravel()), atol=1e-5)


def test_gaussian_schedulers_are_refused(make_config: MakeConfig) -> None:
    data = generate()
    config = make_config("transformer", "ddim", sections={"unitary_encoder": {"params": {"width": 16, "depth": 1}}})
    with pytest.raises(ConfigError, match=r"scheduler\.type=ddim writes gates without angles.*type=masked"):
        DiffusionPipeline(pipeline_config(config, data), seed=0)


def test_samples_have_refined_angles(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    data = generate(num_samples=20, seed=3)
    assert data.targets is not None
    prompts = [f"Compile using: {list(GATE_SET)}"] * 20
    samples = pipeline.sample(pipeline.requests(prompts, list(from_two_channels(data.targets))), 0)
    assert samples.angles is not None
    made = np.array([by_qiskit(one) for one in samples.circuits(range(20))])
    np.testing.assert_allclose(infidelities(made, from_two_channels(data.targets)), samples.infidelities, atol=1e-6)
    on_grid = pipeline.table.angles[samples.ids]
    assert (np.abs(samples.angles - on_grid) > 1e-3).any()


# ---- searching


def assert_right(result: Compilation, target: Matrix) -> None:
    """Check what is said of every circuit with its OpenQASM program."""
    assert result.circuits
    for found in result.circuits:
        made = by_qiskit(found.circuit)
        width = target.shape[1] if target.ndim == 2 else 1
        made, wanted = made[None, :, :width], target.reshape(1, len(target), -1)
        assert infidelities(made, wanted)[0] == pytest.approx(found.infidelity, abs=1e-12)
        assert found.is_exact
        assert found.infidelity < EXACT_ANGLES
        if width > 1:
            assert Operator(made[0]).equiv(Operator(target), atol=1e-4)
        else:
            assert Statevector(made[0, :, 0]).equiv(Statevector(target), atol=1e-4)


TARGETS = {
    "rx": (("rx", (0.7,), (1,)),),
    "crz": (("crz", (8.1,), (1, 0)),),
    "cp": (("cp", (2.0,), (0, 1)),),
    "rx rz": (("rx", (0.7,), (1,)), ("rz", (5.0,), (1,))),
    "cx rx": (("cx", (), (0, 1)), ("rx", (0.4,), (0,))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_short_circuits_are_found_exactly(make_config: MakeConfig, name: str) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(*TARGETS[name]))
    result = find_exact(pipeline, target, max_tries=1024, num_circuits=1, max_gates=STEPS)
    assert result.search == "refinement"
    assert_right(result, target)
    assert len(result.circuits[0].circuit) <= STEPS


def test_states_are_found_exactly(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "STATE")
    state = by_qiskit(circuit(("rx", (0.7,), (1,)), ("cx", (), (1, 0))))[:, 0]
    assert_right(find_exact(pipeline, state, max_tries=1024), state)


def test_limits_are_kept(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(("rz", (0.3,), (0,)), ("cp", (1.0,), (0, 1))))
    few = find_exact(pipeline, target, gates=["rz", "cp"], max_gates=2, max_tries=512, num_circuits=4, seed=2)
    assert_right(few, target)
    for found in few.circuits:
        assert len(found.circuit) <= 2
        assert set(found.circuit.gate_counts) <= {"rz", "cp"}


@pytest.mark.parametrize("task", ["UNITARY", "STATE"])
@pytest.mark.parametrize("search", ["beam", "sampling"])
def test_beams_and_samples_each_find_circuits(make_config: MakeConfig, task: str, search: Any) -> None:
    pipeline = build(make_config, task)
    unitary = by_qiskit(circuit(("rx", (0.7,), (1,)), ("cp", (2.0,), (0, 1))))
    target = unitary if task == "UNITARY" else unitary[:, 0]
    assert_right(find_exact(pipeline, target, max_tries=2048, search=search), target)


def test_without_what_is_left_to_do_there_is_no_beam(make_config: MakeConfig) -> None:
    blind = make_config(
        "transformer", sections={"unitary_encoder": {"type": "pauli", "params": {"width": 16, "depth": 1}}}
    )
    pipeline = DiffusionPipeline(pipeline_config(blind, generate(num_samples=30)), seed=5)
    target = by_qiskit(circuit(*TARGETS["rx"]))
    with pytest.raises(ConfigError, match="search=beam needs a model that is conditioned on what is left to do"):
        find_exact(pipeline, target, search="beam")
    assert_right(find_exact(pipeline, target, max_tries=1024), target)


@pytest.mark.parametrize("task", ["UNITARY", "STATE"])
def test_a_reader_may_begin_with_angles_off_the_grid(make_config: MakeConfig, task: str) -> None:
    """What is left after exact beginnings is what simulation says."""
    pipeline = build(make_config, task)
    table, rng = pipeline.table, np.random.default_rng(0)
    ids = np.pad(random_ids(rng, table, 20, 1, 3), ((0, 0), (0, STEPS - 3)))
    angles = table.random_angles(ids, rng)
    made = unitaries(ids, table, angles)
    target = random_unitary(4, seed=1).data if task == "UNITARY" else random_unitary(4, seed=1).data[:, 0]
    request = pipeline.requests([PROMPT if task == "UNITARY" else f"Prepare using: {list(GATE_SET)}"], [target])
    lengths = torch.from_numpy(gate_count(ids))
    reader = pipeline.reader(request, SamplingConfig()).begun(torch.from_numpy(made.astype(np.complex64)), lengths)
    expected = target @ made.conj().swapaxes(1, 2) if task == "UNITARY" else made[:, :, :1]
    np.testing.assert_allclose(from_two_channels(reader.missing.numpy()), expected, atol=1e-5)
    steps = torch.arange(STEPS)
    rank = torch.where(steps < lengths[:, None], steps, STEPS)
    reader(torch.from_numpy(table.on_grid(ids, angles)).long(), rank, lengths[:, None])
    np.testing.assert_allclose(from_two_channels(reader.missing.numpy()), expected, atol=1e-5)


def test_peaks_are_the_maxima_over_an_angle() -> None:
    table = instruction_table(GatePool(("h", "rz", "u")), 1)
    likely = torch.full((1, len(table) + 1), 1e-3)
    rz = next(n for n, step in enumerate(table.instructions, 1) if step.gate == "rz")
    likely[0, rz + 31], likely[0, rz], likely[0, rz + 10] = 0.2, 0.1, 0.3  # the first two are neighbours
    found = _Peaks(table, torch.device("cpu"))(likely)[0, rz : rz + 32]
    assert found[31] == pytest.approx(0.301)
    assert found[10] == pytest.approx(0.302)
    others = found[[number for number in range(32) if number not in (31, 10)]]
    assert others.max() < 0.01


def test_nothing_to_do_is_done_without_gates(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    result = find_exact(pipeline, np.eye(4), max_tries=256)
    assert_right(result, np.eye(4))
    assert len(result.circuits[0].circuit) == 0


def test_the_same_seed_finds_the_same_circuits(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(*TARGETS["rx rz"]))
    one, other = (find_exact(pipeline, target, max_tries=128, num_circuits=5, seed=4) for _ in range(2))
    assert one.circuits == other.circuits


@pytest.mark.parametrize("gates", [["h", "cx"], ["h", "cx", "rz"]])
def test_gates_without_angles_are_searched_as_ever(make_config: MakeConfig, gates: list[str]) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(("h", (), (0,)), ("cx", (), (0, 1))))
    result = find_exact(pipeline, target, gates=gates, max_tries=512)
    assert result.search == ("refinement" if "rz" in gates else "beam")
    assert_right(result, target)
    assert result.circuits[0].circuit.gate_counts == {"h": 1, "cx": 1}


def test_a_small_angle_is_not_taken_for_none(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(("rz", (1e-3,), (0,))))
    assert_right(find_exact(pipeline, target, max_tries=512), target)


def exact_circuits(seed: int, count: int = 1) -> tuple[Any, Refined, Matrix]:
    """Return circuits of rotations that make one target exactly: cut in two, so that some gates are too many."""
    table = instruction_table(GatePool(GATE_SET), QUBITS)
    rng = np.random.default_rng(seed)
    half = random_ids(rng, table, 1, 3, 3)
    ids = np.concatenate([half, half[:, ::-1]], axis=1)
    ids = np.pad(ids, ((0, 0), (0, 1)))
    angles = np.where(table.num_angles[ids] > 0, rng.integers(1, 16, ids.shape) * np.pi / 8, 0.0)[..., None]
    return table, Refined(ids, angles, np.zeros(1)), unitaries(ids, table, angles)


@pytest.mark.parametrize("accepted", [EXACT_ANGLES, 1e-3])
def test_shortened_and_snapped_circuits_stay_good_enough(accepted: float) -> None:
    fewer = rounder = 0
    for seed in range(12):
        table, given, target = exact_circuits(seed)
        copies = Refined(given.ids.copy(), given.angles.copy(), given.infidelities.copy())
        for change in (shortened, snapped):
            result = change(given, target, table, accepted)
            reached = infidelities(unitaries(result.ids, table, result.angles), target)
            assert (reached < accepted).all()
            np.testing.assert_allclose(reached, result.infidelities, atol=1e-11)
            assert (gate_count(result.ids) <= gate_count(given.ids)).all()
            fewer += int((gate_count(result.ids) < gate_count(given.ids)).sum())
            turns = result.angles[result.ids != NO_GATE] / (np.pi / 16)
            rounder += int((np.abs(turns - np.rint(turns)) < 1e-9).all())
        for one, other in zip(vars(given).values(), vars(copies).values(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert fewer > 3
    assert rounder > 12


def test_snapped_angles_are_the_roundest() -> None:
    table = instruction_table(GatePool(("rz", "rx", "cx")), 2)
    rz, rx = (
        next(n for n, s in enumerate(table.instructions, 1) if (s.gate, s.qubits) == (name, (0,)))
        for name in ("rz", "rx")
    )
    ids = np.array([[rx, rz, rx]], dtype=np.int16)
    angles = np.array([[[0.3], [0.0], [np.pi / 2 - 0.3]]])  # any split is as good: the roundest is 0 and pi / 2
    target = unitaries(ids, table, angles)
    result = snapped(Refined(ids, angles, np.zeros(1)), target, table, EXACT_ANGLES)
    assert gate_count(result.ids).tolist() == [1]
    np.testing.assert_allclose(result.angles[0, 0], np.pi / 2, atol=1e-6)


# ---- evaluation, edits


@pytest.mark.parametrize("task", ["UNITARY", "STATE"])
def test_an_evaluation_refines_and_stands_beside_chance(make_config: MakeConfig, tmp_path: Path, task: str) -> None:
    pipeline = build(make_config, task)
    data = generate(condition_type=task, num_samples=12, seed=9)
    asked = EvaluationConfig(dataset="data", model_dir="m", num_targets=8, samples_per_target=12, max_drawings=4)
    result = evaluate_targets(pipeline, data, asked)
    figures = result.metrics
    assert (figures.exact_below, figures.infidelity_edges[1]) == (1e-10, 1e-10)
    assert sum(figures.infidelity_counts) == 8 * 12
    assert figures.angles is not None
    for shares in (figures.angles.solved_below, figures.angles.baseline_random_solved_below):
        assert list(shares) == ["0.01", "0.0001", "1e-06", "1e-10"]
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert figures.angles.solved_below["1e-10"] == figures.best_of["12"] > 0
    assert sum(group.num_targets for group in figures.angles.by_angles.values()) == figures.num_targets
    assert 0 < figures.angles.mean_empty_infidelity <= 1
    for name, circuits in result.verified.items():
        target = result.targets.corners[result.targets.names.index(name)]
        for one in circuits:
            made = by_qiskit(one)[:, : target.shape[1]]
            assert infidelities(made[None], target[None])[0] < 1e-10
    result.write(tmp_path / "results", asked)
    assert "below 1e-06" in (tmp_path / "results/metrics.md").read_text()
    assert read_evaluation_folder("results", tmp_path / "results", 4).metrics == figures


def test_kept_gates_keep_their_angles(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    start = circuit(("rx", (0.777,), (1,)), ("cx", (), (0, 1)))
    target = by_qiskit(circuit(("rx", (0.777,), (1,)), ("cx", (), (0, 1)), ("rz", (0.3,), (0,))))
    edit = Edit(start=start, keep=(0, 1))
    samples = pipeline.sample(pipeline.requests([PROMPT], [target]).repeated(16), 0, edit=edit)
    assert all(one.instructions[:2] == start.instructions for one in samples.circuits(np.arange(16)))
    found = find_exact(pipeline, target, edit=edit, max_tries=512)
    assert_right(found, target)
    assert found.circuits[0].circuit.instructions[:2] == start.instructions
    assert (
        found.kept == f"are at infidelity {infidelities(by_qiskit(start)[None], target[None])[0]:.3g} from the target"
    )


def test_tiny_angles_are_not_taken_for_none(make_config: MakeConfig) -> None:
    pipeline = build(make_config)
    target = by_qiskit(circuit(("rz", (1e-3,), (0,))))
    found = find_exact(pipeline, target, gates=["h", "rz"], max_tries=512)
    assert_right(found, target)
    assert found.circuits[0].circuit.gate_counts == {"rz": 1}


def test_a_search_uses_one_thread_and_gives_the_others_back(make_config: MakeConfig) -> None:
    """Threads that wait for each other made searches ten times as slow beside other programs."""
    pipeline = build(make_config)
    target, before, used = by_qiskit(circuit(*TARGETS["rx"])), torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        find_exact(pipeline, target, max_tries=64, progress=lambda *_: used.append(torch.get_num_threads()))
        assert set(used) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
