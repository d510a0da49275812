"""Building blocks of the U-Net: sinusoidal tables, residual convolutions, conditioned attention over cells.

`unet.py` combines them, and other backbones and encoders reuse some.

Shapes: B batch, C features, Q qubits, T time steps, N = Q * T cells in row-major order, S condition length,
E condition width. Everything works with any memory layout, but a `channels_last` feature map reaches attention as
[B, N, C] without a copy.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_POSITIONS = 5000
"""Rows of every sinusoidal table: the maximum number of diffusion steps, qubits or time steps."""

GROUPS = 32
"""Number of groups of every GroupNorm; all feature counts must be multiples of it."""

FEW_TOKENS = 50
"""Up to this many tokens, attention by plain matrix products is faster on CPUs than torch's fused kernel, and needs
less memory than the rest of a layer. Beyond it, the fused kernel is up to four times as fast
(`benchmarks/training.py`)."""


def sinusoidal_table(num_positions: int, width: int, max_period: float = 10_000.0) -> Tensor:
    """Return interleaved sines and cosines of geometrically decreasing frequencies: sin, cos, sin, cos, ...

    Args:
        num_positions: Number of rows; row p encodes position p, counted from 0.
        width: Number of columns, positive and even.
        max_period: Determines the lowest frequency, `max_period ** -((width - 2) / width)` radians per position.

    Returns:
        Float32 table [num_positions, width].

    Raises:
        ValueError: `width` is not positive and even.

    Reference:
        Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.5.
    """
    if width < 2 or width % 2:
        raise ValueError(f"width={width!r}: expected a positive even number, a sine and a cosine per frequency")
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(max_period) / width))  # [width / 2]
    angles = torch.arange(num_positions)[:, None] * frequencies  # [num_positions, width / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # [num_positions, width]


class FeedForward(nn.Module):
    """Two linear maps of equal width with a SiLU between them.

    Args:
        features: Width of input, hidden layer and output. The hidden layer is not wider, because the convolutions
            already hold most of the parameters at the usual sizes.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, features)
        self.output = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C], each position separately."""
        mapped: Tensor = self.output(F.silu(self.hidden(x)))
        return mapped


class ResidualEncoder(nn.Module):
    """A feed-forward network with residual blocks that maps a vector of numbers to one condition.

    Args:
        size: Number of inputs.
        condition_dim: E.
        width: Hidden channels.
        depth: Number of residual blocks.
        normalize: Whether to normalise after the first layer.
    """

    def __init__(self, *, size: int, condition_dim: int, width: int, depth: int, normalize: bool = True) -> None:
        super().__init__()
        self.join = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width) if normalize else nn.Identity()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.blocks = nn.ModuleList(FeedForward(width) for _ in range(depth))
        self.head = nn.Linear(width, condition_dim)

    def encode(self, numbers: Tensor) -> Tensor:
        """Map [..., size] to [..., E]."""
        x = self.norm(self.join(numbers))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(F.silu(x)))
        encoded: Tensor = self.head(F.silu(x))
        return encoded


class TimeEmbedding(nn.Module):
    """Embedding of diffusion steps: a row of a fixed sinusoidal table, then a learned feed-forward network.

    Args:
        features: Width of the embedding, positive and even.
    """

    table: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.feed_forward = FeedForward(features)
        # Not persistent: the table is computed, so it need not be saved with the weights.
        self.register_buffer("table", sinusoidal_table(MAX_POSITIONS, features), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed diffusion steps.

        Args:
            t: int64 [B], each in [0, MAX_POSITIONS).

        Returns:
            Float [B, features].
        """
        embedded: Tensor = self.feed_forward(self.table[t])
        return embedded


