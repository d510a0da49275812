"""Masked diffusion: orders, the loss over all noise levels, and what sampling draws."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quantum_diffusion.config.schema import StepOrder
from quantum_diffusion.diffusion.masked import Draw, MaskedDiffusion, end_is_surer, of_wanted_steps
from quantum_diffusion.diffusion.noise import Noise

STEPS = 5
VOCABULARY = 7


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def anything(count: int) -> Tensor:
    return torch.ones(count, VOCABULARY, dtype=torch.bool)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_order_is_a_permutation(share: float) -> None:
    rank = MaskedDiffusion(share).draw_rank(2000, STEPS, Noise(torch.Generator().manual_seed(0)))
    assert torch.equal(rank.sort(dim=1).values, torch.arange(STEPS).expand(2000, STEPS))
    from_start = float((rank == torch.arange(STEPS)).all(dim=1).float().mean())
    expected = share + (1 - share) / 120
    assert abs(from_start - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5 + 1e-9


def test_random_orders_are_uniform() -> None:
    rank = MaskedDiffusion().draw_rank(60_000, 3, Noise(torch.Generator().manual_seed(0)))
    seen = Counter(map(tuple, rank.tolist()))
    assert len(seen) == 6
    assert sum((count - 10_000) ** 2 / 10_000 for count in seen.values()) < 20.5  # chi-square, 5 degrees, p = 0.001


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_how_many_prefixes_end_with_what_was_revealed_last(share: float) -> None:
    process = MaskedDiffusion(share)
    rank = process.draw_rank(20_000, STEPS, Noise(torch.Generator().manual_seed(0)))
    counts = (rank.cummax(dim=1).values == rank).sum(dim=1).double()
    error = float(counts.std()) / 20_000**0.5
    assert abs(float(counts.mean()) - process.mean_prefixes(STEPS)) < 4 * error + 1e-9
    assert MaskedDiffusion().mean_prefixes(3) == pytest.approx(11 / 6)


def test_the_loss_is_the_mean_over_all_noise_levels() -> None:
    torch.manual_seed(0)
    table = torch.randn(2**STEPS, STEPS, VOCABULARY)
    ids = torch.randint(0, VOCABULARY, (4, STEPS))
    process = MaskedDiffusion()
    rank = process.draw_rank(4, STEPS, Noise(torch.Generator().manual_seed(1)))

    def logits_given(revealed: Tensor) -> Tensor:
        """Logits [T, V] that depend on which steps are revealed: bool [T]."""
        return table[int((revealed * 2 ** torch.arange(STEPS)).sum())]

    def denoise(ids: Tensor, rank: Tensor) -> Tensor:
        rows = [[logits_given(order < order[step])[step] for step in range(STEPS)] for order in rank]
        return torch.stack([torch.stack(row) for row in rows])

    slow = torch.zeros(4)
    for row, level in itertools.product(range(4), range(STEPS)):
        step = int((rank[row] == level).nonzero())
        slow[row] += F.cross_entropy(logits_given(rank[row] < level)[step], ids[row, step]) / STEPS
    torch.testing.assert_close(process.loss(denoise, ids, rank), slow)


@pytest.mark.parametrize("order", get_args(StepOrder))
@pytest.mark.parametrize("sample_steps", [None, 1, 2, 3, STEPS, 10 * STEPS])
def test_an_oracle_writes_its_circuit(order: str, sample_steps: int | None) -> None:
    target = torch.randint(0, VOCABULARY, (6, STEPS), generator=torch.Generator().manual_seed(0))
    calls: list[Tensor] = []

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        calls.append(rank.clone())
        revealed = rank < STEPS
        assert torch.equal(ids[revealed], target[revealed])
        return 100.0 * F.one_hot(target, VOCABULARY).float(), None

    found = MaskedDiffusion().sample(
        of_wanted_steps(denoise), STEPS, generators(6), anything(6), sample_steps=sample_steps, order=order
    )
    assert torch.equal(found, target)
    assert len(calls) == min(sample_steps or STEPS, STEPS)
    if order == "left_to_right" and len(calls) == STEPS:
        for call, rank in enumerate(calls):
            assert (rank < STEPS).tolist() == [[step < call for step in range(STEPS)]] * 6


def test_confidence_reveals_the_surest_step_first() -> None:
    sureness = torch.tensor([1.0, 5.0, 3.0, 2.0, 4.0])
    seen: list[int] = []

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        seen.append(int((rank < STEPS).sum()))
        if seen[-1]:
            revealed = (rank[0] < STEPS).nonzero().flatten().tolist()
            assert revealed == sorted(sureness.argsort(descending=True)[: seen[-1]].tolist())
        logits = torch.zeros(1, STEPS, VOCABULARY)
        logits[0, :, 3] = sureness
        return logits, None

    MaskedDiffusion().sample(of_wanted_steps(denoise), STEPS, generators(1), anything(1), order="confidence")
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", get_args(StepOrder))
def test_forbidden_instructions_are_never_drawn(order: str) -> None:
    allowed = torch.rand(200, VOCABULARY, generator=torch.Generator().manual_seed(2)) < 0.5
    allowed[:, 0] |= ~allowed.any(dim=1)

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.where(allowed, -30.0, 30.0)[:, None].expand(-1, STEPS, -1)  # the network loves what is forbidden
        return wanted, -wanted

    for steps in (None, 2):
        found = MaskedDiffusion().sample(
            of_wanted_steps(denoise),
            STEPS,
            generators(200),
            allowed,
            Draw(guidance_scale=3.0),
            sample_steps=steps,
            order=order,
        )
        assert bool(allowed.gather(1, found).all())


def test_the_largest_uniform_number_draws_a_possible_category() -> None:
    from quantum_diffusion.diffusion.masked import _inverse_cdf

    probabilities = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0, 0.0]).expand(1, 3, 6)
    uniform = torch.tensor([[0.0, 0.5, 1 - 2**-24]])
    assert _inverse_cdf(probabilities, uniform).tolist() == [[1, 3, 3]]
    tiny = probabilities * 1e-30
    assert _inverse_cdf(tiny, uniform).tolist() == [[1, 3, 3]]


@pytest.mark.parametrize("order", ["random", "left_to_right"])
def test_samples_follow_the_distribution(order: str) -> None:
    """Two steps of three instructions with a known joint distribution, given as exact conditionals."""
    joint = torch.tensor([[0.10, 0.20, 0.05], [0.05, 0.00, 0.25], [0.15, 0.10, 0.10]])
    count = 8000

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        first_known, second_known = (rank < 2).unbind(1)
        first = torch.where(second_known[:, None], joint.T[ids[:, 1]], joint.sum(1))
        second = torch.where(first_known[:, None], joint[ids[:, 0]], joint.sum(0))
        return torch.stack([first, second], dim=1).log(), None

    allowed = torch.ones(count, 3, dtype=torch.bool)
    found = MaskedDiffusion().sample(of_wanted_steps(denoise), 2, generators(count), allowed, order=order)
    counts = torch.bincount(found[:, 0] * 3 + found[:, 1], minlength=9).view(3, 3)
    expected = count * joint
    assert int(counts[1, 1]) == 0
    possible = expected > 0
    chi_square = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    assert chi_square < 24.3, "7 degrees of freedom, p = 0.001"


@pytest.mark.parametrize("order", get_args(StepOrder))
def test_a_sample_does_not_depend_on_its_batch(order: str) -> None:
    weight = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.one_hot(ids, VOCABULARY).float() * (rank < STEPS)[..., None]
        logits = seen.cumsum(1) @ weight + torch.arange(STEPS)[:, None] * 0.1
        return logits, 0.5 * logits

    def draw(first: int, count: int) -> Tensor:
        return MaskedDiffusion().sample(
            of_wanted_steps(denoise),
            STEPS,
            generators(count, first),
            anything(count),
            Draw(guidance_scale=2.0),
            order=order,
        )

    assert torch.equal(draw(0, 10), torch.cat([draw(0, 1), draw(1, 6), draw(7, 3)]))


def test_guidance_sharpens_the_difference_to_no_prompt() -> None:
    conditional = torch.tensor([0.5, 0.3, 0.2]).log().expand(1, 1, 3)
    free = torch.tensor([0.4, 0.4, 0.2]).log().expand(1, 1, 3)
    count = 6000
    answers: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda ids, rank: (  # noqa: E731
        conditional.expand(count, 1, 3),
        free.expand(count, 1, 3),
    )
    allowed = torch.ones(count, 3, dtype=torch.bool)
    found = MaskedDiffusion().sample(of_wanted_steps(answers), 1, generators(count), allowed, Draw(guidance_scale=2.0))
    expected = torch.tensor([0.5**2 / 0.4, 0.3**2 / 0.4, 0.2**2 / 0.2])
    expected = count * expected / expected.sum()
    counts = torch.bincount(found.flatten(), minlength=3)
    assert float(((counts - expected) ** 2 / expected).sum()) < 13.8, "2 degrees of freedom, p = 0.001"


def draw_known(count: int, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """Circuits [count, T] and which of their steps are known, with rows of none and of all."""
    rng = torch.Generator().manual_seed(4)
    known = torch.rand(count, STEPS, generator=rng) < share
    known[0], known[1] = False, True
    return torch.randint(0, VOCABULARY, (count, STEPS), generator=rng), known


@pytest.mark.parametrize("order", get_args(StepOrder))
@pytest.mark.parametrize("sample_steps", [None, 1, 2, 3, 10 * STEPS])
def test_known_steps_are_seen_from_the_start_and_never_change(order: str, sample_steps: int | None) -> None:
    target = torch.randint(0, VOCABULARY, (40, STEPS), generator=torch.Generator().manual_seed(0))
    start, known = draw_known(40)
    target = torch.where(known, start, target)
    ranks: list[Tensor] = []

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        ranks.append(rank.clone())
        revealed = rank < STEPS
        assert torch.equal(ids[revealed], target[revealed])
        assert bool(revealed[known].all())
        return 100.0 * F.one_hot(target, VOCABULARY).float(), None

    found = MaskedDiffusion().sample(
        of_wanted_steps(denoise),
        STEPS,
        generators(40),
        anything(40),
        sample_steps=sample_steps,
        order=order,
        start=start,
        known=known,
    )
    assert torch.equal(found, target)
    assert len(ranks) == min(sample_steps or STEPS, STEPS)
    assert torch.equal(ranks[0], torch.where(known, known.cumsum(1) - 1, STEPS)), "known steps come first, in place"
    for earlier, later in itertools.pairwise(ranks):
        was_revealed = earlier < STEPS
        assert torch.equal(earlier[was_revealed], later[was_revealed])
        for row in later:
            revealed = row[row < STEPS].sort().values
            assert torch.equal(revealed, torch.arange(len(revealed))), "ranks are those of an order"
        unfinished = ~was_revealed.all(dim=1)
        assert bool((later < STEPS).sum(1)[unfinished].gt(was_revealed.sum(1)[unfinished]).all())


@pytest.mark.parametrize("order", get_args(StepOrder))
def test_a_sample_with_known_steps_does_not_depend_on_its_batch(order: str) -> None:
    weight = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))
    start, known = draw_known(12)

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        seen = F.one_hot(ids, VOCABULARY).float() * (rank < STEPS)[..., None]
        return seen.cumsum(1) @ weight + rank[..., None] * torch.arange(VOCABULARY) * 0.1, None

    def draw(first: int, last: int, sample_steps: int | None) -> Tensor:
        rows = slice(first, last)
        return MaskedDiffusion().sample(
            of_wanted_steps(denoise),
            STEPS,
            generators(last - first, first),
            anything(last - first),
            sample_steps=sample_steps,
            order=order,
            start=start[rows],
            known=known[rows],
        )

    for steps in (None, 2, 3):
        together = draw(0, 12, steps)
        assert torch.equal(together, torch.cat([draw(row, row + 1, steps) for row in range(12)]))
        assert torch.equal(together[known], start[known])


@pytest.mark.parametrize("order", get_args(StepOrder))
def test_each_step_keeps_to_its_own_instructions(order: str) -> None:
    allowed = torch.rand(200, STEPS, VOCABULARY, generator=torch.Generator().manual_seed(2)) < 0.4
    allowed[..., 0] |= ~allowed.any(dim=2)

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.where(allowed, -30.0, 30.0)
        return wanted, -wanted

    found = MaskedDiffusion().sample(
        of_wanted_steps(denoise), STEPS, generators(200), allowed, Draw(guidance_scale=3.0), order=order
    )
    assert bool(allowed.gather(2, found[..., None]).all())


def test_what_is_filled_in_follows_the_distribution_given_what_is_known() -> None:
    """Two steps of three instructions: the first given the second, from the joint distribution's conditional."""
    joint = torch.tensor([[0.10, 0.20, 0.05], [0.05, 0.00, 0.25], [0.15, 0.10, 0.10]])
    count = 9000
    start = torch.arange(3).repeat(count // 3)[:, None].expand(-1, 2)
    known = torch.tensor([False, True]).expand(count, 2)

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        assert bool((rank[:, 1] == 0).all())
        return joint.T[ids[:, 1]].log()[:, None].expand(-1, 2, -1), None

    allowed = torch.ones(count, 3, dtype=torch.bool)
    found = MaskedDiffusion().sample(of_wanted_steps(denoise), 2, generators(count), allowed, start=start, known=known)
    assert torch.equal(found[:, 1], start[:, 1])
    counts = torch.bincount(found[:, 0] * 3 + found[:, 1], minlength=9).view(3, 3)
    expected = joint / joint.sum(0) * (count // 3)
    possible = expected > 0
    assert int(counts[1, 1]) == 0
    chi_square = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    assert chi_square < 20.5, "5 degrees of freedom, p = 0.001"


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.6), (0.5, 0.9)])
def test_temperature_and_top_p_shape_what_is_drawn(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -2.0, 0.0, 1.5, -0.5][:VOCABULARY])
    count = 4000

    def denoise(ids: Tensor, rank: Tensor) -> tuple[Tensor, None]:
        return logits.expand(len(ids), 1, -1), None

    found = MaskedDiffusion().sample(
        of_wanted_steps(denoise), 1, generators(count), anything(count), Draw(temperature=temperature, top_p=top_p)
    )
    wanted = (logits / temperature).softmax(0)
    order = wanted.argsort(descending=True)
    kept = order[: 1 + int((wanted[order].cumsum(0) < top_p).sum())]
    expected = torch.zeros_like(wanted)
    expected[kept] = wanted[kept]
    share = torch.bincount(found[:, 0], minlength=VOCABULARY) / count
    torch.testing.assert_close(share, expected / expected.sum(), atol=0.03, rtol=0)
    assert not share[expected == 0].any()


