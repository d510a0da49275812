"""Light transformers: over instructions for masked diffusion, and over cells for Gaussian diffusion.

Both are backbones and share the block below; they differ in their tokens and their attention mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.models.layers import TimeEmbedding, attend


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward network, initialized as the identity.

    Args:
        width: Channels d.
        num_heads: Number of attention heads, a divisor of `width`.
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
        """x [B, N, d] => [B, N, d]; `may_see` bool [B, N, N] selects the tokens (last axis) a token attends to."""
        query, key, value = self.project(x)
        return self.mix(x, query, key, value, may_see)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, N, d] => query, key and value, each [B, N, d]."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        return query, key, value

    def mix(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, may_see: Tensor | None) -> Tensor:
        """Let tokens x [B, N, d] attend to keys and values [B, S, d] with a mask bool [B, N, S]: [B, N, d]."""
        mask = None if may_see is None else may_see[:, None]
        x = x + self.mix_heads(attend(query, key, value, self.num_heads, mask))
        hidden = F.silu(self.expand(self.norm_feed_forward(x)))
        return torch.add(x, self.contract(hidden))


def initial_places(max_steps: int, width: int) -> nn.Parameter:
    """Return initial values of learned position embeddings of time steps, [max_steps, width]."""
    return nn.Parameter(torch.randn(max_steps, width) * 0.5)


class ConditionPooling(nn.Module):
    """Average of a condition [B, S, E] with learned weights => one vector per circuit [B, d]."""

    def __init__(self, condition_dim: int, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(condition_dim, 1, bias=False)  # a bias would not change the softmax
        self.project = nn.Linear(condition_dim, width)

    def forward(self, condition: Tensor) -> Tensor:
        """Condition [B, S, E] => [B, d]."""
        weights = self.score(condition).softmax(dim=1)  # [B, S, 1]
        pooled: Tensor = self.project((weights * condition).sum(dim=1))
        return pooled


class InstructionTransformer(nn.Module):
    """Predicts every instruction of a circuit from those revealed before it.

    Each time step has two tokens. The *content* token holds the instruction and attends to content revealed no later
    than itself; the *query* token holds only its position, attends to content revealed strictly earlier, and predicts
    the instruction. So one pass over a complete circuit and an order gives the predictions at all noise levels of that
    order; one pass over a partly masked circuit gives those for the masked steps.

    Args:
        num_instructions: Size of the vocabulary, "no gate" included.
        max_steps: Maximum T.
        condition_dim: E.
        width: Channels d.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        feed_forward: Hidden channels as a multiple of `width`.
        num_label_entries: Size of the label that the prefix head predicts; 0 means no prefix head.
        with_step_condition: Whether every step also has its own condition.

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
        self.places = initial_places(max_steps, width)
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
            ids: int64 [B, T], instructions; those of unrevealed steps are ignored.
            rank: int64 [B, T], the order in which steps are revealed, from 0; T for unrevealed steps.
            condition: [B, S, E].
            step_condition: [B, T, E], a condition for each step, which must not depend on its instruction; only its
                query token receives it. None if the network takes none.

        Returns:
            float32 logits [B, T, V] of each step's instruction given the steps of smaller rank, and the prefix head's
            logits [B, T, num_label_entries], computed from the content tokens (None without the head).
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

    def remember(self, condition: Tensor, num_steps: int) -> Memory:
        """Return an empty memory for circuits of `num_steps` steps with a condition [B, S, E]."""
        shape = (len(condition), num_steps + 1, self.places.shape[1])  # slot 0 is a dummy
        empty = [[condition.new_zeros(shape) for _ in self.blocks] for _ in range(2)]
        rank = torch.full((len(condition), num_steps), num_steps, dtype=torch.int64, device=condition.device)
        return Memory(self.condition(condition)[:, None], empty[0], empty[1], rank)

    def read(
        self, memory: Memory, ids: Tensor, rank: Tensor, wanted: Tensor, step_condition: Tensor | None = None
    ) -> Tensor:
        """Predict some steps of circuits that are being sampled; the same result as `forward`, computed incrementally.

        The keys and values of a revealed step are cached: they never change, because it does not attend to steps
        revealed later.

        Args:
            memory: Cache of the steps revealed in earlier calls; newly revealed steps are added.
            ids: int64 [B, T].
            rank: int64 [B, T], see `forward`; steps revealed in earlier calls keep their ranks.
            wanted: int64 [B, M], the steps to predict.
            step_condition: [B, E], the condition of these steps.

        Returns:
            float32 logits [B, M, V].
        """
        steps = rank.shape[1]
        is_new = (rank < steps) & (memory.rank == steps)
        count = int(is_new.sum(dim=1).max()) if len(is_new) else 0
        new = torch.where(is_new, rank, steps).argsort(dim=1, stable=True)[:, :count]  # [B, n]
        slots = torch.where(is_new.gather(1, new), new + 1, 0)  # [B, n]
        memory.rank = rank
        content = self.content(ids.gather(1, new)) + self.places[new] + memory.condition
        query = self.query + self.places[wanted] + memory.condition
        if self.step_condition is not None:
            query = query + self.step_condition(step_condition)[:, None]
        x = torch.cat([content, query], dim=1)  # [B, n + M, d]
        # Skip the slots of steps after the last revealed one: most of them if circuits are revealed from the start.
        used = 1 + int(torch.where(rank < steps, torch.arange(1, steps + 1, device=rank.device), 0).max())
        may_see = _who_sees_memory(rank[:, : used - 1], new, slots, rank, wanted.shape[1])
        index = slots[..., None].expand(-1, -1, x.shape[2])
        for block, keys, values in zip(self.blocks, memory.keys, memory.values, strict=True):
            assert isinstance(block, Block)
            own_query, own_key, own_value = block.project(x)
            keys.scatter_(1, index, own_key[:, :count].to(keys.dtype))
            values.scatter_(1, index, own_value[:, :count].to(values.dtype))
            key = torch.cat([keys[:, :used], own_key[:, count:].to(keys.dtype)], dim=1)
            value = torch.cat([values[:, :used], own_value[:, count:].to(values.dtype)], dim=1)
            x = block.mix(x, own_query.to(keys.dtype), key, value, may_see)
        x = self.norm(x[:, count:]).float()
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.predict(x)
        return logits


