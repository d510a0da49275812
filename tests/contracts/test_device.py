"""What a training step computes on the device is what numpy computes: ids, and the labels of beginnings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import prefix_rank_vectors
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.pipeline.decoding import DeviceDecoder, widen
from quantum_diffusion.tasks.prefix_labels import SchmidtRankPrefixes

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
    found = SchmidtRankPrefixes(table)(torch.from_numpy(ids.astype(np.int64)).to(device))
    np.testing.assert_array_equal(found.cpu().numpy(), prefix_rank_vectors(ids, table) == 2)
