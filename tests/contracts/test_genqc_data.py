"""Data sets cross between genQC 0.2.5 and this package without a changed circuit, and hostile ones run nothing.

The real genQC writes and reads here; it is a test extra, and what needs it is skipped where it is missing.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_safetensors

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import compact, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.prompts import srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import DatasetFormatError
from quantum_diffusion.evaluation.evaluator import Evaluator
from quantum_diffusion.evaluation.inspection import inspect_dataset
from quantum_diffusion.interop.genqc_data import read_dataset
from quantum_diffusion.interop.genqc_export import export_dataset
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import WITHOUT_ANGLES, MakeConfig, with_entry

DS = "dataset/ds"
FILES = ["config.yaml", f"{DS}_x.safetensors", f"{DS}_y.pt", f"{DS}_U.safetensors"]


def draw(
    seed: int = 0,
    count: int = 6,
    num_qubits: int = 2,
    max_gates: int = 4,
    names: tuple[str, ...] = ("h", "cx"),
    with_unitaries: bool = False,
) -> CircuitDataset:
    """Random circuits as our generator makes them: 0 after the last gate, and true labels."""
    rng, table = np.random.default_rng(seed), instruction_table(GatePool(names), num_qubits)
    ids = compact(random_ids(rng, table, count, 1, max_gates))
    labels = [srv_prompt(ranks) for ranks in schmidt_rank_vectors(ids, table)]
    matrices = None
    if with_unitaries:
        labels = [f"Compile using: {sorted(rng.choice(names, rng.integers(1, len(names) + 1), False))}" for _ in ids]
        exact = unitaries(ids, table)
        matrices = np.stack([exact.real, exact.imag], axis=1).astype(np.float32)
    prompts, index = np.unique(labels, return_inverse=True)
    sizes = np.stack([np.full(count, num_qubits), (ids != 0).sum(axis=1)], axis=1)
    return CircuitDataset(
        tokens=encode_ids(ids, table),
        prompt_index=index.astype(np.int32),
        prompts=tuple(prompts.tolist()),
        sizes=sizes.astype(np.int16),
        gate_pool=table.pool,
        condition_type="SRV" if matrices is None else "UNITARY",
        targets=matrices,
    )


def assert_equal(first: CircuitDataset, second: CircuitDataset) -> None:
    for key in ("tokens", "prompt_index", "sizes", "targets"):
        ours, theirs = getattr(first, key), getattr(second, key)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    assert (first.prompts, first.gate_pool) == (second.prompts, second.gate_pool)
    assert first.condition_type == second.condition_type


def read(path: Path) -> CircuitDataset:
    """Read what must be a data set of genQC."""
    dataset = read_dataset(path)
    assert dataset is not None
    return dataset


def refused(path: Path, *contents: str) -> None:
    """The loader refuses with one line that holds the contents."""
    with pytest.raises(DatasetFormatError) as caught:
        dataset_loader().load_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    for content in contents:
        assert content in message, message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of genQC with unitaries."""
    export_dataset(draw(with_unitaries=True), tmp_path / "data")
    return tmp_path / "data"


def describe_as(folder: Path, **changes: Any) -> None:
    """Change keys of the description; those of `params` if they are there."""
    file = folder / "config.yaml"
    description = yaml.safe_load(file.read_text())
    for key, value in changes.items():
        (description if key in ("target", "params", "save_path", "save_type") else description["params"])[key] = value
    file.write_text(yaml.safe_dump(description, sort_keys=False))


