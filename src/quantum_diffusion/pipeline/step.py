"""One optimizer step, and its result, which is read once the device has computed it.

On CUDA the CPU runs ahead of the device; reading the loss of every step at once would wait for the device each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantum_diffusion.config.schema import LoopConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.device import multiplies_in_bfloat16
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.pipeline.augmentation import augment
from quantum_diffusion.pipeline.state import Trainable, TrainingState
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.seeding import derive_seed

LAG = 4
"""Number of steps by which reading results lags behind on CUDA."""


class LossModule(nn.Module):
    """The loss as a module, so that a team's wrapper sees its forward and backward pass.

    Args:
        pipeline: What to train.
        settings: How to train it.
    """

    def __init__(self, pipeline: Trainable, settings: LoopConfig) -> None:
        super().__init__()
        self.network = pipeline.network
        self._pipeline = (pipeline,)  # in a tuple, so that torch does not register it
        self._settings = settings
        self._dtype = low_precision(settings, pipeline.device)

    def forward(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Return the parts of the loss of a batch by name, scalars."""
        (pipeline,) = self._pipeline
        with torch.autocast(pipeline.device.type, self._dtype, enabled=self._dtype is not None):
            terms = pipeline.training_loss(
                augment(batch, self._settings.augment, noise),
                noise,
                condition_dropout=self._settings.condition_dropout,
                tell_gates=self._settings.tell_gates,
                joint_dropout=self._settings.joint_dropout,
                low_variance=self._settings.low_variance_timesteps,
                prefix_weight=self._settings.prefix_head_weight,
            )
        parts = {"total": terms.total, "diffusion": terms.diffusion.detach()}
        return parts if terms.prefix is None else parts | {"prefix": terms.prefix.detach()}

    def reads(self) -> dict[str, Any]:
        """Return what the loss reads besides its network, including tensors cached on the device."""
        (pipeline,) = self._pipeline
        return dict(vars(pipeline))


