"""The network as a process samples from it: conditional predictions and, for guidance, unconditional ones."""

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
from quantum_diffusion.tasks.left_to_do import LeftToDo, Remainder, TargetRemainder


@dataclass(frozen=True, eq=False)
class Guided:
    """Conditional and unconditional predictions in one pass of the network.

    Attributes:
        predict: The network under a condition, with its prefix head's prediction.
        backbone: The backbone of the network.
        condition: The conditions, B rows; with guidance followed by B unconditional rows, or those of what guidance
            leads away from.
        is_guided: Whether guidance is used.
        encoder: Encoder of the remaining target; None if steps are not conditioned on it.
        left: Computes the remaining target; None likewise.
        gates_left: Encoder of the number of gates left; None for models without this condition.
        inverse: int64 [V], the inverse of each instruction, -1 if there is none; None for models that cannot write
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
        """Return a predictor of chosen steps, for circuits of which nothing is written yet."""
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
    """Predicts chosen steps of B circuits as they are written, and caches what was computed before.

    Attributes:
        backbone: The backbone of the network.
        encoder: Encoder of the remaining target; None if steps are not conditioned on it.
        memory: The backbone's cache; with guidance of 2 B rows, as in `Guided`.
        remainder: The remaining targets, as many rows; None likewise.
        is_guided: Whether unconditional predictions are made too.
        gates_left: Encoder of the number of gates left; None for models without this condition.
        num_gates: int64, as many rows as `memory`: number of gates wanted; see `Request`.
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
            rank: int64 [B, T], the order in which steps were revealed; T for masked steps.
            wanted: int64 [B, M], masked steps to predict.

        Returns:
            Logits [B, M, V], and unconditional logits of the same shape, None without guidance.
        """
        if self.is_guided:
            ids, rank, wanted = (torch.cat([x, x]) for x in (ids, rank, wanted))
        shown = None
        if self.remainder is not None and self.encoder is not None:
            shown = self._shown(self.remainder.update(ids, rank), ids, rank)
        return _halves(self.backbone.read(self.memory, ids, rank, wanted, shown), self.is_guided)

    def at_ends(self, ids: Tensor, rank: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict the first and the last missing gate, for models that can write from the end.

        The last gate of a circuit is the inverse of the first gate of the inverse circuit. Both are predicted as the
        next gate after all known ones, because only the remaining target matters.

        Args:
            ids: int64 [B, T], circuits with a known prefix and suffix.
            rank: int64 [B, T], T for the steps between them.

        Returns:
            Logits [B, 2, V], and unconditional logits of the same shape, None without guidance. Logits of a last gate
            whose inverse is no instruction are meaningless.
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
        """Tell for which circuits the last gate can be predicted: those where allowed gates have allowed inverses.

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
        """Encode the remaining target and, if requested, the number of gates left: [B, E]."""
        assert self.encoder is not None
        shown: Tensor = self.encoder(left)
        if self.gates_left is not None:
            written = ((rank < ids.shape[1]) & (ids != NO_GATE)).sum(dim=1)
            shown = shown + self.gates_left(self.num_gates, written)
        return shown

    @property
    def missing(self) -> Tensor:
        """The target of the missing gates, float32 [B, 2, D, R]; see `Remainder.missing`."""
        assert self.remainder is not None
        return self.remainder.missing.chunk(2)[0] if self.is_guided else self.remainder.missing

    def take(self, rows: Tensor) -> Reader:
        """Return a reader of some of the circuits, rows int64 [M], with repetition allowed."""
        if self.is_guided:
            rows = torch.cat([rows, rows + len(self.memory.condition) // 2])
        remainder = None if self.remainder is None else self.remainder.take(rows)
        num_gates = None if self.num_gates is None else self.num_gates[rows]
        return replace(self, memory=self.memory.take(rows), remainder=remainder, num_gates=num_gates)

    def continued(self, rows: Tensor, ids: Tensor, at_end: Tensor | None = None) -> Reader:
        """Return a reader of some of the circuits after one more instruction each; rows and ids are int64 [M].

        Where `at_end`, bool [M], is true, the instruction precedes the known suffix; see `Remainder.append`.
        """
        taken = self.take(rows)
        if taken.remainder is not None:
            if self.is_guided:
                ids, at_end = torch.cat([ids, ids]), None if at_end is None else torch.cat([at_end, at_end])
            taken.remainder.append(ids, at_end)
        return taken

    def begun(self, made: Tensor, lengths: Tensor) -> Reader:
        """Return a reader of circuits that begin with others, for a reader of one circuit of which nothing is written.

        Args:
            made: complex64 [M, D, D], the unitaries of the beginnings, whose angles may be off the grid.
            lengths: int64 [M], their numbers of gates.
        """
        taken = self.take(torch.zeros(len(made), dtype=torch.int64, device=made.device))
        assert isinstance(taken.remainder, TargetRemainder)
        if self.is_guided:
            made, lengths = torch.cat([made, made]), torch.cat([lengths, lengths])
        taken.remainder.append_circuits(made, lengths)
        return taken


def _halves(prediction: Tensor, is_guided: bool) -> tuple[Tensor, Tensor | None]:
    """Return the conditional and the unconditional prediction; the latter is None without guidance."""
    if not is_guided:
        return prediction, None
    asked, free = prediction.chunk(2)
    return asked, free
