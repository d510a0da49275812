"""Edited samples of every kind of model: what was to stay is there, what was forbidden is not, numbers are kept."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.circuits.prompts import gates_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import DecodeReport, circuits_from_ids, encode_ids, ids_from_circuits
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.data.merging import merge_datasets
from quantum_diffusion.diffusion.masked import MaskedDiffusion
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.samples import SampledCircuits
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig, draw_dataset

MIXED = merge_datasets([draw_dataset(2, 4, 16), draw_dataset(3, 6, 32)])
TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "masked": ("transformer", "masked", {}),
    "cells": ("transformer", "ddim", {}),
    "cells, bucketed": ("transformer", "ddim", {"batching": "bucketed"}),
    "unet": ("unet", "ddpm", {"objective": "epsilon", "loss": "mse"}),
    "unet, bucketed": ("unet", "ddim", {"objective": "v", "loss": "mse", "batching": "bucketed"}),
}
MATRIX = {"type": "matrix", "params": {"width": 16, "depth": 1, "remaining": True}}


def with_sizes(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """Give every weight a size: layers that start at zero say nothing."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in pipeline.network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=rng)
    return pipeline.to(torch.device("cpu"))


@pytest.fixture(params=[*TRAININGS, "compilation"])
def pipeline(request: pytest.FixtureRequest, make_config: MakeConfig) -> DiffusionPipeline:
    if request.param == "compilation":
        pool = ("h", "cx", "z", "x", "ccx", "swap")
        config = validate(TrainingConfig, make_config().model_dump() | {"unitary_encoder": MATRIX}, "training")
        data = DatasetGenerator(
            DatasetConfig(gate_set=pool, condition_type="UNITARY", num_samples=40, min_gates=1, max_gates=5, n_jobs=1)
        ).generate()[0]
        return with_sizes(DiffusionTrainer(config).setup_model(data))
    model, scheduler, options = TRAININGS[request.param]
    pipeline = with_sizes(DiffusionTrainer(make_config(model, scheduler, **options)).setup_model(MIXED))
    if not isinstance(pipeline.process, MaskedDiffusion):
        writes_random_gates(pipeline)
    return pipeline


def writes_random_gates(pipeline: DiffusionPipeline) -> None:
    """Let the network predict circuits full of gates, which depend on the noise: an untrained one writes none."""
    embedding = pipeline.network["gate_embedding"]
    assert isinstance(embedding, GateEmbedding)
    rng = np.random.default_rng(0)

    def predict(x: Tensor, level: Tensor, condition: object) -> tuple[Tensor, None]:
        ids = rng.integers(0, len(pipeline.table) + 1, (len(x), x.shape[3])).astype(np.int16)
        ids[(pipeline.table.uses_qubit[ids][:, :, x.shape[2] :]).any(axis=2)] = NO_GATE
        clean = embedding.embed(torch.from_numpy(encode_ids(ids, pipeline.table)[:, : x.shape[2]].astype(np.int64)))
        if pipeline.process.objective == "x0":
            return 20 * clean, None
        signal, spread = pipeline.process._coefficients(level, x.double())
        if pipeline.process.objective == "v":
            return ((signal * x - clean) / spread).float(), None
        return ((x - signal * clean) / spread).float(), None

    pipeline._predict = predict  # type: ignore[method-assign, assignment]


def draw(pipeline: DiffusionPipeline, count: int, seed: int, edit: Edit, **options: Any) -> SampledCircuits:
    """Sample circuits of all the model's qubits."""
    options = {"options": SamplingConfig(guidance_scale=1.0, sample_steps=4)} | options
    if isinstance(pipeline, CompilationDiffusionPipeline):
        ids = random_ids(np.random.default_rng(seed), pipeline.table, count, 1, 5)
        prompts = [gates_prompt(pipeline.gate_pool.names, pipeline.gate_pool)] * count
        requests = pipeline.requests(prompts, list(unitaries(ids, pipeline.table)))
        return pipeline.sample(requests, seed, edit=edit, **options)
    prompts = [prompt for prompt in pipeline.config.prompts if prompt.count(",") == 2]
    return pipeline.sample((prompts * count)[:count], seed, edit=edit, **options)


