"""Encodes the state that the known prefix of a circuit makes from |0...0> as a condition for the following steps.

A light network over one of four descriptions of the state, for models of Schmidt rank vectors; RESULTS.md compares
them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quantum_diffusion.models.layers import ResidualEncoder
from quantum_diffusion.models.unitary_encoder import without_phase
from quantum_diffusion.tasks.evolution import entangled_in_tableaus

_SCALE = 4.0
"""Factor of amplitudes before the first projection; with the square root of their number, training failed to start."""

_TOLERANCE = 1e-5
"""Determinants of a qubit's reduced state up to this count as zero: the input is a float32 hint, exact labels are
computed elsewhere. For stabilizer states the determinant is 0 or 1/4."""


class PrefixEncoder(ResidualEncoder):
    """A feed-forward network over a description of the state.

    Args:
        kind: "state", "srv", "pairs" or "tableau"; see `PrefixEncoderConfig`.
        num_qubits: Q.
        condition_dim: E.
        width: Hidden channels.
        depth: Number of residual blocks.
    """

    def __init__(self, *, kind: str, num_qubits: int, condition_dim: int, width: int, depth: int) -> None:
        describe, size = _DESCRIPTIONS[kind]
        super().__init__(size=size(num_qubits), condition_dim=condition_dim, width=width, depth=depth)
        self._describe = describe

    def forward(self, made: Tensor) -> Tensor:
        """States float [..., 2, D], or tableaus float [..., 2Q, Q] => condition [..., E]."""
        return self.encode(self._describe(made))


def _entanglement(made: Tensor) -> Tensor:
    """States float [..., 2, D] => float [..., Q]: whether the reduced state of each qubit is mixed."""
    states, found = _states(made), []
    chances = made.square().sum(-2)  # [..., D]
    for qubit in range(chances.shape[-1].bit_length() - 1):
        shape = (-1, 2, 2**qubit)
        zero, one = states.unflatten(-1, shape).unbind(-2)
        of_zero, of_one = chances.unflatten(-1, shape).sum((-3, -1)).unbind(-1)
        overlap = torch.view_as_real((zero.conj() * one).sum((-2, -1))).square().sum(-1)
        found.append(of_zero * of_one - overlap > _TOLERANCE)
    return torch.stack(found, dim=-1).to(made.dtype)


def _amplitudes(made: Tensor) -> Tensor:
    """States => amplitudes without global phase, and entanglement, [..., 2 D + Q]."""
    return torch.cat([without_phase(made[..., None]).flatten(-3) * _SCALE, _entanglement(made)], dim=-1)


def _pairs(made: Tensor) -> Tensor:
    """States => the 16 real numbers of the reduced state of each pair of qubits, and entanglement."""
    states = _states(made)
    num_qubits = states.shape[-1].bit_length() - 1
    found = []
    row, column = torch.triu_indices(4, 4, 1, device=made.device)
    for high in range(num_qubits):
        for low in range(high):
            split = states.unflatten(-1, (-1, 2, 2 ** (high - low - 1), 2, 2**low))
            halves = split.movedim((-4, -2), (-5, -4)).flatten(-3).flatten(-3, -2)  # [..., 4, D / 4]
            reduced = halves @ halves.mH
            off_diagonal = torch.view_as_real(reduced[..., row, column]).flatten(-2) * 2
            found += [reduced.diagonal(dim1=-2, dim2=-1).real, off_diagonal]
    return torch.cat([*found, _entanglement(made)], dim=-1)


def _tableau(made: Tensor) -> Tensor:
    """Tableaus float [..., 2Q, Q] => their bits, and entanglement."""
    return torch.cat([made.flatten(-2), entangled_in_tableaus(made).to(made.dtype)], dim=-1)


def _states(made: Tensor) -> Tensor:
    return torch.complex(made[..., 0, :], made[..., 1, :])


_DESCRIPTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[int], int]]] = {
    "state": (_amplitudes, lambda qubits: 2 * 2**qubits + qubits),
    "srv": (_entanglement, lambda qubits: qubits),
    "pairs": (_pairs, lambda qubits: 8 * qubits * (qubits - 1) + qubits),
    "tableau": (_tableau, lambda qubits: 2 * qubits**2 + qubits),
}
"""By kind: the function that computes the description, and its size as a function of the number of qubits."""
