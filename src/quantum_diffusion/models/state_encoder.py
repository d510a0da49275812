"""States to conditions: a light network over the amplitudes of two states at once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.models.layers import FeedForward
from quantum_diffusion.models.unitary_encoder import without_phase

_SCALE = 4.0
"""Of amplitudes before the first projection; at the root of their number training did not start."""


class StateEncoder(nn.Module):
    """A feed-forward network over all amplitudes at once; it does not see a global phase of either state.

    Args:
        num_qubits: Qubits of the states.
        condition_dim: E.
        width: Hidden channels.
        depth: Residual blocks.
    """

    def __init__(self, *, num_qubits: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.join = nn.Linear(4 * 2**num_qubits, width)
        self.norm = nn.LayerNorm(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.blocks = nn.ModuleList(FeedForward(width) for _ in range(depth))
        self.head = nn.Linear(width, condition_dim)

    def forward(self, states: Tensor) -> Tensor:
        """States float [..., 2, D, 2], real and imaginary parts of what is made and what is wanted => [..., E]."""
        columns = states.movedim(-1, -3).unsqueeze(-1)  # [..., 2 states, 2 parts, D, 1]
        x = self.norm(self.join(without_phase(columns).flatten(-4) * _SCALE))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(F.silu(x)))
        encoded: Tensor = self.head(F.silu(x))
        return encoded
