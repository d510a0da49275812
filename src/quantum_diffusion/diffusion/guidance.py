"""Classifier-free guidance: three ways to strengthen the prompt, each a function of the two predictions.

`conditional` and `unconditional` are what the network predicts with and without the prompt; scale 1 is no guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def guide_plain(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """u + g (c - u). Reference: Ho and Salimans, arXiv 2207.12598, eq. 6 with w = g - 1."""
    return unconditional + scale * (conditional - unconditional)


def guide_rescaled(conditional: Tensor, unconditional: Tensor, scale: float, phi: float = 0.7) -> Tensor:
    """Plain guidance with the standard deviation drawn back to the conditional one, sample by sample.

    A sample whose guided prediction is constant has no spread to draw back, and stays as it is.

    Reference:
        Lin et al., arXiv 2305.08891, eqs. 14-16.
    """
    guided = guide_plain(conditional, unconditional, scale)
    axes = list(range(1, guided.dim()))
    spread = guided.std(axes, keepdim=True)
    rescaled = torch.where(spread > 0, guided * conditional.std(axes, keepdim=True) / spread, guided)
    return phi * rescaled + (1 - phi) * guided


def guide_log_probabilities(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Plain guidance of categorical distributions; logits [..., V] in, log-probabilities [..., V] out."""
    guided = guide_plain(conditional.log_softmax(-1), unconditional.log_softmax(-1), scale)
    return torch.log_softmax(guided, -1)
