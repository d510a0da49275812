"""Encodes a pair of states, the one prepared so far and the one wanted, as a condition of state models."""

from __future__ import annotations

from torch import Tensor

from quantum_diffusion.models.layers import ResidualEncoder
from quantum_diffusion.models.unitary_encoder import without_phase

_SCALE = 4.0
"""Factor of amplitudes before the first projection; with the square root of their number, training failed to start."""


class StateEncoder(ResidualEncoder):
    """A feed-forward network over all amplitudes, invariant under global phases of both states.

    Args:
        num_qubits: Number of qubits of the states.
        condition_dim: E.
        width: Hidden channels.
        depth: Number of residual blocks.
    """

    def __init__(self, *, num_qubits: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__(size=4 * 2**num_qubits, condition_dim=condition_dim, width=width, depth=depth)

    def forward(self, states: Tensor) -> Tensor:
        """Real and imaginary parts of the prepared and the wanted state, float [..., 2, D, 2] => [..., E]."""
        columns = states.movedim(-1, -3).unsqueeze(-1)  # [..., 2 states, 2 parts, D, 1]
        return self.encode(without_phase(columns).flatten(-4) * _SCALE)
