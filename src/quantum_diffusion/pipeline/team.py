"""The processes that train one model together; mostly that is one.

`torchrun` and SLURM start the processes, `launch` finds out about them, and `fabric_team` connects them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantum_diffusion.data.container import Batch
from quantum_diffusion.pipeline.launch import find_launch, has_terminal


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


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Return some rows of a batch."""
    return Batch(
        tokens=batch.tokens[rows],
        prompt_ids=batch.prompt_ids[rows],
        sizes=batch.sizes[rows],
        targets=None if batch.targets is None else batch.targets[rows],
    )


def join_team(device: torch.device) -> tuple[Team, torch.device]:
    """Connect this process with the others that torchrun or SLURM started, if there are any.

    Args:
        device: The kind of device; each process of a computer takes one of its own.

    Returns:
        The team, and the device of this process.

    Raises:
        ConfigError: The environment speaks of a launch that is none, or the processes cannot be connected.
    """
    launch = find_launch(os.environ, has_terminal())
    if launch is None:
        return Team(), device
    from quantum_diffusion.pipeline.fabric_team import connect  # lightning-fabric takes a second

    team = connect(launch, device)
    return team, team.device
