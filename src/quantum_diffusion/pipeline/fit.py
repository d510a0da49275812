"""The training loop, visible on one page, and the state that a checkpoint keeps.

The randomness of a step is a function of (seed, step) and the order of batches one of (seed, epoch): a run that is
stopped and continued makes the same steps as one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from quantum_diffusion.config.schema import LoopConfig
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.device import multiplies_in_bfloat16
from quantum_diffusion.errors import TrainingDivergedError
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline, LossTerms
from quantum_diffusion.seeding import derive_seed


@dataclass
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
        seconds: Wall time of training, without that lost by a kill.
        training_loss: Mean loss of the last whole epoch, None before its end.
        validation_loss: Validation loss after it, None without validation.
    """

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LambdaLR]
    average: AveragedModel | None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples_seen: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    training_loss: float | None = None
    validation_loss: float | None = None

    _PROGRESS = ("step", "epoch", "batch", "samples_seen", "loss_sum", "seconds", "training_loss", "validation_loss")

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that `load_state_dict` restores."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
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
        for name in self._PROGRESS:
            setattr(self, name, state[name])

    @property
    def best_network(self) -> nn.ModuleDict:
        """The averaged weights, or the trained ones without averaging."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, nn.ModuleDict)
        return network


def average_weights(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average that follows quickly at first: decay min(d, (1 + n) / (10 + n))."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        count = int(updates)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + count) / (10 + count)))

    return AveragedModel(network, multi_avg_fn=update)


@dataclass(frozen=True)
class FitResult:
    """How training ended.

    Attributes:
        status: "finished" or "interrupted".
        epochs: Records of the epochs since the start or resume.
    """

    status: str
    epochs: list[EpochRecord] = field(default_factory=list)


def fit(
    pipeline: DiffusionPipeline,
    train_loader: BatchLoader,
    validation_loader: BatchLoader | None,
    state: TrainingState,
    settings: LoopConfig,
    seed: int,
    *,
    observers: Sequence[FitObserver] = (),
    save_checkpoint: Callable[[TrainingState], None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train for `settings.num_epochs` epochs (or `max_steps` steps), counted from the state's own progress.

    Args:
        pipeline: What is trained; its network is `state.network`.
        train_loader: Batches to learn from.
        validation_loader: Batches to measure on after each epoch, or None.
        state: Where training stands; changed in place.
        settings: How to train.
        seed: Seed of noise and dropout.
        observers: Told of steps and epochs.
        save_checkpoint: Called after each epoch, when stopped, and when the loss is no longer finite (unless the
            weights are not, either).
        should_stop: Asked after each step; True ends training cleanly.

    Raises:
        TrainingDivergedError: The loss or its gradient is not finite; the last finite weights are in the checkpoint.
    """
    total = total_steps(settings, train_loader)
    started, seconds_before = time.perf_counter(), state.seconds
    epochs: list[EpochRecord] = []
    pace = _Pace()
    autocast = torch.autocast(pipeline.device.type, torch.bfloat16, enabled=uses_bfloat16(settings, pipeline.device))
    state.network.train()

    with _announced(observers, state.step, total) as end:
        while state.step < total:
            for batch in train_loader.epoch(state.epoch, first_batch=state.batch):
                batch = batch.to(pipeline.device)
                with autocast:
                    terms = pipeline.training_loss(
                        batch,
                        step_generator(seed, "step", state.step, pipeline.device),
                        condition_dropout=settings.condition_dropout,
                        low_variance=settings.low_variance_timesteps,
                        prefix_weight=settings.prefix_head_weight,
                    )
                learning_rate = float(state.schedules[0].get_last_lr()[0])
                gradient_norm = _update(state, terms, settings.gradient_clip, save_checkpoint)
                state.step += 1
                state.batch += 1
                state.samples_seen += len(batch)
                loss = float(terms.diffusion.detach())
                state.loss_sum += loss
                state.seconds = seconds_before + time.perf_counter() - started
                rate = pace.rate(state.samples_seen)
                if state.step % settings.log_every == 0 or state.step == total:
                    record = StepRecord(
                        step=state.step,
                        total_steps=total,
                        epoch=state.epoch,
                        samples_seen=state.samples_seen,
                        loss=loss,
                        prefix_loss=None if terms.prefix is None else float(terms.prefix.detach()),
                        learning_rate=learning_rate,
                        gradient_norm=gradient_norm,
                        samples_per_second=rate,
                    )
                    for observer in observers:
                        observer.on_step(record)
                if state.step == total:
                    break
                if should_stop():
                    save_checkpoint(state)
                    return end(FitResult("interrupted", epochs))
            epoch = EpochRecord(
                epoch=state.epoch,
                step=state.step,
                samples_seen=state.samples_seen,
                training_loss=state.loss_sum / state.batch,
                validation_loss=validate(pipeline, validation_loader, state, seed),
                seconds=state.seconds,
            )
            state.training_loss, state.validation_loss = epoch.training_loss, epoch.validation_loss
            epochs.append(epoch)
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
            for observer in observers:
                observer.on_epoch(epoch)
            save_checkpoint(state)
        return end(FitResult("finished", epochs))


