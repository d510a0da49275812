"""Noise schedules: how the share of signal, alpha_bar, falls over the noise levels.

Pure functions of float64 that return betas, beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}.
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
        name: "linear" (Ho et al., arXiv 2006.11239), "linear_sqrt" (linear in the root; latent diffusion),
            "cos_alpha" (alpha_bar is the squared cosine of a ramp with offset 0.008; arXiv 2102.09672, eq. 17),
            "cos_alpha4" (its fourth power).
        num_levels: Noise levels.
        beta_start: First beta of the linear schedules.
        beta_end: Last beta of the linear schedules.
        zero_terminal_snr: Let alpha_bar end at 0: unclipped for the cosines, shifted and rescaled for the linear ones
            (arXiv 2305.08891, algorithm 1).

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
        alpha_bar[-1] = 0.0 if zero_terminal_snr else alpha_bar[-1]
        betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
        return betas if zero_terminal_snr else betas.clamp(max=LARGEST_BETA)
    else:
        raise ConfigError(unknown_name("beta_schedule", name, get_args(BetaSchedule)))
    return _rescale_to_zero_snr(betas) if zero_terminal_snr else betas


def steps_redone(strength: float, num_steps: int) -> int:
    """Return how many of some steps an edit of a given strength redoes: that share of them, rounded up.

    Args:
        strength: In (0, 1].
        num_steps: Steps there are; 0 or more.

    Example:
        >>> steps_redone(0.28, 25), steps_redone(0.29, 25)
        (7, 8)
    """
    # A float is not quite the share it stands for, and 0.28 * 25 is 7.000000000000001: that is no eighth step.
    return min(num_steps, max(1, math.ceil(strength * num_steps - 1e-9)))


def _rescale_to_zero_snr(betas: Tensor) -> Tensor:
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - alpha_bar / torch.cat([torch.ones(1, dtype=alpha_bar.dtype), alpha_bar[:-1]])