class PositionEncoding2d(nn.Module):
    """Position encoding of cells: half of the features encode the qubit, the other half the time step.

    Args:
        features: Number of features, a multiple of 4 (two halves, each of sine and cosine pairs).
    """

    table: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_table(MAX_POSITIONS, features // 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the encoding to a feature map.

        Args:
            x: Float [B, C, Q, T].

        Returns:
            A new tensor [B, C, Q, T] in the layout and dtype of `x`.
        """
        num_qubits, num_steps = x.shape[-2:]
        qubit = self.table[:num_qubits, None].expand(-1, num_steps, -1)  # [Q, T, C / 2]
        step = self.table[None, :num_steps].expand(num_qubits, -1, -1)  # [Q, T, C / 2]
        encoding = torch.cat([qubit, step], dim=-1).permute(2, 0, 1)  # [C, Q, T]
        return x + encoding.to(x.dtype)


class GroupNorm(nn.GroupNorm):
    """torch's group norm with `GROUPS` groups, in at least 32-bit precision for any input.

    On CPUs, torch's is five times slower in bfloat16 than in float32; on GPUs, autocast uses float32 anyway.

    Args:
        features: Channels of the input, a multiple of 32.
        eps: Constant added to the variance.
    """

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__(GROUPS, features, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...]; the output of 16-bit inputs is float32."""
        return super().forward(x.float() if x.dtype.itemsize == 2 else x)


class ResidualBlock(nn.Module):
    """Two convolutions along time with the diffusion step added in between, and a skip connection.

    The kernels are (1, 3): neighbouring time steps are related, but neighbouring qubits are not, so qubits only
    interact in attention. The second convolution is initialized to zero, so a new block is just the skip connection.

    Args:
        in_features: Features of the input, a multiple of 32.
        out_features: Features of the output, a multiple of 32; if it differs from `in_features`, the skip is learned.
        time_embedding_dim: Width of the diffusion step's embedding.
    """

    def __init__(self, in_features: int, out_features: int, time_embedding_dim: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_features)
        self.conv1 = nn.Conv2d(in_features, out_features, kernel_size=(1, 3), padding=(0, 1))
        self.time_projection = nn.Linear(time_embedding_dim, out_features)
        self.norm2 = GroupNorm(out_features)
        self.conv2 = nn.Conv2d(out_features, out_features, kernel_size=(1, 3), padding=(0, 1))
        same = in_features == out_features
        self.skip = nn.Identity() if same else nn.Conv2d(in_features, out_features, kernel_size=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time_embedding: Tensor) -> Tensor:
        """Transform a feature map.

        Args:
            x: Float [B, in_features, Q, T].
            time_embedding: Float [B, time_embedding_dim], or [1, time_embedding_dim] for a shared step.

        Returns:
            Float [B, out_features, Q, T].
        """
        h = self.conv1(F.silu(self.norm1(x)))  # [B, out_features, Q, T]
        h = h + self.time_projection(time_embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over `num_heads` slices of the features.

    Args:
        query: Float [B, N, C], C a multiple of `num_heads`.
        key: Float [B, S, C].
        value: Float [B, S, C].
        num_heads: Number of heads.
        mask: bool, broadcastable to [B, heads, N, S]: which tokens (last axis) a token attends to; None means all.

    Returns:
        Float [B, N, C].

    Reference:
        Vaswani et al., arXiv:1706.03762, equation 1.
    """
    q, k, v = (x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2) for x in (query, key, value))
    if q.device.type == "cpu":
        # The backward pass of torch's fused CPU attention is 20 times slower in bfloat16 than in float32 (torch 2.13).
        with torch.autocast("cpu", enabled=False):
            q, k, v = (x.float() if x.dtype.itemsize == 2 else x for x in (q, k, v))
            few = max(q.shape[2], k.shape[2]) <= FEW_TOKENS
            # Without a backward pass and a mask, the fused kernel is faster for few tokens, too.
            plain = few and (mask is not None or torch.is_grad_enabled())
            mixed = _plain_attention(q, k, v, mask) if plain else F.scaled_dot_product_attention(q, k, v, mask)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, mask)  # [B, heads, N, C / heads]
    return mixed.transpose(1, 2).flatten(2)  # [B, N, C]


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    mixed: Tensor = scores.softmax(dim=-1) @ value
    return mixed


class SelfAttention(nn.Module):
    """Multi-head self-attention of the cells; one matrix product computes query, key and value.

    Args:
        features: Width of the input and the output.
        num_heads: Number of heads, a divisor of `features`.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(features, 3 * features)
        self.output = nn.Linear(features, features)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, C] to [B, N, C]."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        mixed: Tensor = self.output(attend(query, key, value, self.num_heads))
        return mixed


class CrossAttention(nn.Module):
    """Multi-head attention of the cells to the condition; one matrix product computes key and value.

    Args:
        features: Width of the cells, of the condition and of the output.
        num_heads: Number of heads, a divisor of `features`.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(features, features)
        self.key_value = nn.Linear(features, 2 * features)
        self.output = nn.Linear(features, features)
        # Both are initialized as slices of one Xavier matrix [3 C, C], whose bound is sqrt(6 / (3 C + C)).
        bound = math.sqrt(6.0 / (4 * features))
        for projection in (self.query, self.key_value):
            nn.init.uniform_(projection.weight, -bound, bound)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map cells [B, N, C] and a condition [B, S, C] to [B, N, C]."""
        key, value = self.key_value(condition).chunk(2, dim=-1)
        mixed: Tensor = self.output(attend(self.query(x), key, value, self.num_heads))
        return mixed


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward network, each pre-normalised and residual.

    Args:
        features: Width of the cells and of the projected condition.
        num_heads: Number of heads of both attention layers, a divisor of `features`.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.self_attention = SelfAttention(features, num_heads)
        self.norm2 = nn.LayerNorm(features)
        self.cross_attention = CrossAttention(features, num_heads)
        self.norm3 = nn.LayerNorm(features)
        self.feed_forward = FeedForward(features)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map cells [B, N, C] and a condition [B, S, C] to [B, N, C]."""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), condition)
        x = x + self.feed_forward(self.norm3(x))
        return x


class SpatialTransformer(nn.Module):
    """Transformer blocks over all cells of a feature map, with a skip connection.

    The condition is projected to the feature width once for all blocks.

    Args:
        features: Features of the map, a multiple of 32.
        condition_dim: Width E of the condition.
        num_heads: Number of heads, a divisor of `features`.
        depth: Number of transformer blocks, at least 1.
    """

    def __init__(self, features: int, condition_dim: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.condition_projection = nn.Linear(condition_dim, features)
        self.norm = GroupNorm(features, eps=1e-6)
        self.blocks = nn.ModuleList(TransformerBlock(features, num_heads) for _ in range(depth))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Apply attention between all cells, and from the cells to the condition.

        Args:
            x: Float [B, C, Q, T].
            condition: Float [B, S, E].

        Returns:
            Float [B, C, Q, T].
        """
        projected = self.condition_projection(condition)  # [B, S, C]
        cells = self.norm(x).flatten(2).transpose(1, 2)  # [B, N, C]
        for block in self.blocks:
            cells = block(cells, projected)
        mixed: Tensor = cells.transpose(1, 2).reshape(x.shape)  # [B, C, Q, T]
        return x + mixed
