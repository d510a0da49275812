"""Learning-rate schedules against torch and closed forms, and which optimizer gets which weights."""

import itertools
import math

import pytest
import torch
from torch import nn

from quantum_diffusion.errors import ConfigError
from quantum_diffusion.training.muon import Muon, orthogonalised
from quantum_diffusion.training.optim import (
    LR_SCHEDULES,
    OPTIMIZERS,
    learning_rate_factor,
    make_lr_schedules,
    make_optimizers,
)


def factors(name: str, total: int, warmup: float) -> list[float]:
    return [learning_rate_factor(name, step, total, warmup) for step in range(total)]


# Not 7 steps with a share of .1: there torch's own schedule has its peak before its first step.
@pytest.mark.parametrize(("total", "warmup"), [(7, 0.3), (7, 0.5), *itertools.product((100, 1000), (0.1, 0.3, 0.5))])
def test_one_cycle_is_torchs(total: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total, pct_start=warmup)
    for ours in factors("one_cycle", total, warmup):
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimizer.step()
        if theirs.last_epoch < total - 1:
            theirs.step()


def test_cosine_rises_straight_and_falls_as_a_cosine() -> None:
    course = factors("cosine", 100, 0.1)
    assert course[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert course[10] == 1.0
    assert course[10:] == pytest.approx([(1 + math.cos(math.pi * step / 89)) / 2 for step in range(90)])
    assert course[-1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", LR_SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
@pytest.mark.parametrize("total", [1, 2, 3, 50])
def test_every_schedule_stays_between_zero_and_the_peak(name: str, warmup: float, total: int) -> None:
    course = [*factors(name, total, warmup), learning_rate_factor(name, total, total, warmup)]
    assert all(0 <= factor <= 1 for factor in course)
    assert name != "constant" or set(course) == {1.0}
    if total > 1:
        assert max(course) > 0.4


def network() -> nn.ModuleDict:
    block = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)]), "predict": nn.Linear(4, 2)})
    return nn.ModuleDict({"backbone": block, "condition_encoder": nn.Linear(3, 4)})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_weight_has_exactly_one_optimizer(name: str) -> None:
    weights = network()
    optimizers = make_optimizers(weights, name, 1e-2, 0.1)
    owned = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, weights.parameters()))
    assert len(optimizers) == (2 if name == "muon" else 1)
    if name == "muon":
        (matrix,) = optimizers[1].param_groups[0]["params"]
        assert matrix is weights["backbone"]["blocks"][0].weight
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(p.ndim <= 1 for p in group["params"]):
                assert group["weight_decay"] == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name: str) -> None:
    torch.manual_seed(0)
    weights = network()
    optimizers = make_optimizers(weights, name, 1e-2, 0.0)
    schedules = make_lr_schedules(optimizers, "cosine", 50, 0.1)
    losses = []
    for _ in range(50):
        loss = sum(p.square().sum() for p in weights.parameters())
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
    assert losses[-1] < 0.6 * losses[0]
    assert {schedule.get_last_lr()[0] for schedule in schedules} == {0.0}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adam'"):
        make_optimizers(network(), "adm", 1e-3, 0.0)
    with pytest.raises(ConfigError, match="did you mean 'one_cycle'"):
        learning_rate_factor("onecycle", 0, 10, 0.1)


def test_muon_is_torch_s_but_for_rounding() -> None:
    """Same state, same moves to the accuracy of bfloat16; wide, square and tall matrices, some without a gradient."""
    shapes = [(8, 8), (8, 24), (24, 8), (8, 8), (6, 6)]
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes[:-1]] for _ in range(4)]
    ends, states = [], []
    for kind in (torch.optim.Muon, Muon):
        weights = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = kind(weights, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=False):
                weight.grad = gradient
            optimizer.step()
        ends.append(weights)
        states.append(optimizer.state_dict())
    for start, theirs, ours in zip(starts, *ends, strict=True):
        moved = (theirs - start).norm()
        assert (theirs - ours).norm() <= 0.02 * moved
    assert torch.equal(ends[1][-1], starts[-1]), "without a gradient nothing moves"
    theirs, ours = states
    assert theirs["param_groups"] == ours["param_groups"]
    assert theirs["state"].keys() == ours["state"].keys()
    for key, state in theirs["state"].items():
        torch.testing.assert_close(state["momentum_buffer"], ours["state"][key]["momentum_buffer"])


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(5, 12, 30, generator=torch.Generator().manual_seed(0))
    for given in (matrices, matrices.mT):
        found = orthogonalised(given, 5, 1e-7)
        values = torch.linalg.svdvals(found)
        assert 0.6 < float(values.min()) < float(values.max()) < 1.3
        alone = torch.cat([orthogonalised(one[None], 5, 1e-7) for one in given])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
