"""The two transformers: who may see whom, exactness of one packed pass, and that every weight learns."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from quantum_diffusion.config.schema import StepOrder
from quantum_diffusion.diffusion.masked import MaskedDiffusion, of_wanted_steps
from quantum_diffusion.models.layers import GROUPS
from quantum_diffusion.models.transformer import CellTransformer, InstructionTransformer
from quantum_diffusion.models.unet import ConditionalUNet

STEPS = 6
VOCABULARY = 9
WIDTH = 16


def randomise(network: nn.Module) -> nn.Module:
    """Zero-initialised layers hide mistakes: give every weight a size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def instructions() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "depth": 3, "num_heads": 4, "feed_forward": 2}
    network = InstructionTransformer(
        num_instructions=VOCABULARY, max_steps=STEPS + 2, condition_dim=8, num_label_entries=3, **sizes
    )
    return randomise(network)


def draw(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (count, STEPS), generator=generator)
    rank = torch.rand(count, STEPS, generator=generator).argsort(dim=1)
    return ids, rank, torch.randn(count, 4, 8, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("masked", [0, 2, STEPS])
def test_nothing_leaks_from_later_or_hidden_steps(instructions: nn.Module, masked: int) -> None:
    ids, rank, condition = draw(16, masked)
    rank = torch.where(rank >= STEPS - masked, STEPS, rank)
    logits, prefix = instructions(ids, rank, condition)
    for step in range(STEPS):
        changed = ids.clone()
        changed[:, step] = (ids[:, step] + 1) % VOCABULARY
        other_logits, other_prefix = instructions(changed, rank, condition)
        own = rank[:, step, None]
        revealed = own < STEPS
        may_change = (rank > own) & revealed  # [B, T]
        difference = (logits - other_logits).abs().amax(dim=2)
        assert float(difference[~may_change].max()) == 0
        if may_change.any():
            assert float(difference[may_change].min()) > 0, "and what may be seen is seen"
        # The prefix head reads content: its own step, and steps revealed no later.
        itself = torch.arange(STEPS) == step
        prefix_may_change = may_change | itself
        assert float((prefix - other_prefix).abs().amax(dim=2)[~prefix_may_change].max()) == 0


def test_one_packed_pass_equals_a_pass_a_noise_level(instructions: nn.Module) -> None:
    ids, rank, condition = draw(8, 7)
    packed, _ = instructions(ids, rank, condition)
    for level in range(STEPS):
        hidden = rank >= level
        single, _ = instructions(ids.masked_fill(hidden, 0), rank.masked_fill(hidden, STEPS), condition)
        asked = rank == level
        torch.testing.assert_close(single[asked], packed[asked], rtol=1e-4, atol=1e-4)


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    sizes = {"width": WIDTH, "depth": 2, "num_heads": 2, "feed_forward": 2, "condition_dim": 8, "num_label_entries": 3}
    return {
        "instructions": InstructionTransformer(num_instructions=VOCABULARY, max_steps=STEPS, **sizes),
        "cells": CellTransformer(channels=4, num_qubits=3, max_steps=STEPS, **sizes),
        "unet": ConditionalUNet(
            channels=4,
            # With one feature a group, GroupNorm takes away what the step's embedding adds.
            model_features=[2 * GROUPS, 2 * GROUPS],
            time_embedding_dim=16,
            condition_dim=8,
            num_heads=[2, 2],
            num_res_blocks=[1, 1],
            transformer_depths=[1, 1],
        ),
    }


def call(name: str, network: nn.Module, condition: Tensor) -> tuple[Tensor, Tensor | None]:
    """Predict from fixed inputs; prediction and prefix logits."""
    generator = torch.Generator().manual_seed(2)
    if name == "instructions":
        ids = torch.randint(0, VOCABULARY, (len(condition), STEPS), generator=generator)
        rank = torch.rand(len(condition), STEPS, generator=generator).argsort(dim=1)
        return network(ids, rank, condition)
    x = torch.randn(len(condition), 4, 3, STEPS, generator=generator)
    output = network(x, torch.randint(0, 1000, (len(condition),), generator=generator), condition)
    return output if isinstance(output, tuple) else (output, None)


@pytest.mark.parametrize("name", ["instructions", "cells", "unet"])
def test_every_weight_learns_and_the_condition_matters_after_a_few_steps(name: str) -> None:
    network = networks()[name]
    condition = torch.randn(12, 5, 8)
    with torch.no_grad():
        shape = call(name, network, condition)[0].shape
    target = torch.randn(shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    moved = dict.fromkeys((key for key, _ in network.named_parameters()), 0.0)
    for _ in range(4):  # layers that start at zero let gradients through from the second step on
        optimizer.zero_grad()
        prediction, prefix = call(name, network, condition)
        loss = (prediction - target).square().mean() + (0.0 if prefix is None else (prefix - 1).square().mean())
        loss.backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            moved[key] = max(moved[key], float(parameter.grad.abs().max()))
        optimizer.step()
    assert [key for key, size in moved.items() if size < 1e-7] == []
    with torch.no_grad():
        other = call(name, network, condition.flip(0))[0]
        assert float((other - call(name, network, condition)[0]).abs().max()) > 1e-4


def test_fewer_qubits_are_cells_of_zeros() -> None:
    cells = randomise(networks()["cells"])
    x, t, condition = torch.randn(2, 4, 2, STEPS), torch.tensor([3, 7]), torch.randn(2, 5, 8)
    prediction, _ = cells(x, t, condition)
    assert prediction.shape == x.shape
    whole, _ = cells(torch.cat([x, torch.zeros(2, 4, 1, STEPS)], dim=2), t, condition)
    torch.testing.assert_close(prediction, whole[:, :, :2])


@pytest.mark.parametrize("name", ["instructions", "cells", "unet"])
def test_bfloat16_autocast_runs(name: str) -> None:
    network = networks()[name]
    with torch.autocast("cpu", torch.bfloat16):
        prediction, prefix = call(name, network, torch.randn(4, 5, 8))
        loss = prediction.float().square().mean()
    loss.backward()
    assert prediction.dtype == (torch.bfloat16 if name == "unet" else torch.float32)
    assert prefix is None or prefix.dtype == torch.float32
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


# ------------------------------------------------------------------------------------------------- with a memory


@pytest.mark.parametrize("order", get_args(StepOrder))
@pytest.mark.parametrize(("sample_steps", "with_known"), [(None, False), (None, True), (3, True)])
def test_reading_with_a_memory_writes_the_same_circuits(
    order: StepOrder, sample_steps: int | None, with_known: bool
) -> None:
    """Whole passes over all steps are the oracle; with a condition a step, as what is left to do is."""
    steps, count = 9, 40
    torch.manual_seed(0)
    network = InstructionTransformer(
        num_instructions=12,
        max_steps=steps,
        condition_dim=8,
        width=16,
        depth=3,
        num_heads=2,
        feed_forward=2,
        with_step_condition=True,
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.3 * torch.randn(weight.shape)
    condition = torch.randn(count, 5, 8)
    shown = torch.randn(12, 8)

    def left(ids: Tensor, rank: Tensor) -> Tensor:
        """Stands for what is left to do: a sum over what is revealed, the same for all other steps."""
        return (shown[ids] * (rank < steps)[..., None]).sum(dim=1)

    def whole(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        return network(ids, rank, condition, left(ids, rank)[:, None].expand(-1, steps, -1))[0], None

    memory = network.remember(condition, steps)

    def remembering(ids: Tensor, rank: Tensor, wanted: Tensor) -> tuple[Tensor, None]:
        found = network.read(memory, ids, rank, wanted, left(ids, rank))
        expected = of_wanted_steps(whole)(ids, rank, wanted)[0]
        is_open = (rank == steps).gather(1, wanted)
        torch.testing.assert_close(found[is_open], expected[is_open], atol=2e-5, rtol=2e-5)
        return found, None

    known = (
        torch.rand(count, steps) < torch.rand(count, 1) if with_known else torch.zeros(count, steps, dtype=torch.bool)
    )
    options: dict[str, Any] = {
        "sample_steps": sample_steps,
        "order": order,
        "start": torch.randint(0, 12, (count, steps)),
        "known": known,
    }

    def draw(denoise: Any) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
        allowed = torch.ones(count, 12, dtype=torch.bool)
        return MaskedDiffusion().sample(denoise, steps, generators, allowed, **options)

    assert torch.equal(draw(remembering), draw(of_wanted_steps(whole)))
