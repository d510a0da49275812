"""Writing from both ends: what is left is seen from either side, gates come where they belong, nothing else changes.

Models have random weights. What the last gate may be is checked against matrices made by hand; Qiskit is the judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qiskit import qasm2
from qiskit.quantum_info import Operator
from torch import Tensor

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import NO_GATE, gate_count
from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.diffusion.masked import Draw, MaskedDiffusion
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.pipeline.guided import Reader
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.samples import Requests
from tests.conftest import MakeConfig, read_gates
from tests.contracts.test_beam import STEPS, build, least_gates, targets

CLOSED = ("h", "cx", "s", "sdg")
SURER = SamplingConfig(order="surer_end")


def ask(pipeline: DiffusionPipeline, count: int, gates: str = "['h', 'cx', 's', 'sdg']") -> Requests:
    """Ask for random targets of two qubits."""
    ids = random_ids(np.random.default_rng(3), pipeline.table, count, 4, 4)
    return pipeline.requests([f"Compile using: {gates}"] * count, list(unitaries(ids, pipeline.table)))


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("scale", [1.0, 2.0])
@torch.inference_mode()
def test_the_last_gate_is_the_inverse_of_the_first_of_the_inverse(make_config: MakeConfig, scale: float) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    count, first, last = 6, 2, 1
    request = ask(pipeline, count)
    reader = pipeline.reader(request, SamplingConfig(guidance_scale=scale))
    ids = torch.zeros(count, STEPS, dtype=torch.int64)
    known = random_ids(np.random.default_rng(7), pipeline.table, count, first + last, first + last)
    ids[:, :first], ids[:, -last:] = torch.from_numpy(known[:, :first]), torch.from_numpy(known[:, first:])
    rank = torch.where(ids == NO_GATE, STEPS, torch.arange(STEPS))
    logits, free = reader.at_ends(ids, rank)
    assert (free is None) == (scale == 1)

    begun, ended = unitaries(known[:, :first], pipeline.table), unitaries(known[:, first:], pipeline.table)
    assert request.targets is not None
    left = ended.conj().swapaxes(1, 2) @ request.targets @ begun.conj().swapaxes(1, 2)
    inverse = pipeline.table.inverse.astype(np.int64)
    inverse[NO_GATE] = NO_GATE
    assert reader.encoder is not None
    place = torch.full((count * (1 if scale == 1 else 2), 1), first + last)
    for side, matrices in enumerate((left, left.conj().swapaxes(1, 2))):
        seen = torch.from_numpy(as_two_channels(matrices))
        seen = torch.cat([seen, torch.zeros_like(seen)])[: len(place)]  # with nothing asked, nothing is left
        shown = reader.encoder(seen)
        wanted = reader.backbone.read(reader.memory, ids, rank, place, shown)[:, 0]
        wanted = wanted if side == 0 else wanted[:, inverse]
        found = logits[:, side] if free is None else torch.cat([logits[:, side], free[:, side]])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_only_where_all_inverses_are_allowed_is_there_an_end(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    request = pipeline.requests(
        ["Compile using: ['h', 'cx', 's', 'sdg']", "Compile using: ['h', 's']", "Compile using: ['h', 'cx']"],
        [np.eye(4)] * 3,
    )
    reader = pipeline.reader(request, SURER)
    assert reader.can_end(torch.from_numpy(request.allowed)).tolist() == [True, False, True]
    for other in (build(make_config, "UNITARY"), build(make_config, "STATE", suffix_share=1)):
        target = np.eye(4) if other.task.name == "UNITARY" else np.eye(4)[0]
        request = other.requests([other.config.prompts[0]], [target])
        reader = other.reader(request, SamplingConfig())
        assert not bool(reader.can_end(torch.ones(1, len(other.table) + 1, dtype=torch.bool)))


@pytest.mark.parametrize("growth", [0.0, 3.0])
def test_each_gate_is_written_where_the_network_is_surer(growth: float) -> None:
    """The network knows all gates, and is surer of one end than of the other, step by step."""
    rng = torch.Generator().manual_seed(1)
    count, vocabulary = 40, 7
    lengths = torch.randint(0, STEPS + 1, (count, 1), generator=rng)
    wanted = torch.randint(1, vocabulary, (count, STEPS), generator=rng)
    wanted = wanted.masked_fill(torch.arange(STEPS) >= lengths, NO_GATE)
    surer = torch.rand(count, STEPS + 1, generator=rng) < 0.5  # whether the end is
    has_end = torch.arange(count) % 3 > 0
    asked_ends = []

    def ends(ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor | None]:
        known = rank < STEPS
        first, last = known.cumprod(1).sum(1), known.flip(1).cumprod(1).sum(1)
        assert torch.equal(known.sum(1), torch.where(first == STEPS, STEPS, first + last))
        done = (first + last >= lengths[:, 0])[:, None]
        from_start = wanted.gather(1, first[:, None].clamp(max=STEPS - 1)).masked_fill(done, NO_GATE)
        from_end = wanted.gather(1, (lengths - 1 - last[:, None]).clamp(min=0)).masked_fill(done, NO_GATE)
        asked_ends.append(bool((last > 0)[~has_end].any()))
        certain = torch.where(surer[:, known.sum(1).max()], 60.0, 40.0)[:, None, None]
        logits = torch.cat(
            [
                (100 - certain) * F.one_hot(from_start, vocabulary),
                certain * F.one_hot(from_end, vocabulary),
            ],
            dim=1,
        )
        return logits, None if growth == 0 else logits - 1

    allowed = torch.ones(count, STEPS, vocabulary, dtype=torch.bool)
    draw = Draw(guidance_scale=2.0, guidance_growth=growth)
    found = MaskedDiffusion.sample_from_ends(ends, STEPS, generators(count), allowed, has_end, draw)
    assert torch.equal(found, wanted)
    assert not any(asked_ends)


def test_rounding_does_not_decide_between_sides_that_are_alike() -> None:
    """What is left may be its own inverse; rounding depends on the batch, and circuits must not."""
    count, vocabulary = 20, 5
    base = torch.randn(vocabulary, generator=torch.Generator().manual_seed(2))
    asked: list[int] = []

    def ends(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        asked.append(int((rank.flip(1) < STEPS).cumprod(1).sum()))
        return base + 1e-6 * torch.randn(count, 2, vocabulary), None

    allowed = torch.ones(count, STEPS, vocabulary, dtype=torch.bool)
    allowed[:, :, NO_GATE] = False
    everywhere = torch.ones(count, dtype=torch.bool)
    MaskedDiffusion.sample_from_ends(ends, STEPS, generators(count), allowed, everywhere, Draw())
    assert len(asked) == STEPS
    assert not any(asked)


def test_samples_obey_prompts_and_bounds_and_do_not_depend_on_their_batch(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    request = ask(pipeline, 30, "['h', 's', 'sdg']")
    for edit in (None, Edit(min_gates=2, max_gates=4), Edit(min_gates=STEPS), Edit(fixed_qubits=(1,), max_gates=3)):
        samples = pipeline.sample(request, 0, SURER, edit=edit)
        assert samples.report.valid.all()
        assert request.allowed[np.arange(30)[:, None], samples.report.ids].all()
        counts = gate_count(samples.report.ids)
        if edit is not None:
            assert counts.min() >= edit.min_gates
            assert counts.max() <= (edit.max_gates or STEPS)
            assert not edit.fixed_qubits or not pipeline.table.uses_qubit[samples.report.ids][..., 1].any()
        small = pipeline.sample(request, 0, SamplingConfig(order="surer_end", auto_batch_size=7), edit=edit)
        np.testing.assert_array_equal(samples.report.ids, small.report.ids)
    ordered = pipeline.sample(request, 0, SamplingConfig(order="left_to_right"))
    assert not np.array_equal(ordered.report.ids, pipeline.sample(request, 0, SURER).report.ids)


def test_where_there_is_no_end_or_gates_are_kept_circuits_are_written_left_to_right(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    ordered = SamplingConfig(order="left_to_right")
    request = ask(pipeline, 20, "['h', 'cx', 's']")
    np.testing.assert_array_equal(
        pipeline.sample(request, 1, SURER).report.ids, pipeline.sample(request, 1, ordered).report.ids
    )
    request, start = ask(pipeline, 20), Circuit(2, read_gates("h 0; cx 0 1; s 1"))
    for edit in (Edit(start=start, keep=(1,)), Edit(start=start, strength=0.5)):
        np.testing.assert_array_equal(
            pipeline.sample(request, 1, SURER, edit=edit).report.ids,
            pipeline.sample(request, 1, ordered, edit=edit).report.ids,
        )


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_wide_beam_from_both_ends_finds_the_shortest_circuits(make_config: MakeConfig, scale: float) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    options = SamplingConfig(order="surer_end", guidance_scale=scale)
    used_ends = []
    continued = Reader.continued

    def spy(self: Reader, rows: Tensor, ids: Tensor, at_end: Tensor | None = None) -> Reader:
        used_ends.append(at_end is not None and bool(at_end.any()))
        return continued(self, rows, ids, at_end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "continued", spy)
        for ids, target in zip(*targets(pipeline, 3), strict=True):
            result = find_exact(pipeline, target, search="beam", max_tries=4096, max_seconds=0.5, options=options)
            (found,) = result.circuits
            assert len(found.circuit) == least_gates(pipeline, target, 5)
            assert Operator(qasm2.loads(found.circuit.to_qasm2())).equiv(Operator(target))
            (own,) = circuits_from_ids(ids[None], pipeline.table)
            kept = find_exact(pipeline, target, edit=Edit(start=own, keep=(0, 1)), max_tries=4096, options=options)
            assert kept.search == "beam"
            assert kept.circuits[0].circuit.instructions[:2] == own.instructions[:2]
            assert Operator(qasm2.loads(kept.circuits[0].circuit.to_qasm2())).equiv(Operator(target))
    assert any(used_ends)


def test_a_beam_with_gates_whose_inverse_is_missing_goes_from_the_start(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", suffix_share=1)
    for _, target in zip(*targets(pipeline, 3), strict=True):
        result = find_exact(pipeline, target, max_tries=4096, options=SURER)
        assert result.circuits[0].is_exact


@pytest.mark.parametrize(
    ("task", "model", "suffix_share"),
    [("STATE", "policy", 1), ("UNITARY", "transformer", 1), ("UNITARY", "policy", 0.5)],
    ids=["states", "transformer", "in any order"],
)
def test_other_models_refuse_it(make_config: MakeConfig, task: str, model: str, suffix_share: float) -> None:
    pipeline = build(make_config, task, model, suffix_share=suffix_share)
    with pytest.raises(ConfigError, match=r"surer_end is for policies .* model_params.order=left_to_right"):
        pipeline.check_sampling(SURER)
    params: dict[str, Any] = {"order": "surer_end"}
    scheduler = pipeline.config.scheduler
    chosen = scheduler.model_copy(update={"params": scheduler.params.model_copy(update=params)})
    with pytest.raises(ConfigError, match=r"scheduler.params.order=left_to_right"):
        DiffusionPipeline(pipeline.config.model_copy(update={"scheduler": chosen}))


def test_it_writes_one_gate_a_step(make_config: MakeConfig) -> None:
    pipeline = build(make_config, "UNITARY", gates=CLOSED, suffix_share=1)
    with pytest.raises(ConfigError, match=r"sample_steps=2, but order=surer_end writes one gate a step"):
        pipeline.sample(ask(pipeline, 2), 0, SamplingConfig(order="surer_end", sample_steps=2))
