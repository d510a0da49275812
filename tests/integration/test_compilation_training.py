"""Training on unitaries: every kind of model saves, loads and samples; continued runs; learning; the paper's preset."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.matrices import from_two_channels
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.pipeline.checkpoint import load_pipeline
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.tasks.targets import TargetSamples
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, repeated
from tests.contracts.test_compilation import ENCODERS, MODELS, POOL, with_encoder
from tests.integration.test_training import InterruptAt, assert_same, metrics_without_times, train


def generate(**changes: Any) -> CircuitDataset:
    values = {"gate_set": POOL.names, "condition_type": "UNITARY", "min_gates": 1, "max_gates": 5, "n_jobs": 1}
    return DatasetGenerator(DatasetConfig(**{**values, **changes})).generate()[0]


@pytest.fixture(scope="module")
def data() -> CircuitDataset:
    """60 circuits of 3 qubits with their unitaries."""
    return generate(num_samples=60)


def sample(pipeline: Any, data: CircuitDataset, count: int, seed: int = 0) -> TargetSamples:
    """Ask for the unitaries of a data set's first circuits, without guidance."""
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    assert data.targets is not None
    prompts = [data.prompts[number] for number in data.prompt_index[:count]]
    options = SamplingConfig(guidance_scale=1.0)
    samples = pipeline.sample(pipeline.requests(prompts, from_two_channels(data.targets[:count])), seed, options)
    assert isinstance(samples, TargetSamples)
    return samples