def draw_edit(rng: np.random.Generator, pipeline: DiffusionPipeline) -> Edit:
    """A random edit that is possible."""
    steps, table = pipeline.config.max_gates, pipeline.table
    coupling = None if rng.random() < 0.5 else (((0, 1), (1, 2)) if rng.random() < 0.7 else ((0, 2),))
    fixed = tuple(rng.permutation(3)[: rng.choice([0, 0, 1])].tolist())
    max_gates = int(rng.integers(1, steps + 1))
    min_gates = int(rng.integers(0, max_gates + 1)) if rng.random() < 0.5 else 0
    start = circuits_from_ids(random_ids(rng, table, 1, 1, steps), table)[0]
    fine = table.allowed(coupling) & ~table.uses_qubit[:, list(fixed)].any(axis=1)
    ids = ids_from_circuits([start], table, steps)[0]
    keep = tuple(step for step in range(min(len(start), max_gates)) if fine[ids[step]] and rng.random() < 0.4)
    strength = float(rng.choice([1.0, 0.7, 0.3]))
    return Edit(
        start=start,
        keep=keep,
        strength=strength,
        coupling=coupling,
        fixed_qubits=fixed,
        min_gates=min_gates,
        max_gates=None if rng.random() < 0.3 else max_gates,
    )


def check(samples: SampledCircuits, edit: Edit, rows: NDArray[np.bool_]) -> None:
    """Compare the circuits themselves with what was asked for."""
    edges = None if edit.coupling is None else {frozenset(edge) for edge in edit.coupling}
    for circuit in samples.circuits(rows.nonzero()[0]):
        for step in edit.keep:
            assert edit.start is not None
            assert same(circuit.instructions[step], edit.start.instructions[step])
        for instruction in circuit.instructions:
            assert not set(instruction.qubits) & set(edit.fixed_qubits)
            if edges is not None and len(instruction.qubits) == 2:
                assert frozenset(instruction.qubits) in edges
        assert edit.min_gates <= len(circuit) <= (edit.max_gates or len(circuit))


def same(one: Instruction, other: Instruction) -> bool:
    return (one.gate, one.controls, set(one.targets)) == (other.gate, other.controls, set(other.targets))


def test_random_edits(pipeline: DiffusionPipeline) -> None:
    masked = isinstance(pipeline.process, MaskedDiffusion)
    rng = np.random.default_rng(1)
    valid = kept = 0
    for number in range(60 if masked else 20):
        edit = draw_edit(rng, pipeline)
        options = {"options": SamplingConfig(order=str(rng.choice(["random", "left_to_right", "confidence"])))}  # type: ignore[arg-type]
        samples = draw(pipeline, 10, number, edit, **(options if masked else {}))
        check(samples, edit, samples.report.valid)
        valid += int(samples.report.valid.sum())
        kept += len(edit.keep) * int(samples.report.valid.sum())
    if masked:
        assert valid == 600
    assert valid > 25
    assert kept > 15


