"""The conditional U-Net of genQC over circuit cells: noisy embeddings, diffusion step and condition => prediction.

Gaussian diffusion calls this backbone as `denoise(x_t, t)`; it does not depend on tokens, noise or files.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.models.layers import (
    GROUPS,
    PositionEncoding2d,
    ResidualBlock,
    SpatialTransformer,
    TimeEmbedding,
)


class Level(nn.Module):
    """Residual blocks at one resolution, followed by a spatial transformer if its depth is not zero.

    Args:
        in_features: Features of the input, a multiple of 32.
        out_features: Features of the output, a multiple of 32.
        time_embedding_dim: Width of the diffusion step's embedding.
        condition_dim: Width E of the condition.
        num_heads: Heads of the spatial transformer, a divisor of `out_features`.
        num_res_blocks: Number of residual blocks, at least 1.
        transformer_depth: Number of transformer blocks; 0 means no transformer, which ignores the condition.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        time_embedding_dim: int,
        condition_dim: int,
        num_heads: int,
        num_res_blocks: int,
        transformer_depth: int,
    ) -> None:
        super().__init__()
        widths = [in_features] + [out_features] * (num_res_blocks - 1)
        self.res_blocks = nn.ModuleList(ResidualBlock(w, out_features, time_embedding_dim) for w in widths)
        self.transformer = (
            SpatialTransformer(out_features, condition_dim, num_heads, transformer_depth) if transformer_depth else None
        )

    def forward(self, x: Tensor, time_embedding: Tensor, condition: Tensor) -> Tensor:
        """Map [B, in_features, Q, T] to [B, out_features, Q, T]."""
        for block in self.res_blocks:
            x = block(x, time_embedding)
        if self.transformer is not None:
            x = self.transformer(x, condition)
        return x


