"""Classifier-free guidance: three ways to strengthen the prompt, which samplers apply to the network's predictions.

`conditional` and `unconditional` are the predictions with and without the prompt; scale 1 means no guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def guide_plain(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """u + g (c - u). Reference: Ho and Salimans, arXiv 2207.12598, eq. 6 with w = g - 1."""
    return unconditional + scale * (conditional - unconditional)


def guide_rescaled(conditional: Tensor, unconditional: Tensor, scale: float, phi: float = 0.7) -> Tensor:
    """Plain guidance, rescaled for each sample toward the standard deviation of the conditional prediction.

    A constant guided prediction has no spread to rescale and stays unchanged.

    Reference:
        Lin et al., arXiv 2305.08891, eqs. 14-16.
    """
    guided = guide_plain(conditional, unconditional, scale)
    axes = list(range(1, guided.dim()))
    spread = guided.std(axes, keepdim=True)
    rescaled = torch.where(spread > 0, guided * conditional.std(axes, keepdim=True) / spread, guided)
    return phi * rescaled + (1 - phi) * guided


def guide_log_probabilities(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Plain guidance for categorical distributions; logits [..., V] => log-probabilities [..., V]."""
    guided = guide_plain(conditional.log_softmax(-1), unconditional.log_softmax(-1), scale)
    return torch.log_softmax(guided, -1)
