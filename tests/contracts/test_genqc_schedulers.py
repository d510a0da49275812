"""DDPM and DPM-Solver++ step by step: our samplers, closed forms, and genQC 0.2.5 where its steps work.

Every difference has a stated cause; genQC is a test extra, so the module is skipped where it is missing.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from quantum_diffusion.diffusion.gaussian import GaussianDiffusion
from quantum_diffusion.models.gate_embedding import GateEmbedding

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    genqc_ddim = pytest.importorskip("genQC.scheduler.scheduler_ddim")
    genqc_ddpm = pytest.importorskip("genQC.scheduler.scheduler_ddpm")
    genqc_dpm = pytest.importorskip("genQC.scheduler.scheduler_dpm")

SHAPE, SEEDS = (4, 3, 6), (1, 2)
NAMES = {"epsilon": "epsilon", "v": "v-type", "x0": "x0"}
SCHEDULES = ["cos_alpha", "linear"]


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def draws() -> Iterator[Tensor]:
    """The noise of every step, as our sampler draws it: one generator a circuit."""
    own = generators()
    while True:
        yield torch.stack([torch.randn(SHAPE, generator=generator) for generator in own])


def predict(x: Tensor, t: Tensor) -> Tensor:
    """A network in closed form."""
    return 0.5 * torch.tanh(x) + 0.1 * torch.cos(t.view(-1, 1, 1, 1) / 300)


def our_process(objective: str, **options: Any) -> GaussianDiffusion:
    codebook = GateEmbedding(4, SHAPE[0], generator=torch.Generator().manual_seed(0))
    return GaussianDiffusion(codebook, objective=objective, loss="mse", **options)


def our_steps(process: GaussianDiffusion, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], Tensor]:
    """The noise levels, and the latents before each step and after the last one, [steps + 1, B, *SHAPE]."""
    levels: list[int] = []
    states: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
        levels.append(int(t))
        states.append(x.clone())
        return predict(x, t), None

    invert = process.codebook.invert
    with monkeypatch.context() as patch:
        patch.setattr(process.codebook, "invert", lambda x: states.append(x.clone()) or invert(x))
        process.sample(denoise, SHAPE, generators(), torch.device("cpu"), sample_steps=num_steps)
    return levels, torch.stack(states)


def their_steps(scheduler: Any, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], Tensor]:
    noise = draws()
    x = next(noise)
    scheduler.set_timesteps(num_steps)
    states = [x]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like: next(noise))
        for t in scheduler.timesteps:
            x = scheduler.step(predict(x, t.view(1)), t.view(1), x).prev_sample
            states.append(x)
    return scheduler.timesteps.tolist(), torch.stack(states)


def make(kind: type, objective: str, schedule: str = "cos_alpha", **options: Any) -> Any:
    return kind(
        "cpu",
        beta_schedule=schedule,
        prediction_type=NAMES[objective],
        **{"enable_zero_terminal_snr": False, **options},
    )


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        atol = 2e-4 * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=atol, msg=lambda m, n=number: f"state {n}: {m}")


def clean(objective: str, prediction: Tensor, x: Tensor, alpha_bar: Tensor) -> Tensor:
    signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if objective == "epsilon":
        return (x - spread * prediction) / signal
    return signal * x - spread * prediction if objective == "v" else prediction


# ---- DDPM


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("num_steps", [7, 20, 50])
def test_ddpm_equals_genqc_s_ddim_with_all_its_noise(
    num_steps: int, objective: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """genQC's own DDPM cannot step (below); DDIM of eta 1 is the same step (arXiv 2010.02502, section 4.1)."""
    levels, ours = our_steps(our_process(objective, sampler="ddpm", beta_schedule=schedule), num_steps, monkeypatch)
    theirs = their_steps(make(genqc_ddim.DDIMScheduler, objective, schedule, eta=1.0), num_steps, monkeypatch)
    assert levels == theirs[0]
    assert_same(ours, theirs[1])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("num_steps", [7, 50])
