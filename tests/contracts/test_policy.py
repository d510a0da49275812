"""The policy backbone, and what steps of circuits for Schmidt rank vectors are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from qiskit.quantum_info import DensityMatrix, partial_trace
from torch import nn

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.masked import MaskedDiffusion
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models import prefix_encoder
from quantum_diffusion.models.policy import InstructionPolicy
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.evolution import StateEvolution, TableauEvolution
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

STEPS, WIDTH, VOCABULARY = 6, 16, 9
KINDS = ["state", "srv", "pairs", "tableau"]


def stirred(network: nn.Module) -> None:
    """Zero-initialised layers hide mistakes: give every weight a size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def policy() -> InstructionPolicy:
    network = InstructionPolicy(
        num_instructions=VOCABULARY, max_steps=STEPS + 2, condition_dim=8, width=WIDTH, depth=2, feed_forward=2
    )
    stirred(network)
    return network


def with_prefixes(make_config: MakeConfig, kind: str, **loop: Any) -> TrainingConfig:
    values = make_config(scheduler_params={"suffix_share": 1, "order": "left_to_right"}, **loop).model_dump()
    values["model"] = {"type": "policy", "params": {"width": WIDTH, "depth": 2, "feed_forward": 2}}
    values["prefix_encoder"] = {"type": kind, "params": {"width": WIDTH, "depth": 1}}
    return TrainingConfig.model_validate(values)


