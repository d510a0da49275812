"""Data sets with unitaries: matrices by Qiskit, and prompts that tell the truth about the gates allowed."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import matrix_keys
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, decode_tokens
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import ConfigError, DatasetFormatError

PAPER_POOL = ("h", "cx", "z", "x", "ccx", "swap")


def configuration(**changes: Any) -> DatasetConfig:
    values = {"gate_set": PAPER_POOL, "condition_type": "UNITARY", "num_samples": 400, "max_gates": 12, "n_jobs": 1}
    return DatasetConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def dataset() -> CircuitDataset:
    return DatasetGenerator(configuration()).generate()[0]


def test_unitaries_are_those_of_qiskit(dataset: CircuitDataset) -> None:
    assert dataset.targets is not None
    assert dataset.targets.dtype == np.float32
    assert dataset.targets.shape == (400, 2, 8, 8)
    table = instruction_table(dataset.gate_pool, 3)
    ids = decode_tokens(dataset.tokens, dataset.gate_pool).ids
    exact = unitaries(ids, table)
    backend = QiskitBackend()
    for row, circuit in enumerate(circuits_from_ids(ids, table)):
        matrix = Operator(backend.to_native(circuit)).data
        np.testing.assert_allclose(exact[row], matrix, atol=1e-10)
        stored = dataset.targets[row, 0] + 1j * dataset.targets[row, 1]
        np.testing.assert_allclose(stored, matrix, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"generation_gate_set": ("cx", "h", "x")}, {"optimize": "none"}], ids=str)
def test_prompts_name_the_gates_that_were_allowed(changes: dict[str, Any]) -> None:
    config = configuration(**changes, num_samples=3000)
    dataset, report = DatasetGenerator(config).generate()
    generation_gates = set(config.generation_gate_set or config.gate_set)
    assert sum(report.prompt_counts.values()) == len(dataset) == 3000
    assert len(dataset.prompts) > 2 ** (len(generation_gates) - 1)
    spare = 0
    table = instruction_table(dataset.gate_pool, 3)
    for circuit, number in zip(
        circuits_from_ids(decode_tokens(dataset.tokens, dataset.gate_pool).ids, table),
        dataset.prompt_index,
        strict=True,
    ):
        names = ast.literal_eval(dataset.prompts[number].removeprefix("Compile using: "))
        assert names == [name for name in PAPER_POOL if name in names], "pool order"
        used = {step.gate for step in circuit.instructions}
        assert used <= set(names) <= generation_gates
        spare += used != set(names)
    assert spare > 0, "a prompt tells what is allowed, not what is used"


def test_every_number_of_workers_makes_the_same_unitaries() -> None:
    first, second = (DatasetGenerator(configuration(n_jobs=jobs)).generate()[0].fingerprint for jobs in (1, 2))
    assert first == second


def test_both_conditions_go_to_a_folder_each(tmp_path: Path) -> None:
    config = configuration(condition_type="BOTH", num_samples=100, output_path=str(tmp_path / "both"))
    report = DatasetGenerator(config).write()
    assert report.num_circuits == report.num_requested == 200
    srv, unitary = (DatasetLoader().load_dataset(tmp_path / "both" / name) for name in ("srv", "unitary"))
    assert srv.targets is None
    assert unitary.targets is not None
    assert report.prompt_counts == srv.prompt_counts | unitary.prompt_counts
    assert DatasetGenerator(config).write().reused


def test_lengths_are_balanced_within_a_prompt(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"gate_set": ("h", "cx", "ccx"), "num_samples": 6000, "balance_quantile": 0.5}
    dataset, report = DatasetGenerator(configuration(**changes)).generate()
    plain = DatasetGenerator(configuration(**changes | {"balance_quantile": None})).generate()[0]
    assert len(dataset) + report.num_balanced_away == len(plain) == 6000
    assert report.num_balanced_away > 100
    assert not report.exhausted
    for number in range(len(dataset.prompts)):
        before = np.bincount(plain.sizes[plain.prompt_index == number, 1])
        after = np.bincount(dataset.sizes[dataset.prompt_index == number, 1], minlength=len(before))
        most = np.quantile(before[before > 0], 0.5, method="nearest")
        np.testing.assert_array_equal(after, np.minimum(before, most))


def test_a_test_set_leaves_out_what_was_trained_on(tmp_path: Path) -> None:
    short: dict[str, Any] = {"gate_set": ("h", "cx", "x"), "num_qubits": 2, "max_gates": 6, "num_samples": 500}
    train = DatasetGenerator(configuration(**short)).generate()[0]
    save_dataset(train, tmp_path / "train", {})
    known = {matrix_key(row) for row in as_array(train.targets)}
    for changes in ({"max_gates": 6}, {"max_gates": 9}, {"max_gates": 4}):
        options: dict[str, Any] = {**short, "seed": 1, "exclude": str(tmp_path / "train"), **changes}
        test, _ = DatasetGenerator(configuration(**options)).generate()
        assert test.targets is not None
        assert len(test) > 20
        assert not known & {matrix_key(row) for row in test.targets}
        overlap = DatasetGenerator(configuration(**options | {"exclude": None})).generate()[0]
        assert overlap.targets is not None
        assert known & {matrix_key(row) for row in overlap.targets}, "without the option there is something to exclude"
    for changes in ({"gate_set": ("h", "cx")}, {"num_qubits": 3}):
        with pytest.raises(ConfigError, match=r"datasets.exclude=.* has 2 qubits and the gates \['h', 'cx', 'x'\]"):
            DatasetGenerator(configuration(**{**options, **changes}))
    with pytest.raises(DatasetFormatError, match="does not exist"):
        DatasetGenerator(configuration(**{**options, "exclude": str(tmp_path / "none")}))


def as_array(stored: np.ndarray | None) -> np.ndarray:
    assert stored is not None
    return stored


def matrix_key(stored: np.ndarray) -> tuple[complex, ...]:
    """Entries of a unitary whose first entry that is not 0 is made positive, to three digits, in plain Python."""
    entries = (stored[0] + 1j * stored[1]).reshape(-1).tolist()
    first = next(entry for entry in entries if abs(entry) > 1e-3)
    return tuple(
        complex(round(z.real, 3) + 0.0, round(z.imag, 3) + 0.0) for z in (e * abs(first) / first for e in entries)
    )


def test_keys_of_unitaries_ignore_the_global_phase_and_rounding() -> None:
    rng = np.random.default_rng(0)
    table = instruction_table(GatePool(["h", "t", "s", "cx", "ccx", "x"]), 3)
    matrices = unitaries(random_ids(rng, table, 3000, 1, 12), table)
    phases = np.exp(2j * np.pi * rng.random(3000))[:, None, None]
    np.testing.assert_array_equal(matrix_keys(matrices), matrix_keys((phases * matrices).astype(np.complex64)))
    overlaps = np.abs(np.einsum("nij,mij->nm", matrices[:300].conj(), matrices[:300])) / 8
    same = matrix_keys(matrices[:300])[:, None] == matrix_keys(matrices[:300])[None]
    np.testing.assert_array_equal(same, overlaps > 1 - 1e-9)


def test_srv_circuits_can_be_left_out_too(tmp_path: Path) -> None:
    options: dict[str, Any] = {"condition_type": "SRV", "gate_set": ("h", "cx"), "num_samples": 300, "max_gates": 5}
    train = DatasetGenerator(configuration(**options)).generate()[0]
    save_dataset(train, tmp_path / "train", {})
    test, _ = DatasetGenerator(
        configuration(**options | {"exclude": str(tmp_path / "train"), "max_gates": 6})
    ).generate()
    longer = np.pad(train.tokens, ((0, 0), (0, 0), (0, 1)))
    assert not {row.tobytes() for row in longer} & {row.tobytes() for row in test.tokens}


def test_merged_unitaries_do_nothing_on_missing_qubits() -> None:
    pool = {"gate_set": ("h", "cx", "x"), "num_samples": 300, "max_gates": 5}
    parts = [DatasetGenerator(configuration(**pool, num_qubits=qubits)).generate()[0] for qubits in (4, 2, 3)]
    merged = merge_datasets(parts)
    assert merged.targets is not None
    assert merged.targets.shape == (len(merged), 2, 16, 16)
    assert set(merged.sizes[:, 0].tolist()) == {2, 3, 4}
    table = instruction_table(merged.gate_pool, 4)
    exact = unitaries(decode_tokens(merged.tokens, merged.gate_pool).ids, table)
    np.testing.assert_allclose(merged.targets[:, 0] + 1j * merged.targets[:, 1], exact, atol=1e-6)
    assert merge_datasets(parts[::-1]).fingerprint == merged.fingerprint
