"""The interface between a pipeline and a diffusion process: a loss, and decoded circuits.

Each process has its own representation of a circuit (cells, or a sequence of instructions) and its own options; its
adapter hides them from the pipeline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.editing import EditPlan
from quantum_diffusion.pipeline.guided import Guided

Denoise = Callable[..., Tensor]
"""(noised circuits, noise level) -> prediction; what these are is the process's. Of a third argument, bool [B, T], a
process may say which steps count."""


@dataclass(frozen=True, eq=False)
class ProcessLoss:
    """The loss of a batch, and the steps at which the network can predict a prefix's label.

    Attributes:
        diffusion: The process's own loss, a scalar on the device.
        sees_prefix: bool [B, T], steps whose token sees the whole prefix that ends with it.
        mean_prefixes: Expected number of such steps per circuit under the process's noise distribution.
    """

    diffusion: Tensor
    sees_prefix: Tensor
    mean_prefixes: float


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples that are drawn together, B of them.

    Attributes:
        num_qubits: int64 [B].
        allowed: bool [B, K+1], instructions that may be used.
        seeds: int64 [B].
    """

    num_qubits: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    seeds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seeds)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Return some of them."""
        return Rows(self.num_qubits[rows], self.allowed[rows], self.seeds[rows])

    def generators(self) -> Sequence[torch.Generator]:
        """Return one CPU generator per sample, so that a sample does not depend on its batch."""
        return [torch.Generator().manual_seed(int(seed)) for seed in self.seeds]


class ProcessAdapter(ABC):
    """A diffusion process as a pipeline uses it.

    Args:
        config: The architecture.
        table: The instructions of the pipeline.
        network: Its weights.

    Attributes:
        process: The process itself.
        names: What `scheduler.type` and `model_params.scheduler` may name it.
    """

    process: Any
    names: tuple[str, ...]

    def __init__(self, config: PipelineConfig, table: InstructionTable, network: nn.ModuleDict) -> None:
        self.config = config
        self.table = table
        self.network = network

    @abstractmethod
    def loss(
        self, denoise: Denoise, batch: Batch, ids: Callable[[], Tensor], noise: Noise, low_variance: bool
    ) -> ProcessLoss:
        """Noise the circuits of a batch and score what the network makes of them.

        Args:
            denoise: The network with its condition.
            batch: Circuits, on the device.
            ids: Returns them as instructions, int64 [B, T], for processes that work on these.
            noise: Source of randomness, on the device.
            low_variance: Spread noise levels evenly over the batch, where the process draws levels.
        """

    def check(self, options: SamplingConfig) -> None:
        """Refuse sampling options that the process lacks.

        Raises:
            ConfigError: The message names the option.
        """
        trained, asked = self.config.scheduler.type, options.scheduler
        if asked is not None and asked not in self.names:
            *others, last = self.names
            raise ConfigError(
                f"model_params.scheduler={asked!r} cannot sample a model trained with scheduler.type={trained!r}: "
                f"use {', '.join(others) + ' or ' if others else ''}{last}"
            )
        if options.guidance_mode is not None and self.config.loss == "cross_entropy":
            raise ConfigError(
                "model_params.guidance_mode is for models trained with training.loss=mse: this model guides "
                "log-probabilities"
            )

    def sample_steps(self, options: SamplingConfig) -> int:
        """Return the number of denoising steps of sampling."""
        return options.sample_steps or self.config.scheduler.params.sample_steps or self.config.max_gates

    @abstractmethod
    def shapes(self, rows: Rows, plan: EditPlan) -> NDArray[np.int64]:
        """Return the shape of each sample, int64 [N, 2]; only samples of the same shape share a batch."""

    @abstractmethod
    def sample(
        self, guided: Guided, rows: Rows, options: SamplingConfig, plan: EditPlan, device: torch.device
    ) -> DecodeReport:
        """Draw circuits of one shape and decode them.

        Args:
            guided: The network with its condition.
            rows: The samples, all of one of `shapes`.
            options: How to sample, all of it decided.
            plan: What may not be chosen freely.
            device: Where to compute.

        Returns:
            The circuits, ids int16 [B, T] of any T.
        """


def batches(shapes: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Rows to sample together: of equal shape, at most `batch_size`."""
    _, group = np.unique(shapes, axis=0, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        rows = np.flatnonzero(group.reshape(-1) == number)
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
