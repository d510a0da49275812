"""Encodes unitaries as conditions: genQC's convolutional encoder, and a light one that gives a single vector.

Compiling models use them. Both take real and imaginary parts as two channels; a zero matrix stands for "no unitary".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quantum_diffusion.models.layers import FeedForward, GroupNorm, PositionEncoding2d, ResidualEncoder, SelfAttention


class SelfTransformer(nn.Module):
    """Transformer blocks over the entries of a feature map, with a skip connection.

    Args:
        features: Features of the map, a multiple of 32 and of `num_heads`.
        num_heads: Number of attention heads.
        depth: Number of blocks.
        dropout: Dropout probability of each block's updates.
    """

    def __init__(self, features: int, num_heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.norm = GroupNorm(features, eps=1e-6)
        self.blocks = nn.ModuleList(_Block(features, num_heads, dropout) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        cells = self.norm(x).flatten(2).transpose(1, 2)  # [B, N, C]
        for block in self.blocks:
            cells = block(cells)
        mixed: Tensor = cells.transpose(1, 2).reshape(x.shape)
        return x + mixed


class _Block(nn.Module):
    def __init__(self, features: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.self_attention = SelfAttention(features, num_heads)
        self.norm2 = nn.LayerNorm(features)
        self.feed_forward = FeedForward(features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.add(x, self.dropout(self.self_attention(self.norm1(x))))
        return torch.add(x, self.dropout(self.feed_forward(self.norm2(x))))


class ConvolutionalUnitaryEncoder(nn.Module):
    """genQC's encoder: a unitary as an image with two channels, downsampled once, with every pixel as a token.

    Args:
        condition_dim: E.
        features: Features before and after downsampling, multiples of 32 and of `num_heads`.
        num_heads: Number of attention heads.
        transformer_depths: Number of transformer blocks before and after downsampling.
        dropout: Dropout probability of each block's updates.

    Reference:
        Fürrutter, Muñoz-Gil, Briegel, arXiv 2311.02041. With the same weights it returns the same values as genQC
        0.2.5's encoder; see `interop/genqc.py`.
    """

    def __init__(
        self,
        *,
        condition_dim: int,
        features: Sequence[int] = (32, 64),
        num_heads: int = 8,
        transformer_depths: Sequence[int] = (2, 2),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        fine, coarse = features
        self.conv_in = nn.Conv2d(2, fine, kernel_size=1)
        self.position_encoding = PositionEncoding2d(fine)
        self.fine = SelfTransformer(fine, num_heads, transformer_depths[0], dropout)
        self.downsample = nn.Conv2d(fine, coarse, kernel_size=2, stride=2)
        self.coarse = SelfTransformer(coarse, num_heads, transformer_depths[1], dropout)
        self.head = nn.Conv2d(coarse, condition_dim, kernel_size=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, unitaries: Tensor) -> Tensor:
        """Unitaries float [B, 2, D, D] => condition [B, (D / 2)**2, E]."""
        x = self.position_encoding(self.conv_in(unitaries))
        x = self.coarse(self.downsample(self.fine(x)))
        condition: Tensor = self.head(x).flatten(2).transpose(1, 2)
        return condition


class MatrixEncoder(ResidualEncoder):
    """A feed-forward network over all entries of a unitary, invariant under its global phase.

    Args:
        num_qubits: Number of qubits of the unitaries.
        condition_dim: E.
        width: Hidden channels.
        depth: Number of residual blocks.
        normalize: Whether to normalise after the first layer.
    """

    def __init__(self, *, num_qubits: int, condition_dim: int, width: int, depth: int, normalize: bool = False) -> None:
        side = 2**num_qubits
        super().__init__(
            size=2 * side * side, condition_dim=condition_dim, width=width, depth=depth, normalize=normalize
        )
        self.scale = side**0.5  # the root mean square of the entries is 1 / scale

    def forward(self, unitaries: Tensor) -> Tensor:
        """Unitaries float [..., 2, D, D] => [..., E]."""
        return self.encode(without_phase(unitaries).flatten(-3) * self.scale)


class PauliEncoder(ResidualEncoder):
    """A feed-forward network over entries of a unitary's Pauli transfer matrix, which has no global phase.

    The entries are Re tr(P U G U^dagger) / D for the Paulis G on one qubit (for up to two qubits, all) and all Paulis P
    but the identity, and the same for U^dagger. They determine the unitary up to a global phase, and rotations move
    them evenly, which suits circuits with angles.

    Args:
        num_qubits: Number of qubits of the unitaries.
        condition_dim: E.
        width: Hidden channels.
        depth: Number of residual blocks.
        normalize: Whether to normalise after the first layer.
    """

    measured: Tensor
    columns: Tensor
    signs: Tensor

    def __init__(self, *, num_qubits: int, condition_dim: int, width: int, depth: int, normalize: bool = False) -> None:
        paulis, weights = _paulis(num_qubits)
        turned = paulis[(weights == 1) | ((num_qubits <= 2) & (weights > 0))]
        size = 2 * len(turned) * (len(paulis) - 1)
        super().__init__(size=size, condition_dim=condition_dim, width=width, depth=depth, normalize=normalize)
        side = 2**num_qubits
        self.scale = side / 2**0.5
        columns = turned.abs().argmax(dim=1)  # the row of each column's only entry
        measured = torch.view_as_real(paulis[1:].mT.flatten(1).conj().resolve_conj()).flatten(1).T / side
        # Not persistent: they are computed, so they need not be saved with the weights.
        self.register_buffer("measured", measured.contiguous().float(), persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("signs", turned.gather(1, columns[:, None])[:, 0].to(torch.complex64), persistent=False)

    def forward(self, unitaries: Tensor) -> Tensor:
        """Unitaries float [..., 2, D, D] => [..., E]."""
        with torch.autocast(unitaries.device.type, enabled=False):
            matrices = torch.complex(*unitaries.float().unbind(-3)).flatten(0, -3)  # [N, D, D]
            images = torch.cat([self._images(matrices), self._images(matrices.mH.resolve_conj())], dim=1)
        return self.encode((images * self.scale).view(*unitaries.shape[:-3], -1))

    def _images(self, matrices: Tensor) -> Tensor:
        """Return Re tr(P U G U^dagger) / D for all G and P, float32 [N, G * P]."""
        count, side = matrices.shape[:2]
        moved = matrices[:, :, self.columns] * self.signs  # [N, D, G, D]: U G
        conjugated = moved.permute(0, 2, 1, 3).reshape(count, -1, side) @ matrices.mH  # [N, G * D, D]
        numbers = torch.view_as_real(conjugated).reshape(count, len(self.columns), -1)
        return (numbers @ self.measured).flatten(1)


def _paulis(num_qubits: int) -> tuple[Tensor, Tensor]:
    """Return all Pauli matrices, complex128 [4^n, D, D], the identity first, and on how many qubits each acts."""
    single = torch.tensor(
        [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=torch.complex128
    )
    matrices, weights = torch.ones(1, 1, 1, dtype=torch.complex128), torch.zeros(1, dtype=torch.int64)
    acts = torch.tensor([0, 1, 1, 1])
    for _ in range(num_qubits):
        matrices = torch.stack([torch.kron(one, other) for one in matrices for other in single])
        weights = (weights[:, None] + acts).flatten()
    return matrices, weights


def without_phase(unitaries: Tensor) -> Tensor:
    """Multiply matrices by a global phase so that those equal up to a phase become equal.

    The first entry with at least 0.999 times the largest magnitude becomes real and positive.

    Args:
        unitaries: Float [..., 2, D, D]; zero matrices stay zero.
    """
    flat = unitaries.flatten(-2)  # [..., 2, D * D]
    size = flat.norm(dim=-2)  # [..., D * D]
    first = (size >= 0.999 * size.amax(-1, keepdim=True)).byte().argmax(-1, keepdim=True)  # [..., 1]
    pivot = flat.gather(-1, first.unsqueeze(-2).expand(*flat.shape[:-1], 1))  # [..., 2, 1]
    cos, sin = (pivot / pivot.norm(dim=-2, keepdim=True).clamp(min=1e-12)).unbind(-2)  # [..., 1]
    real, imaginary = flat.unbind(-2)
    turned = torch.stack([real * cos + imaginary * sin, imaginary * cos - real * sin], dim=-2)
    return turned.reshape(unitaries.shape)
