"""Light transformers with one token a time step: over instructions (masked diffusion) and over cells (Gaussian).

Both share the block below; they differ in what a token is and in who sees whom.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.models.layers import TimeEmbedding, attend


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward; starts as the identity.

    Args:
        width: Channels d.
        num_heads: Attention heads, a divisor of `width`.
        feed_forward: Hidden channels as a multiple of `width`.
    """

    def __init__(self, width: int, num_heads: int, feed_forward: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix_heads = nn.Linear(width, width, bias=False)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feed_forward * width)
        self.contract = nn.Linear(feed_forward * width, width)
        for layer in (self.mix_heads, self.contract):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor, may_see: Tensor | None = None) -> Tensor:
        """x [B, N, d] => [B, N, d]; `may_see` bool [B, N, N] tells which tokens (last axis) a token attends to."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        mask = None if may_see is None else may_see[:, None]
        x = x + self.mix_heads(attend(query, key, value, self.num_heads, mask))
        hidden = F.silu(self.expand(self.norm_feed_forward(x)))
        return torch.add(x, self.contract(hidden))


class ConditionPooling(nn.Module):
    """Condition [B, S, E] => one vector a circuit [B, d], an average with learned weights."""

    def __init__(self, condition_dim: int, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(condition_dim, 1, bias=False)  # softmax would not see a bias
        self.project = nn.Linear(condition_dim, width)

    def forward(self, condition: Tensor) -> Tensor:
        """Condition [B, S, E] => [B, d]."""
        weights = self.score(condition).softmax(dim=1)  # [B, S, 1]
        pooled: Tensor = self.project((weights * condition).sum(dim=1))
        return pooled


class InstructionTransformer(nn.Module):
    """Predicts every instruction of a circuit from those revealed before it.

    Each time step has two tokens. The *content* token carries the instruction and sees the content revealed no later
    than itself; the *query* token carries only its place, sees the content revealed strictly earlier, and predicts
    the instruction. One pass over a whole circuit and an order of revealing therefore gives the predictions at all
    noise levels of that order at once; one pass over a partly masked circuit gives those for the masked steps.

    Args:
        num_instructions: Size of the vocabulary, "no gate" included.
        max_steps: Largest T.
        condition_dim: E.
        width: Channels d.
        depth: Blocks.
        num_heads: Attention heads.
        feed_forward: Hidden channels as a multiple of `width`.
        num_label_entries: Entries of the label that the prefix head predicts; 0 leaves the head out.
        with_step_condition: Whether every step has a condition of its own, too.

    Reference:
        Absorbing diffusion as order-agnostic prediction: Hoogeboom et al., arXiv 2110.02037, eq. 3.
        Two streams: Yang et al., arXiv 1906.08237, section 2.3.
    """

    def __init__(
        self,
        *,
        num_instructions: int,
        max_steps: int,
        condition_dim: int,
        width: int,
        depth: int,
        num_heads: int,
        feed_forward: int,
        num_label_entries: int = 0,
        with_step_condition: bool = False,
    ) -> None:
        super().__init__()
        self.num_instructions = num_instructions
        self.content = nn.Embedding(num_instructions, width)
        self.query = nn.Parameter(torch.randn(width) * 0.5)
        self.places = nn.Parameter(torch.randn(max_steps, width) * 0.5)
        nn.init.normal_(self.content.weight, std=0.5)
        self.condition = ConditionPooling(condition_dim, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, num_instructions)
        self.prefix_head = nn.Linear(width, num_label_entries) if num_label_entries else None
        self.step_condition = nn.Linear(condition_dim, width) if with_step_condition else None

    def forward(
        self, ids: Tensor, rank: Tensor, condition: Tensor, step_condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict instructions.

        Args:
            ids: int64 [B, T], instructions; entries that are not revealed are never looked at.
            rank: int64 [B, T], when each step is revealed (0 first); T for steps that are not.
            condition: [B, S, E].
            step_condition: [B, T, E], what may be known of each step before it is revealed; only the query tokens see
                it. None for networks without.

        Returns:
            float32 logits [B, T, V] of each step's instruction given the steps of smaller rank, and the prefix head's
            logits [B, T, num_label_entries] (None without the head), read from the content tokens.
        """
        steps = ids.shape[1]
        places = self.places[:steps] + self.condition(condition)[:, None]  # [B, T, d]
        query = self.query + places
        if self.step_condition is not None:
            query = query + self.step_condition(step_condition)
        x = torch.cat([self.content(ids) + places, query], dim=1)  # [B, 2T, d]
        may_see = who_sees_whom(rank)
        for block in self.blocks:
            x = block(x, may_see)
        x = self.norm(x).float()
        with torch.autocast(x.device.type, enabled=False):
            logits = self.predict(x[:, steps:])
            prefix = None if self.prefix_head is None else self.prefix_head(x[:, :steps])
        return logits, prefix


