"""The processes that train one model together; mostly that is one.

`torchrun` and SLURM start the processes; lightning-fabric connects them, wraps the model for gradient averaging, and is
imported only then.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantum_diffusion.data.container import Batch
from quantum_diffusion.errors import ConfigError, first_line

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
        """Whether this process writes and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the team."""
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Average values over the team."""
        return values

    def wait(self) -> None:
        """Wait for all."""

    def share(self, count: int) -> slice | None:
        """Return this process's rows of a batch; None where there are too few to share, so that each takes all."""
        if count < self.size:
            return None
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)


class FabricTeam(Team):
    """Several processes, connected by lightning-fabric.

    Args:
        fabric: Launched.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.rank = fabric.global_rank
        self.size = fabric.world_size

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._fabric.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the team."""
        wrapped: nn.Module = self._fabric.setup_module(module, move_to_device=False)
        return wrapped

    def mean(self, values: Tensor) -> Tensor:
        """Average values over the team."""
        averaged = self._fabric.all_reduce(values.clone(), reduce_op="mean")
        assert isinstance(averaged, Tensor)
        return averaged

    def wait(self) -> None:
        """Wait for all."""
        self._fabric.barrier()


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Return some rows of a batch."""
    return Batch(
        tokens=batch.tokens[rows],
        prompt_ids=batch.prompt_ids[rows],
        sizes=batch.sizes[rows],
        unitaries=None if batch.unitaries is None else batch.unitaries[rows],
    )


def launched_processes(environment: dict[str, str] | os._Environ[str] = os.environ) -> int:
    """Return how many processes torchrun or `srun` started for this run."""
    if "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(environment.get("SLURM_NTASKS", 1))
    return 1


def join_team(device: torch.device) -> Team:
    """Connect this process with the others that torchrun or SLURM started.

    Args:
        device: The kind of device; each process of a node takes one of its own.

    Raises:
        ConfigError: The processes cannot be connected.
    """
    size = launched_processes()
    if size == 1:
        return Team()
    from lightning_fabric import Fabric

    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or size)
    options: dict[str, Any] = {"accelerator": "cuda" if device.type == "cuda" else "cpu", "strategy": "ddp"}
    try:
        fabric = Fabric(devices=local, num_nodes=max(1, size // local), **options)
        fabric.launch()
    except (RuntimeError, ValueError, OSError) as problem:
        raise ConfigError(
            f"the {size} processes of this run cannot be connected ({first_line(problem)}): start them with torchrun "
            "--nproc-per-node=N, or with srun and SLURM's --ntasks-per-node"
        ) from problem
    return FabricTeam(fabric)