def test_guidance_grows_in_proportion_to_what_is_known() -> None:
    rng = torch.Generator().manual_seed(0)
    conditional, free = torch.randn(2, 4, 1, 5, generator=rng).log_softmax(-1)
    known = torch.tensor([[0], [1], [4], [9]])
    draw = Draw(guidance_scale=3.0, guidance_growth=4.0)
    found = draw.probabilities(conditional, free, known, torch.ones(4, 1, 5, dtype=torch.bool))
    scale = torch.tensor([1.0, 1.5, 3.0, 3.0])[:, None, None]
    torch.testing.assert_close(found, (free + scale * (conditional - free)).softmax(-1))


def test_where_circuits_end_only_gates_and_the_first_no_gate_are_learned() -> None:
    ids = torch.tensor([[3, 1, 0, 0, 0], [2, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    counted = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    logits = torch.randn(3, STEPS, VOCABULARY, generator=torch.Generator().manual_seed(0))

    def denoise(ids: Tensor, rank: Tensor, counts: Tensor) -> Tensor:
        assert torch.equal(counts, counted)
        return logits

    rank = torch.arange(STEPS).expand(3, STEPS)
    likelihood = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    torch.testing.assert_close(
        MaskedDiffusion(suffix_share=1).loss(denoise, ids, rank), -(likelihood * counted).sum(1) / STEPS
    )


def test_top_p_allows_no_more_than_it_needs() -> None:
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125]).log().expand(1, 1, 4)
    every, known = torch.ones(1, 1, 4, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64)
    for top_p, expected in {0.4: [1], 0.5: [1], 0.51: [1, 2], 0.75: [1, 2], 0.8: [0, 1, 2], 1.0: [0, 1, 2, 3]}.items():
        drawn = Draw(top_p=top_p).probabilities(logits, None, known, every)
        assert drawn[0, 0].nonzero().flatten().tolist() == expected


def test_the_surer_end_is_surer_by_a_margin() -> None:
    first = torch.tensor([0.25, 0.5, 0.25]).repeat(4, 1)
    last = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.25, 0.25], [0.5005, 0.4995, 0.0], [0.49, 0.49, 0.02]])
    assert end_is_surer(torch.stack([first, last], dim=1)).tolist() == [True, False, False, False]
    assert end_is_surer(torch.stack([last, first], dim=1)).tolist() == [False, False, False, True]
    assert end_is_surer(first[:, None]).tolist() == [False] * 4


def test_processes_that_share_a_batch_draw_its_rows() -> None:
    def drawn(*rows: Any) -> list[Tensor]:
        noise = Noise(torch.Generator().manual_seed(0), *rows)
        count = 2 if rows else 6
        return [noise.uniform(count, 3), noise.normal(count, 2, 3), noise.places(count)]

    whole = drawn()
    parts = zip(*(drawn(slice(first, first + 2), 6) for first in (0, 2, 4)), strict=True)
    for expected, found in zip(whole, parts, strict=True):
        assert torch.equal(torch.cat(found), expected)
    assert [tuple(numbers.shape) for numbers in whole] == [(6, 3), (6, 2, 3), (6,)]