def test_an_empty_edit_changes_nothing(pipeline: DiffusionPipeline) -> None:
    if not isinstance(pipeline.process, MaskedDiffusion):
        del pipeline._predict  # the network's own
    samples = draw(pipeline, 12, 3, Edit())
    again = draw(pipeline, 12, 3, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(samples.ids, again.ids)
    assert samples.report.reasons == again.report.reasons
    start = circuits_from_ids(samples.ids[:1], pipeline.table)[0]
    np.testing.assert_array_equal(draw(pipeline, 12, 3, Edit(start=start)).ids, again.ids)


def test_an_edited_sample_is_the_same_alone_and_among_others(
    pipeline: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(pipeline.process, MaskedDiffusion):
        del pipeline._predict
    process_sample, rows = pipeline.process.sample, []

    def sample(*args: Any, **options: Any) -> Tensor:
        tokens = process_sample(*args, **options)
        rows.extend(tokens.tolist())  # what untrained Gaussian models write is no circuit: ids do not tell it apart
        return tokens

    monkeypatch.setattr(pipeline.process, "sample", sample)
    start = Circuit(3, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,)), Instruction("h", (), (1,))))
    for edit in (
        Edit(start=start, keep=(1,), max_gates=4),
        Edit(start=start, keep=(0,), strength=0.5, fixed_qubits=(2,)),
        Edit(coupling=((0, 1),), min_gates=2),
        Edit(min_gates=1),
    ):
        rows.clear()
        together = draw(pipeline, 12, 3, edit)
        together_rows = rows.copy()
        for size in (1, 4):
            rows.clear()
            options = SamplingConfig(guidance_scale=1.0, sample_steps=4, auto_batch_size=size)
            apart = draw(pipeline, 12, 3, edit, options=options)
            assert rows == together_rows
            np.testing.assert_array_equal(apart.ids, together.ids)
            assert apart.report.reasons == together.report.reasons


def test_all_kept_is_the_circuit_itself(pipeline: DiffusionPipeline) -> None:
    start = Circuit(3, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,)), Instruction("cx", (1,), (2,))))
    samples = draw(pipeline, 6, 0, Edit(start=start, keep=(0, 1, 2), max_gates=3))
    assert samples.report.valid.all()
    assert samples.circuits(range(6)) == [start] * 6


def test_what_a_prompt_forbids_cannot_be_kept(pipeline: DiffusionPipeline) -> None:
    start = Circuit(3, (Instruction("cx", (0,), (2,)),))
    edit = Edit(start=start, keep=(0,))
    if isinstance(pipeline, CompilationDiffusionPipeline):
        prompts = [gates_prompt(names, pipeline.gate_pool) for names in (["cx"], ["h", "z"])]
        requests = pipeline.requests(prompts, [np.eye(8)] * 2)
    else:
        requests = pipeline.requests(["Generate SRV: [1, 1, 1]", "Generate SRV: [2, 2]"])
    with pytest.raises(ConfigError, match="the prompt of sample 1 allows other gates or fewer qubits"):
        pipeline.sample(requests, seed=0, edit=edit)


@pytest.mark.parametrize("pipeline", ["compilation"], indirect=True)
def test_compiled_circuits_keep_to_the_edit(pipeline: CompilationDiffusionPipeline) -> None:
    """Also after they were simplified, which kept gates would not survive."""
    rng, found, simplified = np.random.default_rng(2), 0, 0
    for seed in range(30):
        edit = draw_edit(rng, pipeline)
        try:
            result = find_exact(pipeline, np.eye(8), max_tries=40, num_circuits=40, seed=seed, edit=edit)
        except ConfigError:
            continue  # what is kept cannot be undone by as many gates as are left
        ids = ids_from_circuits([one.circuit for one in result.circuits], pipeline.table, pipeline.config.max_gates)
        prompt = gates_prompt(pipeline.gate_pool.names, pipeline.gate_pool)
        samples = pipeline.task.verify(
            pipeline.requests([prompt], [np.eye(8)]).repeated(len(ids)),
            DecodeReport(ids, np.ones(len(ids), dtype=np.bool_), ("valid",) * len(ids)),
            pipeline.table,
        )
        assert samples.matches.all()
        check(samples, edit, samples.report.valid)
        found += len(ids)
        simplified += not (edit.keep or edit.min_gates)
    assert found > 8
    assert simplified > 5
    start = Circuit(3, (Instruction("h", (), (0,)),) * 2)
    undone = find_exact(pipeline, np.eye(8), edit=Edit(start=start, keep=(0, 1), max_gates=2), max_tries=4)
    assert [one.circuit for one in undone.circuits] == [start], "it is not simplified to nothing"
