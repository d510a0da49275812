"""Noise schedules against their formulas and against genQC 0.2.5."""

import itertools
import math
import warnings
from fractions import Fraction
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantum_diffusion.config.schema import BetaSchedule, TrainingConfig
from quantum_diffusion.config.validation import validate
from quantum_diffusion.diffusion.schedules import make_betas, steps_redone
from quantum_diffusion.errors import ConfigError


def alpha_bar(name: str, num_levels: int = 1000, zero: bool = False) -> Tensor:
    return (1 - make_betas(name, num_levels, 1e-4, 0.02, zero)).cumprod(0)


@pytest.mark.parametrize("num_levels", [10, 50, 1000])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", get_args(BetaSchedule))
def test_noise_only_grows(name: str, zero: bool, num_levels: int) -> None:
    betas = make_betas(name, num_levels, 1e-4, 0.02, zero)
    assert betas.shape == (num_levels,)
    assert betas.dtype == torch.float64
    assert bool((betas > 0).all())
    assert bool((betas <= 1).all())
    signal = (1 - betas).cumprod(0)
    assert bool((signal.diff() < 0).all())
    assert (signal[-1] == 0) == zero, "zero terminal SNR must really end at zero, and only then"


def test_linear_schedules_follow_their_formulas() -> None:
    steps = torch.arange(1000, dtype=torch.float64) / 999
    torch.testing.assert_close(make_betas("linear", 1000, 1e-4, 0.02), 1e-4 + (0.02 - 1e-4) * steps)
    root = 1e-4**0.5 + (0.02**0.5 - 1e-4**0.5) * steps
    torch.testing.assert_close(make_betas("linear_sqrt", 1000, 1e-4, 0.02), root**2)


@pytest.mark.parametrize(("name", "power"), [("cos_alpha", 2), ("cos_alpha4", 4)])
def test_cosines_are_powers_of_the_cosine_of_a_ramp(name: str, power: int) -> None:
    ramp = (torch.arange(1, 999, dtype=torch.float64) / 1000 + 0.008) / 1.008
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** power
    closed = torch.cos(ramp * math.pi / 2) ** power / start
    for zero in (False, True):
        ours = alpha_bar(name, zero=zero)[:998]
        unclipped = int((make_betas(name, 1000, 1e-4, 0.02)[:998] < 0.999).sum())
        torch.testing.assert_close(ours[:unclipped], closed[:unclipped], rtol=1e-9, atol=0)


def test_rescaling_keeps_the_first_level_and_the_shape() -> None:
    plain, rescaled = alpha_bar("linear").sqrt(), alpha_bar("linear", zero=True).sqrt()
    torch.testing.assert_close(rescaled[0], plain[0])
    ratio = rescaled / (plain - plain[-1])  # algorithm 1 of arXiv 2305.08891 is affine in the root
    torch.testing.assert_close(ratio[:-1], ratio[:1].expand(999))


# genQC rescales for "v-type" only, and never cos_alpha, which ends at zero by itself when its betas are not clipped.
@pytest.mark.parametrize(
    ("name", "zero", "prediction"),
    [
        *[(name, False, "epsilon") for name in get_args(BetaSchedule)],
        *[(name, True, "v-type") for name in ("linear", "linear_sqrt", "cos_alpha")],
    ],
)
def test_schedules_agree_with_genqc(name: str, zero: bool, prediction: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.scheduler.scheduler_ddim")
        theirs = genqc.DDIMScheduler(
            "cpu",
            num_train_timesteps=1000,
            beta_schedule=name,
            prediction_type=prediction,
            enable_zero_terminal_snr=zero,
        )
    betas = make_betas(name, 1000, 1e-4, 0.02, zero)
    # genQC takes its cosines in float32, and a beta is the difference of two that are nearly equal.
    torch.testing.assert_close(betas.float(), theirs.betas.float(), rtol=5e-4, atol=1e-6)
    torch.testing.assert_close((1 - betas).cumprod(0).float(), theirs.alphas_cumprod.float(), rtol=0, atol=2e-6)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match="cos_alpha"):
        make_betas("cosalpha", 10, 1e-4, 0.02)


def test_epsilon_with_zero_terminal_snr_is_refused() -> None:
    values = {
        "general": {"dataset": "d"},
        "training": {"objective": "epsilon", "loss": "mse"},
        "model": {"type": "unet"},
        "scheduler": {"type": "ddim", "params": {"zero_terminal_snr": True}},
    }
    with pytest.raises(ConfigError, match=r"zero_terminal_snr=true with training\.objective=epsilon"):
        validate(TrainingConfig, values, "training")


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 5000))
def test_the_share_of_steps_that_is_redone_is_that_of_exact_fractions(first: int, second: int, num_steps: int) -> None:
    share = Fraction(min(first, second), max(first, second))
    assert steps_redone(float(share), num_steps) == math.ceil(share * num_steps)


def test_the_share_of_steps_that_is_redone_as_people_write_it() -> None:
    for hundredths, num_steps in itertools.product(range(1, 101), range(1, 60)):
        assert steps_redone(float(f"{hundredths}e-2"), num_steps) == -(-hundredths * num_steps // 100)
    assert steps_redone(0.1 + 0.2, 10) == 3
    assert steps_redone(1e-12, 25) == 1, "an edit redoes something"
    assert steps_redone(0.5, 0) == 0
