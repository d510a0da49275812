"""Augmented circuits have the augmented unitaries: simulated anew, for all shapes a batch may have."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import compact, gate_count, instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels, from_two_channels
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import decode_tokens, encode_ids
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.augmentation import augment, check_augmentation

POOL = GatePool(["h", "cx", "z", "x", "ccx", "swap"])
QUBITS, STEPS = 4, 7


def make_batch(count: int, seed: int = 0) -> Batch:
    """Random circuits of 3 and 4 qubits and all lengths, with their unitaries."""
    rng = np.random.default_rng(seed)
    table = instruction_table(POOL, QUBITS)
    ids = compact(random_ids(rng, table, count, 0, STEPS))
    widths = rng.integers(3, QUBITS + 1, count)
    ids[table.uses_qubit[ids][:, :, 3] & (widths == 3)[:, None]] = 0
    ids = compact(ids)
    sizes = np.stack([widths, gate_count(ids)], axis=1)
    return Batch(
        tokens=torch.from_numpy(encode_ids(ids, table, sizes.astype(np.int16)).astype(np.int64)),
        prompt_ids=torch.zeros(count, dtype=torch.int64),
        sizes=torch.from_numpy(sizes),
        targets=torch.from_numpy(as_two_channels(unitaries(ids, table))),
    )


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def simulated(batch: Batch) -> np.ndarray:
    report = decode_tokens(batch.tokens.numpy(), POOL)
    assert report.valid.all()
    return unitaries(report.ids, instruction_table(POOL, QUBITS))


@pytest.mark.parametrize("names", [["permute_qubits"], ["invert"], ["permute_qubits", "invert"]])
def test_an_augmented_circuit_has_the_augmented_unitary(names: list[str]) -> None:
    batch = make_batch(2000)
    augmented = augment(batch, names, noise())
    np.testing.assert_allclose(simulated(augmented), from_two_channels(augmented.targets.numpy()), atol=1e-6)
    changed = (augmented.tokens != batch.tokens).flatten(1).any(dim=1).float().mean()
    assert changed > 0.3
    assert torch.equal(augmented.sizes, batch.sizes)
    padded = augmented.tokens == POOL.padding_token
    assert torch.equal(padded, batch.tokens == POOL.padding_token)  # circuits keep their place in the batch


def test_tokens_cut_to_a_bucket_keep_their_whole_unitaries() -> None:
    batch = make_batch(200)
    narrow = batch.sizes[:, 0] == 3
    assert batch.targets is not None
    cut = Batch(batch.tokens[narrow, :3], batch.prompt_ids[narrow], batch.sizes[narrow], targets=batch.targets[narrow])
    augmented = augment(cut, ["permute_qubits"], noise())
    padding = torch.full_like(augmented.tokens[:, :1], POOL.padding_token)
    widened = replace(augmented, tokens=torch.cat([augmented.tokens, padding], dim=1))
    np.testing.assert_allclose(simulated(widened), from_two_channels(augmented.targets.numpy()), atol=1e-6)
    assert (augmented.tokens != cut.tokens).any()


def test_every_renaming_of_qubits_comes() -> None:
    table = instruction_table(POOL, 3)
    ids = np.full(
        (600, 1), next(i for i, g in enumerate(table.instructions, 1) if (g.gate, g.qubits) == ("cx", (0, 1)))
    )
    tokens = torch.from_numpy(encode_ids(ids.astype(np.int16), table).astype(np.int64))
    batch = Batch(tokens, torch.zeros(600, dtype=torch.int64), torch.tensor([[3, 1]] * 600))
    found, counts = torch.unique(augment(batch, ["permute_qubits"], noise()).tokens, dim=0, return_counts=True)
    assert len(found) == 6
    assert counts.min() > 60


def test_augmentation_is_decided_by_the_noise_alone() -> None:
    batch = make_batch(50)
    first, again, other = (augment(batch, ["permute_qubits", "invert"], noise(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    assert augment(batch, [], noise()) is batch


@pytest.mark.parametrize(
    ("gates", "with_unitaries", "names", "message"),
    [
        (["h", "cx"], False, ["invert"], "is for data sets of condition_type UNITARY"),
        (["h", "s"], True, ["invert"], "the inverse of 's' is another gate ('sdg')"),
        (["h", "cx"], True, ["mirror"], "mirror"),
    ],
)
def test_what_would_change_the_request_is_refused(
    gates: list[str], with_unitaries: bool, names: list[str], message: str
) -> None:
    dataset = CircuitDataset(
        tokens=np.zeros((1, 2, 1), dtype=np.int8),
        prompt_index=np.zeros(1, dtype=np.int32),
        prompts=("Compile using: ['h']",),
        sizes=np.array([[2, 1]], dtype=np.int16),
        gate_pool=GatePool(gates),
        condition_type="UNITARY" if with_unitaries else "SRV",
        targets=np.zeros((1, 2, 4, 4), dtype=np.float32) if with_unitaries else None,
    )
    check_augmentation(dataset, ["permute_qubits"] if with_unitaries else [])
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(")", r"\)")):
        check_augmentation(dataset, names)
