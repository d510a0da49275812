"""Several processes that train one model, connected by lightning-fabric; imported only if there are several.

The launch is passed to fabric explicitly: on its own, fabric guesses and starts processes itself.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, TeamError, first_line
from quantum_diffusion.pipeline.launch import Launch
from quantum_diffusion.pipeline.team import Team


class FabricTeam(Team):
    """Several connected processes.

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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Report in one line that another process was lost."""
        try:
            yield
        except RuntimeError as problem:
            # Of gloo they are plain RuntimeErrors.
            if not isinstance(problem, torch.distributed.DistError) and not re.search(r"\b(gloo|nccl)\b", str(problem)):
                raise
            raise TeamError(
                f"process {self.rank} of {self.size} lost the others: see which one ended first, and why; the same "
                "command continues from the newest checkpoint"
            ) from problem

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the team."""
        wrapped: nn.Module = self._fabric.setup_module(module, move_to_device=False)
        return wrapped

    def mean(self, values: Tensor) -> Tensor:
        """Average values over the team."""
        averaged = self._fabric.all_reduce(values.clone(), reduce_op="mean")
        assert isinstance(averaged, Tensor)
        return averaged

    def of_first(self, make: Callable[[], Any]) -> Any:
        """Call a function on the first process and return its result on all; our own errors are raised on all."""
        made, problem, content = None, None, io.BytesIO()
        if self.is_first:
            try:
                made = make()
                torch.save(made, content)
            except QuantumDiffusionError as error:
                problem = error
        problem, sent = self._fabric.broadcast((problem, content.getvalue()))
        if problem is not None:
            raise problem
        return made if self.is_first else torch.load(io.BytesIO(sent), map_location=self.device, weights_only=True)

    def wait(self) -> None:
        """Wait for all."""
        self._fabric.barrier()


def connect(launch: Launch, device: torch.device) -> FabricTeam:
    """Connect this process with the others of its launch.

    Args:
        launch: Who they are.
        device: The kind of device.

    Raises:
        ConfigError: There is no device for this process, or the others cannot be reached.
    """
    devices: int | list[int] = 1
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = 0 if count == 1 and launch.may_hide_devices else launch.local_rank
        if index >= count:
            raise ConfigError(
                f"process {launch.rank} is number {launch.local_rank} of its computer, which shows it {count} CUDA "
                f"devices: start at most {count} processes there, or take training.general.device=cpu"
            )
        devices = [index]
    try:
        fabric = Fabric(
            accelerator="cuda" if device.type == "cuda" else "cpu",
            strategy="ddp",
            devices=devices,
            num_nodes=launch.size,
            plugins=[_Launched(launch)],
        )
        fabric.launch()
    except (RuntimeError, ValueError, OSError, MisconfigurationException) as problem:
        raise ConfigError(
            f"the {launch.size} processes of this run cannot be connected at {launch.address}:{launch.port} "
            f"({first_line(problem)}): start them with torchrun --nproc-per-node=N, or with srun in a SLURM job"
        ) from problem
    return FabricTeam(fabric)


class _Launched(ClusterEnvironment):
    """A launch in lightning-fabric's terms, where every process counts as a node with one device."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self._launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._launch.address

    @property
    def main_port(self) -> int:
        return self._launch.port

    @staticmethod
    def detect() -> bool:
        return False  # passed explicitly, never detected

    def world_size(self) -> int:
        return self._launch.size

    def set_world_size(self, size: int) -> None:
        assert size == self._launch.size

    def global_rank(self) -> int:
        return self._launch.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._launch.rank

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self._launch.rank