@torch.no_grad()
def test_one_step_some_steps_and_all_steps_are_predicted_alike(policy: InstructionPolicy) -> None:
    generator = torch.Generator().manual_seed(1)
    condition, shown = torch.randn(5, 3, 8, generator=generator), torch.randn(5, STEPS, 8, generator=generator)
    ids, rank = torch.zeros(5, STEPS, dtype=torch.int64), torch.arange(STEPS).expand(5, -1)
    whole, _ = policy(ids, rank, condition, shown)
    some = torch.rand(5, STEPS, generator=generator) < 0.5
    alone = policy.at(some, condition, shown[some])
    torch.testing.assert_close(alone[some], whole[some])
    assert not alone[~some].any()
    memory = policy.remember(condition, STEPS)
    for step in range(STEPS):
        one = policy.read(memory, ids, rank, torch.full((5, 1), step), shown[:, step])
        torch.testing.assert_close(one[:, 0], whole[:, step])
    chosen = torch.tensor([3, 3, 0])
    again = policy.read(
        memory.take(chosen), ids[chosen], rank[chosen], torch.zeros(3, 1, dtype=torch.int64), shown[chosen, 0]
    )
    torch.testing.assert_close(again[:, 0], whole[chosen, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_after_the_end_cost_nothing_and_change_nothing(
    make_config: MakeConfig, dataset: CircuitDataset, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = DiffusionPipeline(pipeline_config(with_prefixes(make_config, kind), dataset), seed=2)
    stirred(pipeline.network)
    batch = next(iter(BatchLoader(dataset, np.arange(len(dataset)), 48, 0, shuffle=False).epoch(0)))
    found = pipeline.training_loss(batch, Noise(torch.Generator().manual_seed(3))).total
    monkeypatch.setattr(InstructionPolicy, "at", None)  # so that it is not used
    monkeypatch.setattr("quantum_diffusion.pipeline.diffusion.InstructionPolicy", type(None))
    expected = pipeline.training_loss(batch, Noise(torch.Generator().manual_seed(3))).total
    torch.testing.assert_close(found, expected)
    ids = pipeline.decode(batch.tokens)
    other = torch.where(MaskedDiffusion._up_to_the_end(ids), ids, 1)  # gates behind the end
    assert int((other != ids).sum()) > 0
    process = MaskedDiffusion(suffix_share=1)
    rank = torch.arange(ids.shape[1]).expand(len(ids), -1)

    def denoise(ids: torch.Tensor, _: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return torch.where(counts[..., None], 0.1, 50.0) * torch.arange(1 + len(pipeline.table))

    torch.testing.assert_close(process.loss(denoise, ids, rank), process.loss(denoise, ids.clone(), rank))
    assert float(process.loss(denoise, ids, rank).max()) < 10


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_circuits_end(make_config: MakeConfig, dataset: CircuitDataset, kind: str) -> None:
    config = with_prefixes(make_config, kind, optimizer="muon", adamw_rate=0.3, num_epochs=2)
    trainer = DiffusionTrainer(config)
    pipeline = trainer.setup_model(dataset)
    before = {name: p.clone() for name, p in pipeline.network.named_parameters()}
    trainer.compile_model()
    trainer.train()
    unmoved = [name for name, p in pipeline.network.named_parameters() if torch.equal(p, before[name])]
    assert unmoved == []
    samples = pipeline.sample([pipeline.config.prompts[0]] * 60, 0, SamplingConfig(guidance_scale=1.0))
    raw = samples.report.ids
    ended = np.cumsum(raw == NO_GATE, axis=1) > 0
    assert (raw[ended] == NO_GATE).all()
    assert ended.any()


@pytest.mark.parametrize("gates", [["h", "cx"], ["h", "cx", "t", "ccx", "s"]])
def test_shown_entanglement_is_the_label(gates: list[str]) -> None:
    for qubits in (2, 4, 6):
        if qubits == 2 and "ccx" in gates:
            continue
        table = instruction_table(GatePool(gates), qubits)
        ids = random_ids(np.random.default_rng(qubits), table, 3000, 0, 20)
        expected = schmidt_rank_vectors(ids, table)[:, :qubits] == 2
        states = StateEvolution(table, torch.complex64).after_each(torch.from_numpy(ids.astype(np.int64)))[:, -1]
        shown = torch.view_as_real(states).movedim(-1, -2)
        assert torch.equal(prefix_encoder._entanglement(shown).bool(), torch.from_numpy(expected))
        if table.pool.is_clifford:
            tableaus = TableauEvolution(table).after_each(torch.from_numpy(ids.astype(np.int64)))[:, -1]
            assert torch.equal(prefix_encoder._tableau(tableaus)[:, -qubits:].bool(), torch.from_numpy(expected))


def test_shown_pairs_are_reduced_states() -> None:
    table = instruction_table(GatePool(["h", "cx", "t"]), 4)
    ids = random_ids(np.random.default_rng(0), table, 12, 12, 12)
    states = StateEvolution(table, torch.complex64).after_each(torch.from_numpy(ids.astype(np.int64)))[:, -1]
    shown = prefix_encoder._pairs(torch.view_as_real(states).movedim(-1, -2))
    pairs = [(high, low) for high in range(4) for low in range(high)]
    upper = np.triu_indices(4, 1)
    for row, state in enumerate(states.numpy()):
        for place, (high, low) in enumerate(pairs):
            others = [qubit for qubit in range(4) if qubit not in (high, low)]
            reduced = partial_trace(DensityMatrix(state), others).data
            found = shown[row, 16 * place : 16 * place + 16].numpy()
            np.testing.assert_allclose(found[:4], np.diag(reduced).real, atol=1e-5)
            off = found[4:].reshape(6, 2) / 2
            np.testing.assert_allclose(off[:, 0] + 1j * off[:, 1], reduced[upper], atol=1e-5)


def test_what_does_not_go_together_is_refused(make_config: MakeConfig) -> None:
    values = with_prefixes(make_config, "state").model_dump()
    for change, words in [
        ({"prefix_encoder": {"type": "none"}}, "model.type=policy sees only the remaining target"),
        (
            {"model": {"type": "transformer"}, "scheduler": {"type": "ddim"}},
            "prefix_encoder conditions .* or prefix_encoder.type=none",
        ),
        ({"training": {"optimizer": "adamw", "adamw_rate": 0.5}}, "adamw_rate=0.5 is for training.optimizer=muon"),
    ]:
        with pytest.raises(ValueError, match=words):
            TrainingConfig.model_validate(values | change)
    settings = DatasetConfig(gate_set=["h", "cx", "t"], num_samples=20, max_gates=4, n_jobs=1)
    not_clifford = DatasetGenerator(settings).generate()[0]
    with pytest.raises(ConfigError, match="tableau follows Clifford gates"):
        DiffusionPipeline(pipeline_config(with_prefixes(make_config, "tableau"), not_clifford))
    wide = DatasetConfig(gate_set=["h", "cx"], num_qubits=13, num_samples=20, max_gates=4, n_jobs=1)
    many_qubits = DatasetGenerator(wide).generate()[0]
    with pytest.raises(
        ConfigError, match=r"13 qubits, it holds 12 or less; use training\.prefix_encoder\.type=tableau"
    ):
        DiffusionPipeline(pipeline_config(with_prefixes(make_config, "state"), many_qubits))
    DiffusionPipeline(pipeline_config(with_prefixes(make_config, "tableau"), many_qubits))
