"""Training on gates with angles: a model learns from exact angles, is saved, opened, and continued bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.matrices import from_two_channels
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.stream import CircuitStream
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.targets import TargetSamples
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig
from tests.contracts.test_angles_models import ENCODERS, QUBITS, configuration, generate
from tests.integration.test_training import InterruptAt, assert_same, metrics_without_times, train


@pytest.fixture(scope="module", params=["UNITARY", "STATE"])
def data(request: pytest.FixtureRequest) -> CircuitDataset:
    """60 circuits of 2 qubits with their unitaries or states."""
    return generate(condition_type=request.param, angles=("uniform", "eighths", "small", "repeated"))


def sample(pipeline: DiffusionPipeline, data: CircuitDataset, count: int = 12) -> TargetSamples:
    assert data.targets is not None
    prompts = [data.prompts[number] for number in data.prompt_index[:count]]
    samples = pipeline.sample(pipeline.requests(prompts, list(from_two_channels(data.targets[:count]))), 0)
    assert isinstance(samples, TargetSamples)
    return samples


def test_a_saved_model_samples_as_the_trained_one(make_config: MakeConfig, data: CircuitDataset) -> None:
    trainer = DiffusionTrainer(configuration(make_config, data.condition_type, augment=["permute_qubits"]))
    pipeline = trainer.setup_model(data)
    before = {name: weight.clone() for name, weight in pipeline.network.state_dict().items()}
    state = trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    assert (summary.status, state.step) == ("finished", 4)
    assert any(not torch.equal(weight, before[name]) for name, weight in pipeline.network.state_dict().items())
    pipeline.network = state.averaged_network
    one, other = sample(pipeline, data), sample(load_pipeline(summary.folder), data)
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.angles, other.angles)
    np.testing.assert_array_equal(one.infidelities, other.infidelities)
    assert one.matches.any(), "refinement alone finds some"


@pytest.mark.parametrize("source", ["data set", "stream"])
def test_a_continued_run_is_the_same_bit_for_bit(
    make_config: MakeConfig, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = generate()
    stream = tmp_path / "stream.yaml"
    stream.write_text(
        "gate_set: [h, cx, rx, cp]\nnum_qubits: 2\ncondition_type: UNITARY\nnum_samples: 60\nmax_gates: 5\nn_jobs: 1\n"
        "angles: [uniform, eighths]\n"
    )

    def fit(name: str, *observers: Any) -> Any:
        general = {"output_path": str(tmp_path / name)} | (
            {"dataset": f"stream:{stream}"} if source == "stream" else {}
        )
        config = configuration(make_config, num_epochs=2, general=general)
        trainer = DiffusionTrainer(config, observers)
        trainer.setup_model(data if source == "data set" else None)
        state = trainer.compile_model()
        trainer.save_model(trainer.train())
        return state

    whole = fit("whole")
    fit("parts", InterruptAt(whole.step // 2 + 1))
    torch.rand(7)
    parts = fit("parts")
    assert_same(whole.state_dict(), parts.state_dict())
    assert metrics_without_times(tmp_path / "whole") == metrics_without_times(tmp_path / "parts")


def test_streamed_circuits_get_the_targets_of_their_exact_angles(make_config: MakeConfig) -> None:
    for task in ENCODERS:
        settings = DatasetConfig(
            gate_set=("h", "cx", "rx", "u"),
            num_qubits=QUBITS,
            condition_type=task,
            num_samples=80,
            max_gates=5,
            n_jobs=1,
        )
        epoch = CircuitStream(settings, 0, 0.1).epoch(0)
        assert epoch.targets is None
        circuits = epoch.labelled(np.arange(80))
        exact = epoch.task.targets_of(circuits.ids, circuits.table, circuits.angles)
        pipeline = DiffusionTrainer(configuration(make_config, task)).setup_model(epoch)
        assert circuits.angles is not None
        made = pipeline._targets_of(torch.from_numpy(circuits.ids).long(), torch.from_numpy(circuits.angles).float())
        assert made is not None
        overlap = np.einsum("nij,nij->n", from_two_channels(made.numpy()).conj(), exact)
        np.testing.assert_allclose(np.abs(overlap), exact.shape[2], atol=1e-5)
        on_grid = epoch.task.targets_of(circuits.ids, circuits.table)
        assert np.abs(on_grid - exact).max() > 0.01


def test_a_tiny_run_learns(make_config: MakeConfig) -> None:
    data = generate(num_samples=100, max_gates=2)
    config = configuration(make_config, num_epochs=25, learning_rate=1e-2, validation_fraction=0.0)
    losses = []
    trainer = DiffusionTrainer(config)
    pipeline = trainer.setup_model(data)
    trainer.compile_model()
    batches = list(trainer.training_batches.epoch(0))

    def loss() -> float:
        with torch.no_grad():
            found = [pipeline.training_loss(b, Noise(torch.Generator().manual_seed(1))).total.item() for b in batches]
        return float(np.mean(found))

    losses.append(loss())
    trainer.train()
    losses.append(loss())
    assert losses[1] < 0.8 * losses[0]


def test_runs_on_a_data_set_of_each_task_finish(make_config: MakeConfig, data: CircuitDataset) -> None:
    state, summary = train(configuration(make_config, data.condition_type, num_epochs=1), data)
    assert (state.step, summary.status) == (4, "finished")