@contextmanager
def _announced(observers: Sequence[FitObserver], step: int, total: int) -> Iterator[Callable[[FitResult], FitResult]]:
    """Tell observers of start and end; the end is "failed" unless the yielded function is given a result."""
    status = "failed"

    def end(result: FitResult) -> FitResult:
        nonlocal status
        status = result.status
        return result

    for observer in observers:
        observer.on_start(step, total)
    try:
        yield end
    finally:
        for observer in observers:
            observer.on_end(status)


def total_steps(settings: LoopConfig, train_loader: BatchLoader) -> int:
    """Steps of the whole run."""
    steps = settings.num_epochs * len(train_loader)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def uses_bfloat16(settings: LoopConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 in training."""
    return settings.precision == "bf16" or (settings.precision == "auto" and multiplies_in_bfloat16(device))


def step_generator(seed: int, purpose: str, number: int, device: torch.device) -> torch.Generator:
    """Return the generator of one step, on the device that needs the numbers."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, number))


def _update(
    state: TrainingState,
    terms: LossTerms,
    gradient_clip: float | None,
    save_checkpoint: Callable[[TrainingState], None],
) -> float:
    """Make one optimizer step; returns the gradient's norm before clipping."""
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    terms.total.backward()
    norm = float(nn.utils.clip_grad_norm_(state.network.parameters(), gradient_clip or math.inf))
    loss = float(terms.total.detach())
    if not (math.isfinite(loss) and math.isfinite(norm)):
        kept = "no weights are saved"
        if all(bool(p.isfinite().all()) for p in state.network.parameters()):
            save_checkpoint(state)
            kept = "the weights before it are in the checkpoint"
        raise TrainingDivergedError(
            f"step {state.step + 1}: the loss is {loss} and its gradient {norm}; {kept}. Start anew with a lower "
            "training.training.learning_rate or training.training.gradient_clip, and training.general.resume=never"
        )
    for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
        optimizer.step()
        schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.network)
    return norm


@torch.no_grad()
def validate(pipeline: DiffusionPipeline, loader: BatchLoader | None, state: TrainingState, seed: int) -> float | None:
    """Mean diffusion loss of the best weights, with the same noise each time; None without a loader."""
    if loader is None:
        return None
    total, count = 0.0, 0
    with using_network(pipeline, state.best_network):
        for number, batch in enumerate(loader.epoch(0)):
            generator = step_generator(seed, "validation", number, pipeline.device)
            total += float(pipeline.training_loss(batch.to(pipeline.device), generator).diffusion) * len(batch)
            count += len(batch)
    return total / count


@contextmanager
def using_network(pipeline: DiffusionPipeline, network: nn.ModuleDict) -> Iterator[None]:
    """Let a pipeline compute with other weights for a while, in evaluation mode."""
    trained = pipeline.network
    was_training = trained.training
    pipeline.network = network.eval()
    try:
        yield
    finally:
        pipeline.network = trained.train(was_training)


class _Pace:
    """Samples a second over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def rate(self, samples_seen: int, window: float = 10.0) -> float:
        now = time.perf_counter()
        self._marks.append((now, samples_seen))
        while len(self._marks) > 2 and self._marks[0][0] < now - window:
            self._marks.pop(0)
        then, before = self._marks[0]
        return (samples_seen - before) / (now - then) if now > then else 0.0
