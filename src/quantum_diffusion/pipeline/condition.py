"""Requests and conditions on the device: what circuits are asked for, before and after it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Request:
    """What circuits are asked for, on the device, one row a circuit.

    Attributes:
        words: int64 [B, S], tokenised prompts.
        targets: float32 [B, 2, D, R]; None for tasks without.
    """

    words: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Request:
        """Return some rows, on a device."""
        chosen = None if self.targets is None else self.targets[rows].to(device)
        return Request(self.words[rows].to(device), chosen)


@dataclass(frozen=True, eq=False)
class Condition:
    """A request as the backbone sees it.

    Attributes:
        tokens: Float [B, S, E].
        targets: float32 [B, 2, D, R], zeros where they were dropped; None for tasks without.
    """

    tokens: Tensor
    targets: Tensor | None = None

    def __add__(self, other: Condition) -> Condition:
        """Join the rows of two conditions."""
        tokens = torch.cat([self.tokens, other.tokens])
        if self.targets is None or other.targets is None:
            return Condition(tokens)
        return Condition(tokens, torch.cat([self.targets, other.targets]))
