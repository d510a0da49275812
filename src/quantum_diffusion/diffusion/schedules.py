"""Noise schedules of Gaussian diffusion: how the signal, alpha_bar, decreases with the noise level.

Pure functions that return float64 betas, beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from quantum_diffusion.config.schema import BetaSchedule
from quantum_diffusion.errors import ConfigError, unknown_name

LARGEST_BETA = 0.999


def make_betas(
    name: BetaSchedule, num_levels: int, beta_start: float, beta_end: float, zero_terminal_snr: bool = False
) -> Tensor:
    """Return the betas of a schedule.

    Args:
        name: "linear" (Ho et al., arXiv 2006.11239), "linear_sqrt" (linear in the square root; latent diffusion),
            "cos_alpha" (alpha_bar is the squared cosine of a ramp with offset 0.008; arXiv 2102.09672, eq. 17),
            "cos_alpha4" (its fourth power).
        num_levels: Number of noise levels.
        beta_start: First beta of the linear schedules.
        beta_end: Last beta of the linear schedules.
        zero_terminal_snr: Whether alpha_bar ends at 0: the cosine schedules are not clipped, the linear ones are
            shifted and rescaled (arXiv 2305.08891, algorithm 1).

    Returns:
        float64 [num_levels] in (0, 1].

    Raises:
        ConfigError: The name is unknown.
    """
    if name == "linear":
        betas = torch.linspace(beta_start, beta_end, num_levels, dtype=torch.float64)
    elif name == "linear_sqrt":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_levels, dtype=torch.float64) ** 2
    elif name in ("cos_alpha", "cos_alpha4"):
        power = 2 if name == "cos_alpha" else 4
        ramp = (torch.arange(num_levels + 1, dtype=torch.float64) / num_levels + 0.008) / 1.008
        alpha_bar = torch.cos(ramp * math.pi / 2).clamp(min=0) ** power
        betas = 1 - alpha_bar[1:] / alpha_bar[:-1]  # the last one is exactly 1: what rounding leaves of 0 is lost there
        return betas if zero_terminal_snr else betas.clamp(max=LARGEST_BETA)
    else:
        raise ConfigError(unknown_name("beta_schedule", name, get_args(BetaSchedule)))
    return _rescale_to_zero_snr(betas) if zero_terminal_snr else betas


def steps_redone(strength: float, num_steps: int) -> int:
    """Return the number of steps that an edit redoes: `strength * num_steps`, rounded up.

    Args:
        strength: In (0, 1].
        num_steps: Total number of steps, at least 0.

    Example:
        >>> steps_redone(0.28, 25), steps_redone(0.29, 25)
        (7, 8)
    """
    # Floats are inexact: 0.28 * 25 is 7.000000000000001, which must not become 8.
    return min(num_steps, max(1, math.ceil(strength * num_steps - 1e-9)))


def _rescale_to_zero_snr(betas: Tensor) -> Tensor:
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - alpha_bar / torch.cat([torch.ones(1, dtype=alpha_bar.dtype), alpha_bar[:-1]])
