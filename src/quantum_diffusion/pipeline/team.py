"""The processes that train one model together; usually just one.

`torchrun` or SLURM starts the processes, `launch` detects them, and `fabric_team` connects them.
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
        """Report in one line that another process was lost."""
        yield

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the team."""
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Average values over the team."""
        return values

    def of_first(self, make: Callable[[], Any]) -> Any:
        """Call a function on the first process and return its result on all; our own errors are raised on all.

        Args:
            make: Returns tensors and plain values; tensors are moved to the device of each process.
        """
        return make()

    def wait(self) -> None:
        """Wait for all."""

    def share(self, count: int) -> slice | None:
        """Return this process's rows of a batch; None if there are too few to share and each process takes all."""
        if count < self.size:
            return None
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
