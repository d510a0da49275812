"""Telling a model how many gates are left: in training, while circuits are written, and to both halves of guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.instructions import gate_count
from quantum_diffusion.config.schema import SamplingConfig, TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.gates_left import UNKNOWN, GatesLeft
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from tests.conftest import TINY_MODELS, MakeConfig

MODELS: dict[str, dict[str, Any]] = {
    "policy": {"type": "policy", "params": {"width": 16, "depth": 2, "feed_forward": 2}},
    "transformer": {"type": "transformer", "params": TINY_MODELS["transformer"]},
}


def told(make_config: MakeConfig, model: str, **changes: Any) -> TrainingConfig:
    values = make_config(scheduler_params={"suffix_share": 1, "order": "left_to_right"}, tell_gates=0.5).model_dump()
    values |= {"model": MODELS[model], "prefix_encoder": {"type": "state", "params": {"width": 16, "depth": 1}}}
    return TrainingConfig.model_validate(values | changes)


@pytest.fixture(params=list(MODELS))
def pipeline(
    make_config: MakeConfig, mixed_dataset: CircuitDataset, request: pytest.FixtureRequest
) -> DiffusionPipeline:
    made = DiffusionPipeline(pipeline_config(told(make_config, request.param), mixed_dataset))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def vectors(pipeline: DiffusionPipeline) -> torch.Tensor:
    part = pipeline.network["gates_left"]
    assert isinstance(part, GatesLeft)
    return part.vectors.weight


def test_training_tells_a_share_of_the_circuits(pipeline: DiffusionPipeline, mixed_dataset: CircuitDataset) -> None:
    batch = next(BatchLoader(mixed_dataset, np.arange(32), batch_size=32, shuffle=False, seed=0).epoch(0))
    used = {}
    for share in (0.0, 1.0):
        pipeline.network.zero_grad()
        noise = Noise(torch.Generator().manual_seed(0))
        pipeline.training_loss(batch, noise, tell_gates=share).total.backward()
        gradient = vectors(pipeline).grad
        assert gradient is not None
        used[share] = set(np.flatnonzero(gradient.abs().sum(dim=1).numpy()).tolist())
    assert used[0.0] == {0}
    longest = int(gate_count(mixed_dataset.labelled(np.arange(32)).ids).max())
    assert used[1.0] == set(range(1, longest + 2)), "from all gates down to none"


def test_what_is_told_while_writing_is_what_training_tells(pipeline: DiffusionPipeline) -> None:
    steps = pipeline.config.max_gates
    prompts = [pipeline.config.prompts[0]] * 3
    ids = torch.randint(1, len(pipeline.table) + 1, (3, steps), generator=torch.Generator().manual_seed(1))
    rank = torch.arange(steps).expand(3, -1)
    asked = pipeline._request(pipeline.requests(prompts), 4)
    assert asked.num_gates is not None
    asked.num_gates[2] = UNKNOWN
    with torch.inference_mode():
        guided = pipeline._guided(asked, 2.0)
        nothing = torch.ones(3, 1, dtype=torch.bool)
        halves = [
            pipeline._predict(ids, rank, pipeline.encode_condition(asked, dropped))[0]
            for dropped in (~nothing, nothing)
        ]
        reader = guided.reader(steps)
        for step in range(steps):
            known = torch.where(rank < step, rank, steps)
            logits = reader(ids, known, torch.full((3, 1), step))
            for got, expected in zip(logits, halves, strict=True):
                assert got is not None
                torch.testing.assert_close(got[:, 0], expected[:, step], rtol=1e-4, atol=1e-4)


def test_circuits_of_exactly_so_many_gates_are_told_and_others_are_not(pipeline: DiffusionPipeline) -> None:
    prompts = [pipeline.config.prompts[-1]] * 16
    before = [
        pipeline.sample(prompts, 0, edit=edit).ids for edit in (None, Edit(max_gates=4), Edit(min_gates=4, max_gates=4))
    ]
    with torch.no_grad():
        vectors(pipeline)[1:] = 0  # what is said where something is told
    after = [
        pipeline.sample(prompts, 0, edit=edit).ids for edit in (None, Edit(max_gates=4), Edit(min_gates=4, max_gates=4))
    ]
    assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, False]
    assert (gate_count(before[2]) == 4).all()


def test_growing_guidance_begins_without_any(pipeline: DiffusionPipeline) -> None:
    prompts = [pipeline.config.prompts[-1]] * 32

    def sampled(scale: float, growth: float) -> np.ndarray[Any, Any]:
        return pipeline.sample(prompts, 0, SamplingConfig(guidance_scale=scale, guidance_growth=growth)).ids

    np.testing.assert_array_equal(sampled(4.0, 3.0)[:, 0], sampled(1.0, 0.0)[:, 0])
    assert not np.array_equal(sampled(4.0, 3.0), sampled(1.0, 0.0))
    assert not np.array_equal(sampled(4.0, 3.0), sampled(4.0, 0.0))
    np.testing.assert_array_equal(sampled(1.0, 3.0), sampled(1.0, 0.0))


def test_steps_that_are_shown_nothing_cannot_be_told(make_config: MakeConfig, mixed_dataset: CircuitDataset) -> None:
    config = told(make_config, "transformer", prefix_encoder={"type": "none"})
    with pytest.raises(ConfigError, match=r"tell_gates needs steps .* set training\.prefix_encoder"):
        DiffusionPipeline(pipeline_config(config, mixed_dataset))
