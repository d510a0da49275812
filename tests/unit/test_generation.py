"""Generation: the same bytes for every number of workers, and circuits that are what the configuration says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import qasm2
from qiskit.quantum_info import Statevector

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, decode_tokens
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data import generation
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.engines import num_workers
from quantum_diffusion.data.generation import DatasetGenerator, GenerationReport
from quantum_diffusion.errors import ConfigError, DatasetFormatError, GateSetError
from quantum_diffusion.tasks.srv import SrvTask


def configuration(path: Path | str = "unused", **changes: Any) -> DatasetConfig:
    values = {"num_samples": 300, "min_gates": 2, "max_gates": 8, "n_jobs": 1, "output_path": str(path)}
    return DatasetConfig(**{**values, **changes})


def generated(**changes: Any) -> CircuitDataset:
    return DatasetGenerator(configuration(**changes)).generate()[0]


def written(config: DatasetConfig) -> GenerationReport:
    return DatasetGenerator(config).write()


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def circuits_of(dataset: CircuitDataset) -> list[Circuit]:
    ids = decode_tokens(dataset.tokens, dataset.gate_pool).ids
    return circuits_from_ids(ids, instruction_table(dataset.gate_pool, dataset.num_qubits))


def srv(circuit: Circuit) -> list[int]:
    """Schmidt ranks by Qiskit's simulator and numpy's singular values."""
    state = Statevector(qasm2.loads(circuit.to_qasm2(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)).data
    axes = state.reshape([2] * circuit.num_qubits)  # axis 0 is the last qubit
    ranks = []
    for qubit in range(circuit.num_qubits):
        matrix = np.moveaxis(axes, circuit.num_qubits - 1 - qubit, 0).reshape(2, -1)
        ranks.append(int(np.linalg.matrix_rank(matrix, tol=1e-8)))
    return ranks


# ------------------------------------------------------------------------------------------ the same bytes


def test_every_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    # More than one shard a round, so that there is something to share out.
    common = {"num_samples": 15_000, "num_qubits": 4, "max_gates": 12, "balance_max": 2000}
    for name, n_jobs in (("a", 1), ("b", 2)):
        written(configuration(tmp_path / name, n_jobs=n_jobs, **common))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_another_seed_gives_other_circuits_and_a_larger_set_begins_with_the_smaller() -> None:
    first, other, larger = generated(), generated(seed=1), generated(num_samples=500)
    assert first.fingerprint != other.fingerprint
    np.testing.assert_array_equal(larger.tokens[:300], first.tokens)


def test_bytes_never_change_between_versions() -> None:
    """A change of this number is a change of every data set: it belongs into CHANGELOG.md under "Numerics"."""
    assert generated().fingerprint[:16] == "0356c46e1fe3f4e9"


# --------------------------------------------------------------------------------------------- the content


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_qubits": 5, "max_gates": 20, "min_gates": 4},
        {"gate_set": ("h", "t", "cx", "ccx"), "num_qubits": 3},
        {"gate_set": ("h", "s", "sdg", "swap", "cz"), "coupling": ((0, 1), (1, 2))},
        {"gate_set": ("x", "h", "cx"), "generation_gate_set": ("cx", "h")},
        {"balance_max": 40},
        {"optimize": "none"},
        {"min_gates": 0, "max_gates": 3},
        {"num_qubits": 5, "max_gates": 20, "sampling": "stratified", "balance_max": 20},
        {"num_qubits": 8, "max_gates": 24, "sampling": "stratified", "num_samples": 100},
        {"gate_set": ("t", "ccx", "h"), "sampling": "stratified"},
    ],
    ids=str,
)
def test_circuits_are_what_was_asked_for(changes: dict[str, Any]) -> None:
    config = configuration(**changes)
    dataset, report = DatasetGenerator(config).generate()
    assert dataset.tokens.shape == (report.num_circuits, config.num_qubits, config.max_gates)
    decoded = decode_tokens(dataset.tokens, dataset.gate_pool)
    assert decoded.valid.all()
    assert len({row.tobytes() for row in dataset.tokens}) == len(dataset)

    lengths = np.count_nonzero(decoded.ids, axis=1)
    assert lengths.min() >= config.min_gates
    assert lengths.max() <= config.max_gates
    np.testing.assert_array_equal(dataset.sizes, np.stack([np.full(len(dataset), config.num_qubits), lengths], axis=1))

    table = instruction_table(dataset.gate_pool, config.num_qubits)
    if config.optimize == "rules":
        np.testing.assert_array_equal(cancel_inverse_neighbours(decoded.ids, table), decoded.ids)
    circuits = circuits_of(dataset)
    allowed = set(config.generation_gate_set or config.gate_set)
    assert {step.gate for circuit in circuits for step in circuit.instructions} == allowed
    if config.coupling is not None:
        pairs = {
            frozenset(step.qubits) for circuit in circuits for step in circuit.instructions if len(step.qubits) > 1
        }
        assert pairs == {frozenset(edge) for edge in config.coupling}

    assert list(dataset.prompts) == sorted(dataset.prompts)
    assert dataset.prompt_counts == report.prompt_counts
    assert min(report.prompt_counts.values()) > 0
    for row in range(0, len(dataset), 3):
        assert dataset.prompts[dataset.prompt_index[row]] == f"Generate SRV: {srv(circuits[row])}"


def test_balancing_is_exact() -> None:
    dataset, report = DatasetGenerator(configuration(num_samples=1500, balance_max=300)).generate()
    assert list(report.prompt_counts.values()) == [300] * 5
    assert len(dataset) == 1500
    assert not report.exhausted


def test_stratified_sampling_finds_rare_labels() -> None:
    """Long circuits of many qubits entangle nearly all of them; a balanced data set needs those that do not."""
    changes: dict[str, Any] = {"num_qubits": 7, "min_gates": 18, "max_gates": 36, "balance_max": 30}
    drawn = {}
    for sampling in ("natural", "stratified"):
        dataset, report = DatasetGenerator(configuration(num_samples=3250, sampling=sampling, **changes)).generate()
        assert len(dataset) == 3250
        drawn[sampling] = report.num_candidates
    assert drawn["stratified"] < 0.7 * drawn["natural"]


def test_natural_distribution_without_balancing() -> None:
    counts = generated(num_samples=1000).prompt_counts
    assert max(counts.values()) > 2 * min(counts.values())


def test_progress_ends_with_the_number_asked_for() -> None:
    seen: list[tuple[int, int]] = []
    DatasetGenerator(configuration()).generate(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300, 300)


# ------------------------------------------------------------------------------------- more than there is


@pytest.mark.parametrize(("min_gates", "existing"), [(0, 2), (1, 1)])
def test_what_exists_is_delivered(tmp_path: Path, min_gates: int, existing: int) -> None:
    """One qubit, one gate: the empty circuit and h."""
    config = configuration(tmp_path / "d", gate_set=("h",), num_qubits=1, min_gates=min_gates, num_samples=100)
    report = written(config)
    assert report.exhausted
    assert (report.num_circuits, report.num_requested) == (existing, 100)
    assert len(DatasetLoader().load_dataset(tmp_path / "d")) == existing
    again = written(config)
    assert again.reused
    assert again.exhausted


def test_all_circuits_of_a_small_space_are_found() -> None:
    # h and cx on two qubits, exactly two gates: h h on one qubit and equal cx cancel; 4 instructions, 16 - 4 words.
    dataset, report = DatasetGenerator(configuration(num_qubits=2, min_gates=2, max_gates=2)).generate()
    assert len(dataset) == 12
    assert report.exhausted


def test_balancing_beyond_what_exists_is_reported() -> None:
    _, report = DatasetGenerator(configuration(num_samples=1000, balance_max=10)).generate()
    assert report.exhausted
    assert list(report.prompt_counts.values()) == [10] * 5


@pytest.mark.parametrize("generation_gates", [None, ("h",)])
def test_impossible_circuits_are_refused(tmp_path: Path, generation_gates: tuple[str, ...] | None) -> None:
    gates = ("h",) if generation_gates is None else ("h", "x")
    config = configuration(
        tmp_path / "d", gate_set=gates, generation_gate_set=generation_gates, num_qubits=1, min_gates=2
    )
    with pytest.raises(ConfigError, match=r"no circuit of 2 to 8 gates of \['h'\] survives.*lower datasets.min_gates"):
        written(config)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate_set": ("h", "foo")}, "unknown gate 'foo'"),
        ({"gate_set": ("h", "ccx"), "num_qubits": 2}, "'ccx' acts on 3 qubits.*num_qubits to 3 or more"),
        ({"coupling": ()}, "does not allow gate 'cx' on any qubits"),
        ({"coupling": ((0, 5),)}, r"coupling edge \[0, 5\]"),
    ],
)
def test_gates_that_do_not_fit_are_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GateSetError, match=message):
        DatasetGenerator(configuration(**changes))


# ------------------------------------------------------------------------------------------- existing data


def test_an_identical_data_set_is_kept_untouched(tmp_path: Path) -> None:
    first = written(configuration(tmp_path / "d"))
    before = times(tmp_path)
    again = written(configuration(tmp_path / "d", n_jobs=2))
    assert times(tmp_path) == before
    assert again.reused
    assert not first.reused
    assert (again.num_circuits, again.prompt_counts) == (first.num_circuits, first.prompt_counts)
    assert again.num_candidates == 0


def test_another_data_set_is_refused_and_untouched(tmp_path: Path) -> None:
    written(configuration(tmp_path / "d"))
    before = times(tmp_path)
    with pytest.raises(DatasetFormatError, match=r"other settings: choose another .*or set datasets.overwrite=true"):
        written(configuration(tmp_path / "d", seed=1))
    assert times(tmp_path) == before


def test_another_data_set_is_replaced_when_asked(tmp_path: Path) -> None:
    written(configuration(tmp_path / "d"))
    written(configuration(tmp_path / "d", seed=1, overwrite=True))
    assert DatasetLoader().load_dataset(tmp_path / "d").fingerprint == generated(seed=1).fingerprint
    assert os.listdir(tmp_path) == ["d"]


def test_a_damaged_data_set_is_refused_with_the_mend_and_replaced_when_asked(tmp_path: Path) -> None:
    written(configuration(tmp_path / "d"))
    (tmp_path / "d" / "dataset" / "ds" / "x.safetensors").write_bytes(b"damaged")
    before = hashes(tmp_path)
    with pytest.raises(DatasetFormatError, match=r"x.safetensors' is damaged.*or set datasets.overwrite=true"):
        written(configuration(tmp_path / "d"))
    assert hashes(tmp_path) == before
    assert not written(configuration(tmp_path / "d", overwrite=True)).reused
    assert len(DatasetLoader().load_dataset(tmp_path / "d")) == 300


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_data_set_is_never_replaced(
    tmp_path: Path, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heavy(*_: object) -> None:
        raise AssertionError("work began before the folder was checked")

    monkeypatch.setattr(generation, "make_shard", heavy)
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "cat.jpg").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for place in (home, tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / ("a" * 300)):
        with pytest.raises(DatasetFormatError, match=r"choose another folder|give a folder|too long"):
            written(configuration(place, overwrite=overwrite))
    assert sorted(hashes(tmp_path)) == ["file", "home/photos/cat.jpg"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert written(configuration(tmp_path / "d")).num_circuits == 300


def test_the_folder_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetFormatError, match="the current folder"):
        written(configuration("."))
    assert not os.listdir(tmp_path)


def test_leftovers_of_a_killed_run_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / ".d.new-abcdef" / "dataset").mkdir(parents=True)
    (tmp_path / ".d.new-abcdef" / "config.yaml").write_text("half")
    assert written(configuration(tmp_path / "d")).num_circuits == 300
    assert len(DatasetLoader().load_dataset(tmp_path)) == 300


def test_shards_of_wide_state_vectors_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = DatasetConfig(gate_set=("h", "t", "cx"), num_qubits=20, max_gates=4, num_samples=5, n_jobs=1)
    assert SrvTask().num_candidates(wide) == 16
    assert SrvTask().num_candidates(wide.model_copy(update={"num_qubits": 8})) == 2**14
    assert SrvTask().num_candidates(wide.model_copy(update={"gate_set": ("h", "cx")})) == 2**14
    narrower = wide.model_copy(update={"num_qubits": 14})
    assert SrvTask().num_candidates(narrower) == 2**10
    monkeypatch.setattr("quantum_diffusion.tasks.srv._AMPLITUDES", 2**20)
    dataset, report = DatasetGenerator(narrower).generate()
    assert len(dataset) == 5
    assert report.num_candidates == SrvTask().num_candidates(narrower) == 2**6


def test_no_more_processes_than_cores_are_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
    assert [num_workers("local", n_jobs) for n_jobs in (-1, 1, 4, 100_000)] == [6, 1, 4, 6]
    assert num_workers("ray", 1000) == 1000, "a cluster has as many as it has"
