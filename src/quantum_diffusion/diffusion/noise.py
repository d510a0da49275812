"""Random numbers for a training step that do not depend on the number of processes sharing the batch.

Every process draws for the whole batch and keeps its own rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """Random numbers for this process's rows of a batch.

    Args:
        generator: Source of randomness, on the target device and in the same state on every process.
        rows: This process's rows of the batch; None means all.
        total: Number of circuits in the whole batch; required with `rows`.
    """

    def __init__(self, generator: torch.Generator, rows: slice | None = None, total: int | None = None) -> None:
        self.generator = generator
        self._rows = slice(None) if rows is None else rows
        self._total = total

    @property
    def device(self) -> torch.device:
        """The device of the numbers."""
        return self.generator.device

    def total(self, count: int) -> int:
        """Return the number of circuits in the whole batch; `count` if this process has all of them."""
        return count if self._total is None else self._total

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Draw from [0, 1): float32 [count, *shape]."""
        return torch.rand(self.total(count), *shape, generator=self.generator, device=self.device)[self._rows]

    def normal(self, count: int, *shape: int) -> Tensor:
        """Draw from the standard normal distribution: float32 [count, *shape]."""
        return torch.randn(self.total(count), *shape, generator=self.generator, device=self.device)[self._rows]

    def places(self, count: int) -> Tensor:
        """Draw distinct places for the circuits of the whole batch, int64 [count], from 0 to total - 1."""
        return torch.randperm(self.total(count), generator=self.generator, device=self.device)[self._rows]
