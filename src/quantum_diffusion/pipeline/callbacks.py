"""What a training loop tells the outside: records of steps and epochs, and the interface that receives them.

Progress bars, loggers and tests are observers; the loop itself knows none of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """The state after a logged training step.

    Attributes:
        step: Steps done since the beginning, resumed runs included.
        total_steps: Steps of the whole run.
        epoch: Epoch of the step, from 0.
        samples_seen: Circuits trained on since the beginning.
        loss: Diffusion loss of the step's batch.
        prefix_loss: Loss of the auxiliary head, None without it.
        learning_rate: The rate the step was made with.
        gradient_norm: Norm before clipping.
        samples_per_second: Circuits a second over the last seconds.
        memory_gib: Most memory used so far: of the device on CUDA, else of the process.
    """

    step: int
    total_steps: int
    epoch: int
    samples_seen: int
    loss: float
    prefix_loss: float | None
    learning_rate: float
    gradient_norm: float
    samples_per_second: float
    memory_gib: float


@dataclass(frozen=True)
class EpochRecord:
    """The state after an epoch.

    Attributes:
        epoch: From 0.
        step: Steps done.
        samples_seen: Circuits trained on.
        training_loss: Mean diffusion loss over the epoch's steps.
        validation_loss: Mean diffusion loss of the averaged weights on the validation circuits, None without any.
        sampled_accuracy: Exact share of circuits sampled with the averaged weights, None where it was not measured.
        seconds: Wall time of training, earlier starts of a resumed run included.
    """

    epoch: int
    step: int
    samples_seen: int
    training_loss: float
    validation_loss: float | None
    sampled_accuracy: float | None
    seconds: float


class FitObserver:
    """Receives what happens in `fit`; override what is of interest."""

    def on_start(self, step: int, total_steps: int) -> None:
        """Training begins, or continues after `step` steps."""

    def on_step(self, record: StepRecord) -> None:
        """A step was made; called every `log_every` steps and after the last one."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_end(self, status: str) -> None:
        """Training ended: "finished", "interrupted" or "failed"."""
