"""Encodes the number of gates still to write as a condition for each step, for requests of a given length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNKNOWN = -1
"""Stands for an unspecified number of gates."""


class GatesLeft(nn.Module):
    """A learned vector for each number of remaining gates, and one for an unspecified number.

    Args:
        max_gates: Maximum number of gates of a circuit.
        condition_dim: E.
    """

    def __init__(self, *, max_gates: int, condition_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(max_gates + 2, condition_dim)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, num_gates: Tensor, written: Tensor) -> Tensor:
        """Return the vectors of steps, float32 [B, ..., E].

        Args:
            num_gates: int64 [B], requested number of gates of each circuit, or `UNKNOWN`.
            written: int64 [B, ...], number of gates known before each step.
        """
        wanted = num_gates.view(-1, *(1,) * (written.dim() - 1))
        left = (wanted - written).clamp(min=0)
        vectors: Tensor = self.vectors(torch.where(wanted == UNKNOWN, 0, left + 1))
        return vectors
