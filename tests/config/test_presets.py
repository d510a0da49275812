"""Every preset composes, validates and builds; the paper's presets hold the paper's numbers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.tokenizer import encode_ids
from quantum_diffusion.config.schema import DatasetConfig, EvaluationConfig, SampleConfig, TrainingConfig
from quantum_diffusion.config.store import SECTIONS, compose, config_folder, preset_names
from quantum_diffusion.config.validation import Section
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.training.training import DiffusionTrainer

REQUIRED = {
    "datasets": ["datasets.exclude=null"],
    "training": ["training.general.dataset=./data", "training.general.init_from_pipeline_dir=null"],
    "evaluation": ["evaluation.dataset=./data", "evaluation.model_dir=./model"],
    "sample": ["sample.model_dir=./model", "sample.srv=[1,2,2]"],
    "inspect": ["inspect.dataset=./data"],
}
PRESETS = [(group, name) for group in ("datasets", "training", "evaluation") for name in preset_names(group)]
EXPECTED = {
    "datasets": {"default", "quick_test_srv", *(f"paper_srv_{qubits}q" for qubits in range(3, 9))},
    "training": {
        *("default", "quick_test_srv", "quick_test_unet", "paper_srv_stage_1", "paper_srv_stage_2"),
        "paper_unitary",
    },
    "evaluation": {"default", "quick_test_srv", "paper_srv"},
    "debug": {"limit", "overfit", "profile"},
}


@functools.cache
def compose_preset(group: str, *overrides: str) -> Section:
    return compose(group, SECTIONS[group], [*REQUIRED[group], *overrides])


def tiny_dataset(num_qubits: int, max_gates: int) -> CircuitDataset:
    """Four circuits without gates, of two labels: all that a pipeline wants to know about its data."""
    table = instruction_table(GatePool(["h", "cx"]), num_qubits)
    ids = np.zeros((4, max_gates), dtype=np.int16)
    ids[:, 0] = 1
    prompts = tuple(f"Generate SRV: {[1] * (num_qubits - 2) + [rank] * 2}" for rank in (1, 2))
    return CircuitDataset(
        encode_ids(ids, table),
        np.array([0, 1, 0, 1], dtype=np.int32),
        prompts,
        np.tile(np.array([[num_qubits, 1]], dtype=np.int16), (4, 1)),
        table.pool,
    )


@pytest.mark.parametrize("group", EXPECTED)
def test_the_promised_presets_are_there(group: str) -> None:
    assert set(preset_names(group)) >= EXPECTED[group]
    assert group == "debug" or "default" in preset_names(group)


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_alone_and_with_debug_presets(group: str, name: str) -> None:
    debugs = [[], ["debug=limit"], ["debug=overfit"]]
    for debug in debugs[: 3 if name == "default" else 2 if group == "training" else 1]:
        assert isinstance(compose_preset(group, f"{group}={name}", *debug), SECTIONS[group])


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_says_what_it_is(group: str, name: str) -> None:
    assert (config_folder() / group / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, (3, 8)) for name in preset_names("training")),
        *((name, (8, 52)) for name in preset_names("training") if "paper" in name or name == "default"),
    ],
)
def test_every_training_preset_builds_a_pipeline_that_can_learn(name: str, size: tuple[int, int]) -> None:
    config = compose_preset("training", f"training={name}")
    assert isinstance(config, TrainingConfig)
    dataset = tiny_dataset(*size)
    if config.model.type == "policy" and config.prefix_encoder.type == "none":
        with pytest.raises(
            ConfigError, match=r"for Schmidt rank vectors no step is conditioned on it: set training\.prefix_enc"
        ):
            DiffusionTrainer(config).setup_model(dataset)
        asked = "STATE" if config.state_encoder.shows_steps else "UNITARY"
        dataset = DatasetGenerator(
            DatasetConfig(condition_type=asked, num_samples=4, max_gates=4, n_jobs=1)
        ).generate()[0]
    pipeline = DiffusionTrainer(config).setup_model(dataset)
    loaders = DatasetLoader(0).get_dataloaders(dataset, 2, 0.0, time_multiple=pipeline.time_multiple)
    batch = next(loaders[0].epoch(0)).to(pipeline.device)
    generator = torch.Generator(pipeline.device).manual_seed(0)
    loss = pipeline.training_loss(batch, Noise(generator), prefix_weight=config.training.prefix_head_weight)
    assert torch.isfinite(loss.total)


@pytest.mark.parametrize("name", preset_names("datasets"))
def test_every_data_set_preset_builds_its_generator(name: str) -> None:
    config = compose_preset("datasets", f"datasets={name}")
    assert isinstance(config, DatasetConfig)
    assert DatasetGenerator(config).table.num_qubits == config.num_qubits


def test_the_paper_data_sets_have_the_papers_numbers() -> None:
    numbers = {3: (2, 16, 200_000), 4: (3, 20, 300_000), 5: (4, 28, 500_000)}
    numbers |= {6: (5, 40, 500_000), 7: (6, 52, 500_000), 8: (7, 52, 600_000)}
    paths = set()
    for qubits, expected in numbers.items():
        config = compose_preset("datasets", f"datasets=paper_srv_{qubits}q")
        assert isinstance(config, DatasetConfig)
        assert (config.min_gates, config.max_gates, config.num_samples) == expected
        assert (config.num_qubits, config.gate_set, config.optimize) == (qubits, ("h", "cx"), "rules")
        paths.add(Path(config.output_path))
    assert len(paths) == 6  # one folder of six data sets, ready to be trained on together
    assert len({path.parent for path in paths}) == 1


@pytest.mark.parametrize(
    ("name", "epochs", "rate", "batching"),
    [("paper_srv_stage_1", 75, 3e-4, "max_padded"), ("paper_srv_stage_2", 50, 5e-5, "bucketed")],
)
def test_the_paper_training_has_the_papers_numbers(name: str, epochs: int, rate: float, batching: str) -> None:
    config = compose_preset("training", f"training={name}")
    assert isinstance(config, TrainingConfig)
    loop, process = config.training, config.scheduler.params
    assert (loop.num_epochs, loop.learning_rate, loop.batching) == (epochs, rate, batching)
    assert (loop.batch_size, loop.optimizer, loop.lr_scheduler) == (256, "adam", "one_cycle")
    assert (loop.objective, loop.loss, loop.condition_dropout) == ("epsilon", "mse", 0.1)
    assert config.scheduler.type == "ddim"
    assert (
        process.model_dump()
        | {
            "num_train_timesteps": 1000,
            "beta_schedule": "cos_alpha",
            "input_perturbation": 0.1,
            "eta": 1.0,
        }
        == process.model_dump()
    )
    assert 20 <= (process.sample_steps or 0) <= 40
    assert 7.5 <= process.guidance_scale <= 10
    assert config.model.type == "unet"
    assert config.model.params.model_dump() == {
        "model_features": (128, 128, 256),
        "clr_dim": 4,
        "t_emb_size": 256,
        "num_heads": (8, 8, 2),
        "num_res_blocks": (2, 2, 4),
        "transformer_depths": (1, 2, 1),
    }
    assert config.text_encoder.params.width == 512


def test_the_second_stage_starts_where_the_first_one_ends() -> None:
    first, second = (
        compose("training", TrainingConfig, ["training.general.dataset=./data", f"training=paper_srv_stage_{stage}"])
        for stage in (1, 2)
    )
    assert second.general.init_from_pipeline_dir == first.general.output_path
    assert (first.model, first.text_encoder, first.scheduler) == (second.model, second.text_encoder, second.scheduler)


def test_the_paper_evaluation_has_the_papers_numbers() -> None:
    config = compose_preset("evaluation", "evaluation=paper_srv")
    assert isinstance(config, EvaluationConfig)
    assert (config.model_params.scheduler, config.model_params.sample_steps) == ("ddim", 40)
    assert config.model_params.guidance_scale == 10


def test_the_paper_model_has_the_papers_size() -> None:
    config = compose_preset("training", "training=paper_srv_stage_1")
    assert isinstance(config, TrainingConfig)
    pipeline = DiffusionTrainer(config).setup_model(tiny_dataset(8, 52))
    # The field counts its four 4-wide gate vectors among the U-Net's parameters; here the embedding is apart.
    backbone = pipeline.network["backbone"]
    assert sum(p.numel() for p in backbone.parameters()) + 4 * 4 == 5_393_556  # type: ignore[union-attr]


def test_debug_limit_is_quick_for_every_section() -> None:
    datasets = compose_preset("datasets", "datasets=paper_srv_8q", "debug=limit")
    training = compose_preset("training", "training=paper_srv_stage_1", "debug=limit")
    evaluation = compose_preset("evaluation", "evaluation=paper_srv", "debug=limit")
    assert isinstance(datasets, DatasetConfig)
    assert isinstance(training, TrainingConfig)
    assert isinstance(evaluation, EvaluationConfig)
    assert datasets.num_samples <= 5000
    assert (training.training.max_steps or 1000) <= 50
    assert evaluation.num_samples <= 100


def test_what_is_typed_wins_over_presets_and_debug() -> None:
    config = compose_preset("datasets", "datasets.num_samples=7", "debug=limit", "datasets=quick_test_srv")
    assert isinstance(config, DatasetConfig)
    assert (config.num_samples, config.max_gates) == (7, 8)


def test_a_section_without_presets_composes() -> None:
    config = compose_preset("sample")
    assert isinstance(config, SampleConfig)
    assert config.srv == (1, 2, 2)
