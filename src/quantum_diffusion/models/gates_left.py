"""How many gates a circuit still needs, as a condition of its steps: for requests that say how many it has to have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNKNOWN = -1
"""The number of gates of a circuit of which it is not told."""


class GatesLeft(nn.Module):
    """A learned vector for each number of gates that are left, and one for not being told.

    Args:
        max_gates: Most gates of a circuit.
        condition_dim: E.
    """

    def __init__(self, *, max_gates: int, condition_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(max_gates + 2, condition_dim)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, num_gates: Tensor, written: Tensor) -> Tensor:
        """Return the vectors of steps, float32 [B, ..., E].

        Args:
            num_gates: int64 [B], gates that circuits are to have; `UNKNOWN` where that is not told.
            written: int64 [B, ...], gates known before each step.
        """
        wanted = num_gates.view(-1, *(1,) * (written.dim() - 1))
        left = (wanted - written).clamp(min=0)
        vectors: Tensor = self.vectors(torch.where(wanted == UNKNOWN, 0, left + 1))
        return vectors
