"""A backbone without attention: predicts each instruction from its position, the prompt and what is left to do.

It suits tasks in which what is left to do contains all relevant information on the earlier gates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantum_diffusion.models.transformer import ConditionPooling, initial_places


class InstructionPolicy(nn.Module):
    """Predicts every instruction of a circuit from what is left to do after the steps revealed before it.

    It has the interface of `InstructionTransformer`, takes a third of its time in training, and needs no memory of the
    revealed steps in sampling.

    Args:
        num_instructions: Size of the vocabulary, "no gate" included.
        max_steps: Maximum T.
        condition_dim: E.
        width: Channels d.
        depth: Number of blocks.
        feed_forward: Hidden channels of a block as a multiple of `width`.
    """

    def __init__(
        self, *, num_instructions: int, max_steps: int, condition_dim: int, width: int, depth: int, feed_forward: int
    ) -> None:
        super().__init__()
        self.places = initial_places(max_steps, width)
        self.condition = ConditionPooling(condition_dim, width)
        self.step_condition = nn.Linear(condition_dim, width)
        self.blocks = nn.ModuleList(_Block(width, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, num_instructions)

    def forward(self, ids: Tensor, rank: Tensor, condition: Tensor, step_condition: Tensor) -> tuple[Tensor, None]:
        """Predict instructions.

        Args:
            ids: int64 [B, T]; only its shape is used.
            rank: int64 [B, T], unused: `step_condition` depends on it.
            condition: [B, S, E].
            step_condition: [B, T, E], what is left to do after the steps of smaller rank.

        Returns:
            float32 logits [B, T, V] of each step's instruction, and None in place of a prefix head's logits.
        """
        x = self.places[: ids.shape[1]] + self.condition(condition)[:, None]
        return self._logits(x + self.step_condition(step_condition)), None

    def at(self, steps: Tensor, condition: Tensor, step_condition: Tensor) -> Tensor:
        """Predict only some steps.

        Args:
            steps: bool [B, T], the N steps to predict.
            condition: [B, S, E].
            step_condition: [N, E], of these steps.

        Returns:
            float32 logits [B, T, V], zeros at all other steps.
        """
        circuit, place = steps.nonzero(as_tuple=True)
        x = self.places[place] + self.condition(condition)[circuit] + self.step_condition(step_condition)
        logits = self._logits(x)
        return logits.new_zeros(*steps.shape, logits.shape[1]).index_put((circuit, place), logits)

    def remember(self, condition: Tensor, num_steps: int) -> PolicyMemory:
        """Return the memory that `read` needs for a condition [B, S, E]."""
        return PolicyMemory(self.condition(condition)[:, None])

    def read(
        self, memory: PolicyMemory, ids: Tensor, rank: Tensor, wanted: Tensor, step_condition: Tensor | None = None
    ) -> Tensor:
        """Predict some steps of circuits that are being sampled; see `InstructionTransformer.read`."""
        assert step_condition is not None
        x = self.places[wanted] + memory.condition + self.step_condition(step_condition)[:, None]
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        x = self.norm(x).float()
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.predict(x)
        return logits


@dataclass(eq=False)
class PolicyMemory:
    """The pooled condition, [B, 1, d]; the step condition covers the steps written so far."""

    condition: Tensor

    def take(self, rows: Tensor) -> PolicyMemory:
        """Return some rows, int64 [M]."""
        return PolicyMemory(self.condition[rows])


class _Block(nn.Module):
    """Pre-norm feed-forward network; its output is initialized to zero."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feed_forward * width)
        self.contract = nn.Linear(feed_forward * width, width)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.contract(F.silu(self.expand(self.norm(x))))
        return hidden
