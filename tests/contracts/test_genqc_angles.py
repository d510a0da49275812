"""Data sets of gates with angles cross between genQC 0.2.5 and this package: the same circuits, angles to 1e-6."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import from_two_channels, infidelities
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.errors import DatasetFormatError
from quantum_diffusion.interop.genqc_data import read_dataset
from quantum_diffusion.interop.genqc_export import export_dataset

POOL = ("h", "cx", "rx", "rz", "cp", "crz", "swap", "u")


@pytest.fixture(scope="module")
def genqc() -> SimpleNamespace:
    """genQC's classes; it prints a line for every file."""
    with contextlib.redirect_stdout(None):
        datasets = pytest.importorskip("genQC.dataset.circuits_dataset")
        from genQC.platform import circuits_generation
        from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend
        from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer
    return SimpleNamespace(
        Single=datasets.CircuitsConfigDataset,
        Mixed=datasets.MixedCircuitsConfigDataset,
        generation=circuits_generation,
        backend=CircuitsQiskitBackend(),
        Tokenizer=CircuitTokenizer,
    )


def ours(num_qubits: int = 3, names: tuple[str, ...] = POOL) -> CircuitDataset:
    config = DatasetConfig(
        gate_set=names,
        num_qubits=num_qubits,
        num_samples=60,
        max_gates=8,
        condition_type="UNITARY",
        angles=("uniform", "eighths"),
        n_jobs=1,
    )
    return DatasetGenerator(config).generate()[0]


def assert_same_angles(one: CircuitDataset, other: CircuitDataset) -> None:
    steps = min(one.max_gates, other.max_gates)
    table = instruction_table(one.gate_pool, one.num_qubits)
    period = (table.step * table.num_steps)[one.decoded().ids][:, :steps, None]
    apart = np.abs(one.exact_angles[:, :steps] - other.exact_angles[:, :steps])
    assert np.minimum(apart, period - apart).max() < 1e-6
    assert not one.exact_angles[:, steps:].any()
    assert not other.exact_angles[:, steps:].any()


def native_of(genqc: SimpleNamespace, tokens: Any, codes: Any, names: tuple[str, ...]) -> Any:
    """Return genQC's circuit for Qiskit; it gives every gate as many parameters as the widest, so cut them."""
    instructions = genqc.Tokenizer({name: k for k, name in enumerate(names, 1)}).decode(tokens, codes)
    for instruction in instructions.data:
        instruction.params = instruction.params[: GATES[instruction.name].num_angles]
    return genqc.backend.genqc_to_backend(instructions)


@pytest.mark.parametrize("is_mixed", [False, True], ids=["single", "mixed"])
def test_what_we_write_genqc_reads_and_so_do_we(genqc: SimpleNamespace, tmp_path: Path, is_mixed: bool) -> None:
    dataset = merge_datasets([ours(3), ours(4)]) if is_mixed else ours()
    export_dataset(dataset, tmp_path / "data")
    with contextlib.redirect_stdout(None):
        theirs = (genqc.Mixed if is_mixed else genqc.Single).from_config_file(
            str(tmp_path / "data/config.yaml"), device=torch.device("cpu")
        )
    assert theirs.params_config.max_params == 3
    for row in range(0, len(dataset), 5):
        width, length = map(int, dataset.sizes[row])
        native = native_of(genqc, theirs.x[row][:width, :length], theirs.params[row][:, :length], POOL)
        side = 2**width
        stored = from_two_channels(theirs.U[row].numpy())[:side, :side]
        assert infidelities(Operator(native).data[None], stored[None])[0] < 1e-10

    back = read_dataset(tmp_path / "data")
    assert back is not None
    assert_same_angles(dataset, back)
    np.testing.assert_array_equal(back.targets, dataset.targets)
    np.testing.assert_array_equal(back.decoded().ids[:, : dataset.max_gates] > 0, dataset.decoded().ids > 0)


def test_what_genqc_makes_is_read(genqc: SimpleNamespace, tmp_path: Path) -> None:
    names = ("h", "cx", "rx", "ry", "cp")
    made = [
        genqc.generation.get_rnd_encoded_circuit(
            backend=genqc.backend,
            tokenizer=genqc.Tokenizer({name: k for k, name in enumerate(names, 1)}),
            condition=genqc.generation.CircuitConditionType.UNITARY,
            num_of_qubits=3,
            gate_pool=None,
            min_gates=3,
            max_gates=8,
            rng=np.random.default_rng(number),
            optimized=False,
        )
        for number in range(40)
    ]
    made = [one for one in made if one[3].shape[0] == 1]  # circuits without an angle have no row for it
    dataset = genqc.Single(
        torch.device("cpu"),
        save_type="safetensors",
        store_dict={"x": "tensor", "y": "numpy", "params": "tensor", "U": "tensor"},
        dataset_to_gpu=False,
        optimized=False,
        random_samples=len(made),
        num_of_qubits=3,
        min_gates=3,
        max_gates=8,
        max_params=1,
        gate_pool=list(names),
    )
    dataset.x, dataset.params = (torch.stack([one[place] for one in made]) for place in (2, 3))
    dataset.U = torch.stack([one[1] for one in made]).float()
    dataset.y = np.array([f"Compile using: {list(names)}"] * len(made))
    with contextlib.redirect_stdout(None):
        dataset.save_dataset(str(tmp_path / "config.yaml"), str(tmp_path / "dataset" / "ds"))

    read = read_dataset(tmp_path)
    assert read is not None
    assert len(read) == len(made) > 30
    labelled = read.labelled(np.arange(len(read)))
    exact = unitaries(labelled.ids, labelled.table, labelled.angles)
    assert infidelities(exact, from_two_channels(read.targets)).max() < 1e-10
    circuits = circuits_from_ids(labelled.ids, labelled.table, angles=labelled.angles)
    for circuit, (native, *_) in zip(circuits, made, strict=True):
        assert infidelities(Operator(circuit.to_qiskit()).data[None], Operator(native).data[None])[0] < 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes: codes[:, :1], "params is"),
        (lambda codes: codes[:, :, :-1], "params is"),
        (lambda codes: np.full_like(codes, np.nan), "finite floats"),
        (lambda codes: codes.astype(np.int32), "finite floats"),
    ],
    ids=["fewer", "shorter", "nan", "integers"],
)
def test_angles_that_do_not_fit_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    from safetensors.numpy import load_file, save_file

    export_dataset(ours(), tmp_path / "data")
    file = tmp_path / "data/dataset/ds_params.safetensors"
    save_file({"0": np.ascontiguousarray(change(load_file(file)["0"]))}, file)
    with pytest.raises(DatasetFormatError, match=message):
        read_dataset(tmp_path / "data")