class ConditionalUNet(nn.Module):
    """Predicts a tensor of the input's shape from noisy gate embeddings, the diffusion step and a condition.

    Level i has `model_features[i]` features and T / 2**i time steps; the number of qubits never changes. The last level
    is the middle, and the upward path mirrors the downward path. Apart from `time_multiple`, nothing depends on Q, T or
    S, so the same weights work for circuits of every size.

    Args:
        channels: Channels C of the gate embedding.
        model_features: Features of each level, from the finest to the middle; multiples of 32.
        time_embedding_dim: Width of the diffusion step's embedding, positive and even.
        condition_dim: Width E of the condition.
        num_heads: Number of attention heads of each level, divisors of its features (unused at depth 0).
        num_res_blocks: Number of residual blocks of each level, at least 1.
        transformer_depths: Number of transformer blocks of each level; 0 means no attention.

    Attributes:
        time_multiple: T must be a multiple of this, 2 ** (number of levels - 1).

    Raises:
        ValueError: An argument violates one of these rules; the message names it.

    Example:
        >>> unet = ConditionalUNet(
        ...     channels=4,
        ...     model_features=[32, 64],
        ...     time_embedding_dim=32,
        ...     condition_dim=16,
        ...     num_heads=[4, 4],
        ...     num_res_blocks=[1, 1],
        ...     transformer_depths=[0, 1],
        ... )
        >>> x_t, condition = torch.randn(2, 4, 3, 8), torch.randn(2, 5, 16)
        >>> unet(x_t, torch.tensor([10, 999]), condition).shape
        torch.Size([2, 4, 3, 8])

    Reference:
        Fürrutter, Muñoz-Gil, Briegel, "Quantum circuit synthesis with diffusion models", arXiv:2311.02041.
        With the same weights it returns the same values as genQC 0.2.5's U-Net; see `interop/genqc.py`.
    """

    def __init__(
        self,
        *,
        channels: int,
        model_features: Sequence[int],
        time_embedding_dim: int,
        condition_dim: int,
        num_heads: Sequence[int],
        num_res_blocks: Sequence[int],
        transformer_depths: Sequence[int],
    ) -> None:
        super().__init__()
        _check_sizes(channels, time_embedding_dim, condition_dim)
        _check_levels(model_features, num_heads, num_res_blocks, transformer_depths)
        self.time_multiple: int = 2 ** (len(model_features) - 1)

        features = list(model_features)
        middle = len(features) - 1

        def make_level(index: int, in_features: int) -> Level:
            return Level(
                in_features,
                features[index],
                time_embedding_dim=time_embedding_dim,
                condition_dim=condition_dim,
                num_heads=num_heads[index],
                num_res_blocks=num_res_blocks[index],
                transformer_depth=transformer_depths[index],
            )

        self.time_embedding = TimeEmbedding(time_embedding_dim)
        self.conv_in = nn.Conv2d(channels, features[0], kernel_size=1)
        self.position_encoding = PositionEncoding2d(features[0])

        self.down_levels = nn.ModuleList(make_level(i, features[max(i - 1, 0)]) for i in range(middle))
        self.downsamples = nn.ModuleList(
            nn.Conv2d(features[i], features[i], kernel_size=(1, 2), stride=(1, 2)) for i in range(middle)
        )
        self.middle = make_level(middle, features[max(middle - 1, 0)])
        # In order of use, from the level next to the middle up to the finest; the input of each is the upsampled map
        # concatenated with the skip of the same width.
        self.upsamples = nn.ModuleList(
            nn.Conv2d(features[i + 1], features[i], kernel_size=(1, 3), padding=(0, 1)) for i in reversed(range(middle))
        )
        self.up_levels = nn.ModuleList(make_level(i, 2 * features[i]) for i in reversed(range(middle)))
        self.head = nn.Conv2d(features[0], channels, kernel_size=1)

        for convolution in (*self.downsamples, *self.upsamples):
            nn.init.orthogonal_(convolution.get_parameter("weight"))
        # A new model predicts the bias of its head for every input.
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Predict noise, velocity or x_0, depending on the process's objective.

        Args:
            x: Float [B, C, Q, T], T a multiple of `time_multiple`. Not modified.
            t: Diffusion steps, int64 [B], or [1] for a shared step.
            condition: Float [B, S, E].

        Returns:
            Float [B, C, Q, T].

        Raises:
            ValueError: T is not a multiple of `time_multiple`.
        """
        if x.shape[-1] % self.time_multiple:
            raise ValueError(
                f"x has {x.shape[-1]} time steps: expected a multiple of {self.time_multiple} "
                f"({len(self.downsamples)} halvings); pad the circuits with the padding token"
            )
        time_embedding = self.time_embedding(t)  # [B, time_embedding_dim]
        # With channels last, attention reads the cells without a copy; all layers keep this layout.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.position_encoding(self.conv_in(x))  # [B, F_0, Q, T]

        skips = []
        for level, downsample in zip(self.down_levels, self.downsamples, strict=True):
            x = level(x, time_embedding, condition)
            skips.append(x)
            x = downsample(x)  # [B, F_i, Q, T / 2**(i + 1)]

        x = self.middle(x, time_embedding, condition)

        for level, upsample in zip(self.up_levels, self.upsamples, strict=True):
            x = upsample(F.interpolate(x, scale_factor=(1.0, 2.0), mode="nearest"))
            x = torch.cat([x, skips.pop() * 0.5**0.5], dim=1)  # [B, 2 F_i, Q, T / 2**i]
            x = level(x, time_embedding, condition)

        prediction: Tensor = self.head(x)  # [B, C, Q, T]
        return prediction


def _check_sizes(channels: int, time_embedding_dim: int, condition_dim: int) -> None:
    for name, value in (("channels", channels), ("condition_dim", condition_dim)):
        if value < 1:
            raise ValueError(f"{name}={value!r}: expected at least 1")
    if time_embedding_dim < 2 or time_embedding_dim % 2:
        raise ValueError(f"time_embedding_dim={time_embedding_dim!r}: expected a positive even number")


def _check_levels(
    model_features: Sequence[int],
    num_heads: Sequence[int],
    num_res_blocks: Sequence[int],
    transformer_depths: Sequence[int],
) -> None:
    if not model_features:
        raise ValueError("model_features is empty: expected the features of at least one level, e.g. [128, 128, 256]")
    for name, values in (
        ("num_heads", num_heads),
        ("num_res_blocks", num_res_blocks),
        ("transformer_depths", transformer_depths),
    ):
        if len(values) != len(model_features):
            raise ValueError(
                f"{name}={list(values)!r} has {len(values)} entries: expected {len(model_features)}, one for "
                f"each of model_features={list(model_features)!r}"
            )
    for features in model_features:
        if features < 1 or features % GROUPS:
            raise ValueError(f"model_features={list(model_features)!r}: expected positive multiples of {GROUPS}")
    if min(num_res_blocks) < 1:
        raise ValueError(f"num_res_blocks={list(num_res_blocks)!r}: expected at least 1 at each level")
    if min(transformer_depths) < 0:
        raise ValueError(f"transformer_depths={list(transformer_depths)!r}: expected 0 or more at each level")
    for features, heads, depth in zip(model_features, num_heads, transformer_depths, strict=True):
        if depth and (heads < 1 or features % heads):
            raise ValueError(
                f"num_heads={list(num_heads)!r}: expected divisors of "
                f"model_features={list(model_features)!r}, but {heads} does not divide {features}"
            )
