"""Requests on the device, before and after encoding; the pipeline makes them and the backbone reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Request:
    """B requests for circuits, on the device.

    Attributes:
        prompts: int64 [P, S], tokenised prompts.
        index: int64 [B], position of each circuit's prompt among them.
        targets: float32 [B, 2, D, R]; None for tasks without.
        num_gates: int64 [B], number of gates wanted, `UNKNOWN` if open; None for models without this condition.
    """

    prompts: Tensor
    index: Tensor
    targets: Tensor | None = None
    num_gates: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Request:
        """Return some rows, on a device."""
        used, index = torch.unique(self.index[rows], return_inverse=True)
        targets, num_gates = (None if x is None else x[rows].to(device) for x in (self.targets, self.num_gates))
        return Request(self.prompts[used].to(device), index.to(device), targets, num_gates)


@dataclass(frozen=True, eq=False)
class Condition:
    """An encoded request, the input of the backbone.

    Attributes:
        tokens: Float [B, S, E].
        targets: float32 [B, 2, D, R], zeros where dropped; None for tasks without targets.
        num_gates: int64 [B]; see `Request`.
    """

    tokens: Tensor
    targets: Tensor | None = None
    num_gates: Tensor | None = None

    def __add__(self, other: Condition) -> Condition:
        """Join the rows of two conditions."""
        pairs = [(self.targets, other.targets), (self.num_gates, other.num_gates)]
        joined = [None if one is None or two is None else torch.cat([one, two]) for one, two in pairs]
        return Condition(torch.cat([self.tokens, other.tokens]), *joined)