@dataclass(eq=False)
class Memory:
    """The key-value cache of an `InstructionTransformer` for revealed steps.

    Attributes:
        condition: [B, 1, d], the pooled condition.
        keys: One [B, 1 + T, d] per block, with each revealed step at its position; slot 0 is a dummy.
        values: Like `keys`.
        rank: int64 [B, T], the order in which steps were revealed; T for steps that are not cached.
    """

    condition: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    rank: Tensor

    def take(self, rows: Tensor) -> Memory:
        """Return some rows, int64 [M]."""
        keys, values = ([kept[rows] for kept in every] for every in (self.keys, self.values))
        return Memory(self.condition[rows], keys, values, self.rank[rows])


def _who_sees_memory(known: Tensor, new: Tensor, slots: Tensor, rank: Tensor, num_wanted: int) -> Tensor:
    """Return the attention mask for reading with a memory; see `who_sees_whom` for complete circuits.

    Args:
        known: int64 [B, K], ranks of the first K steps.
        new: int64 [B, n], newly revealed steps.
        slots: int64 [B, n], their slots in the cache; 0 for filler entries, which attend only to that slot.
        rank: int64 [B, T].
        num_wanted: M, number of steps to predict.

    Returns:
        bool [B, n + M, 1 + K + M], new steps first: whether the row attends to the column.
    """
    batch, steps, device = len(rank), rank.shape[1], rank.device
    is_none = (slots == 0)[..., None]  # [B, n, 1]
    earlier = (known[:, None] <= rank.gather(1, new)[..., None]) & (known < steps)[:, None]
    content_sees = torch.cat([is_none, earlier & ~is_none], dim=2)
    revealed = (known < steps)[:, None].expand(-1, num_wanted, -1)
    nothing = torch.zeros(batch, num_wanted, 1, dtype=torch.bool, device=device)
    itself = torch.eye(num_wanted, dtype=torch.bool, device=device).expand(batch, -1, -1)
    none_wanted = torch.zeros(batch, new.shape[1], num_wanted, dtype=torch.bool, device=device)
    return torch.cat(
        [torch.cat([content_sees, none_wanted], dim=2), torch.cat([nothing, revealed, itself], dim=2)], dim=1
    )


def who_sees_whom(rank: Tensor) -> Tensor:
    """Return the attention mask of the two streams.

    Args:
        rank: int64 [B, T], the order in which steps are revealed; T for unrevealed steps.

    Returns:
        bool [B, 2T, 2T], content tokens first: whether the row attends to the column.
    """
    steps = rank.shape[1]
    later, earlier = rank[:, :, None], rank[:, None, :]
    itself = torch.eye(steps, dtype=torch.bool, device=rank.device)
    revealed = earlier < steps
    content_sees = torch.cat([(earlier <= later) & revealed | itself, torch.zeros_like(revealed & itself)], dim=2)
    query_sees = torch.cat([earlier < later, itself.expand(len(rank), -1, -1)], dim=2)
    return torch.cat([content_sees, query_sees], dim=1)


class CellTransformer(nn.Module):
    """A transformer over noisy cells; the qubits of one time step form one token.

    Args:
        channels: C of the gate embedding.
        num_qubits: Q.
        max_steps: Maximum T.
        condition_dim: E.
        width: Channels d.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        feed_forward: Hidden channels as a multiple of `width`.
        num_label_entries: Size of the label that the prefix head predicts; 0 means no prefix head.
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
        self.places = initial_places(max_steps, width)
        self.noise_level = TimeEmbedding(width)
        self.condition = ConditionPooling(condition_dim, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.split = nn.Linear(width, channels * num_qubits)
        self.prefix_head = nn.Linear(width, num_label_entries) if num_label_entries else None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict from noisy cells.

        Args:
            x: [B, C, q, T] with q <= Q qubits; the cells of missing qubits are zeros.
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
