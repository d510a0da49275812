"""A network with a request, and beside it with nothing asked: what a process samples from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantum_diffusion.models.policy import InstructionPolicy
from quantum_diffusion.models.transformer import InstructionTransformer
from quantum_diffusion.pipeline.condition import Condition
from quantum_diffusion.tasks.left_to_do import LeftToDo


@dataclass(frozen=True, eq=False)
class Guided:
    """Predictions with a request and without, in one pass of the network.

    Attributes:
        predict: The network under a condition, with its prefix head's prediction.
        backbone: The part of it that writes.
        condition: What is asked for, B rows; with guidance followed by B rows of nothing asked.
        is_guided: Whether it is.
        encoder: Encoder of what is left to do; None where steps are not shown it, as for the next.
        left: What is left to do.
    """

    predict: Callable[[Tensor, Tensor, Condition], tuple[Tensor, Tensor | None]]
    backbone: nn.Module
    condition: Condition
    is_guided: bool
    encoder: nn.Module | None = None
    left: LeftToDo | None = None

    def __call__(self, circuits: Tensor, level: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict whole circuits [B, ...] at their noise level, [B, ...] or [1]."""
        level = level if len(level) == 1 else self._doubled(level)
        return self._halves(self.predict(self._doubled(circuits), level, self.condition)[0])

    def reader(self, num_steps: int) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]:
        """Return what predicts chosen steps of circuits that are being written; it remembers those written before.

        Takes (ids int64 [B, T], rank int64 [B, T], steps int64 [B, M]) and gives logits [B, M, V] of these steps.
        """
        assert isinstance(self.backbone, InstructionTransformer | InstructionPolicy)
        backbone, tokens = self.backbone, self.condition.tokens
        memory: Any = backbone.remember(tokens, num_steps)
        remainder = None
        if self.left is not None:
            remainder = self.left.remainder(self.condition.targets, len(tokens), tokens.device)

        def read(ids: Tensor, rank: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
            ids, rank, wanted = (self._doubled(x) for x in (ids, rank, wanted))
            shown = None
            if remainder is not None and self.encoder is not None:
                shown = self.encoder(remainder.update(ids, rank))  # [B, E]
            return self._halves(backbone.read(memory, ids, rank, wanted, shown))

        return read

    def _doubled(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) if self.is_guided else x

    def _halves(self, prediction: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.is_guided:
            return prediction, None
        asked, free = prediction.chunk(2)
        return asked, free
