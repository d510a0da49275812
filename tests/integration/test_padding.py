"""Loss and validity of a circuit do not depend on what it is padded to or batched with."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, decode_tokens
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.state import LossTerms
from quantum_diffusion.seeding import sample_seeds
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, draw_dataset

NARROW, WIDE, WIDEST = draw_dataset(2, 4, 16), draw_dataset(3, 6, 32), draw_dataset(4, 9, 32)

TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "masked": ("transformer", "masked", {"prefix_head_weight": 0.5, "scheduler_params": {"suffix_share": 0.5}}),
    "cells": ("transformer", "ddim", {"prefix_head_weight": 0.5}),
    "cells, bucketed": ("transformer", "ddim", {"prefix_head_weight": 0.5, "batching": "bucketed"}),
    "unet": ("unet", "ddim", {"objective": "epsilon", "loss": "mse"}),
    "unet, bucketed": ("unet", "ddim", {"objective": "epsilon", "loss": "mse", "batching": "bucketed"}),
}


def untrained(make_config: MakeConfig, name: str, dataset: CircuitDataset) -> DiffusionPipeline:
    """Build a pipeline whose weights, unlike those that training starts from, let every part say something."""
    model, scheduler, options = TRAININGS[name]
    pipeline = DiffusionTrainer(make_config(model, scheduler, **options)).setup_model(dataset)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in pipeline.network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=rng)
    return pipeline.to(torch.device("cpu"))


def loader_of(dataset: CircuitDataset, pipeline: DiffusionPipeline) -> BatchLoader:
    return BatchLoader(
        dataset,
        np.arange(len(dataset)),
        batch_size=8,
        seed=0,
        shuffle=False,
        bucketed=pipeline.config.bucketed,
        time_multiple=pipeline.time_multiple,
    )


def loss_of(
    pipeline: DiffusionPipeline,
    loader: BatchLoader,
    rows: NDArray[np.int64],
    places: slice | None = None,
    total: int | None = None,
) -> LossTerms:
    """Loss of a batch, whose circuits have the noise of given places in a batch of `total`."""
    noise = Noise(torch.Generator().manual_seed(7), places, total)
    with torch.no_grad():
        return pipeline.training_loss(loader.batch(rows), noise, condition_dropout=0.3, prefix_weight=0.5)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_batchs_loss_is_the_mean_of_what_its_circuits_have_alone(make_config: MakeConfig, name: str) -> None:
    """So a circuit adds the same to it whatever the others are: the same noise, other company."""
    dataset = merge_datasets([NARROW, WIDE, WIDEST])
    pipeline = untrained(make_config, name, dataset)
    loader = loader_of(dataset, pipeline)
    batches = 0
    for bucket in loader._buckets:
        for rows in (bucket[i : i + 6] for i in range(0, min(len(bucket), 24), 6)):
            together = loss_of(pipeline, loader, rows)
            apart = [
                loss_of(pipeline, loader, rows[place : place + 1], slice(place, place + 1), len(rows))
                for place in range(len(rows))
            ]
            for term in ("diffusion", "prefix", "total"):
                whole, alone = getattr(together, term), [getattr(terms, term) for terms in apart]
                if whole is None:
                    assert alone == [None] * len(rows)
                    continue
                torch.testing.assert_close(torch.stack(alone).mean(), whole, rtol=2e-5, atol=1e-6)
            assert len(rows) == 1 or len({float(terms.diffusion) for terms in apart}) > 1
            batches += 1
    assert batches > 3


@pytest.mark.parametrize("name", [name for name in TRAININGS if "bucketed" in name])
def test_a_circuits_loss_does_not_depend_on_the_shape_of_its_data_set(make_config: MakeConfig, name: str) -> None:
    """In batches cut to their circuits: merged with wider and longer circuits it is padded, and cut again."""
    merged = merge_datasets([NARROW, WIDE, WIDEST])
    pipeline = untrained(make_config, name, merged)
    for part in (NARROW, WIDE, WIDEST):
        number = np.array([merged.prompts.index(prompt) for prompt in part.prompts], dtype=np.int32)
        own = CircuitDataset(part.tokens, number[part.prompt_index], merged.prompts, part.sizes, part.gate_pool)
        loader, all_loader = loader_of(own, pipeline), loader_of(merged, pipeline)
        there = {row.tobytes(): place for place, row in enumerate(merged.tokens)}
        padding = np.full((len(own), *merged.tokens.shape[1:]), own.gate_pool.padding_token, dtype=np.int8)
        padding[:, : own.num_qubits, : own.max_gates] = own.tokens
        places = np.array([there[row.tobytes()] for row in padding])
        for rows in loader._buckets:
            first, second = loader.batch(rows), all_loader.batch(places[rows])
            assert torch.equal(first.tokens, second.tokens)
            assert torch.equal(first.prompt_ids, second.prompt_ids)
            assert astuple(loss_of(pipeline, loader, rows)) == astuple(loss_of(pipeline, all_loader, places[rows]))


@pytest.mark.parametrize("name", ["cells", "cells, bucketed"])
def test_validity_depends_on_a_circuits_own_cells_alone(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What the process draws is replaced by circuits, damaged circuits and noise, each found by its sample's seed."""
    merged = merge_datasets([NARROW, WIDE, WIDEST])
    pipeline = untrained(make_config, name, merged)
    prompts = [merged.prompts[number] for number in merged.prompt_index] * 3
    rng = np.random.default_rng(0)
    damaged, noise = merged.tokens.copy(), rng.integers(-2, 3, merged.tokens.shape).astype(np.int8)
    damaged[np.arange(len(damaged)), 0, 0] = rng.integers(-2, 3, len(damaged))
    drawn = np.concatenate([merged.tokens, damaged, noise])
    cells = dict(zip(sample_seeds(4, len(prompts)).tolist(), drawn, strict=True))

    def sample(
        denoise: object, shape: tuple[int, int, int], generators: list[torch.Generator], *_: Any, **__: Any
    ) -> torch.Tensor:
        return torch.from_numpy(np.stack([cells[g.initial_seed()][: shape[1], : shape[2]] for g in generators]))

    monkeypatch.setattr(pipeline.process, "sample", sample)
    together = pipeline.sample(prompts, seed=4)
    assert len(set(together.report.reasons)) > 3
    if not pipeline.config.bucketed:  # nothing was cut off
        assert together.report.valid[: len(merged)].all()
    for options in (SamplingConfig(auto_batch_size=1), SamplingConfig(auto_batch_size=7)):
        apart = pipeline.sample(prompts, 4, options)
        assert apart.report.reasons == together.report.reasons
        np.testing.assert_array_equal(apart.ids, together.ids)
        np.testing.assert_array_equal(apart.matches, together.matches)
    for row in range(0, len(prompts), 7):
        alone = pipeline.sample([prompts[row]], 4, first_sample=row)
        assert alone.report.reasons == together.report.reasons[row : row + 1]
        assert alone.matches.tolist() == together.matches[[row]].tolist()


