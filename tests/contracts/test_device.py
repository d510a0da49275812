"""What a training step computes on the device is what numpy computes: ids, and the labels of beginnings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import prefix_rank_vectors
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.config.schema.training import Symmetry
from quantum_diffusion.data import dataset as loading
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.augmentation import augment
from quantum_diffusion.pipeline.decoding import DeviceDecoder, widen
from quantum_diffusion.tasks.prefix_labels import schmidt_rank_prefixes
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
POOLS = {
    "two": (["h", "cx"], 4),
    "all": (list(GATES), 3),
    "wide": (["h", "s", "cx", "cz", "swap"], 9),
    "clifford": ([name for name in GATES if GatePool([name]).is_clifford], 5),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", POOLS)
def test_circuits_are_decoded_as_by_numpy(name: str, device: str) -> None:
    names, num_qubits = POOLS[name]
    table = instruction_table(GatePool(names), num_qubits)
    rng = np.random.default_rng(0)
    ids = random_ids(rng, table, 500, 0, 9)
    sizes = np.stack([rng.integers(1, num_qubits + 1, 500), rng.integers(0, 10, 500)], axis=1).astype(np.int16)
    padding = table.pool.padding_token
    garbage = rng.integers(-padding - 1, padding + 2, (500, num_qubits, 9)).astype(np.int8)
    decode = DeviceDecoder(table)
    for tokens in (encode_ids(ids, table), encode_ids(ids, table, sizes), garbage, garbage[:, :2]):
        expected = decode_tokens(widen(tokens, table), table.pool).ids
        found = decode(torch.from_numpy(tokens).to(device))
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", POOLS)
def test_labels_of_beginnings_are_those_of_numpy(name: str, device: str) -> None:
    names, num_qubits = POOLS[name]
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(1), table, 2000, 0, 12)
    found = schmidt_rank_prefixes(table)(torch.from_numpy(ids.astype(np.int64)).to(device))
    np.testing.assert_array_equal(found.cpu().numpy(), prefix_rank_vectors(ids, table) == 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("bucketed", [True, False])
@pytest.mark.parametrize("with_targets", [True, False])
def test_batches_of_circuits_kept_on_a_device_are_the_same(
    mixed_dataset: CircuitDataset,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    fits: bool,
    bucketed: bool,
    with_targets: bool,
) -> None:
    dataset = mixed_dataset
    if with_targets:
        targets = np.random.default_rng(0).normal(size=(len(dataset), 2, 8, 8)).astype(np.float32)
        dataset = replace(dataset, condition_type="UNITARY", targets=targets)
    if not fits:
        monkeypatch.setattr(loading, "_free_bytes", lambda device: 1000)
    options = {"bucketed": bucketed, "balance_prompts": True, "time_multiple": 4}
    table = instruction_table(dataset.gate_pool, dataset.num_qubits + 1)  # of a wider model
    decode = DeviceDecoder(table)
    plain, kept = (DatasetLoader(3).get_dataloaders(dataset, 5, 0.1, **options) for _ in range(2))
    for ours, theirs in zip(plain, kept, strict=True):
        theirs.keep_on(torch.device(device), decode)
        for epoch in range(2):
            pairs = list(zip(ours.epoch(epoch, 1), theirs.epoch(epoch, 1), strict=True))
            assert len(pairs) == len(ours) - 1
            for expected, found in pairs:
                assert found.tokens.device.type == (device if fits else "cpu")
                assert (found.ids is not None) == fits
                if found.ids is not None:
                    assert found.ids.cpu().tolist() == DeviceDecoder(table)(expected.tokens).tolist()
                for name in ("tokens", "prompt_ids", "sizes", "targets"):
                    first, second = getattr(expected, name), getattr(found, name)
                    assert (first is None) == (second is None) == (name == "targets" and not with_targets)
                    if first is not None:
                        torch.testing.assert_close(second.cpu(), first, rtol=0, atol=0)


@pytest.mark.parametrize("symmetries", [(), ("permute_qubits",), ("invert",)])
def test_circuits_decoded_once_have_the_loss_of_those_decoded_in_each_step(
    make_config: MakeConfig, symmetries: tuple[Symmetry, ...]
) -> None:
    values = {"gate_set": ["h", "cx", "x"], "num_qubits": 2, "max_gates": 4, "num_samples": 60, "n_jobs": 1}
    data, _ = DatasetGenerator(DatasetConfig.model_validate(values | {"condition_type": "UNITARY"})).generate()
    pipeline = DiffusionTrainer(make_config()).setup_model(data)
    losses = []
    for decode in (None, pipeline.decode):
        loader, _ = DatasetLoader(0).get_dataloaders(data, 20)
        loader.keep_on(torch.device("cpu"), decode)
        noise = Noise(torch.Generator().manual_seed(0))
        batches = [augment(batch, symmetries, noise) for batch in loader.epoch(0)]
        assert all((batch.ids is not None) == (decode is not None and not symmetries) for batch in batches)
        losses.append([pipeline.training_loss(batch, noise).total.detach().item() for batch in batches])
    assert losses[0] == losses[1]