def replace_tensor(folder: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    file = folder / f"{DS}_{key}.safetensors"
    save_file({"0": np.ascontiguousarray(change(load_file(file)["0"]))}, file)


def save_texts(folder: Path, texts: Any) -> None:
    torch.save({"0": texts}, folder / f"{DS}_y.pt", pickle_protocol=5)


def to_pt(folder: Path) -> None:
    """Store every tensor as genQC does with save_type pt."""
    for file in (folder / "dataset").glob("*.safetensors"):
        torch.save({"0": torch.from_numpy(load_file(file)["0"])}, file.with_suffix(".pt"), pickle_protocol=5)
        file.unlink()
    describe_as(folder, save_type="pt")


# ------------------------------------------------------------------------------------------ with the real genQC


@pytest.fixture(scope="module")
def genqc() -> Iterator[SimpleNamespace]:
    """genQC's classes and functions; it prints a line for every file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tensordict")
        datasets = pytest.importorskip("genQC.dataset.circuits_dataset")
        from genQC.dataset.config_dataset import ConfigDataset
        from genQC.platform import circuits_generation
        from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend, instruction_name_to_qiskit_gate
        from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer

        yield SimpleNamespace(
            Any=ConfigDataset,
            Single=datasets.CircuitsConfigDataset,
            Mixed=datasets.MixedCircuitsConfigDataset,
            generation=circuits_generation,
            Backend=CircuitsQiskitBackend,
            find_class=instruction_name_to_qiskit_gate,
            Tokenizer=CircuitTokenizer,
        )


CPU = torch.device("cpu")
PAPER_POOL = ("h", "cx", "z", "x", "ccx", "swap")


def padded(dataset: CircuitDataset) -> np.ndarray:
    """Tokens as genQC pads a mixed data set: everything outside a circuit, time steps to a multiple of 4."""
    ids = decode_tokens(dataset.tokens, dataset.gate_pool).ids
    table = instruction_table(dataset.gate_pool, dataset.num_qubits)
    return encode_ids(ids, table, dataset.sizes, (dataset.num_qubits, -(-dataset.max_gates // 4) * 4))


@pytest.mark.parametrize("with_unitaries", [False, True])
def test_genqc_opens_what_we_write(genqc: SimpleNamespace, tmp_path: Path, with_unitaries: bool) -> None:
    dataset = draw(0, 40, 3, 7, PAPER_POOL, with_unitaries)
    assert export_dataset(dataset, tmp_path / "data") == "CircuitsConfigDataset"
    opened = genqc.Any.from_config_file(str(tmp_path / "data" / "config.yaml"), CPU)
    assert type(opened) is genqc.Single
    np.testing.assert_array_equal(opened.x.numpy(), dataset.tokens)
    assert opened.x.dtype == torch.int32
    assert opened.y.tolist() == [dataset.prompts[number] for number in dataset.prompt_index]
    assert opened.gate_pool == list(PAPER_POOL)
    assert list(opened.store_dict) == (["x", "y", "U"] if with_unitaries else ["x", "y"])
    if with_unitaries:
        np.testing.assert_array_equal(opened.U.numpy(), dataset.targets)
    x, y, *rest = genqc.Any.x_y_preprocess(opened, balance_max=30, shuffle=True)
    assert len(x) == len(y) > 0
    assert len(rest) == with_unitaries
    assert_equal(read(tmp_path / "data"), dataset)


@pytest.mark.parametrize("with_unitaries", [False, True])
def test_genqc_opens_a_mixed_data_set_that_we_write(
    genqc: SimpleNamespace, tmp_path: Path, with_unitaries: bool
) -> None:
    dataset = merge_datasets([draw(1, 12, 2, 5), draw(2, 12, 3, 7)])
    if with_unitaries:  # a circuit on the first of three qubits has the unitary 1 (x) U
        table = instruction_table(dataset.gate_pool, 3)
        exact = unitaries(decode_tokens(dataset.tokens, dataset.gate_pool).ids, table)
        targets = np.stack([exact.real, exact.imag], axis=1).astype(np.float32)
        dataset = replace(dataset, condition_type="UNITARY", targets=targets)
    assert export_dataset(dataset, tmp_path / "data") == "MixedCircuitsConfigDataset"
    opened = genqc.Any.from_config_file(str(tmp_path / "data" / "config.yaml"), CPU)
    assert type(opened) is genqc.Mixed
    np.testing.assert_array_equal(opened.x.numpy(), padded(dataset))
    assert opened.y.tolist() == [dataset.prompts[number] for number in dataset.prompt_index]
    np.testing.assert_array_equal(opened.z[:, 0].numpy(), dataset.sizes[:, 0])
    np.testing.assert_array_equal(opened.z[:, 1].numpy(), -(-dataset.sizes[:, 1] // 4) * 4)
    assert opened.pad_constant == dataset.gate_pool.padding_token
    returned = read(tmp_path / "data")
    assert_equal(returned, replace(dataset, tokens=padded(dataset)))

    # genQC cuts a batch to its largest circuit; the prompts are numbers by then.
    small = np.flatnonzero(dataset.sizes[:, 0] == 2)[:4]
    parts = [torch.arange(len(dataset)) if key == "y" else getattr(opened, key) for key in opened.store_dict]
    batch = getattr(opened, opened.collate_fn)([tuple(part[row] for part in parts) for row in small])
    assert batch[0].shape[1] == 2
    assert batch[0].shape[2] % 4 == 0
    if with_unitaries:
        table = instruction_table(dataset.gate_pool, 2)
        exact = unitaries(decode_tokens(batch[0].numpy(), dataset.gate_pool).ids, table)
        np.testing.assert_allclose(torch.complex(batch[3][:, 0], batch[3][:, 1]).numpy(), exact, atol=1e-6)


def test_genqc_means_the_same_by_tokens_and_unitaries(genqc: SimpleNamespace, tmp_path: Path) -> None:
    pool = []
    for name in WITHOUT_ANGLES:
        with contextlib.suppress(AttributeError):  # genQC finds no class for some, sdg among them
            genqc.find_class(name)
            pool.append(name)
    assert {"h", "cx", "ccx", "swap"} < set(pool)
    dataset = draw(3, 60, 3, 8, tuple(pool), with_unitaries=True)
    export_dataset(dataset, tmp_path / "data")
    opened = genqc.Any.from_config_file(str(tmp_path / "data" / "config.yaml"), CPU)
    tokenizer = genqc.Tokenizer({name: number for number, name in enumerate(opened.gate_pool, start=1)})
    backend = genqc.Backend()
    for x, U in zip(opened.x, opened.U, strict=True):
        circuit = backend.genqc_to_backend(tokenizer.decode(x), place_barriers=False)
        np.testing.assert_allclose(backend.get_unitary(circuit), torch.complex(U[0], U[1]).numpy(), atol=1e-6)


def single(
    genqc: SimpleNamespace,
    num_qubits: int,
    max_gates: int,
    seed: int,
    save_type: str | None = None,
    unitary: bool = True,
) -> Any:
    """A data set that genQC itself makes: random circuits by Qiskit, unitaries in float16."""
    kind = genqc.generation.CircuitConditionType
    tokenizer = genqc.Tokenizer({"h": 1, "cx": 2, "swap": 3})
    arguments = {
        "backend": genqc.Backend(),
        "tokenizer": tokenizer,
        "num_of_qubits": num_qubits,
        "min_gates": 1,
        "max_gates": max_gates,
        "optimized": False,
    }
    keys = {"x": "tensor", "y": "numpy"}
    if unitary:
        x, y, U, params = genqc.generation.generate_circuit_dataset(
            condition=kind.UNITARY, total_samples=24, batch_samples=24, min_sub_gate_pool_cnt=2, **arguments
        )
        tensors = {"x": x, "y": y, "U": U, "params": params}
        keys |= {"params": "tensor", "U": "tensor"}
    else:  # genQC's own function refuses to make these
        made = [
            genqc.generation.get_rnd_encoded_circuit(
                condition=kind.SRV, gate_pool=None, rng=np.random.default_rng((seed, number)), **arguments
            )
            for number in range(24)
        ]
        labels = [f"Generate SRV: {label.tolist()}" for _, label, *_ in made]
        tensors = {"x": torch.stack([tokens for *_, tokens, _ in made]), "y": np.array(labels)}
    dataset = genqc.Single(
        CPU,
        save_type=save_type,
        store_dict=keys,
        dataset_to_gpu=False,
        optimized=False,
        random_samples=24,
        num_of_qubits=num_qubits,
        min_gates=1,
        max_gates=max_gates,
        max_params=0,
        gate_pool=["h", "cx", "swap"],
    )
    for key, tensor in tensors.items():
        setattr(dataset, key, tensor)
    return dataset


def mixed(genqc: SimpleNamespace, parts: list[Any], batch: int) -> Any:
    """genQC's mixed data set of some; balancing makes them fewer."""
    whole, _ = genqc.Mixed.from_datasets(
        parts,
        balance_maxes=[50] * len(parts),
        pad_constant=4,
        bucket_batch_size=batch,
        max_samples=[50] * len(parts),
        model_scale_factor=4,
        dataset_to_gpu=False,
        optimized=False,
        gate_pool=["h", "cx", "swap"],
    )
    return whole


def assert_same_as_genqc(ours: CircuitDataset, theirs: Any) -> None:
    """Every array of genQC's is ours, in its order, and means what we mean by it."""
    x = theirs.x.flatten(0, -3)
    np.testing.assert_array_equal(ours.tokens, x.numpy())
    assert [ours.prompts[number] for number in ours.prompt_index] == theirs.y.reshape(-1).tolist()
    assert list(ours.prompts) == sorted(set(ours.prompts))
    assert list(ours.gate_pool.names) == theirs.gate_pool
    if "z" in theirs.store_dict:
        z = theirs.z.flatten(0, -2).numpy()
        np.testing.assert_array_equal(ours.sizes[:, 0], z[:, 0])
        np.testing.assert_array_equal(-(-np.maximum(ours.sizes[:, 1], 1) // 4) * 4, z[:, 1])
    ids = decode_tokens(ours.tokens, ours.gate_pool).ids
    np.testing.assert_array_equal(ours.sizes[:, 1], (ids != 0).sum(axis=1))
    table = instruction_table(ours.gate_pool, ours.num_qubits)
    if "U" in theirs.store_dict:
        assert theirs.U.dtype == torch.float16
        np.testing.assert_array_equal(ours.targets, theirs.U.flatten(0, -4).float().numpy())
        assert ours.targets is not None
        np.testing.assert_allclose(ours.targets[:, 0] + 1j * ours.targets[:, 1], unitaries(ids, table), atol=1e-3)
    else:
        ranks = [list(r[:width]) for r, width in zip(schmidt_rank_vectors(ids, table), ours.sizes[:, 0], strict=True)]
        assert [srv_prompt(r) for r in ranks] == theirs.y.reshape(-1).tolist()


@pytest.mark.parametrize("save_type", ["safetensors", "pt"])
@pytest.mark.parametrize("unitary", [False, True])
def test_we_read_what_genqc_makes(genqc: SimpleNamespace, tmp_path: Path, unitary: bool, save_type: str) -> None:
    made = single(genqc, 3, 6, 0, save_type, unitary)
    made.save_dataset(str(tmp_path / "3q" / "config.yaml"), str(tmp_path / "3q" / "dataset" / "ds"))
    assert sorted(os.listdir(tmp_path / "3q" / "dataset"))[-2:] == [f"ds_x.{save_type}", "ds_y.pt"]
    assert_same_as_genqc(read(tmp_path / "3q"), made)
    assert_same_as_genqc(dataset_loader().load_dataset(tmp_path / "3q"), made)


@pytest.mark.parametrize("unitary", [False, True])
@pytest.mark.parametrize("batch", [-1, 5])
def test_we_read_what_genqc_mixes(genqc: SimpleNamespace, tmp_path: Path, unitary: bool, batch: int) -> None:
    made = mixed(genqc, [single(genqc, q, t, q, unitary=unitary) for q, t in ((2, 5), (3, 7))], batch)
    assert made.x.dim() == (3 if batch < 0 else 4)
    made.save_dataset(str(tmp_path / "config.yaml"), str(tmp_path / "dataset" / "ds"))
    ours = read(tmp_path)
    assert set(ours.sizes[:, 0]) == {2, 3}
    assert_same_as_genqc(ours, made)
    if batch < 0:
        export_dataset(ours, tmp_path / "again")
        again = genqc.Any.from_config_file(str(tmp_path / "again" / "config.yaml"), CPU)
        for key in ("x", "z"):
            np.testing.assert_array_equal(getattr(again, key), getattr(made, key))


PROMPT_KINDS: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "a list of texts": ("list", lambda y: y.tolist()),
    "a list of numpy's texts": ("list", list),
    "texts as objects": ("numpy", lambda y: y.astype(object)),
    "ranks in a tensor": ("tensor", lambda y: torch.tensor([yaml.safe_load(text[14:]) for text in y])),
    "ranks in numpy": ("numpy", lambda y: np.array([yaml.safe_load(text[14:]) for text in y], dtype=np.int8)),
}
"""How genQC 0.2.5 can hold labels => the kind under which it stores them, and what they are then."""


@pytest.mark.parametrize("save_type", ["safetensors", "pt", "ckpt"])
@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_labels_of_every_kind_genqc_stores(genqc: SimpleNamespace, tmp_path: Path, kind: str, save_type: str) -> None:
    made = single(genqc, 3, 6, 0, save_type, unitary=False)
    expected, (stored_as, convert) = made.y, PROMPT_KINDS[kind]
    made.store_dict["y"], made.y = stored_as, convert(made.y)
    config, prefix = str(tmp_path / "config.yaml"), str(tmp_path / "dataset" / "ds")
    if stored_as == "list" and save_type == "safetensors":
        with pytest.raises(NotImplementedError):  # so there are no such data sets
            made.save_dataset(config, prefix)
        return
    made.save_dataset(config, prefix)
    assert len(genqc.Any.from_config_file(config, CPU).y) == 24
    ours, made.y = read(tmp_path), expected
    assert_same_as_genqc(ours, made)
    assert all(type(prompt) is str for prompt in ours.prompts)


@pytest.mark.parametrize("save_type", ["safetensors", "pt"])
def test_unitaries_in_bfloat16(genqc: SimpleNamespace, tmp_path: Path, save_type: str) -> None:
    made = single(genqc, 3, 6, 0, save_type)
    made.U = made.U.to(torch.bfloat16)
    made.save_dataset(str(tmp_path / "config.yaml"), str(tmp_path / "dataset" / "ds"))
    ours = read(tmp_path)
    assert ours.targets is not None
    np.testing.assert_array_equal(ours.targets, made.U.float().numpy())
    assert inspect_dataset(ours).is_right


def test_of_two_tasks_in_one_data_set_the_unitaries_are_read(
    genqc: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """genQC gives circuits for Schmidt rank vectors a unitary of zeros when it mixes them with others."""
    unitary = single(genqc, 2, 5, 0)
    del unitary.store_dict["params"]  # genQC cannot mix these with circuits that have none
    made = mixed(genqc, [unitary, single(genqc, 3, 7, 1, unitary=False)], 5)
    made.save_dataset(str(tmp_path / "config.yaml"), str(tmp_path / "dataset" / "ds"))
    has_unitary = made.U.flatten(0, -4).any(dim=(1, 2, 3)).numpy()
    assert 0 < has_unitary.sum() < len(has_unitary)
    ours = read(tmp_path)
    counts = f"mixes {has_unitary.sum()} circuits that have unitaries with {(~has_unitary).sum()} for Schmidt"
    assert counts in caplog.text
    np.testing.assert_array_equal(ours.tokens, made.x.flatten(0, -3).numpy()[has_unitary])
    assert [ours.prompts[index] for index in ours.prompt_index] == made.y.reshape(-1)[has_unitary].tolist()
    assert all(prompt.startswith("Compile using: ") for prompt in ours.prompts)
    assert inspect_dataset(ours).is_right


def test_zeros_for_all_unitaries_are_none(tmp_path: Path) -> None:
    dataset = draw()
    export_dataset(replace(dataset, condition_type="UNITARY", targets=draw(with_unitaries=True).targets), tmp_path)
    replace_tensor(tmp_path, "U", np.zeros_like)
    assert_equal(read(tmp_path), dataset)


def test_every_place_genqc_saves_to(genqc: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = single(genqc, 2, 4, 0, unitary=False)
    for number, (config, prefix) in enumerate(
        [
            ("config.yaml", "dataset/ds"),
            ("config.yaml", "dataset"),
            ("qc_srv_2qubit.yaml", "qc_srv_2qubit"),
            ("config.yaml", "tensors/of_2_qubits"),
            ("config.yaml", "all"),
        ]
    ):
        place = tmp_path / str(number)
        made.save_dataset(str(place / config), str(place / prefix))
        moved = place.rename(tmp_path / f"moved {number}")  # save_path now leads nowhere
        assert_same_as_genqc(read(moved), made)

    def download(**arguments: Any) -> str:
        return str(tmp_path / "moved 2")

    monkeypatch.setattr("genQC.dataset.config_dataset.snapshot_download", download)
    np.testing.assert_array_equal(genqc.Single.from_huggingface("me/qc_srv_2qubit", CPU).x, made.x)


# ------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("config", "prefix"), [("config.yaml", "dataset"), ("name.yaml", "name"), ("config.yaml", "own/place")]
)
@pytest.mark.parametrize("as_pt", [False, True])
def test_layouts(folder: Path, config: str, prefix: str, as_pt: bool) -> None:
    if as_pt:
        to_pt(folder)
    describe_as(folder, save_path=f"/somewhere/else/{prefix}")
    (folder / "config.yaml").rename(folder / config)
    files = list((folder / "dataset").iterdir())
    for file in files:
        target = folder / f"{prefix}{file.name.removeprefix('ds')}"
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    (folder / "dataset").rmdir()
    assert_equal(read(folder), draw(with_unitaries=True))


def test_a_folder_of_folders_of_both_kinds(tmp_path: Path) -> None:
    ours, theirs, hub = draw(0, 6, 2), draw(1, 6, 3), draw(2, 6, 2, 6)
    save_dataset(ours, tmp_path / "a", {})
    export_dataset(theirs, tmp_path / "b")
    export_dataset(hub, tmp_path / "c")
    (tmp_path / "c" / "config.yaml").rename(tmp_path / "c" / "hub.yaml")
    for file in (tmp_path / "c" / "dataset").iterdir():
        file.rename(tmp_path / "c" / file.name.replace("ds_", "hub_"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("words")
    assert_equal(dataset_loader().load_dataset(tmp_path), merge_datasets([ours, theirs, hub]))
    replace_tensor(tmp_path / "b", "x", lambda x: x + 9)
    refused(tmp_path, "b' cannot be used: a token of x is")


def test_loaders_that_are_not_asked_to_read_no_foreign_folders(folder: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"does not describe a quantum_diffusion\.dataset"):
        DatasetLoader().load_dataset(folder)


def test_what_is_not_genqcs_is_left_to_others(tmp_path: Path) -> None:
    save_dataset(draw(), tmp_path / "data", {"target": "genQC.dataset.circuits_dataset.CircuitsConfigDataset"})
    (tmp_path / "other.yaml").write_text("target: genQC")
    assert read_dataset(tmp_path / "data") is None
    assert read_dataset(tmp_path) is None
    assert read_dataset(tmp_path / "none") is None
    assert read_dataset(tmp_path / "other.yaml") is None
    assert_equal(dataset_loader().load_dataset(tmp_path / "data"), draw())
    refused(tmp_path / "none", "does not exist: make one with")


def test_training_and_evaluation_read_it(tmp_path: Path, make_config: MakeConfig) -> None:
    export_dataset(draw(0, 24, 3), tmp_path / "data")
    summary = DiffusionTrainer(make_config(general={"dataset": str(tmp_path / "data")}, max_steps=1)).run()
    assert summary.metadata["dataset_sha256"] == draw(0, 24, 3).fingerprint
    config = EvaluationConfig(dataset=str(tmp_path / "data"), model_dir=str(summary.folder), device="cpu")
    assert_equal(Evaluator(config).dataset, draw(0, 24, 3))


def test_legacy_names_and_files(folder: Path) -> None:
    legacy = "qiskit.circuit.library.standard_gates"
    describe_as(
        folder,
        target="genQC.dataset.qc_dataset.Qc_Config_Dataset",
        gate_pool=[f"{legacy}.h.HGate", f"{legacy}.x.CXGate"],
    )
    to_pt(folder)
    for file in (folder / "dataset").glob("*_[xU].pt"):  # genQC 0.1 stored tensors bare
        torch.save(torch.load(file, weights_only=False)["0"], file)
    texts = np.array([draw(with_unitaries=True).prompts[i] for i in draw(with_unitaries=True).prompt_index])
    torch.save(texts, folder / f"{DS}_y.pt")
    assert_equal(read(folder), draw(with_unitaries=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_texts_in_every_pickle_of_numpy(folder: Path, protocol: int, order: str) -> None:
    dataset = draw(with_unitaries=True)
    prompts = ("", "ψ 量子 🙂", "é")
    texts = np.array(prompts)[np.arange(6) % 3].reshape(3, 2)
    for key in ("x", "U"):
        replace_tensor(folder, key, lambda tensor: tensor.reshape(3, 2, *tensor.shape[1:]))
    for variant in (texts, texts.astype(">U7")):
        array = np.asarray(variant, order=order)
        torch.save({"0": array}, folder / f"{DS}_y.pt", pickle_protocol=protocol)
        expected = replace(dataset, prompts=tuple(sorted(prompts)), prompt_index=(np.arange(6) % 3).astype(np.int32))
        returned = read(folder)
        assert [returned.prompts[i] for i in returned.prompt_index] == texts.reshape(-1).tolist()
        assert returned.prompts == expected.prompts
    content = (folder / f"{DS}_y.pt").read_bytes()
    (folder / f"{DS}_y.pt").write_bytes(content.replace(b"numpy._core.", b"numpy..core."))
    refused(folder, "ds_y.pt")


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_labels_of_every_kind(tmp_path: Path, kind: str) -> None:
    dataset = draw()
    export_dataset(dataset, tmp_path)
    save_texts(tmp_path, PROMPT_KINDS[kind][1](np.array(dataset.prompts)[dataset.prompt_index]))
    assert_equal(read(tmp_path), dataset)


def test_numbers_that_numpy_has_not(folder: Path) -> None:
    bits = torch.tensor(read(folder).targets).to(torch.bfloat16)
    save_safetensors({"0": bits}, folder / f"{DS}_U.safetensors")
    np.testing.assert_array_equal(read(folder).targets, bits.float().numpy())
    save_safetensors({"0": bits.to(torch.float8_e4m3fn)}, folder / f"{DS}_U.safetensors")
    refused(folder, "ds_U.safetensors' holds numbers of kind F8_E4M3, which is not read")
    (folder / f"{DS}_U.safetensors").unlink()
    torch.save({"0": bits}, folder / f"{DS}_U.pt")
    np.testing.assert_array_equal(read(folder).targets, bits.float().numpy())


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_tokens_and_unitaries_of_every_width(folder: Path, kind: type) -> None:
    replace_tensor(folder, "x", lambda x: x.astype(kind))
    replace_tensor(folder, "U", lambda U: U.astype(np.float64 if kind == np.int64 else np.float16))
    returned, dataset = read(folder), draw(with_unitaries=True)
    assert dataset.targets is not None
    np.testing.assert_allclose(returned.targets, dataset.targets, atol=1e-3)
    assert_equal(replace(returned, targets=dataset.targets), dataset)


# -------------------------------------------------------------------------------------------------- export


def test_export_is_for_a_new_or_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_dataset(draw(), tmp_path / "empty")
    before = sorted(path.read_bytes() for path in (tmp_path / "empty").rglob("*") if path.is_file())
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        with pytest.raises(DatasetFormatError, match="exists and is not an empty folder: choose another one"):
            export_dataset(draw(1), tmp_path / name)
    with pytest.raises(DatasetFormatError, match="a file is where a folder should be"):
        export_dataset(draw(1), tmp_path / "file" / "deeper")
    assert sorted(path.read_bytes() for path in (tmp_path / "empty").rglob("*") if path.is_file()) == before
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "link"]
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "empty").rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DatasetFormatError, match="the disk is full"):
        export_dataset(draw(), tmp_path / "data")
    assert os.listdir(tmp_path) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_dataset(draw(0, 9), tmp_path / "parts" / "2q", {})
    save_dataset(draw(1, 9, 3), tmp_path / "parts" / "3q", {})
    arguments = [f"export.dataset={tmp_path / 'parts'}", f"export.output_path={tmp_path / 'genqc'}"]
    assert run_command("export-genqc", arguments) == 0
    assert "MixedCircuitsConfigDataset.from_config_file" in capsys.readouterr().out
    assert len(read(tmp_path / "genqc")) == 18
    assert run_command("export-genqc", arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert run_command("export-genqc", [arguments[0]]) == 2
    assert "export.output_path: is required" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- refusals


def store_as(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: describe_as(folder, store_dict={"x": "tensor", "y": "numpy", "U": "tensor"} | changes)


def equal_columns(U: np.ndarray) -> np.ndarray:
    """Make all columns of the first unitary the same, each still of length 1."""
    U = U.copy()
    U[0] = U[0][..., :1]
    return U


def tensor_as(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: replace_tensor(folder, key, change)


def texts_as(*texts: Any, **options: Any) -> Callable[[Path], None]:
    return lambda folder: save_texts(folder, np.array(texts, **options))


def with_z(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        store_as(z="tensor")(folder)
        save_file({"0": change(draw().sizes.astype(np.int32))}, folder / f"{DS}_z.safetensors")

    return damage


def with_parameters(value: np.float32) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        store_as(params="tensor")(folder)
        save_file({"0": np.full((6, 1, 4), value)}, folder / f"{DS}_params.safetensors")

    return damage


@pytest.mark.parametrize(
    ("damage", "content"),
    [
        (tensor_as("x", lambda x: x.astype(np.float32)), "x is float32, expected integers"),
        (tensor_as("x", lambda x: x.astype(bool)), "x is bool, expected integers"),
        (tensor_as("x", lambda x: x[0]), "x is (2, 4), expected [circuits, qubits, time steps]"),
        (tensor_as("x", lambda x: x[:0]), "x is (0, 2, 4), expected"),
        (tensor_as("x", lambda x: x[:, :0]), "x is (6, 0, 4), expected"),
        (tensor_as("x", lambda x: np.repeat(x, 64, axis=1)), "x is (6, 128, 4), expected"),
        (tensor_as("x", lambda x: x[:5]), "y is (6,), expected (5,)"),
        (tensor_as("x", lambda x: x[:, :1]), "cannot be used: gate 'cx' acts on 2 qubits"),
        (tensor_as("x", lambda x: np.pad(x, ((0, 0), (0, 1), (0, 0)))), "params.num_of_qubits is 2, expected 3"),
        (tensor_as("x", with_entry((1, 0, 2), 4)), "a token of x is 4, expected 3 or less"),
        (tensor_as("x", with_entry((1, 0, 2), -(2**31))), "a token of x is 2147483648"),
        (tensor_as("x", with_entry((4, slice(None), 0), (2, 1))), "circuit 4 of x is 'two gates in one time step'"),
        (tensor_as("x", with_entry((4, slice(None), 0), (-2, 0))), "circuit 4 of x is 'controls without a target'"),
        (tensor_as("x", with_entry((4, slice(None), 0), (3, 1))), "circuit 4 of x is 'padding inside the circuit'"),
        (tensor_as("U", lambda U: U.astype(np.int32)), "U is ('int32', 6, 2, 4, 4), expected floats (6, 2, 4, 4)"),
        (tensor_as("U", lambda U: U[:, :1]), "U is ('float32', 6, 1, 4, 4), expected"),
        (tensor_as("U", lambda U: U[:, :, :2, :2]), "U is ('float32', 6, 2, 2, 2), expected"),
        (tensor_as("U", lambda U: U[:4]), "U is ('float32', 4, 2, 4, 4), expected"),
        (tensor_as("U", lambda U: np.moveaxis(U, 1, 3)), "U is ('float32', 6, 4, 4, 2), expected"),
        (tensor_as("U", lambda U: U * np.float32("nan")), " is 'not unitary'"),
        (tensor_as("U", lambda U: U * 2), " is 'not unitary'"),
        (tensor_as("U", equal_columns), "U of circuit 0 is 'not unitary', expected orthogonal columns"),
        (tensor_as("U", with_entry(2, 0)), " is 'not unitary'"),  # zeros are for Schmidt rank vectors
        (tensor_as("U", lambda U: U.astype(np.float64) * 1e300), " is 'not unitary'"),
        (with_z(lambda z: z[:, :1]), "z is ('int32', 6, 1), expected integers (6, 2)"),
        (with_z(lambda z: z[:4]), "z is ('int32', 4, 2), expected"),
        (with_z(lambda z: z.astype(np.float32)), "z is ('float32', 6, 2), expected"),
        (with_z(with_entry((2, 0), 1)), "z of circuit 2 is (1, "),
        (with_z(with_entry((2, 1), 0)), "z of circuit 2 is (2, 0), expected 2 qubits and"),
        (with_z(with_entry((2, 1), 5)), "z of circuit 2 is (2, 5), expected 2 qubits and"),
        (with_z(with_entry((2, 1), -(2**31))), "z of circuit 2 is"),
        (texts_as("a", "b"), "y is (2,), expected (6,)"),
        (texts_as(*"abcdef", dtype="S3"), "ds_y.pt' holds a numpy array of '|S3', which is not read"),
        (texts_as(*[b"a"] * 6, dtype=object), "ds_y.pt' holds a list or array of 'bytes', which is not read"),
        (texts_as(*range(6)), "y is ('integers', 6), expected texts, or ranks 1 and 2 (6, 2)"),
        (texts_as(*[(1, 2)] * 5), "y is ('integers', 5, 2), expected texts, or ranks 1 and 2 (6, 2)"),
        (texts_as(*[(1, 3)] * 6), "y is ('integers', 6, 2), expected texts, or ranks 1 and 2 (6, 2)"),
        (texts_as(*[(1.0, 2.0)] * 6), "holds float64 numbers as y, which is not read: store prompts (texts)"),
        (texts_as(*(["a\ud800"] * 6)), "prompts that are no Unicode text"),
        (lambda folder: save_texts(folder, np.full(6, 0x7FFFFFFF, np.uint32).view("<U1")), "no Unicode text"),
        (lambda folder: save_texts(folder, ["a"] * 5), "y is (5,), expected (6,), a text a circuit"),
        (lambda folder: save_texts(folder, ["a\ud800"] * 6), "prompts that are no Unicode text"),
        (lambda folder: save_texts(folder, ["a", 2, "b"]), "holds a list or array of 'int', which is not read"),
        (lambda folder: save_texts(folder, [torch.ones(2)] * 6), "a list or array of '_rebuild_tensor_v2', which is"),
        (lambda folder: save_texts(folder, ["a" * 20_000] * 6), "damaged (a text is too long for a prompt)"),
        (lambda folder: save_texts(folder, torch.zeros(6)), "holds float32 numbers as y, which is not read"),
        (
            lambda folder: save_texts(folder, np.array(list("abcdef")).view(np.recarray)),
            "ds_y.pt' holds 'numpy.rec.recarray', which is not read: expected a tensor, a numpy array",
        ),
        (lambda folder: describe_as(folder, store_dict={"x": "tensor"}), "params.store_dict is ['x'], expected x and"),
        (store_as(z="tensor"), "lacks the file dataset/ds_z.safetensors"),
        (lambda folder: describe_as(folder, store_dict=["x", "y"]), "store_dict is ['x', 'y'], expected a mapping"),
        (lambda folder: describe_as(folder, params=None), "params is None, expected a mapping"),
        (lambda folder: describe_as(folder, params="x"), "params is 'x', expected a mapping"),
        (lambda folder: describe_as(folder, gate_pool="h"), "params.gate_pool is 'h', expected a list"),
        (lambda folder: describe_as(folder, gate_pool=[1, 2]), "params.gate_pool is [1, 2], expected a list of names"),
        (lambda folder: describe_as(folder, gate_pool=[]), "the gate set is empty"),
        (
            lambda folder: describe_as(folder, gate_pool=["h", "ch"]),
            "holds circuits of the gate 'ch', which is not read: give one whose gates are among h, x,",
        ),
        (
            lambda folder: describe_as(folder, gate_pool=["os.system", "h"]),
            "circuits of the gate 'os.system', which is not read",
        ),
        (
            with_parameters(np.float32(0.25)),
            "params is 'not zero', expected zeros for ['h', 'cx'], gates without angles",
        ),
        (with_parameters(np.float32("nan")), "params is 'not zero', expected zeros for ['h', 'cx']"),
        (store_as(params="tensor"), "lacks the file dataset/ds_params.safetensors"),
        (lambda folder: describe_as(folder, gate_pool=["h", "h"]), "repeats ['h']"),
        (lambda folder: describe_as(folder, pad_constant=0), "params.pad_constant is 0, expected 3, one more"),
        (lambda folder: describe_as(folder, pad_constant=True), "params.pad_constant is True"),
        (lambda folder: describe_as(folder, num_of_qubits="2"), "params.num_of_qubits is '2', expected 2"),
        (lambda folder: describe_as(folder, num_of_qubits=3), "params.num_of_qubits is 3, expected 2"),
        (lambda folder: describe_as(folder, max_gates=3), "params.max_gates is 3, expected 4, as x of shape"),
    ],
)
def test_content_that_does_not_fit(folder: Path, damage: Callable[[Path], None], content: str) -> None:
    damage(folder)
    refused(folder, content)


def test_a_number_of_any_size_is_not_shown(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text + f"  pad_constant: 0x{'f' * 9000}\n")
    refused(folder, "params.pad_constant is a int")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_truncated_or_misplaced_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in sorted({0, 1, len(content) // 3, len(content) // 2, len(content) - 1}):
        (folder / name).write_bytes(content[:length])
        if name != "config.yaml" or length < len(content) - 1:
            refused(folder)
    (folder / name).unlink()
    refused(folder)
    (folder / name).mkdir()
    refused(folder)
    (folder / name).rmdir()
    os.mkfifo(folder / name)  # opening it would wait for ever
    refused(folder)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "genQC.dataset.circuits_dataset",
        "genQC.pipeline.diffusion_pipeline.DiffusionPipeline",
        "genQC.dataset.circuits_dataset.CircuitsConfigDataset ",
        "subprocess.Popen",
        None,
        7,
        ["genQC.dataset.circuits_dataset.CircuitsConfigDataset"],
        {"a": 1},
    ],
)
def test_other_targets(folder: Path, target: Any) -> None:
    describe_as(folder, target=target)
    refused(folder, "does not describe a data set of genQC: target is")
    shutil.rmtree(folder / "dataset")  # with a `target`, but nothing else of a data set
    refused(folder, "does not describe a data set of genQC: target is")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "- a\n- list",
        "target: [1, 2",
        "\t- tab",
        "!!python/object/apply:os.mkdir ['pwned']",
        "target: !!python/object/apply:os.mkdir ['pwned']",
        "target: !!python/object/new:os.mkdir ['pwned']",
        "target: !!python/tuple [1]",
        "target: !!python/name:os.mkdir",
        "target: !!bool x",
        "target: !!int ''",
        "target: 2001-99-99",
        "? {a: 1}\n: b",
        "target: " + "[" * 5000,
        "target: &x [*x]",
        "target: " + "a" * 2**21,
        "a: &a [l,l,l,l,l,l,l,l,l]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "target: *i\n",
        "a: &a [l,l,l,l,l,l,l,l,l]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "target: genQC.dataset.circuits_dataset.CircuitsConfigDataset\nsave_path: *i\nsave_type: *i\n"
        + "params: {store_dict: {x: tensor, y: numpy}, gate_pool: *i}\n",
    ],
)
def test_hostile_descriptions(folder: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "config.yaml").write_text(text)
    refused(folder)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "save_path", ["../secret/ds", "/etc/passwd", "../../x", "secret/../../secret/ds", "..", "", "/", None, 3]
)
def test_a_path_in_a_file_never_leads_out(folder: Path, tmp_path: Path, save_path: Any) -> None:
    """What genQC reads from `save_path`, wherever that is, we take from the folder or not at all."""
    (folder / "dataset").rename(tmp_path / "secret")
    if save_path == "/etc/passwd":
        save_path = str(tmp_path / "secret" / "ds")
    describe_as(folder, save_path=save_path)
    refused(folder, "has no tensors: expected dataset/ds_x.safetensors or dataset_x.safetensors")
    shutil.copytree(tmp_path / "secret", folder / "dataset")
    assert_equal(read(folder), draw(with_unitaries=True))


@pytest.mark.parametrize("name", FILES)
def test_links_may_not_lead_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, "is a link out of the folder: copy the file itself there")
    assert_equal_or_none(read_dataset(folder, root=tmp_path))
    (folder / name).unlink()
    shutil.move(tmp_path / "elsewhere", folder / "inside")
    (folder / name).symlink_to(Path("inside") if name == "config.yaml" else Path("..") / "inside")
    assert_equal_or_none(read_dataset(folder))
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be given by a link
    assert_equal_or_none(read_dataset(tmp_path / "link"))
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refused(folder)


def assert_equal_or_none(dataset: CircuitDataset | None) -> None:
    assert dataset is not None
    assert_equal(dataset, draw(with_unitaries=True))


def test_a_linked_folder_of_tensors(folder: Path, tmp_path: Path) -> None:
    (folder / "dataset").rename(tmp_path / "tensors")
    (folder / "dataset").symlink_to(tmp_path / "tensors")
    refused(folder, "is a link out of the folder")


def test_two_data_sets_in_a_folder(folder: Path) -> None:
    shutil.copy(folder / "config.yaml", folder / "more.yaml")
    shutil.copy(folder / f"{DS}_x.safetensors", folder / "more_x.safetensors")
    refused(folder, "holds several data sets of genQC, dataset/ds_x and more_x: give each a folder of its own")


# ----------------------------------------------------------------------------------------- hostile pickles


class Call:
    """Pickles to a call of `os.mkdir`."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def by_hand(witness: Path, opcodes: bytes) -> bytes:
    """A pickle of which WITNESS is the path, as text."""
    return opcodes.replace(b"WITNESS", b"X" + struct.pack("<I", len(str(witness))) + str(witness).encode())


def pickles(witness: Path) -> dict[str, bytes]:
    """Pickles that call `os.mkdir(witness)`, each in another way."""
    text = np.array(["a"] * 6)
    return {
        "reduce": pickle.dumps({"0": Call(witness)}, protocol=2),
        "beside the texts": pickle.dumps({"0": text, "1": Call(witness)}, protocol=5),
        "in the array": pickle.dumps({"0": np.array([Call(witness)], dtype=object)}, protocol=4),
        "the old way": b"cos\nmkdir\n(V" + str(witness).encode() + b"\ntR.",
        "as an instance": b"(V" + str(witness).encode() + b"\nios\nmkdir\n.",
        "through builtins": by_hand(
            witness, b"\x80\x02cbuiltins\neval\nX\x10\x00\x00\x00__import__('os')\x85R0cos\nmkdir\nWITNESS\x85R."
        ),
        "a dotted name": by_hand(witness, b"\x80\x04\x8c\x05numpy\x8c\x08os.mkdir\x93WITNESS\x85R."),
        "through numpy": by_hand(witness, b"\x80\x02cnumpy._core.multiarray\nos.mkdir\nWITNESS\x85R."),
        "state of a class": by_hand(witness, b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00xcos\nmkdir\nsbWITNESS\x85R."),
        "the registry": by_hand(witness, b"\x80\x02\x82\x01WITNESS\x85R."),
        "a persistent id": by_hand(witness, b"\x80\x02WITNESSQ."),
    }


def archive(data: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in {"ds/data.pkl": data, "ds/version": b"3\n", "ds/byteorder": b"little", **more}.items():
            file.writestr(name, content)
    return buffer.getvalue()


def old_format(data: bytes) -> bytes:
    """Before torch 1.6: a magic number, a version, the system, the object and the storages, each a pickle."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(value, protocol=2) for value in head) + data + pickle.dumps([], protocol=2)


def oldest_format(data: bytes) -> bytes:
    """Before torch 0.1.10: a tar of pickles."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as file:
        for name, content in (("storages", pickle.dumps(0)), ("tensors", pickle.dumps(0)), ("pickle", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "zip": archive,
    "compressed zip": lambda data: archive(data, zipfile.ZIP_DEFLATED),
    "script": lambda data: archive(data, **{"ds/constants.pkl": data, "ds/code/a.py": b"import os\n"}),
    "two pickles": lambda data: archive(pickle.dumps({"0": np.array(["a"] * 6)}, protocol=5), **{"x/data.pkl": data}),
    "old": old_format,
    "oldest": oldest_format,
    "bare": lambda data: data,
}


@pytest.mark.parametrize("key", ["x", "y", "U"])
@pytest.mark.parametrize("kind", FORMATS)
def test_pickles_that_call_functions(folder: Path, tmp_path: Path, key: str, kind: str) -> None:
    to_pt(folder)
    witness = tmp_path / "witness"
    for name, data in pickles(witness).items():
        (folder / f"{DS}_{key}.pt").write_bytes(FORMATS[kind](data))
        refused(folder, f"ds_{key}.pt' ")
        assert not witness.exists(), name


def test_the_pickles_are_dangerous(tmp_path: Path) -> None:
    """They would run, if read as others do: else the test above shows nothing."""
    ran = 0
    for data in pickles(tmp_path / "witness").values():
        with contextlib.suppress(Exception):
            pickle.loads(data)
        if (tmp_path / "witness").exists():
            ran += 1
            (tmp_path / "witness").rmdir()
    assert ran >= 6
    (tmp_path / "y.pt").write_bytes(old_format(pickles(tmp_path / "witness")["reduce"]))
    torch.load(tmp_path / "y.pt", weights_only=False)
    assert (tmp_path / "witness").exists()


def test_a_real_script_of_torch_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    to_pt(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Nothing()), tmp_path / "script.pt")
    for key in ("x", "y"):
        before = (folder / f"{DS}_{key}.pt").read_bytes()
        shutil.copy(tmp_path / "script.pt", folder / f"{DS}_{key}.pt")
        refused(folder, f"ds_{key}.pt' is damaged")
        (folder / f"{DS}_{key}.pt").write_bytes(before)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(1, dtype=torch.int32).expand(2**20, 2**20, 4), "a tensor is larger than its file"),
        (torch.zeros(6, 2, 4, dtype=torch.bfloat16), "x is float32, expected integers"),
        (torch.zeros(6, 2, 4, dtype=torch.uint16), "holds 'torch._utils._rebuild_tensor_v3', which is not read"),
        (torch.zeros(6, 2, 4, dtype=torch.complex64), "holds 'torch.ComplexFloatStorage', which is not read"),
        (np.zeros((6, 2, 4)), "x is float64, expected integers"),
        (np.zeros((6, 2, 4), dtype=np.complex64), "holds a numpy array of '<c8', which is not read"),
        (torch.zeros(6, 2, 4).to_sparse(), "which is not read"),
        (torch.zeros(6, 2, 4, device="meta"), "ds_x.pt'"),
        ({"1": torch.zeros(6, 2, 4)}, "holds nothing under the key '0', which is not read"),
        ([torch.zeros(6, 2, 4)], "holds a list or array of '_rebuild_tensor_v2', which is not read"),
        (["a", "b"], "x is object, expected integers"),
        (torch.nn.Linear(2, 2), "holds 'torch.nn.modules.linear.Linear', which is not read"),
        (3, "holds an object of kind 'int', which is not read"),
    ],
)
def test_other_things_in_a_tensor_file(folder: Path, content: Any, reason: str) -> None:
    to_pt(folder)
    torch.save(content, folder / f"{DS}_x.pt")
    refused(folder, reason)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_is_not_larger_than_it_looks(folder: Path, compression: int) -> None:
    to_pt(folder)
    content = bytearray(archive(b"}.", compression, **{"ds/data/0": b"\0" * 1000}))
    if compression == zipfile.ZIP_STORED:
        struct.pack_into("<II", content, content.rfind(b"PK\x01\x02") + 20, 2**30, 2**30)  # in the list of entries
    (folder / f"{DS}_x.pt").write_bytes(content)
    refused(folder, "it is compressed" if compression == zipfile.ZIP_DEFLATED else "its entries overlap")


@pytest.mark.parametrize(
    "change",
    [
        {"size": (6, 2, 5)},
        {"size": (6, 2, -4)},
        {"size": (6, 2, 2**70)},
        {"size": (6, 2, 4.0)},
        {"stride": (8, 4, 2)},
        {"stride": (8, 4, -1)},
        {"stride": (8, 4)},
        {"stride": (2**40, 4, 1)},
        {"storage_offset": 1},
        {"storage_offset": -1},
        {"storage_offset": 2**62},
        {"storage_offset": None},
    ],
)
def test_tensors_that_reach_out_of_their_file(folder: Path, change: dict[str, Any]) -> None:
    to_pt(folder)

    def write(**pieces: Any) -> None:
        buffer = io.BytesIO()
        Tensor.pieces = {**Tensor.right, **pieces}
        TensorPickler(buffer, protocol=2).dump({"0": Tensor()})
        (folder / f"{DS}_x.pt").write_bytes(archive(buffer.getvalue(), **{"ds/data/0": b"\0" * 192}))

    write(**change)
    refused(folder, "ds_x.pt' is damaged (")
    write()
    assert not read(folder).tokens.any()


def nested(depth: int) -> bytes:
    """A pickled tuple in a tuple in ..., which no function of Python can look through."""
    return b")" + b"\x85" * depth


def doubled(times: int) -> bytes:
    """A pickled tuple of twice the same tuple of twice ..., which no text can show."""
    return b")" + b"q\x01h\x01\x86" * times


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nIntStorage\n%sX\x03\x00\x00\x00cpuK0tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"%s%s(K\x08K\x04K\x01t\x89NtR"
NUMBERS = (
    b"cnumpy._core.numeric\n_frombuffer\n(%scnumpy\ndtype\nX\x02\x00\x00\x00i4\x89\x88\x87R(K\x03%stb"
    b"K\x06\x85X\x01\x00\x00\x00CtR"
)
ROOM_FOR_NUMBERS = b"\x96" + struct.pack("<Q", 2**40)


@pytest.mark.parametrize(
    "content",
    {
        "a key that cannot be hashed": b"})" + b"\x85" * 200_000 + b"K\x01s",
        "a set of such": b"\x8f(" + nested(100_000) + b"\x90",
        "tuples in tuples": nested(100_000),
        "lists in lists": b"]" * 100_000 + b"a" * (100_000 - 1),
        "a list in itself": b"]q\x00h\x00a",
        "records in records": b"ctorch\nIntStorage\nq\x00)R" + b"q\x01h\x00h\x01\x85R" * 30_000,
        "as a text": b"]" + nested(100_000) + b"a",
        "as the name of a file": TENSOR % (doubled(60), b"K\x00", b"(K\x06K\x02K\x04t"),
        "as a shape": TENSOR % (b"X\x01\x00\x00\x000", b"K\x00", doubled(60)),
        "texts as a shape": TENSOR % (b"X\x01\x00\x00\x000", b"K\x00", b"(X\x03\x00\x00\x00aaaJ\x00\x00\x00\x40t"),
        "large numbers": TENSOR % (b"X\x01\x00\x00\x000", b"K\x00", b"(" + (b"\x8a\xff" + b"\x7f" * 255) * 50 + b"t"),
        "as the order of bytes": NUMBERS % (b"C\x18" + bytes(24), nested(200_000)),
        "many in one": NUMBERS % (b"C\x18" + bytes(24), b"X\x0b\x00\x00\x00(99999999,)"),
        "room for more than there is": ROOM_FOR_NUMBERS,
        "a memo far out": b"Nr\xff\xff\xff\x7f0]",
        "a slot that is not there": b"h\x07",
        "an operation too much": b"aaaa",
    }.items(),
    ids=lambda item: item[0],
)
def test_pickles_that_exhaust_what_reads_them(folder: Path, content: tuple[str, bytes]) -> None:
    """They neither crash Python nor take minutes or gigabytes."""
    pickled = b"\x80\x02" + content[1] + b"."
    (folder / f"{DS}_y.pt").write_bytes(archive(pickled, **{"ds/data/0": bytes(192)}))
    refused(folder, "ds_y.pt'")


def test_a_text_stored_once_may_be_every_label(folder: Path) -> None:
    """A list of references takes the memory of one text, whatever its length."""
    save_texts(folder, ["x" * 9_000] * 6)
    dataset = read(folder)
    assert dataset.prompts == ("x" * 9_000,)
    assert not dataset.prompt_index.any()


class Tensor:
    """Pickles as torch pickles a tensor, int32 [6, 2, 4], of any pieces."""

    storage: ClassVar = object()
    right: ClassVar = {
        "storage": storage,
        "storage_offset": 0,
        "size": (6, 2, 4),
        "stride": (8, 4, 1),
        "requires_grad": False,
        "backward_hooks": OrderedDict(),
    }
    pieces: ClassVar = right

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, tuple(self.pieces.values())


class TensorPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.IntStorage, "0", "cpu", 48) if value is Tensor.storage else None


# ---------------------------------------------------------------------------------------------------- volume


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def corrupt(folder: Path, trial: int, rng: np.random.Generator, witness: Path) -> str:
    """Damage a copy of a data set in a way that `trial` chooses; returns the file whose content may have changed."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    name = names[int(rng.integers(len(names)))]
    file, content = folder / name, (folder / name).read_bytes()
    evil = list(pickles(witness).values())[int(rng.integers(11))]
    tensors = [name for name in names if name.endswith((".safetensors", ".pt")) and not name.endswith("_y.pt")]
    tensor = folder / tensors[int(rng.integers(len(tensors)))]
    match trial % 10:
        case 0 | 1:
            file.write_bytes(flip(content, rng))
            return name
        case 2:
            file.write_bytes(content[: int(rng.integers(len(content)))])
        case 3:
            for _ in range(int(rng.integers(1, 9))):
                content = flip(content, rng)
            file.write_bytes(content)
            return name
        case 4:
            shapes = (
                lambda array: array[:-1],
                lambda array: array[None],
                lambda array: array.reshape(-1),
                lambda array: array[..., :1],
                lambda array: array[:0],
                lambda array: np.repeat(array, 2, axis=0),
            )
            rewrite(tensor, shapes[int(rng.integers(len(shapes)))])
        case 5:
            kind = (np.float64, np.complex64, bool, np.uint8)[int(rng.integers(4))]
            rewrite(tensor, lambda array: array.astype(kind))
            return str(tensor.relative_to(folder))
        case 6:
            wrap = list(FORMATS.values())[int(rng.integers(len(FORMATS)))]
            victims = [name for name in names if name != "config.yaml"]
            victim = folder / victims[int(rng.integers(len(victims)))]
            victim.write_bytes(wrap(evil))
        case 7:
            text = (folder / "config.yaml").read_text().split("\n", 1)[1]
            targets = ["os.system", "!!python/object/apply:os.mkdir ['" + str(witness) + "']", "genQC.a.b", "[]", "''"]
            (folder / "config.yaml").write_text(f"target: {targets[int(rng.integers(5))]}\n{text}")
        case 8:
            shutil.move(file, witness.with_name(f"outside {trial}"))
            paths = ["../" * int(rng.integers(1, 4)) + "outside", str(witness.with_name(f"outside {trial}"))]
            text = (folder / "config.yaml").read_text() if name != "config.yaml" else "target: x\n"
            (folder / "config.yaml").write_text(f"{text}\nsave_path: {paths[int(rng.integers(2))]}\n")
        case 9:
            shutil.move(file, witness.with_name(f"outside {trial}"))
            file.symlink_to(witness.with_name(f"missing {trial}" if rng.random() < 0.5 else "nowhere"))
    return ""


def rewrite(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the array of a file of either kind."""
    if file.suffix == ".safetensors":
        ((key, array),) = load_file(file).items()
        save_file({key: np.ascontiguousarray(change(array))}, file)
    else:
        array = torch.load(file, weights_only=False)["0"].numpy()
        torch.save({"0": torch.from_numpy(np.ascontiguousarray(change(array)))}, file)


VARIANTS = ["native", "native with unitaries", "single", "single with unitaries", "mixed", "pt", "hub"]


def variant(kind: str, path: Path) -> CircuitDataset:
    """Write one of the layouts and return what is in it."""
    dataset = draw(0, 6, with_unitaries="unitaries" in kind or kind == "pt")
    if kind.startswith("native"):
        save_dataset(dataset, path, {})
        return dataset
    if kind == "mixed":
        dataset = merge_datasets([dataset, draw(1, 6, 3)])
    export_dataset(dataset, path)
    if kind == "pt":
        to_pt(path)
    if kind == "hub":
        for file in list((path / "dataset").iterdir()):
            file.rename(path / file.name.replace("ds_", "dataset_"))
        (path / "dataset").rmdir()
    return read(path)


@pytest.mark.parametrize("kind", VARIANTS)
def test_hundreds_of_damaged_folders(tmp_path: Path, kind: str) -> None:
    """None runs code, none raises anything but `DatasetFormatError`, and none passes for other data than it holds."""
    expected = variant(kind, tmp_path / "good")
    witness = tmp_path / "witness"
    rng = np.random.default_rng(VARIANTS.index(kind))
    refusals, trials = 0, 150 if kind.startswith("native") else 60
    for trial in range(trials):
        folder = tmp_path / "copy"
        shutil.copytree(tmp_path / "good", folder)
        changed = corrupt(folder, trial, rng, witness)
        message = ""
        try:
            dataset = dataset_loader().load_dataset(folder)
        except DatasetFormatError as problem:
            message = str(problem)
        if message:
            refusals += 1
            assert "\n" not in message
        else:
            # genQC's tensors have no checksum: a flipped bit can make another circuit of the same data set.
            key = "" if kind.startswith("native") else Path(changed).stem.rpartition("_")[2]
            fields = {"x": ("tokens", "sizes"), "U": ("targets",)}.get(key, ())
            assert_equal(replace(dataset, **{field: getattr(expected, field) for field in fields}), expected)
            assert dataset.tokens.shape == expected.tokens.shape
        assert not witness.exists()
        shutil.rmtree(folder)
    assert refusals >= 0.7 * trials


# ------------------------------------------------------------------------------------------------------- hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, of a repository with one data set at its root and two in `parts`; returns the snapshot."""
    cache = tmp_path / "datasets--me--circuits"
    snapshot = cache / "snapshots" / "0123"
    export_dataset(draw(0, 6), tmp_path / "made" / "root")
    export_dataset(draw(1, 6), tmp_path / "made" / "parts" / "a")
    export_dataset(draw(2, 6, 3), tmp_path / "made" / "parts" / "b")
    (cache / "blobs").mkdir(parents=True)
    for number, file in enumerate(path for path in (tmp_path / "made").rglob("*") if path.is_file()):
        file.rename(cache / "blobs" / str(number))
        name = file.relative_to(tmp_path / "made").as_posix().removeprefix("root/").replace("dataset/ds", "dataset")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(cache / "blobs" / str(number))
    return snapshot


def test_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def download(repository: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        calls.append((repository, repo_type, allow_patterns))
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loader = dataset_loader()
    assert_equal(loader.load_dataset("hf://me/circuits"), draw(0, 6))
    assert_equal(loader.load_dataset(Path("hf://me/circuits/parts/a")), draw(1, 6))
    assert_equal(loader.load_dataset("hf://me/circuits/parts"), merge_datasets([draw(1, 6), draw(2, 6, 3)]))
    patterns = ["*.yaml", "*.safetensors", "*.pt", "*prompts.json", "README.md"]
    assert calls[0] == ("me/circuits", "dataset", patterns)
    assert calls[1][2] == [f"parts/a/{pattern}" for pattern in patterns]
    with pytest.raises(DatasetFormatError, match="'hf://me/circuits/none' has no YAML or tensors"):
        loader.load_dataset("hf://me/circuits/none")
    (hub / "config.yaml").unlink()
    (hub.parents[2] / "outside").write_text("target: x")
    (hub / "config.yaml").symlink_to(hub.parents[2] / "outside")
    with pytest.raises(DatasetFormatError, match="is a link out of the folder"):
        loader.load_dataset("hf://me/circuits")


def test_the_hubs_cache_as_a_plain_path(hub: Path, tmp_path: Path) -> None:
    loader = dataset_loader()
    assert_equal(loader.load_dataset(hub), draw(0, 6))
    assert_equal(loader.load_dataset(hub / "parts"), merge_datasets([draw(1, 6), draw(2, 6, 3)]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").symlink_to(hub / "parts" / "a")
    save_dataset(draw(3, 6), hub.parents[2] / "native", {})
    for number, file in enumerate(path for path in (hub.parents[2] / "native").rglob("*") if path.is_file()):
        blob = hub.parents[1] / "blobs" / f"native{number}"
        file.rename(blob)
        file.symlink_to(blob)
    (hub.parents[2] / "native").rename(hub / "native")
    (tmp_path / "mine" / "b").symlink_to(hub / "native")
    assert_equal(loader.load_dataset(tmp_path / "mine"), merge_datasets([draw(1, 6), draw(3, 6)]))
    outside = tmp_path / "outside"
    (hub / "config.yaml").resolve().rename(outside)
    (hub / "config.yaml").unlink()
    (hub / "config.yaml").symlink_to(outside)
    with pytest.raises(DatasetFormatError, match="is a link out of the folder"):
        loader.load_dataset(hub)


@pytest.mark.parametrize(
    "address", ["hf://", "hf://me", "hf://me/../x", "hf://me/a/*", "hf://me/a/..", "hf://me/a b", "hf://.x/y"]
)
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(DatasetFormatError, match=r"expected hf://owner/name or hf://owner/name/folder"):
        dataset_loader().load_dataset(address)


RESPONSE = httpx2.Response(401, request=httpx2.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("problem", "content"),
    [
        (
            errors.GatedRepoError("a\nb", response=RESPONSE),
            "access is restricted: request access on its page, then run `hf",
        ),
        (
            errors.RepositoryNotFoundError("a\nb", response=RESPONSE),
            "no such data set, or it is private: check the name",
        ),
        (errors.LocalEntryNotFoundError("a\nb"), "the Hub cannot be reached and the cache does not hold all of it"),
        (errors.HfHubHTTPError("server\nerror", response=RESPONSE), "server"),
        (httpx2.ReadTimeout(""), "ReadTimeout; try again"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("odd"), "odd; try again, or give a local folder"),
    ],
)
def test_what_can_go_wrong_with_a_download(monkeypatch: pytest.MonkeyPatch, problem: Exception, content: str) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise problem

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DatasetFormatError, match="cannot download 'hf://me/circuits': ") as caught:
        dataset_loader().load_dataset("hf://me/circuits")
    assert "\n" not in str(caught.value)
    assert content in str(caught.value)


def test_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DatasetFormatError, match="HF_HUB_OFFLINE=1 is set and the cache does not hold all of it"):
        dataset_loader().load_dataset("hf://me/circuits")