def test_padding_changes_no_circuits_validity() -> None:
    rng = np.random.default_rng(0)
    for part in (NARROW, WIDE):
        noise = rng.integers(-2, 3, part.tokens.shape).astype(np.int8)
        mixed = rng.permutation(np.concatenate([part.tokens, noise]))
        missing = ((0, 0), (0, 4 - part.num_qubits), (0, 9 - part.max_gates))
        padded = np.pad(mixed, missing, constant_values=part.gate_pool.padding_token)
        first, second = decode_tokens(mixed, part.gate_pool), decode_tokens(padded, part.gate_pool)
        assert first.reasons == second.reasons
        assert 0 < first.valid.sum() < len(mixed)
        circuits = [
            circuits_from_ids(
                report.ids[first.valid], instruction_table(part.gate_pool, width), [4] * int(first.valid.sum())
            )
            for report, width in ((first, part.num_qubits), (second, 4))
        ]
        assert circuits[0] == circuits[1]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_sample_is_the_same_alone_and_among_others(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The tokens themselves, of samples of several widths, before it is decided whether they are valid."""
    pipeline = untrained(make_config, name, merge_datasets([NARROW, WIDE, WIDEST]))
    prompts = list(pipeline.config.prompts)[::2]
    drawn: dict[int, list[Any]] = {}
    honest = pipeline.process.sample

    def record(denoise: Any, shape: Any, generators: list[torch.Generator], *args: Any, **options: Any) -> Any:
        seeds = [generator.initial_seed() for generator in generators]
        tokens = honest(denoise, shape, generators, *args, **options)
        for seed, sample in zip(seeds, tokens.tolist(), strict=True):
            drawn.setdefault(seed, []).append(sample)
        return tokens

    monkeypatch.setattr(pipeline.process, "sample", record)
    together = pipeline.sample(prompts, seed=2)
    for row, prompt in enumerate(prompts):
        alone = pipeline.sample([prompt], seed=2, first_sample=row)
        assert alone.report.reasons == together.report.reasons[row : row + 1]
    assert len(drawn) == len(prompts)
    assert all(first == second for first, second in drawn.values())
    assert len({str(samples[0]) for samples in drawn.values()}) == len(prompts)
