"""States to conditions: a light network over the amplitudes of two states at once."""

from __future__ import annotations

from torch import Tensor

from quantum_diffusion.models.layers import ResidualEncoder
from quantum_diffusion.models.unitary_encoder import without_phase

_SCALE = 4.0
"""Of amplitudes before the first projection; at the root of their number training did not start."""


class StateEncoder(ResidualEncoder):
    """A feed-forward network over all amplitudes at once; it does not see a global phase of either state.

    Args:
        num_qubits: Qubits of the states.
        condition_dim: E.
        width: Hidden channels.
        depth: Residual blocks.
    """

    def __init__(self, *, num_qubits: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__(size=4 * 2**num_qubits, condition_dim=condition_dim, width=width, depth=depth)

    def forward(self, states: Tensor) -> Tensor:
        """States float [..., 2, D, 2], real and imaginary parts of what is made and what is wanted => [..., E]."""
        columns = states.movedim(-1, -3).unsqueeze(-1)  # [..., 2 states, 2 parts, D, 1]
        return self.encode(without_phase(columns).flatten(-4) * _SCALE)
