"""Random numbers of a training step, the same however many processes share its batch.

Every process draws for the whole batch and keeps the rows that are its own.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """Draws for the rows of a batch that this process has.

    Args:
        generator: Source of randomness, on the device that needs the numbers; in the same state on every process.
        rows: Which rows of the batch are here; None is all of them.
        total: Circuits of the whole batch; needed with `rows`.
    """

    def __init__(self, generator: torch.Generator, rows: slice | None = None, total: int | None = None) -> None:
        self.generator = generator
        self._rows = slice(None) if rows is None else rows
        self._total = total

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.generator.device

    def total(self, count: int) -> int:
        """Return the circuits of the whole batch, given those that are here."""
        return count if self._total is None else self._total

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Draw from [0, 1): float32 [count, *shape]."""
        return torch.rand(self.total(count), *shape, generator=self.generator, device=self.device)[self._rows]

    def normal(self, count: int, *shape: int) -> Tensor:
        """Draw from the standard normal distribution: float32 [count, *shape]."""
        return torch.randn(self.total(count), *shape, generator=self.generator, device=self.device)[self._rows]

    def places(self, count: int) -> Tensor:
        """Draw a place for each circuit, no two of the whole batch alike: int64 [count], from 0 to total - 1."""
        return torch.randperm(self.total(count), generator=self.generator, device=self.device)[self._rows]
