"""Gaussian diffusion: noising, targets, sampling against genQC step by step, and an oracle for every sampler."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from quantum_diffusion.config.schema import GAUSSIAN_SAMPLERS, BetaSchedule
from quantum_diffusion.diffusion.gaussian import GaussianDiffusion
from quantum_diffusion.diffusion.guidance import guide_plain, guide_rescaled
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.gate_embedding import GateEmbedding

POOL = 2
VOCABULARY = POOL + 2
SHAPE = (4, 3, 6)
OBJECTIVES = [("epsilon", "mse"), ("v", "mse"), ("x0", "mse"), ("x0", "cross_entropy")]


@pytest.fixture(scope="module")
def codebook() -> GateEmbedding:
    return GateEmbedding(VOCABULARY, 4, generator=torch.Generator().manual_seed(0))


def draw_tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(-POOL, POOL + 1, (count, *SHAPE[1:]), generator=torch.Generator().manual_seed(seed))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def make(codebook: GateEmbedding, objective: str = "epsilon", loss: str = "mse", **options: Any) -> GaussianDiffusion:
    return GaussianDiffusion(codebook, objective=objective, loss=loss, **options)


@pytest.mark.parametrize("schedule", get_args(BetaSchedule))
def test_noising_agrees_with_genqc_and_diffusers(codebook: GateEmbedding, schedule: str) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    process = make(codebook, beta_schedule=schedule)
    x0, noise = torch.randn(2, 5, *SHAPE)
    t = torch.tensor([0, 1, 500, 998, 999])
    ours = process.add_noise(x0, noise, t)
    theirs = DDIMScheduler(trained_betas=process.betas.float().numpy())
    torch.testing.assert_close(ours, theirs.add_noise(x0, noise, t), rtol=1e-5, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.scheduler.scheduler_ddim")
        third = genqc.DDIMScheduler("cpu", beta_schedule=schedule, enable_zero_terminal_snr=False)
    torch.testing.assert_close(ours, third.add_noise(x0, noise, t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero", [False, True])
def test_every_target_recovers_the_circuit(codebook: GateEmbedding, zero: bool) -> None:
    x0, noise = torch.randn(2, 5, *SHAPE, dtype=torch.float64)
    t = torch.tensor([0, 1, 500, 900, 980])
    signal, spread = make(codebook)._coefficients(t, x0)
    for objective in ("epsilon", "v", "x0"):
        process = make(codebook, objective, zero_terminal_snr=zero and objective != "epsilon")
        signal, spread = process._coefficients(t, x0)
        x_t, target = process.add_noise(x0, noise, t), process.target(x0, noise, t)
        recovered = {
            "epsilon": (x_t - spread * target) / signal,
            "v": signal * x_t - spread * target,
            "x0": target,
        }[objective]
        torch.testing.assert_close(recovered, x0)


def test_the_last_level_of_zero_terminal_snr_is_pure_noise(codebook: GateEmbedding) -> None:
    process = make(codebook, "v", zero_terminal_snr=True)
    x0, noise = torch.randn(2, 1, *SHAPE)
    assert torch.equal(process.add_noise(x0, noise, torch.tensor([999])), noise)
    assert int(process.make_scheduler("ddim", 20).timesteps[0]) == 999


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("ours", "theirs"), [("epsilon", "epsilon"), ("v", "v-type"), ("x0", "x0")])
@pytest.mark.parametrize("steps", [7, 20, 30, 40])
def test_ddim_equals_genqc_step_by_step(
    codebook: GateEmbedding, monkeypatch: pytest.MonkeyPatch, eta: float, ours: str, theirs: str, steps: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.scheduler.scheduler_ddim")
        reference = genqc.DDIMScheduler(
            "cpu",
            beta_schedule="cos_alpha",
            prediction_type=theirs,
            enable_zero_terminal_snr=False,
            eta=eta,
        )
    process = make(codebook, ours, eta=eta)
    trace: list[Tensor] = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * torch.tanh(x) + 0.2 * torch.sin(t.view(-1, 1, 1, 1).float())

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        trace.append(x.clone())
        return predict(x, t), None

    process.sample(denoise, SHAPE, generators(1, 2), torch.device("cpu"), sample_steps=steps)

    again = generators(1, 2)
    draw = lambda like: torch.stack([torch.randn(SHAPE, generator=g) for g in again])  # noqa: E731
    x = draw(None)
    monkeypatch.setattr(torch, "randn_like", draw)
    reference.set_timesteps(steps)
    for number, t in enumerate(reference.timesteps):
        torch.testing.assert_close(trace[number], x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
        x = reference.step(predict(x, t.view(1)), t.view(1), x).prev_sample
    assert len(trace) == steps


def oracle(process: GaussianDiffusion, x0: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, None]]:
    """What a perfect network says when the circuits are x0."""

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        signal, spread = process._coefficients(t, x.double())
        if process.objective == "x0":
            return 20 * x0 if process.loss_kind == "cross_entropy" else x0, None
        if process.objective == "v":
            return ((signal * x - x0) / spread).float(), None
        return ((x - signal * x0) / spread).float(), None

    return denoise


@pytest.mark.parametrize(
    ("objective", "loss", "zero"),
    [*((*kind, False) for kind in OBJECTIVES), *((*kind, True) for kind in OBJECTIVES[1:])],
)
@pytest.mark.parametrize("sampler", GAUSSIAN_SAMPLERS)
def test_an_oracle_recovers_the_circuits(
    codebook: GateEmbedding, sampler: str, objective: str, loss: str, zero: bool
) -> None:
    process = make(codebook, objective, loss, sampler=sampler, zero_terminal_snr=zero)
    tokens = draw_tokens(4)
    denoise = oracle(process, codebook.embed(tokens))
    for steps in (1, 7, 20):
        if zero and sampler in ("dpmsolver++", "unipc"):
            with pytest.raises(ConfigError, match="zero signal"):
                process.sample(denoise, SHAPE, generators(*range(4)), torch.device("cpu"), sample_steps=steps)
        else:
            found = process.sample(denoise, SHAPE, generators(*range(4)), torch.device("cpu"), sample_steps=steps)
            assert torch.equal(found.long(), tokens), f"{steps} steps"


@pytest.mark.parametrize("sampler", GAUSSIAN_SAMPLERS)
@pytest.mark.parametrize(("objective", "loss"), [("epsilon", "mse"), ("x0", "cross_entropy")])
def test_a_sample_does_not_depend_on_its_batch(
    codebook: GateEmbedding, sampler: str, objective: str, loss: str
) -> None:
    process = make(codebook, objective, loss, sampler=sampler)
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(5))

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        mixed = torch.einsum("bcqt,cd->bdqt", x, weight)
        return torch.tanh(mixed), torch.tanh(0.5 * mixed)

    def draw(*seeds: int) -> Tensor:
        options: dict[str, Any] = {"guidance_scale": 2.0, "sample_steps": 6}
        return process.sample(denoise, SHAPE, generators(*seeds), torch.device("cpu"), **options)

    together = draw(1, 2, 3, 4, 5)
    apart = torch.cat([draw(1), draw(2, 3), draw(4, 5)])
    assert torch.equal(together, apart)
    assert not torch.equal(together[0], together[1])


def test_low_variance_levels_are_stratified(codebook: GateEmbedding) -> None:
    process = make(codebook)
    for seed in range(5):
        levels = process.draw_levels(100, Noise(torch.Generator().manual_seed(seed)), low_variance=True)
        assert sorted((levels // 10).tolist()) == list(range(100)), "one level from each of 100 equal ranges"
        assert levels.tolist() != sorted(levels.tolist()), "and not in the order of the circuits"
    free = process.draw_levels(20_000, Noise(torch.Generator().manual_seed(0)), low_variance=False)
    assert (int(free.min()), int(free.max())) == (0, 999)
    assert abs(float(free.float().mean()) - 499.5) < 4 * 289 / 20_000**0.5


def test_the_loss_draws_such_levels_unless_told_otherwise(codebook: GateEmbedding) -> None:
    drawn: dict[bool | None, Tensor] = {}

    def losses(low_variance: bool | None) -> None:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            drawn[low_variance] = t
            return x

        chosen = {} if low_variance is None else {"low_variance": low_variance}
        make(codebook).loss(denoise, draw_tokens(20), Noise(torch.Generator().manual_seed(0)), **chosen)

    for chosen in (None, True, False):
        losses(chosen)
    ranges = {chosen: sorted((levels // 50).tolist()) for chosen, levels in drawn.items()}
    assert ranges[None] == ranges[True] == list(range(20))
    assert ranges[False] != ranges[True]


def test_numbers_just_below_one_draw_the_last_level(codebook: GateEmbedding) -> None:
    class Largest(Noise):
        def uniform(self, count: int, *shape: int) -> Tensor:
            return torch.full((count, *shape), 1 - 2**-24)

    for low_variance in (True, False):
        levels = make(codebook).draw_levels(8, Largest(torch.Generator()), low_variance)
        assert int(levels.max()) == 999, "rounding must not leave the levels"


def test_input_perturbation_changes_the_input_and_not_the_target(codebook: GateEmbedding) -> None:
    tokens = draw_tokens(64)
    seen: dict[float, Tensor] = {}
    for strength in (0.0, 0.1):
        process = make(codebook, input_perturbation=strength)

        def denoise(x: Tensor, t: Tensor, strength: float = strength) -> Tensor:
            seen[strength] = x
            return torch.zeros_like(x)

        loss = process.loss(denoise, tokens, Noise(torch.Generator().manual_seed(3)))
        if strength == 0:
            plain_loss = loss
    torch.testing.assert_close(loss, plain_loss)  # the loss of a prediction of zeros is the target's mean square
    assert not torch.allclose(seen[0.0], seen[0.1])
    assert float((seen[0.1] - seen[0.0]).abs().mean()) < 0.1


@pytest.mark.parametrize(("objective", "loss"), OBJECTIVES)
def test_the_loss_of_an_oracle_is_zero(codebook: GateEmbedding, objective: str, loss: str) -> None:
    process = make(codebook, objective, loss, input_perturbation=0.0)
    tokens = draw_tokens(8)
    exact = oracle(process, codebook.embed(tokens))
    losses = process.loss(lambda x, t: exact(x, t)[0], tokens, Noise(torch.Generator().manual_seed(0)))
    assert losses.shape == (8,)
    assert float(losses.max()) < 1e-4


def test_cross_entropy_is_that_of_the_signed_tokens(codebook: GateEmbedding) -> None:
    process = make(codebook, "x0", "cross_entropy")
    tokens = draw_tokens(5)
    losses = process.loss(lambda x, t: torch.zeros_like(x), tokens, Noise(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(losses, torch.full((5,), math.log(2 * VOCABULARY - 1)))


def test_impossible_samplers_and_steps_are_refused(codebook: GateEmbedding) -> None:
    process = make(codebook, num_train_timesteps=50)
    with pytest.raises(ConfigError, match="did you mean 'ddim'"):
        process.make_scheduler("dim", 5)
    with pytest.raises(ConfigError, match="sample_steps=51"):
        process.make_scheduler("ddim", 51)
    for sampler in GAUSSIAN_SAMPLERS:
        assert len(process.make_scheduler(sampler, 50).timesteps) >= 49


def test_each_sampler_is_the_one_of_its_name(codebook: GateEmbedding) -> None:
    process = make(codebook, num_train_timesteps=50)
    names = {sampler: type(process.make_scheduler(sampler, 5)).__name__ for sampler in GAUSSIAN_SAMPLERS}
    assert names == {
        "ddim": "DDIMScheduler",
        "ddpm": "DDPMScheduler",
        "dpmsolver++": "DPMSolverMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
    }


def test_the_mode_of_guidance_is_the_process_s_own_unless_another_is_asked_for(
    codebook: GateEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebook, "invert", lambda x: x)  # the vectors themselves, not their nearest tokens
    guided = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0)).unbind()

    def sampled(own: dict[str, Any], mode: str | None) -> Tensor:
        process = make(codebook, num_train_timesteps=50, **own)
        return process.sample(
            lambda x, t: guided,
            SHAPE,
            generators(1, 2),
            torch.device("cpu"),
            guidance_scale=4.0,
            guidance_mode=mode,
            sample_steps=3,
        )

    plain, rescaled = sampled({}, None), sampled({"guidance_mode": "rescaled"}, None)
    assert not torch.allclose(plain, rescaled)
    assert torch.equal(sampled({"guidance_mode": "rescaled"}, "plain"), plain)
    assert torch.equal(sampled({}, "rescaled"), rescaled)


@pytest.mark.parametrize("sampler", GAUSSIAN_SAMPLERS)
def test_a_single_step_writes_the_guided_prediction(
    codebook: GateEmbedding, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """However large its entries are: nothing is clipped."""
    monkeypatch.setattr(codebook, "invert", lambda x: x)
    conditional, unconditional = 3 * torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    classes = [codebook.logits(x).log_softmax(1) for x in (conditional, unconditional)]
    expected = {
        ("mse", "plain"): guide_plain(conditional, unconditional, 2.5),
        ("mse", "rescaled"): guide_rescaled(conditional, unconditional, 2.5),
        ("cross_entropy", "plain"): codebook.expectation(guide_plain(*classes, 2.5).softmax(1)),
    }
    for (loss, mode), wanted in expected.items():
        found = make(codebook, "x0", loss, sampler=sampler, guidance_mode=mode).sample(
            lambda x, t: (conditional, unconditional),
            SHAPE,
            generators(1, 2),
            torch.device("cpu"),
            guidance_scale=2.5,
            sample_steps=1,
        )
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_cfg_plus_plus_adds_the_noise_of_no_prompt_back(
    codebook: GateEmbedding, monkeypatch: pytest.MonkeyPatch, objective: str, eta: float
) -> None:
    """Arxiv 2406.08070, algorithm 2: the circuit is that of the guided prediction, the noise that of no prompt."""
    monkeypatch.setattr(codebook, "invert", lambda x: x)
    process = make(codebook, objective, num_train_timesteps=50, guidance_mode="cfg++", eta=eta)
    predictions = torch.randn(7, 2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    trace: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        trace.append(x)
        return tuple(predictions[len(trace) - 1])

    found = process.sample(
        denoise, SHAPE, generators(1), torch.device("cpu"), guidance_scale=0.6, sample_steps=len(predictions)
    )
    (again,) = generators(1)
    x = torch.randn(SHAPE, generator=again)[None]
    levels = [42, 35, 28, 21, 14, 7, 0]
    for number, (level, (conditional, unconditional)) in enumerate(zip(levels, predictions, strict=True)):
        torch.testing.assert_close(trace[number], x, rtol=1e-4, atol=1e-4)
        now = float(process.alpha_bar[level])
        later = float(process.alpha_bar[level - 7]) if level else 1.0

        def split(prediction: Tensor, now: float = now, x: Tensor = x) -> tuple[Tensor, Tensor]:
            """The circuit and the noise that a prediction stands for."""
            signal, spread = now**0.5, (1 - now) ** 0.5
            circuit = {
                "epsilon": (x - spread * prediction) / signal,
                "v": signal * x - spread * prediction,
                "x0": prediction,
            }[objective]
            return circuit, (x - signal * circuit) / spread

        circuit, _ = split(guide_plain(conditional, unconditional, 0.6))
        _, noise = split(unconditional)
        variance = eta**2 * (1 - later) / (1 - now) * (1 - now / later)
        x = later**0.5 * circuit + (1 - later - variance) ** 0.5 * noise
        if eta:
            x = x + variance**0.5 * torch.randn(SHAPE, generator=again)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_expectation_of_certain_classes_is_their_embedding(codebook: GateEmbedding) -> None:
    tokens = draw_tokens(3)
    certain = torch.nn.functional.one_hot(codebook.classes(tokens), 2 * VOCABULARY - 1).movedim(-1, 1).float()
    torch.testing.assert_close(codebook.expectation(certain), codebook.embed(tokens))
    assert torch.equal(codebook.logits(codebook.embed(tokens)).argmax(1), codebook.classes(tokens))


def draw_known(count: int) -> tuple[Tensor, Tensor]:
    """Tokens [count, Q, T] and which of them are known."""
    return draw_tokens(count, 1), torch.rand(count, *SHAPE[1:], generator=torch.Generator().manual_seed(9)) < 0.5


@pytest.mark.parametrize(
    ("sampler", "zero"), [*((sampler, False) for sampler in GAUSSIAN_SAMPLERS), ("ddim", True), ("ddpm", True)]
)
def test_the_known_region_is_noised_anew_to_the_level_of_every_step(
    codebook: GateEmbedding, sampler: str, zero: bool
) -> None:
    """What the network sees there: the clean embedding and noise of that level, fresh at every step."""
    process = make(codebook, "v", sampler=sampler, zero_terminal_snr=zero)
    count = 400
    start, known = draw_known(count)
    clean = codebook.embed(start)
    inside = known[:, None].expand_as(clean)
    inner, noises, levels = oracle(process, codebook.embed(draw_tokens(count, 2))), [], []

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        signal, spread = process._coefficients(t, x)
        noises.append(((x - signal * clean) / spread)[inside])
        levels.append(int(t))
        return inner(x, t)

    options: dict[str, Any] = {"start": start, "known": known, "sample_steps": 7}
    found = process.sample(denoise, SHAPE, generators(*range(count)), torch.device("cpu"), **options)
    assert torch.equal(found[known].long(), start[known])
    assert levels == sorted(levels, reverse=True)
    numbers = len(noises[0])
    for noise in noises:
        assert abs(float(noise.mean())) < 4 / numbers**0.5
        assert abs(float(noise.var()) - 1) < 4 * (2 / numbers) ** 0.5
        ordered, normal = noise.sort().values, torch.distributions.Normal(0.0, 1.0)
        distance = (normal.cdf(ordered) - torch.linspace(0, 1, numbers)).abs().max()
        assert float(distance) < 1.95 / numbers**0.5, "Kolmogorov-Smirnov, p = 0.001"
    for one, other in itertools.pairwise(noises):
        assert abs(float((one * other).mean())) < 4 / numbers**0.5


@pytest.mark.parametrize(("objective", "loss"), OBJECTIVES)
@pytest.mark.parametrize("sampler", GAUSSIAN_SAMPLERS)
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.01])
def test_an_oracle_fills_in_the_rest(
    codebook: GateEmbedding, sampler: str, objective: str, loss: str, strength: float
) -> None:
    process = make(codebook, objective, loss, sampler=sampler)
    tokens = draw_tokens(4)
    start, known = draw_known(4)
    honest, seen = oracle(process, codebook.embed(tokens)), []

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        seen.append(int(t))
        return honest(x, t)

    for steps in (1, 7, 20):
        seen.clear()
        options: dict[str, Any] = {"start": start, "known": known, "strength": strength, "sample_steps": steps}
        found = process.sample(denoise, SHAPE, generators(*range(4)), torch.device("cpu"), **options)
        assert torch.equal(found.long(), torch.where(known, start, tokens)), f"{steps} steps"
        levels = process.make_scheduler(sampler, steps).timesteps.tolist()
        assert seen == levels[len(levels) - -int(-strength * len(levels) // 1) :]


def test_sampling_may_begin_at_a_noised_circuit(codebook: GateEmbedding) -> None:
    process = make(codebook, "x0")
    start = draw_tokens(300, 1)
    clean = codebook.embed(start)
    for strength in (0.2, 0.5, 0.99):
        seen: list[Tensor] = []

        def denoise(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> tuple[Tensor, None]:
            signal, spread = process._coefficients(t, x)
            seen.append((x - signal * clean) / spread)
            return clean, None

        options: dict[str, Any] = {"start": start, "strength": strength, "sample_steps": 10}
        found = process.sample(denoise, SHAPE, generators(*range(300)), torch.device("cpu"), **options)
        assert torch.equal(found.long(), start)
        assert abs(float(seen[0].mean())) < 4 / seen[0].numel() ** 0.5
        assert abs(float(seen[0].var()) - 1) < 4 * (2 / seen[0].numel()) ** 0.5


@pytest.mark.parametrize("sampler", GAUSSIAN_SAMPLERS)
def test_an_edited_sample_does_not_depend_on_its_batch(codebook: GateEmbedding, sampler: str) -> None:
    process = make(codebook, sampler=sampler)
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(5))
    start, known = draw_known(5)

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        return torch.tanh(torch.einsum("bcqt,cd->bdqt", x, weight)), None

    def draw(rows: slice) -> Tensor:
        options: dict[str, Any] = {"start": start[rows], "known": known[rows], "strength": 0.7, "sample_steps": 6}
        return process.sample(denoise, SHAPE, generators(*range(5)[rows]), torch.device("cpu"), **options)

    assert torch.equal(draw(slice(0, 5)), torch.cat([draw(slice(0, 1)), draw(slice(1, 3)), draw(slice(3, 5))]))
