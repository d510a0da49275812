"""Requests and conditions on the device: what circuits are asked for, before and after it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Request:
    """What circuits are asked for, on the device, B of them.

    Attributes:
        prompts: int64 [P, S], tokenised prompts.
        index: int64 [B], position of each circuit's prompt among them.
        targets: float32 [B, 2, D, R]; None for tasks without.
    """

    prompts: Tensor
    index: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Request:
        """Return some rows, on a device."""
        used, index = torch.unique(self.index[rows], return_inverse=True)
        chosen = None if self.targets is None else self.targets[rows].to(device)
        return Request(self.prompts[used].to(device), index.to(device), chosen)


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
