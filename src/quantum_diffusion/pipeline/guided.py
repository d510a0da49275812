"""A network with a request, and beside it with nothing asked: what a process samples from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.models.policy import InstructionPolicy
from quantum_diffusion.models.transformer import InstructionTransformer
from quantum_diffusion.pipeline.condition import Condition
from quantum_diffusion.tasks.left_to_do import LeftToDo, Remainder


@dataclass(frozen=True, eq=False)
class Guided:
    """Predictions with a request and without, in one pass of the network.

    Attributes:
        predict: The network under a condition, with its prefix head's prediction.
        backbone: The part of it that writes.
        condition: What is asked for, B rows; with guidance followed by B rows of nothing asked, or of what is not
            wanted.
        is_guided: Whether it is.
        encoder: Encoder of what is left to do; None where steps are not shown it, as for the next.
        left: What is left to do.
        gates_left: Encoder of how many gates are left; None for models that are not told.
        inverse: int64 [V], the inverse of each instruction, -1 where there is none; None for models that cannot write
            from the end.
    """

    predict: Callable[[Tensor, Tensor, Condition], tuple[Tensor, Tensor | None]]
    backbone: nn.Module
    condition: Condition
    is_guided: bool
    encoder: nn.Module | None = None
    left: LeftToDo | None = None
    gates_left: nn.Module | None = None
    inverse: Tensor | None = None

    def __call__(self, circuits: Tensor, level: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict whole circuits [B, ...] at their noise level, [B, ...] or [1]."""
        level = level if len(level) == 1 else self._doubled(level)
        return _halves(self.predict(self._doubled(circuits), level, self.condition)[0], self.is_guided)

    def reader(self, num_steps: int) -> Reader:
        """Return what predicts chosen steps of circuits that are being written, which have not begun yet."""
        assert isinstance(self.backbone, InstructionTransformer | InstructionPolicy)
        tokens = self.condition.tokens
        remainder = None
        if self.left is not None:
            remainder = self.left.remainder(self.condition.targets, len(tokens), tokens.device)
        memory = self.backbone.remember(tokens, num_steps)
        num_gates = None if self.gates_left is None else self.condition.num_gates
        return Reader(
            self.backbone, self.encoder, memory, remainder, self.is_guided, self.gates_left, num_gates, self.inverse
        )

    def _doubled(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) if self.is_guided else x


@dataclass(eq=False)
class Reader:
    """Predictions of chosen steps of B circuits that are being written; remembers what was written before.

    Attributes:
        backbone: The part of the network that writes.
        encoder: Encoder of what is left to do; None where steps are not shown it, as for `remainder`.
        memory: What the backbone remembers; with guidance of 2 B rows, as in `Guided`.
        remainder: What is left to do, as many rows.
        is_guided: Whether steps are predicted with nothing asked, too.
        gates_left: Encoder of how many gates are left; None for models that are not told.
        num_gates: int64, as many rows as `memory`: how many gates circuits are to have; see `Request`.
        inverse: As in `Guided`.
    """

    backbone: InstructionTransformer | InstructionPolicy
    encoder: nn.Module | None
    memory: Any
    remainder: Remainder | None
    is_guided: bool
    gates_left: nn.Module | None = None
    num_gates: Tensor | None = None
    inverse: Tensor | None = None

    def __call__(self, ids: Tensor, rank: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict steps.

        Args:
            ids: int64 [B, T].
            rank: int64 [B, T], when each step was revealed; T for those that are not.
            wanted: int64 [B, M], steps that are not.

        Returns:
            Logits [B, M, V], and those with nothing asked, None without guidance.
        """
        if self.is_guided:
            ids, rank, wanted = (torch.cat([x, x]) for x in (ids, rank, wanted))
        shown = None
        if self.remainder is not None and self.encoder is not None:
            shown = self._shown(self.remainder.update(ids, rank), ids, rank)
        return _halves(self.backbone.read(self.memory, ids, rank, wanted, shown), self.is_guided)

    def at_ends(self, ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict the first and the last gate of those that are missing, for models that can write from the end.

        The last gate of a circuit is the inverse of the first one of the inverse circuit. Both are predicted as the
        gate after as many as are known: what is left to do is all that matters here.

        Args:
            ids: int64 [B, T], circuits of which a beginning and an end are known.
            rank: int64 [B, T], T for the steps between.

        Returns:
            Logits [B, 2, V], and those with nothing asked, None without guidance. Those of a last gate whose inverse is
            no instruction say nothing.
        """
        assert self.remainder is not None
        assert self.inverse is not None
        if self.is_guided:
            ids, rank = torch.cat([ids, ids]), torch.cat([rank, rank])
        place = (rank < ids.shape[1]).sum(dim=1, keepdim=True).clamp(max=ids.shape[1] - 1)
        from_start, from_end = self.remainder.update(ids, rank), self.remainder.from_end()
        assert from_end is not None
        first, last = (
            self.backbone.read(self.memory, ids, rank, place, self._shown(side, ids, rank))
            for side in (from_start, from_end)
        )
        last = last[..., self.inverse.clamp(min=0)]
        return _halves(torch.cat([first, last], dim=1), self.is_guided)

    def can_end(self, allowed: Tensor) -> Tensor:
        """Tell of which circuits the last gate can be predicted: the inverse of each gate allowed is allowed, too.

        Args:
            allowed: bool [B, V], instructions that each may use.

        Returns:
            bool [B].
        """
        if self.inverse is None:
            return torch.zeros_like(allowed[:, 0])
        inverse_allowed = allowed[:, self.inverse.clamp(min=0)] & (self.inverse >= 0)
        return (inverse_allowed | ~allowed).all(dim=1)

    def _shown(self, left: Tensor, ids: Tensor, rank: Tensor) -> Tensor:
        """Encode what is left to do, and how many gates are where that is told: [B, E]."""
        assert self.encoder is not None
        shown: Tensor = self.encoder(left)
        if self.gates_left is not None:
            written = ((rank < ids.shape[1]) & (ids != NO_GATE)).sum(dim=1)
            shown = shown + self.gates_left(self.num_gates, written)
        return shown

    @property
    def missing(self) -> Tensor:
        """What the gates that are missing have to be, float32 [B, 2, D, R]; see `Remainder.missing`."""
        assert self.remainder is not None
        return self.remainder.missing.chunk(2)[0] if self.is_guided else self.remainder.missing

    def take(self, rows: Tensor) -> Reader:
        """Return what goes on with some of the circuits, int64 [M]; one may be taken often."""
        if self.is_guided:
            rows = torch.cat([rows, rows + len(self.memory.condition) // 2])
        remainder = None if self.remainder is None else self.remainder.take(rows)
        num_gates = None if self.num_gates is None else self.num_gates[rows]
        return replace(self, memory=self.memory.take(rows), remainder=remainder, num_gates=num_gates)

    def continued(self, rows: Tensor, ids: Tensor, at_end: Tensor | None = None) -> Reader:
        """Return what goes on with some of the circuits after one more instruction each, int64 [M] both.

        Those of which `at_end`, bool [M], is true stand before the known end; see `Remainder.append`.
        """
        taken = self.take(rows)
        if taken.remainder is not None:
            if self.is_guided:
                ids, at_end = torch.cat([ids, ids]), None if at_end is None else torch.cat([at_end, at_end])
            taken.remainder.append(ids, at_end)
        return taken


def _halves(prediction: Tensor, is_guided: bool) -> tuple[Tensor, Tensor | None]:
    """Return what is predicted with a request, and without; the latter is None without guidance."""
    if not is_guided:
        return prediction, None
    asked, free = prediction.chunk(2)
    return asked, free