def test_ddpm_follows_the_posterior_of_ho_et_al(
    num_steps: int, objective: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eqs. 6 and 7 of arXiv 2006.11239 between the levels that are visited; the last step is the predicted circuit."""
    process = our_process(objective, sampler="ddpm", beta_schedule=schedule)
    levels, states = our_steps(process, num_steps, monkeypatch)
    stride, noise = 1000 // num_steps, draws()
    assert levels == [stride * number for number in reversed(range(num_steps))]
    torch.testing.assert_close(states[0], next(noise))
    for t, x, following in zip(levels, states[:-1].double(), states[1:], strict=True):
        now = process.alpha_bar[t]
        then = process.alpha_bar[t - stride] if t else torch.ones((), dtype=torch.float64)
        x0 = clean(objective, predict(x.float(), torch.tensor([t])).double(), x, now)
        mean = then.sqrt() * (1 - now / then) / (1 - now) * x0 + (now / then).sqrt() * (1 - then) / (1 - now) * x
        spread = ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        expected = mean + (spread * next(noise) if t else 0)
        torch.testing.assert_close(
            following.double(), expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max()))
        )


@pytest.mark.parametrize("objective", NAMES)
def test_genqc_s_ddpm_cannot_step_and_ours_can(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its step reads three tables that nothing makes, whatever the model predicts."""
    broken = make(genqc_ddpm.DDPMScheduler, objective)
    with pytest.raises(AttributeError, match="sqrt_alphas_cumprod"):
        their_steps(broken, 20, monkeypatch)
    with pytest.raises(TypeError, match="uncond_model_output"):  # as its pipelines call it with guidance
        broken.step(torch.zeros(2, *SHAPE), torch.tensor([5]), torch.zeros(2, *SHAPE), uncond_model_output=None)
    _, states = our_steps(our_process(objective, sampler="ddpm"), 20, monkeypatch)
    assert bool(states.isfinite().all())


def repaired(objective: str) -> Any:
    """genQC's DDPM with the tables that its step reads."""
    scheduler = make(genqc_ddpm.DDPMScheduler, objective)
    scheduler.sqrt_alphas = scheduler.alphas.sqrt()
    scheduler.sqrt_alphas_cumprod = scheduler.alphas_cumprod.sqrt()
    scheduler.sqrt_one_minus_alphas_cumprod = (1 - scheduler.alphas_cumprod).sqrt()
    return scheduler


def test_genqc_s_ddpm_with_its_tables_goes_one_level_a_step_and_ours_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Level by level the mean is ours and the variance beta (ours: the posterior's); with fewer steps it lags."""
    scheduler, process = repaired("epsilon"), our_process("epsilon", sampler="ddpm")
    x, prediction = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    every = process.make_scheduler("ddpm", 1000)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.zeros_like(x))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.zeros_like(x))
    for t in (1, 10, 500, 900):
        level = torch.tensor([t])
        found = scheduler.step(prediction, level, x).prev_sample
        torch.testing.assert_close(every.step(prediction, t, x).prev_sample, found, rtol=0, atol=2e-4)
        torch.testing.assert_close(scheduler.sigmas[level].square(), process.betas[level].float(), rtol=1e-3, atol=1e-6)
    assert float(every._get_variance(10)) < 0.99 * float(process.betas[10])

    # Twenty of a thousand levels: of the circuit 1 without noise, each returns the signal of the level that it reaches.
    scheduler.set_timesteps(20)
    signal, nothing = process.alpha_bar.sqrt().float(), torch.zeros_like(x)
    start = signal[950].expand_as(x)
    theirs = scheduler.step(nothing, torch.tensor([950]), start).prev_sample
    ours = process.make_scheduler("ddpm", 20).step(nothing, 950, start).prev_sample
    torch.testing.assert_close(theirs, signal[949].expand_as(x), rtol=1e-3, atol=0)
    torch.testing.assert_close(ours, signal[900].expand_as(x), rtol=1e-3, atol=0)
    assert float(signal[900]) > 1.5 * float(signal[949])


