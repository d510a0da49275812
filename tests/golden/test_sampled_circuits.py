"""Circuits sampled at a fixed seed. To change them needs a line in CHANGELOG.md under "Numerics"."""

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.prompts import gates_prompt
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, UnitaryEncoderConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from tests.conftest import MakeConfig, draw_dataset

MASKED: dict[str, list[list[int]]] = {
    "random": [[8, 7, 7, 8, 0], [5, 7, 6, 6, 0], [5, 8, 7, 3, 8]],
    "left_to_right": [[8, 6, 7, 8, 2], [6, 7, 6, 6, 0], [5, 8, 7, 3, 8]],
}
REMAINING = [[7, 4, 4, 9, 1], [1, 1, 0, 0, 0], [4, 4, 4, 4, 4]]
GAUSSIAN: dict[str, dict[int, list[int]]] = {
    "transformer": {15: [1, 2, 0], 30: [2, 1, 0], 71: [2, 2, 0], 83: [1, 1, 0], 100: [2, 2, 0], 191: [0, 0, 0]},
    "unet": {40: [1, 0, 0], 61: [1, 0, 0], 155: [0, 0, 0], 174: [1, 4, 0]},
}
"""By the number of the sample: few of an untrained model are circuits."""

OPTIONS = SamplingConfig(guidance_scale=2.0)


def stirred(pipeline: DiffusionPipeline, much: float) -> DiffusionPipeline:
    """Change all weights: layers that start at zero would hide the others."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.network.parameters():
            parameter.add_(much * torch.randn(parameter.shape, generator=generator))
    pipeline.network.eval()
    return pipeline


@pytest.mark.parametrize("order", MASKED)
def test_masked(make_config: MakeConfig, dataset: CircuitDataset, order: str) -> None:
    pipeline = stirred(make_pipeline(pipeline_config(make_config(), dataset), seed=1), 0.2)
    prompts = [f"Generate SRV: {label}" for label in ([1, 2, 2], [2, 2, 2], [1, 1, 1])]
    samples = pipeline.sample(prompts, 1234, OPTIONS.model_copy(update={"order": order}))
    assert samples.ids.tolist() == MASKED[order]


def test_what_remains_is_shown(make_config: MakeConfig) -> None:
    data = DatasetGenerator(DatasetConfig(condition_type="UNITARY", num_samples=40, max_gates=5, n_jobs=1)).generate()
    config = make_config()
    encoder = UnitaryEncoderConfig(params={"width": 16, "depth": 1, "remaining": True})
    config = config.model_copy(update={"unitary_encoder": encoder})
    pipeline = stirred(make_pipeline(pipeline_config(config, data[0]), seed=1), 0.2)
    prompts = [gates_prompt(gates, pipeline.gate_pool) for gates in (["h", "cx"], ["h"], ["cx"])]
    targets = [np.eye(8)[[0, 1, 2, 3, 5, 4, 7, 6]], np.array([[1, 1], [1, -1]]) / np.sqrt(2), np.eye(4)]
    samples = pipeline.sample(pipeline.requests(prompts, targets), 1234, OPTIONS)
    assert samples.ids.tolist() == REMAINING


@pytest.mark.parametrize("model", GAUSSIAN)
def test_gaussian(make_config: MakeConfig, model: str) -> None:
    batching = "bucketed" if model == "unet" else "max_padded"
    config = make_config(model, "ddim", batching=batching, objective="epsilon", loss="mse")
    pipeline = stirred(make_pipeline(pipeline_config(config, draw_dataset(2, 3, 12)), seed=1), 0.1)
    samples = pipeline.sample(["Generate SRV: [2, 2]"] * 256, 1234, OPTIONS)
    assert {row: samples.ids[row].tolist() for row in samples.report.valid.nonzero()[0].tolist()} == GAUSSIAN[model]
