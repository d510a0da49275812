"""Records of training steps and epochs, and the observer interface that receives them.

Progress bars, loggers and tests are observers; the training loop knows only this interface.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """The state after a logged training step.

    Attributes:
        step: Steps done since the beginning, including earlier starts of a resumed run.
        total_steps: Steps of the whole run.
        epoch: Epoch of the step, from 0.
        samples_seen: Circuits trained on since the beginning.
        loss: Diffusion loss of the step's batch.
        prefix_loss: Loss of the auxiliary head, None without it.
        learning_rate: Learning rate of the step.
        gradient_norm: Norm before clipping.
        samples_per_second: Circuits per second over the last few seconds.
        memory_gib: Peak memory in GiB so far: of the device on CUDA, else of the process.
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
        sampled_accuracy: Fraction of circuits sampled with the averaged weights that are exact, None if not measured.
        seconds: Wall time of training in seconds, including earlier starts of a resumed run.
    """

    epoch: int
    step: int
    samples_seen: int
    training_loss: float
    validation_loss: float | None
    sampled_accuracy: float | None
    seconds: float


class FitObserver:
    """Receives the events of `fit`; override the methods you need."""

    def on_start(self, step: int, total_steps: int) -> None:
        """Training begins, or continues after `step` steps."""

    def on_step(self, record: StepRecord) -> None:
        """A step was made; called every `log_every` steps and after the last one."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""

    def on_end(self, status: str) -> None:
        """Training ended: "finished", "interrupted" or "failed"."""