@pytest.mark.parametrize(("model", "scheduler", "encoder"), MODELS, ids=map("-".join, MODELS))
def test_a_saved_model_samples_as_the_trained_one(
    make_config: MakeConfig, data: CircuitDataset, tmp_path: Path, model: str, scheduler: str, encoder: str
) -> None:
    loss = {} if scheduler == "masked" else {"objective": "epsilon", "loss": "mse"}
    trainer = DiffusionTrainer(with_encoder(make_config(model, scheduler, **loss, joint_dropout=True), encoder))
    pipeline = trainer.setup_model(data)
    state = trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    assert (summary.status, state.step) == ("finished", 4)
    loaded = load_pipeline(summary.folder)
    pipeline.network = state.averaged_network
    before, after = sample(pipeline, data, 16), sample(loaded, data, 16)
    assert_same(before.ids.tolist(), after.ids.tolist())
    assert before.infidelities.tolist() == after.infidelities.tolist()
    assert before.report.reasons == after.report.reasons


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_is_the_same_when_the_run_is_continued(
    make_config: MakeConfig, data: CircuitDataset, tmp_path: Path, accumulate: int
) -> None:
    """The encoder drops parts of its updates, drawn from torch's own generator, wherever that may stand."""

    def config(name: str, dropout: float = 0.2) -> TrainingConfig:
        general = {"output_path": str(tmp_path / name)}
        loop: dict[str, Any] = {"objective": "epsilon", "loss": "mse", "num_epochs": 2}
        values = make_config("unet", "ddim", general=general, accumulate_batches=accumulate, **loop).model_dump()
        params = ENCODERS["convolution"]["params"] | {"dropout": dropout}
        return TrainingConfig.model_validate(values | {"unitary_encoder": {"type": "convolution", "params": params}})

    whole, _ = train(config("whole"), data)
    torch.manual_seed(123)
    train(config("parts"), data, InterruptAt(whole.step // 2 + 1))
    torch.rand(7)
    parts, _ = train(config("parts"), data)
    assert_same(whole.state_dict(), parts.state_dict())
    assert metrics_without_times(tmp_path / "whole") == metrics_without_times(tmp_path / "parts")

    without, _ = train(config("without", dropout=0.0), data)
    differ = [
        name
        for name, weight in whole.network.state_dict().items()
        if not torch.equal(weight, without.network.state_dict()[name])
    ]
    assert any(name.startswith("unitary_encoder.coarse.") for name in differ), "there is dropout"


def test_models_without_dropout_leave_torch_s_generator_alone(make_config: MakeConfig, data: CircuitDataset) -> None:
    before = torch.get_rng_state()
    train(with_encoder(make_config(), "remaining"), data)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tiny_run_learns_to_compile(make_config: MakeConfig) -> None:
    """Two qubits and one to three gates; an untrained network allowed the same gates finds few of the targets."""
    data = generate(gate_set=("h", "x", "cx"), num_qubits=2, num_samples=150, max_gates=3)
    config = make_config(
        num_epochs=2,
        num_threads=1,
        batch_size=64,
        learning_rate=5e-3,
        lr_scheduler="one_cycle",
        ema_decay=0.99,
        model_params={"width": 32},
        scheduler_params={"suffix_share": 0.75, "order": "left_to_right"},
    )
    trainer = DiffusionTrainer(with_encoder(config, "remaining"))
    untrained = sample(trainer.setup_model(repeated(data, 40)), data, 150).matches.mean()
    trainer.compile_model()
    summary = trainer.save_model(trainer.train())
    trained = sample(load_pipeline(summary.folder), data, 150).matches.mean()
    assert untrained < 0.15, "0.02 when this was written"
    assert trained > 0.4, "0.67 when this was written"


def test_half_precision_unitaries_can_be_sampled_while_training(make_config: MakeConfig) -> None:
    """As genQC stores them; circuits of both widths are asked for as what they are."""
    parts = [generate(gate_set=("h", "cx", "x"), num_samples=30, num_qubits=num_qubits) for num_qubits in (2, 3)]
    merged = merge_datasets(parts)
    assert merged.targets is not None
    data = replace(merged, targets=merged.targets.astype(np.float16).astype(np.float32))
    trainer = DiffusionTrainer(with_encoder(make_config(sample_every=1, num_sampled=30), "remaining"))
    trainer.setup_model(data)
    trainer.compile_model()
    assert trainer.train().status == "finished"


def test_the_paper_s_preset_trains_the_paper_s_model(data: CircuitDataset, tmp_path: Path) -> None:
    overrides = [
        "training=paper_unitary",
        "training.general.dataset=./data",
        f"training.general.output_path={tmp_path}",
        "training.general.device=cpu",
        "training.general.verbose=false",
    ]
    config = compose("training", TrainingConfig, overrides)
    loop = config.training
    assert (loop.batch_size, loop.num_epochs, loop.optimizer, loop.learning_rate) == (256, 150, "adam", 3e-4)
    assert (loop.lr_scheduler, loop.objective, loop.loss) == ("one_cycle", "epsilon", "mse")
    assert (loop.condition_dropout, loop.joint_dropout) == (0.1, False)
    assert (config.model.params.clr_dim, config.text_encoder.params.width) == (8, 512)
    assert config.unitary_encoder.params.model_dump() == {
        "features": (32, 64),
        "num_heads": 8,
        "transformer_depths": (2, 2),
        "dropout": 0.2,
    }

    short = compose("training", TrainingConfig, [*overrides, "training.training.max_steps=1"])
    trainer = DiffusionTrainer(short)
    pipeline = trainer.setup_model(data)
    sizes = {name: sum(p.numel() for p in pipeline.network[name].parameters()) for name in pipeline.network}
    # The field counts its eight 8-wide gate vectors among the parameters; here the embedding is apart.
    assert sizes["backbone"] + sizes["unitary_encoder"] + 8 * 8 == 5_499_816
    assert sum(sizes.values()) == pipeline.num_parameters == 7_646_568, "with our prompt encoder, of width 512"
    state = trainer.compile_model()
    before = {name: p.detach().clone() for name, p in pipeline.network.named_parameters()}
    trainer.train()
    assert state.step == 1
    assert all(bool(p.isfinite().all()) for p in pipeline.network.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in pipeline.network.named_parameters())