def who_sees_whom(rank: Tensor) -> Tensor:
    """Attention pattern of the two streams.

    Args:
        rank: int64 [B, T], when each step is revealed; T for steps that are not.

    Returns:
        bool [B, 2T, 2T], content tokens first: rows look, columns are looked at.
    """
    steps = rank.shape[1]
    later, earlier = rank[:, :, None], rank[:, None, :]
    itself = torch.eye(steps, dtype=torch.bool, device=rank.device)
    revealed = earlier < steps
    content_sees = torch.cat([(earlier <= later) & revealed | itself, torch.zeros_like(revealed & itself)], dim=2)
    query_sees = torch.cat([earlier < later, itself.expand(len(rank), -1, -1)], dim=2)
    return torch.cat([content_sees, query_sees], dim=1)


class CellTransformer(nn.Module):
    """A transformer over noised cells; the qubits of one time step are joined to one token.

    Args:
        channels: C of the gate embedding.
        num_qubits: Q.
        max_steps: Largest T.
        condition_dim: E.
        width: Channels d.
        depth: Blocks.
        num_heads: Attention heads.
        feed_forward: Hidden channels as a multiple of `width`.
        num_label_entries: Entries of the label that the prefix head predicts; 0 leaves the head out.
    """

    time_multiple = 1

    def __init__(
        self,
        *,
        channels: int,
        num_qubits: int,
        max_steps: int,
        condition_dim: int,
        width: int,
        depth: int,
        num_heads: int,
        feed_forward: int,
        num_label_entries: int = 0,
    ) -> None:
        super().__init__()
        self.num_qubits = num_qubits
        self.join = nn.Linear(channels * num_qubits, width)
        self.places = nn.Parameter(torch.randn(max_steps, width) * 0.5)
        self.noise_level = TimeEmbedding(width)
        self.condition = ConditionPooling(condition_dim, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.split = nn.Linear(width, channels * num_qubits)
        self.prefix_head = nn.Linear(width, num_label_entries) if num_label_entries else None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict from noised cells.

        Args:
            x: [B, C, q, T] of q <= Q qubits; the cells of missing qubits count as zeros.
            t: int64 [B] or [1], noise level.
            condition: [B, S, E].

        Returns:
            Prediction [B, C, q, T], and the prefix head's logits [B, T, num_label_entries] (None without the head).
        """
        batch, channels, qubits, steps = x.shape
        x = F.pad(x, (0, 0, 0, self.num_qubits - qubits))  # [B, C, Q, T]
        tokens = self.join(x.permute(0, 3, 1, 2).flatten(2))  # [B, T, d]
        level = self.noise_level(t)  # [B or 1, d]
        tokens = tokens + self.places[:steps] + (level + self.condition(condition))[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens).float()
        with torch.autocast(x.device.type, enabled=False):
            prediction = self.split(tokens).view(batch, steps, channels, self.num_qubits).permute(0, 2, 3, 1)
            prefix = None if self.prefix_head is None else self.prefix_head(tokens)
        return prediction[:, :, :qubits], prefix
