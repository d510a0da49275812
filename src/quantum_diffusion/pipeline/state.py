"""The interface of a trainable model, and the training state that a checkpoint saves.

Nothing here depends on pipelines: anything with weights and a loss can be trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from quantum_diffusion.data.container import Batch
from quantum_diffusion.diffusion.noise import Noise


@dataclass(frozen=True, eq=False)
class LossTerms:
    """The parts of a training loss, scalars on the device.

    Attributes:
        total: What is minimised.
        diffusion: The process's own loss.
        prefix: The auxiliary head's loss, None without the head.
    """

    total: Tensor
    diffusion: Tensor
    prefix: Tensor | None = None


class Trainable(Protocol):
    """What the loop can train; `DiffusionPipeline` is one.

    Attributes:
        network: All weights; may be replaced by another network of the same architecture.
    """

    network: nn.ModuleDict

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def training_loss(
        self,
        batch: Batch,
        noise: Noise,
        *,
        condition_dropout: float = 0.0,
        tell_gates: float = 0.0,
        joint_dropout: bool = False,
        low_variance: bool = True,
        prefix_weight: float = 0.0,
    ) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            batch: Circuits, on the same device.
            noise: Source of all randomness of the step, on the same device.
            condition_dropout: Fraction of conditions to drop.
            tell_gates: Fraction of circuits whose number of gates is a condition.
            joint_dropout: Drop all parts of a condition together instead of independently.
            low_variance: Spread noise levels evenly over the batch.
            prefix_weight: Weight of the auxiliary head's loss.
        """


@dataclass(eq=False)
class TrainingState:
    """Everything that changes during training.

    Attributes:
        network: The weights that are trained.
        optimizers: One or two optimizers of the weights.
        schedules: The learning-rate schedule of each optimizer.
        average: Exponential moving average of the weights, None without.
        step: Steps done.
        epoch: Epoch in progress.
        batch: Batches of that epoch done.
        samples_seen: Circuits trained on.
        loss_sum: Sum of the diffusion losses of that epoch's batches.
        seconds: Wall time of training in seconds, without time lost to a kill.
        training_loss: Mean loss of the last whole epoch, None before its end.
        validation_loss: Validation loss after it, None without validation.
        best_score: The best epoch's metric, larger is better; None before the first measurement.
        no_better: Measurements without improvement since then.
        scaler: Loss scaler for 16-bit gradients; does nothing otherwise.
    """

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LambdaLR]
    average: MovingAverage | None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples_seen: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    training_loss: float | None = None
    validation_loss: float | None = None
    best_score: float | None = None
    no_better: int = 0
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))

    _PROGRESS = (
        "step",
        "epoch",
        "batch",
        "samples_seen",
        "loss_sum",
        "seconds",
        "training_loss",
        "validation_loss",
        "best_score",
        "no_better",
    )

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that `load_state_dict` restores."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in self._PROGRESS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; raises KeyError, ValueError or RuntimeError when it does not fit."""
        self.network.load_state_dict(state["network"])
        if (self.average is None) != (state["average"] is None):
            raise ValueError("the checkpoint and the configuration disagree about averaged weights (ema_decay)")
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        for name in self._PROGRESS:
            setattr(self, name, state[name])

    def count_step(self, moved: bool = True) -> None:
        """Count a step: learning rates advance with every step, the average only if the weights moved."""
        with nullcontext() if moved else warnings.catch_warnings(action="ignore"):  # torch misses the optimizers' steps
            for schedule in self.schedules:
                schedule.step()
        if moved and self.average is not None:
            self.average.n_averaged += 1

    @property
    def averaged_network(self) -> nn.ModuleDict:
        """The averaged weights; the trained ones if there is no average."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, nn.ModuleDict)
        return network


class MovingAverage(AveragedModel):
    """An exponential moving average with a short warm-up: decay min(d, (1 + n) / (10 + n)).

    Args:
        network: The network to average.
        decay: d.
    """

    n_averaged: Tensor  # always on the CPU, so that reading it does not wait for the device

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay

    @property
    def weight(self) -> float:
        """The weight of the network in the next update: 1 for the first, then falling towards 1 - d."""
        count = int(self.n_averaged)
        return 1.0 if count == 0 else 1 - min(self._decay, (1 + count) / (10 + count))

    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with a network's weights; the first ones are copied."""
        self.move(model, self.weight)
        self.n_averaged += 1

    @torch.no_grad()
    def move(self, model: nn.Module, weight: float | Tensor) -> None:
        """Move towards a network's weights by `weight`, a number or a scalar on their device, without counting it."""
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(model.parameters())
        if isinstance(weight, Tensor):
            ways = torch._foreach_sub(current, averaged)
            torch._foreach_mul_(ways, weight)
            torch._foreach_add_(averaged, ways)
        elif weight == 1:
            torch._foreach_copy_(averaged, current)
        else:
            torch._foreach_lerp_(averaged, current, weight)
        for own, other in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(other)


@contextmanager
def using_network(pipeline: Trainable, network: nn.ModuleDict) -> Iterator[None]:
    """Temporarily use another network in a pipeline, in evaluation mode."""
    trained = pipeline.network
    was_training = trained.training
    pipeline.network = network.eval()
    try:
        yield
    finally:
        pipeline.network = trained.train(was_training)