def low_precision(settings: LoopConfig, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit dtype that the network computes in, None for 32 bits."""
    if settings.precision == "16":
        return torch.float16
    wanted = settings.precision == "bf16" or (settings.precision == "auto" and multiplies_in_bfloat16(device))
    return torch.bfloat16 if wanted else None


def make_gradients(
    loss_of: nn.Module,
    state: TrainingState,
    group: Sequence[Batch],
    generator: torch.Generator,
    settings: LoopConfig,
    team: Team,
    stop: bool,
) -> Tensor:
    """Compute the gradients of a step and clip them; does not wait for the device.

    Args:
        loss_of: A `LossModule`, as the team wraps it.
        state: Its network is given gradients.
        group: The batches of the step, whose gradients are averaged.
        generator: Source of the step's randomness, on the device.
        settings: How to train.
        team: The processes that share the batches.
        stop: Whether this process wants to stop after the step.

    Returns:
        float32 [5] on the device, the values of `StepResult`, averaged over the team.
    """
    device = generator.device
    circuits = sum(map(len, group))
    sums = torch.zeros(4, device=device)  # total, diffusion, prefix, stop
    for number, batch in enumerate(group):
        rows = team.share(len(batch))
        own = (batch if rows is None else batch.take(rows)).to(device)
        noise = Noise(generator, rows, None if rows is None else len(batch))
        parts = loss_of(own, noise)
        if number == 0:  # as late as possible: on a CPU, the forward pass would take their memory
            for optimizer in state.optimizers:
                optimizer.zero_grad(set_to_none=True)
        # Averaging over the team counts every process alike, however many of the batch's circuits it has.
        weight = len(batch) / circuits * (1.0 if rows is None else len(own) * team.size / len(batch))
        state.scaler.scale(parts["total"] * weight).backward()
        values = [
            parts["total"].detach(),
            parts["diffusion"],
            parts.get("prefix", torch.zeros_like(parts["diffusion"])),
        ]
        sums[:3] += weight * torch.stack(values).float()
    sums[3].fill_(float(stop))
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clip or math.inf)
    return torch.cat([team.mean(sums), norm.detach().float().view(1)])


def move_weights(state: TrainingState, overflowed: bool) -> None:
    """Update the weights and their average; after an overflow only the learning rates advance.

    Learning rates follow the step number. The scaler alone would check each optimizer's gradients separately, but after
    an overflow in one of them, clipping by the common norm has turned all gradients into NaN.
    """
    if not overflowed:
        for optimizer in state.optimizers:
            state.scaler.step(optimizer)
        if state.average is not None:
            state.average.move(state.network, state.average.weight)
    state.count_step(moved=not overflowed)
    state.scaler.update()


class Steps:
    """Makes the steps of a run, launching operations one by one.

    Args:
        loss_of: A `LossModule`, as the team wraps it.
        state: The training state.
        settings: How to train.
        team: The processes that share the batches.
        device: Where to train.
    """

    def __init__(
        self, loss_of: nn.Module, state: TrainingState, settings: LoopConfig, team: Team, device: torch.device
    ) -> None:
        self.loss_of = loss_of
        self.state = state
        self.settings = settings
        self.team = team
        self.device = device
        self.generator = torch.Generator(device)
        self._has_dropout = any(isinstance(part, nn.Dropout) and part.p > 0 for part in state.network.modules())

    def make(self, batches: Sequence[Batch], seed: int, stop: bool) -> Tensor:
        """Compute the gradients of a step; see `make_gradients`.

        Args:
            batches: The batches of the step.
            seed: Seed of the run; together with the step number it determines the noise.
            stop: Whether this process wants to stop after the step.
        """
        self.draw_from(seed)
        return make_gradients(self.loss_of, self.state, batches, self.generator, self.settings, self.team, stop)

    def draw_from(self, seed: int) -> None:
        """Seed the generators for this run's seed and this step."""
        self.generator.manual_seed(derive_seed(seed, "step", self.state.step))
        if self._has_dropout:  # only dropout draws from torch's default generator
            torch.manual_seed(derive_seed(seed, "dropout", self.state.step, self.team.rank))

    def finish(self, overflowed: bool) -> None:
        """Update the weights; see `move_weights`."""
        move_weights(self.state, overflowed)


# --------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class MadeStep:
    """What is known about a step as soon as it is launched.

    Attributes:
        step: Its number, from 1.
        epoch: Epoch in progress.
        num_batches: Batches it was made of.
        samples_seen: Circuits trained on, including its own.
        learning_rate: Its learning rate.
    """

    step: int
    epoch: int
    num_batches: int
    samples_seen: int
    learning_rate: float


@dataclass(frozen=True)
class StepResult:
    """The result of a step, averaged over the team.

    Attributes:
        made: The step.
        total: The loss.
        loss: The process's part of it.
        prefix_loss: The auxiliary head's part, 0 without.
        stop: Whether a process of the team wanted to stop after it.
        gradient_norm: Norm of the gradients before clipping.
    """

    made: MadeStep
    total: float
    loss: float
    prefix_loss: float
    stop: bool
    gradient_norm: float

    def has_overflowed(self, scaler: torch.amp.GradScaler) -> bool:
        """Tell whether the gradients overflowed 16 bits, which the scaler handles."""
        return scaler.is_enabled() and math.isfinite(self.total) and not math.isfinite(self.gradient_norm)

    def has_diverged(self, scaler: torch.amp.GradScaler) -> bool:
        """Tell whether training cannot continue."""
        is_finite = math.isfinite(self.total) and math.isfinite(self.gradient_norm)
        return not (is_finite or self.has_overflowed(scaler))


class Results:
    """Queue of step results, each read after a number of later steps.

    Args:
        lag: That number; the same for all processes of a team, so that they act at the same step.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._waiting: deque[tuple[MadeStep, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, made: MadeStep, values: Tensor) -> None:
        """Take what `make_gradients` returned for a step."""
        copied = None
        if values.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._waiting.append((made, values, copied))

    def read(self, lag: int | None = None) -> list[StepResult]:
        """Return the results that are due; with a lag of 0, all of them."""
        results = []
        while len(self._waiting) > (self._lag if lag is None else lag):
            made, values, copied = self._waiting.popleft()
            if copied is not None:
                copied.synchronize()
            total, loss, prefix_loss, stop, gradient_norm = values.tolist()
            results.append(StepResult(made, total, loss, prefix_loss, stop > 0, gradient_norm))
        return results
