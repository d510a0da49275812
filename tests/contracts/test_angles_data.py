"""Data sets of gates with angles: exact targets by Qiskit, distinct circuits, and nothing lost up to the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit.quantum_info import Operator, Statevector

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import infidelities, matrix_keys
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.config.schema.datasets import _WITH_ANGLES
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader, DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.data.storage import load_dataset_folder, save_dataset
from quantum_diffusion.data.stream import CircuitStream
from quantum_diffusion.errors import ConfigError, DatasetFormatError, IncompatibleDatasetsError
from quantum_diffusion.evaluation.inspection import inspect_dataset
from quantum_diffusion.tasks.candidates import DRAW_ANGLES

POOL = ("h", "cx", "rx", "rz", "cp", "u")
KINDS = ("uniform", "eighths", "small", "repeated")


def configuration(**changes: Any) -> DatasetConfig:
    values = {
        "gate_set": POOL,
        "condition_type": "UNITARY",
        "num_samples": 200,
        "max_gates": 6,
        "angles": KINDS,
        "n_jobs": 1,
    }
    return DatasetConfig(**{**values, **changes})


def generate(**changes: Any) -> CircuitDataset:
    return DatasetGenerator(configuration(**changes)).generate()[0]


@pytest.fixture(scope="module")
def dataset() -> CircuitDataset:
    return generate()


def natives(dataset: CircuitDataset) -> list[Any]:
    """Return the circuits of a data set for Qiskit, with their exact angles."""
    table = instruction_table(dataset.gate_pool, dataset.num_qubits)
    circuits = circuits_from_ids(dataset.decoded().ids, table, angles=dataset.exact_angles)
    return [circuit.to_qiskit() for circuit in circuits]


def stored(dataset: CircuitDataset) -> np.ndarray:
    assert dataset.targets is not None
    return dataset.targets[:, 0] + 1j * dataset.targets[:, 1]


def rounded(dataset: CircuitDataset) -> set[bytes]:
    """Return a key of each circuit, equal for circuits whose angles differ by rounding only."""
    table = instruction_table(dataset.gate_pool, dataset.num_qubits)
    ids = table.first[dataset.decoded().ids]
    period = (table.step * table.num_steps)[ids][..., None]
    angles = np.rint(dataset.exact_angles * 1e7).astype(np.int64) % np.rint(period * 1e7).astype(np.int64)
    return {row.tobytes() for row in np.concatenate([ids[..., None], angles], axis=2)}


# ---- generating


def test_unitaries_are_those_of_qiskit(dataset: CircuitDataset) -> None:
    assert dataset.angles is not None
    assert (dataset.angles.shape, dataset.angles.dtype) == ((200, 6, 3), np.float64)
    assert dataset.decoded().valid.all()
    for native, target in zip(natives(dataset), stored(dataset), strict=True):
        np.testing.assert_allclose(target, Operator(native).data, atol=1e-6)


def test_states_are_those_of_qiskit() -> None:
    states = generate(condition_type="STATE", num_samples=100)
    for native, target in zip(natives(states), stored(states), strict=True):
        np.testing.assert_allclose(target[:, 0], Statevector(native).data, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimize", ["rules", "none"])
def test_circuits_are_distinct_and_as_asked_whatever_the_angles(kind: str, optimize: str) -> None:
    made = generate(angles=(kind,), optimize=optimize, min_gates=2, num_samples=150)
    table = instruction_table(made.gate_pool, 3)
    ids, exact = made.decoded().ids, made.exact_angles
    assert len(np.unique(ids, axis=0)) == len(rounded(made)) == len(np.unique(made.keys)) == 150
    lengths = (ids != 0).sum(axis=1)
    np.testing.assert_array_equal(made.sizes[:, 1], lengths)
    assert ((lengths >= 2) & (lengths <= 6)).all()
    np.testing.assert_array_equal(table.on_grid(ids, exact), ids)
    exists = np.arange(3) < table.num_angles[ids][..., None]
    assert not exact[~exists].any()
    for prompt, row in zip((made.prompts[number] for number in made.prompt_index), ids, strict=True):
        used = {table.pool.names[table.gate_index[number]] for number in row if number}
        assert used <= set(made.task.gates_of(prompt, made.gate_pool))
    if kind == "eighths":
        np.testing.assert_allclose(exact / (np.pi / 4), np.rint(exact / (np.pi / 4)), atol=1e-9)


def test_kinds_of_angles_are_what_they_say() -> None:
    table = instruction_table(GatePool(POOL), 3)
    ids = np.tile(np.arange(1, 9, dtype=np.int16), (500, 1))
    angles = {kind: draw(np.random.default_rng(0), ids.copy(), table) for kind, draw in DRAW_ANGLES.items()}
    assert sorted(angles) == sorted(KINDS)
    for kind, (_, drawn) in angles.items():
        assert drawn.shape == (500, 8, 3), kind
    period = (table.step * table.num_steps)[ids][..., None]
    shares = np.histogram(angles["uniform"][1] / period, bins=10, range=(0, 1))[0] / (500 * 8 * 3)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert np.unique(np.rint(angles["eighths"][1] * 4 / np.pi)).tolist() == list(range(8))
    assert np.abs(angles["small"][1]).mean() < 0.3
    again, repeated = angles["repeated"]
    lengths = [next(n for n in (2, 3, 4) if (row == row[np.arange(8) % n]).all()) for row in again]
    assert {*lengths} == {2, 3, 4}
    assert all((one == one[np.arange(8) % n]).all() for one, n in zip(repeated, lengths, strict=True))


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path) -> None:
    files = []
    for n_jobs in (1, 2):
        config = configuration(n_jobs=n_jobs, num_samples=300, output_path=str(tmp_path / f"with{n_jobs}"))
        DatasetGenerator(config).write()
        folder = tmp_path / f"with{n_jobs}"
        files.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert files[0].keys() == files[1].keys()
    assert any("angles" in path.name for path in files[0])
    assert files[0] == files[1]


def test_excluded_unitaries_do_not_come_back(tmp_path: Path) -> None:
    small = {"gate_set": ("h", "rx", "cx"), "num_qubits": 2, "angles": ("eighths",), "max_gates": 2, "min_gates": 1}
    first = generate(**small, num_samples=40)
    save_dataset(first, tmp_path / "first", {})
    second = generate(**small, num_samples=40, seed=1, exclude=str(tmp_path / "first"))
    known = {*matrix_keys(stored(first)).tolist()}
    without = generate(**small, num_samples=40, seed=1)
    assert known & {*matrix_keys(stored(without)).tolist()}, "there was something to exclude"
    assert not known & {*matrix_keys(stored(second)).tolist()}


# ---- storing


def test_a_stored_data_set_is_read_as_it_was(dataset: CircuitDataset, tmp_path: Path) -> None:
    save_dataset(dataset, tmp_path / "data", {})
    opened = load_dataset_folder(tmp_path / "data")
    for one, other in zip(dataset.arrays, opened.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert opened.fingerprint == dataset.fingerprint
    moved = replace(dataset, angles=dataset.exact_angles + 1e-9)
    assert moved.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-8], "angles.*damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "angles.*damaged"),
        (lambda data: None, "lacks .*angles"),
    ],
    ids=["short", "changed", "missing"],
)
def test_a_damaged_file_of_angles_is_refused(
    dataset: CircuitDataset, tmp_path: Path, damage: Any, message: str
) -> None:
    save_dataset(dataset, tmp_path / "data", {})
    file = tmp_path / "data/dataset/ds/angles.safetensors"
    damaged = damage(file.read_bytes())
    file.unlink() if damaged is None else file.write_bytes(damaged)
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset_folder(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda angles: np.where(np.arange(angles.size).reshape(angles.shape) == 7, np.nan, angles), "not finite"),
        (lambda angles: angles[..., :2], r"angles has shape \(200, 6, 2\), expected \(200, 6, 3\)"),
        (lambda angles: angles[:, :-1], "angles has shape"),
        (lambda angles: None, "its arrays are not those"),
    ],
    ids=["nan", "too few", "too short", "none"],
)
def test_angles_that_do_not_fit_are_refused(dataset: CircuitDataset, tmp_path: Path, change: Any, message: str) -> None:
    save_dataset(replace(dataset, angles=change(dataset.angles)), tmp_path / "data", {})
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset_folder(tmp_path / "data")


def test_angles_of_gates_without_are_refused(tmp_path: Path) -> None:
    plain = generate(gate_set=("h", "cx"), num_samples=30)
    assert plain.angles is None
    save_dataset(replace(plain, angles=np.zeros((30, 6, 1))), tmp_path / "data", {})
    with pytest.raises(DatasetFormatError, match="its arrays are not those"):
        load_dataset_folder(tmp_path / "data")


# ---- merging and batching


def test_merged_circuits_keep_their_angles_and_targets(dataset: CircuitDataset) -> None:
    narrow = generate(num_qubits=2, num_samples=60, max_gates=9, generation_gate_set=("u", "cp", "h"), seed=5)
    for order in ([dataset, narrow], [narrow, dataset, narrow]):
        both = merge_datasets(order)
        assert len(both) == 260
        assert both.exact_angles.shape == (260, 9, 3)
        assert sorted(both.sizes[:, 0].tolist()) == [2] * 60 + [3] * 200
        table = instruction_table(both.gate_pool, 3)
        made = unitaries(both.decoded().ids, table, both.exact_angles)
        np.testing.assert_allclose(stored(both), made, atol=1e-6)
        for native, target in zip(natives(both), stored(both), strict=True):
            np.testing.assert_allclose(target, Operator(native).data, atol=1e-6)
    with pytest.raises(IncompatibleDatasetsError, match="gate pools"):
        merge_datasets([dataset, generate(gate_set=("h", "rx"), num_samples=20)])


def test_circuits_that_differ_in_an_angle_are_kept_apart(dataset: CircuitDataset) -> None:
    turning = np.flatnonzero((dataset.exact_angles != 0).any(axis=(1, 2)))
    moved = replace(dataset.take(turning), angles=dataset.exact_angles[turning] + (dataset.exact_angles[turning] > 0))
    assert len(merge_datasets([dataset, dataset])) == 200
    assert len(merge_datasets([dataset, moved])) == 200 + len(turning)
    assert len({*dataset.keys.tolist()} | {*moved.keys.tolist()}) == 200 + len(turning)


def test_batches_hold_the_angles_of_their_circuits(dataset: CircuitDataset) -> None:
    both = merge_datasets([dataset, generate(num_qubits=2, num_samples=60, max_gates=3)])
    loader = BatchLoader(both, np.arange(260), 64, 3, shuffle=True)
    table, seen = instruction_table(both.gate_pool, 3), 0
    for batch in loader.epoch(0):
        assert batch.angles is not None
        assert batch.targets is not None
        assert tuple(batch.angles.shape) == (len(batch), batch.tokens.shape[2], 3)
        padding = both.gate_pool.padding_token
        tokens = np.full((len(batch), 3, batch.tokens.shape[2]), padding, dtype=np.int8)
        tokens[:, : batch.tokens.shape[1]] = batch.tokens.numpy()
        ids = replace(both, tokens=tokens, angles=None).decoded().ids
        made = unitaries(ids, table, batch.angles.double().numpy())
        targets = batch.targets.double().numpy()
        assert infidelities(made, targets[:, 0] + 1j * targets[:, 1]).max() < 1e-10
        seen += len(batch)
    assert seen == 260


def test_a_folder_is_loaded_and_split(dataset: CircuitDataset, tmp_path: Path) -> None:
    save_dataset(dataset, tmp_path / "data", {})
    opened = DatasetLoader().load_dataset(tmp_path / "data")
    assert opened.fingerprint == dataset.fingerprint
    rows = np.arange(len(dataset))[::-3]
    labelled = opened.labelled(rows)
    np.testing.assert_array_equal(labelled.angles, dataset.exact_angles[rows])
    np.testing.assert_array_equal(opened.take(rows).angles, dataset.exact_angles[rows])


@pytest.mark.parametrize("condition_type", ["UNITARY", "STATE"])
def test_an_inspection_finds_nothing_wrong_with_angles(condition_type: str) -> None:
    made = generate(condition_type=condition_type, num_samples=80)
    report = inspect_dataset(made)
    assert report.num_circuits == 80
    assert report.largest_target_error is not None
    assert report.largest_target_error < 1e-6
    assert {check: found.count for check, found in report.wrong.items() if found.count} == {}
    assert report.exact_repetitions == 0
    assert made.targets is not None
    turned = replace(made, angles=made.exact_angles + 0.1 * (made.exact_angles > 0))
    assert inspect_dataset(turned).wrong["targets"].count > 40


# ---- streams


@pytest.mark.parametrize("kinds", [KINDS, ("eighths",)], ids="-".join)
def test_epochs_are_fresh_and_keep_away_from_validation(kinds: tuple[str, ...]) -> None:
    settings = configuration(gate_set=("h", "cx", "rx"), num_qubits=2, angles=kinds, num_samples=300, max_gates=3)
    stream = CircuitStream(settings, 0, 0.2)
    held_out = rounded(stream.held_out)
    assert len(held_out) == 60
    epochs = [stream.epoch(number) for number in range(3)]
    for number, epoch in enumerate(epochs):
        assert epoch.targets is None
        assert epoch.angles is not None
        assert not rounded(epoch) & held_out
        again = CircuitStream(settings, 0, 0.2).epoch(number)
        np.testing.assert_array_equal(again.angles, epoch.angles)
        np.testing.assert_array_equal(again.tokens, epoch.tokens)
    assert (epochs[0].exact_angles != epochs[1].exact_angles).any()


# ---- configurations


def test_configurations_know_the_gates_with_angles() -> None:
    assert {*_WITH_ANGLES} == {gate.name for gate in GATES.values() if gate.num_angles}
    for name in GATES:
        assert DatasetConfig(gate_set=(name,), condition_type="UNITARY").gate_set == (name,)


@pytest.mark.parametrize("name", _WITH_ANGLES)
@pytest.mark.parametrize("condition_type", ["SRV", "BOTH"])
def test_rank_vectors_of_gates_with_angles_are_refused(name: str, condition_type: str) -> None:
    values = {"gate_set": ["h", name], "condition_type": condition_type}
    with pytest.raises(ConfigError, match=rf"gate_set has \['{name}'\], gates with angles.*UNITARY or STATE"):
        validate(DatasetConfig, values, "datasets")
    assert validate(DatasetConfig, values | {"condition_type": "STATE"}, "datasets").gate_set == ("h", name)


def test_qiskits_optimizer_is_refused_for_gates_with_angles() -> None:
    values = {"gate_set": ["h", "rz"], "condition_type": "UNITARY", "optimize": "qiskit"}
    with pytest.raises(ConfigError, match="optimize=qiskit is for gates without angles"):
        validate(DatasetConfig, values, "datasets")


@pytest.mark.parametrize("kinds", [[], ["half"], "uniform "])
def test_unknown_kinds_of_angles_are_refused(kinds: Any) -> None:
    with pytest.raises(ConfigError, match="angles"):
        validate(DatasetConfig, {"gate_set": ["rx"], "condition_type": "UNITARY", "angles": kinds}, "datasets")
