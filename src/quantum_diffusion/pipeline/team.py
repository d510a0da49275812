"""The processes that train one model together; mostly that is one.

`torchrun` and SLURM start the processes, `launch` finds out about them, and `fabric_team` connects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Team:
    """A team of one.

    Attributes:
        rank: Number of this process.
        size: Processes in all.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes, reports and decides."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in one line when another process was lost meanwhile."""
        yield

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the team."""
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Average values over the team."""
        return values

    def of_first(self, make: Callable[[], Any]) -> Any:
        """Return what a function gives on the first process, where alone it is called; errors of ours are all's.

        Args:
            make: Gives tensors and plain values; tensors come to the device of each process.
        """
        return make()

    def wait(self) -> None:
        """Wait for all."""

    def share(self, count: int) -> slice | None:
        """Return this process's rows of a batch; None where there are too few to share, so that each takes all."""
        if count < self.size:
            return None
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