def test_genqc_s_ddpm_with_its_tables_divides_v_by_a_root_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The posterior's mean is over 1 - alpha_bar; genQC divides by its root, so its mean is too small by that root."""
    scheduler, process = repaired("v"), our_process("v", sampler="ddpm")
    x, prediction = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.zeros_like(x))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.zeros_like(x))
    for t in (10, 100, 500):
        ours = process.make_scheduler("ddpm", 1000).step(prediction, t, x).prev_sample
        theirs = scheduler.step(prediction, torch.tensor([t]), x).prev_sample
        root = (1 - process.alpha_bar[t]).sqrt().float()
        torch.testing.assert_close(theirs, ours * root, rtol=0, atol=1e-3)
        assert float(root) < 0.8


# ---- DPM-Solver++ (2M)


@pytest.mark.parametrize("objective", ["v", "x0"])
@pytest.mark.parametrize("num_steps", [7, 20, 40])
def test_n_steps_of_genqc_s_dpm_are_ours_of_one_less_and_one_that_does_nothing(
    num_steps: int, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both divide the levels into n parts and take the same second-order steps from n - 1 of them.

    From the last level above 0, ours goes to the predicted circuit (order 1, as noise 0 is infinitely far in log SNR);
    genQC goes to level 0, where its nth step, from level 0 to level 0, changes nothing, so level 0's noise stays.
    """
    process = our_process(objective, sampler="dpmsolver++")
    theirs = their_steps(make(genqc_dpm.DPMScheduler, objective), num_steps, monkeypatch)
    levels, ours = our_steps(process, num_steps - 1, monkeypatch)
    assert theirs[0] == [*levels, 0]
    assert_same(ours[:-1], theirs[1][:-2])
    torch.testing.assert_close(theirs[1][-1], theirs[1][-2], rtol=0, atol=0)

    last = torch.tensor([levels[-1]])
    expected = clean(objective, predict(ours[-2], last), ours[-2], process.alpha_bar[last].float())
    torch.testing.assert_close(ours[-1], expected, rtol=0, atol=1e-4)
    assert float((ours[-1] - theirs[1][-1]).abs().max()) > 1e-2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("num_steps", [2, 9, 25])
def test_dpm_follows_algorithm_2_of_lu_et_al(
    num_steps: int, objective: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """arXiv 2211.01095: order 1 at the first and the last step, and two predictions extrapolated in between."""
    process = our_process(objective, sampler="dpmsolver++", beta_schedule=schedule)
    levels, states = our_steps(process, num_steps, monkeypatch)
    stride = 1000 // (num_steps + 1)
    assert levels == [stride * number for number in range(num_steps, 0, -1)]
    log_snr = 0.5 * (process.alpha_bar / (1 - process.alpha_bar)).log()
    previous: tuple[Tensor, Tensor] | None = None  # the prediction, and the way in log SNR after it
    for t, x, following in zip(levels, states[:-1].double(), states[1:], strict=True):
        now, then = process.alpha_bar[t], process.alpha_bar[t - stride]
        x0 = clean(objective, predict(x.float(), torch.tensor([t])).double(), x, now)
        if t == levels[-1]:
            expected = x0
        else:
            h = log_snr[t - stride] - log_snr[t]
            guess = x0 if previous is None else x0 + 0.5 * h / previous[1] * (x0 - previous[0])
            expected = ((1 - then) / (1 - now)).sqrt() * x - then.sqrt() * torch.expm1(-h) * guess
            previous = (x0, h)
        torch.testing.assert_close(
            following.double(), expected, rtol=0, atol=2e-4 * max(1.0, float(expected.abs().max()))
        )


def test_genqc_s_dpm_does_not_know_epsilon_and_ours_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the default prediction, and genQC says so at the first step only."""
    with pytest.raises(NotImplementedError, match="epsilon"):
        their_steps(make(genqc_dpm.DPMScheduler, "epsilon"), 20, monkeypatch)
    _, states = our_steps(our_process("epsilon", sampler="dpmsolver++"), 20, monkeypatch)
    assert bool(states.isfinite().all())


def test_genqc_s_dpm_on_given_levels_ignores_the_next_one_and_ours_has_one_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It always goes T // n levels down, whatever level comes next; ours are as in the test of n steps."""
    scheduler = make(genqc_dpm.DPMScheduler, "x0")
    scheduler.set_timesteps(timesteps=torch.tensor([900, 300, 100, 0]))
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = scheduler.step(torch.zeros_like(x), torch.tensor([900]), x).prev_sample
    spread = (1 - scheduler.alphas_cumprod).sqrt()
    torch.testing.assert_close(found, spread[900 - 250] / spread[900] * x)
    assert abs(float(spread[650] / spread[300]) - 1) > 0.5


@pytest.mark.parametrize("objective", ["v", "x0"])
def test_genqc_s_dpm_guides_as_cfg_plus_plus_and_ours_plainly(objective: str) -> None:
    """Its pipeline for Schmidt rank vectors hands over the prediction without a prompt, whose noise is added back.

    Ours has CFG++ with DDIM only and refuses it elsewhere (test_refusals, test_training); so do opened models.
    """
    scheduler = make(genqc_dpm.DPMScheduler, objective)
    scheduler.set_timesteps(20)
    x, guided, bare = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    t = scheduler.timesteps[:1]
    now, then = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[t - 50]
    ratio = ((1 - then) / (1 - now)).sqrt()
    decay = ratio * now.sqrt() / then.sqrt()  # e^-h
    x0, without = (clean(objective, prediction, x, now) for prediction in (guided, bare))
    plain = scheduler.step(guided, t, x).prev_sample
    torch.testing.assert_close(plain, ratio * x + then.sqrt() * (1 - decay) * x0, rtol=1e-4, atol=1e-5)
    ours = our_process(objective, sampler="dpmsolver++").make_scheduler("dpmsolver++", 19)
    torch.testing.assert_close(ours.step(guided, ours.timesteps[0], x).prev_sample, plain, rtol=1e-4, atol=1e-5)
    found = scheduler.step(guided, t, x, uncond_model_output=bare).prev_sample
    torch.testing.assert_close(found, ratio * x + then.sqrt() * (x0 - decay * without), rtol=1e-4, atol=1e-5)


# ---- the ends of the schedule


def test_genqc_divides_by_zero_for_epsilon_at_zero_signal_and_we_refuse_it() -> None:
    """Its defaults with cos_alpha; ours: test_schedules.py::test_epsilon_with_zero_terminal_snr_is_refused."""
    scheduler = genqc_ddim.DDIMScheduler("cpu", beta_schedule="cos_alpha")
    assert float(scheduler.alphas_cumprod[-1]) == 0
    x = torch.ones(2, *SHAPE)
    found = scheduler.step(0.5 * x, torch.tensor([999]), x)
    assert not bool(found.prev_sample.isfinite().any())


def test_genqc_never_samples_from_the_zero_signal_it_trained_and_ours_begins_there() -> None:
    """arXiv 2305.08891, section 3.3: pure noise is the last level, so sampling must begin at it."""
    scheduler = make(genqc_ddim.DDIMScheduler, "v", "linear", enable_zero_terminal_snr=True)
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == 950
    assert float(scheduler.alphas_cumprod[950]) > 0 == float(scheduler.alphas_cumprod[999])
    for sampler in ("ddim", "ddpm"):
        levels = our_process("v", beta_schedule="linear", zero_terminal_snr=True).make_scheduler(sampler, 20).timesteps
        assert int(levels[0]) == 999


@pytest.mark.parametrize("kind", [genqc_ddim.DDIMScheduler, genqc_dpm.DPMScheduler])
def test_genqc_forgets_whether_its_schedule_ended_at_zero_and_ours_saves_it(kind: type) -> None:
    """A saved scheduler comes back with another schedule; ours is in `scheduler.params.zero_terminal_snr`."""
    scheduler = make(kind, "v", "linear")
    again = kind.from_scheduler(scheduler)  # type: ignore[attr-defined]
    assert float(scheduler.alphas_cumprod[-1]) > 0 == float(again.alphas_cumprod[-1])
