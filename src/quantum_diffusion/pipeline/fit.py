"""The training loop on one page, and its epochs; a step is in `step.py`.

The randomness of a step is a function of (seed, step) and the order of batches one of (seed, epoch), so a resumed run
makes the same steps as an uninterrupted one.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import torch

from quantum_diffusion.config.schema import LoopConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import TrainingDivergedError, memory_for
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.pipeline.graphs import make_steps
from quantum_diffusion.pipeline.hooks import Hooks
from quantum_diffusion.pipeline.state import Trainable, TrainingState, using_network
from quantum_diffusion.pipeline.step import LAG, LossModule, MadeStep, Results, StepResult
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.seeding import derive_seed


@dataclass(frozen=True)
class FitResult:
    """How training ended.

    Attributes:
        status: "finished" or "interrupted".
        epochs: Records of the epochs since the start or resume.
        stopped_early: Whether it ended because the metric stopped improving.
    """

    status: Literal["finished", "interrupted"]
    epochs: list[EpochRecord] = field(default_factory=list)
    stopped_early: bool = False


def fit(
    pipeline: Trainable,
    train_loader: BatchLoader,
    validation_loader: BatchLoader | None,
    state: TrainingState,
    settings: LoopConfig,
    seed: int,
    *,
    observers: Sequence[FitObserver] = (),
    hooks: Hooks | None = None,
    team: Team | None = None,
) -> FitResult:
    """Train for `settings.num_epochs` epochs (or `max_steps` steps), including the progress already in the state.

    Args:
        pipeline: What to train; its network is `state.network`.
        train_loader: Training batches.
        validation_loader: Batches for the validation loss after each epoch; None skips it.
        state: The progress of training; changed in place.
        settings: How to train.
        seed: Seed of noise and dropout.
        observers: Notified of steps and epochs.
        hooks: Saving, stopping, measuring; None does none of these.
        team: The processes that train together, all with the same state; None is this process only.

    Raises:
        TrainingDivergedError: The loss or its gradient is not finite; the last finite weights are in the checkpoint.
        OutOfMemoryError: The batches are too large; checkpoints are as they were.
    """
    hooks, team = hooks or Hooks(), team or Team()
    total = total_steps(settings, train_loader)
    started, seconds_before = time.perf_counter(), state.seconds
    epochs: list[EpochRecord] = []
    pace = _Pace()
    steps = make_steps(team.wrap(LossModule(pipeline, settings)), state, settings, team, pipeline.device)
    results = Results(0 if state.scaler.is_enabled() or pipeline.device.type != "cuda" else LAG)
    state.network.train()

    def check(read: Sequence[StepResult]) -> None:
        for result in read:
            if result.has_diverged(state.scaler):
                _refuse(state, result, hooks)

    def tell(read: Sequence[StepResult]) -> None:
        for result in read:
            state.loss_sum += result.loss * result.made.num_batches
            if result.made.step % settings.log_every == 0 or result.made.step == total:
                record = _record(result, total, pace, pipeline.device, settings)
                for observer in observers:
                    observer.on_step(record)

    def settle() -> None:
        """Wait for the device, so that the results of all steps so far are known."""
        read = results.read(0)
        check(read)
        tell(read)

    def save() -> None:
        settle()
        hooks.save_checkpoint(state)

    with _told_of_memory(settings, pipeline.device), _announced(observers, state.step, total) as end:
        while state.step < total:
            batches = train_loader.epoch(state.epoch, first_batch=state.batch)
            for group in _groups(batches, settings.accumulate_batches):
                learning_rate = float(state.schedules[0].get_last_lr()[0])
                values = steps.make(group, seed, hooks.should_stop())
                seen = state.samples_seen + sum(map(len, group))
                results.add(MadeStep(state.step + 1, state.epoch, len(group), seen, learning_rate), values)
                read = results.read()  # of this step, or of an earlier one
                check(read)
                steps.finish(any(result.has_overflowed(state.scaler) for result in read))
                state.step += 1
                state.batch += len(group)
                state.samples_seen = seen
                state.seconds = seconds_before + time.perf_counter() - started
                pace.mark(state.samples_seen)
                hooks.after_step()
                tell(read)
                if state.step == total:
                    break
                agreed = any(result.stop for result in read)  # all processes of a team stop at the same step
                if agreed or (team.size == 1 and hooks.should_stop()):
                    save()
                    return end(FitResult("interrupted", epochs))
                # Not after the last batch: a run resumed from there would log the end of the epoch twice.
                if state.batch < len(train_loader) and hooks.is_due(state):
                    save()
            settle()
            epoch = _end_epoch(pipeline, validation_loader, state, settings, seed, hooks, team)
            epochs.append(epoch)
            for observer in observers:
                observer.on_epoch(epoch)
            is_enough = settings.patience is not None and state.no_better >= settings.patience
            if is_enough or state.step == total or state.epoch % hooks.checkpoint_epochs == 0:
                hooks.save_checkpoint(state)
            if is_enough:
                return end(FitResult("finished", epochs, stopped_early=True))
        return end(FitResult("finished", epochs))


def _told_of_memory(settings: LoopConfig, device: torch.device) -> AbstractContextManager[None]:
    doing = f"training with training.training.batch_size={settings.batch_size} on {device}"
    same_steps = f"half of it with training.training.accumulate_batches={2 * settings.accumulate_batches}"
    return memory_for(doing, f"lower it ({same_steps} makes the same steps), or training.model.params")


@contextmanager
def _announced(observers: Sequence[FitObserver], step: int, total: int) -> Iterator[Callable[[FitResult], FitResult]]:
    """Notify observers of start and end; the end is "failed" unless the yielded function is called with a result."""
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
    steps = settings.num_epochs * -(-len(train_loader) // settings.accumulate_batches)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def step_generator(seed: int, purpose: str, number: int, device: torch.device) -> torch.Generator:
    """Return the generator of one step, on the device that needs the numbers."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, number))


def most_memory(device: torch.device) -> float:
    """Return the peak memory so far in GiB: of a CUDA device, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield the batches of each step; the last step of an epoch may have fewer."""
    while group := list(itertools.islice(batches, size)):
        yield group


def _record(result: StepResult, total: int, pace: _Pace, device: torch.device, settings: LoopConfig) -> StepRecord:
    made = result.made
    return StepRecord(
        step=made.step,
        total_steps=total,
        epoch=made.epoch,
        samples_seen=made.samples_seen,
        loss=result.loss,
        prefix_loss=result.prefix_loss if settings.prefix_head_weight else None,
        learning_rate=made.learning_rate,
        gradient_norm=result.gradient_norm,
        samples_per_second=pace.rate(),
        memory_gib=most_memory(device),
    )


def _refuse(state: TrainingState, result: StepResult, hooks: Hooks) -> NoReturn:
    kept = "only weights of an earlier checkpoint are saved"
    if all(bool(p.isfinite().all()) for p in state.network.parameters()):
        hooks.save_checkpoint(state)
        kept = "the weights before it are in the checkpoint"
    raise TrainingDivergedError(
        f"step {result.made.step}: the loss is {result.total} and its gradient {result.gradient_norm}; {kept}. Start "
        "over with a lower training.training.learning_rate or training.training.gradient_clip, and "
        "training.general.resume=never"
    )


# --------------------------------------------------------------------------------------- the end of an epoch


def _end_epoch(
    pipeline: Trainable,
    validation_loader: BatchLoader | None,
    state: TrainingState,
    settings: LoopConfig,
    seed: int,
    hooks: Hooks,
    team: Team,
) -> EpochRecord:
    """Measure, update the best score, and move on to the next epoch."""
    state.training_loss = state.loss_sum / state.batch
    state.validation_loss = validate(pipeline, validation_loader, state, seed, team)
    accuracy = None
    if hooks.measure is not None and settings.sample_every and (state.epoch + 1) % settings.sample_every == 0:
        with using_network(pipeline, state.averaged_network):
            accuracy = hooks.measure()
    # Hardware may differ between processes, and so may single samples; all must reach the same decision.
    state.validation_loss, accuracy = team.of_first(lambda: [state.validation_loss, accuracy])
    epoch = EpochRecord(
        epoch=state.epoch,
        step=state.step,
        samples_seen=state.samples_seen,
        training_loss=state.training_loss,
        validation_loss=state.validation_loss,
        sampled_accuracy=accuracy,
        seconds=state.seconds,
    )
    value = accuracy if settings.best_metric == "sampled_accuracy" else state.validation_loss
    state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
    if value is not None:
        score = value if settings.best_metric == "sampled_accuracy" else -value
        is_better = state.best_score is None or score > state.best_score
        state.no_better = 0 if is_better else state.no_better + 1
        if is_better:
            state.best_score = score
            hooks.save_best(state)
    return epoch


@torch.no_grad()
def validate(
    pipeline: Trainable, loader: BatchLoader | None, state: TrainingState, seed: int, team: Team | None = None
) -> float | None:
    """Mean diffusion loss of the averaged weights, with the same noise each time; None without a loader."""
    if loader is None:
        return None
    team = team or Team()
    sums = torch.zeros(2, dtype=torch.float64)  # loss, circuits; each process takes every so many batches
    with using_network(pipeline, state.averaged_network):
        for number, batch in enumerate(loader.epoch(0)):
            if number % team.size == team.rank:
                noise = Noise(step_generator(seed, "validation", number, pipeline.device))
                loss = float(pipeline.training_loss(batch.to(pipeline.device), noise).diffusion)
                sums += torch.tensor([loss * len(batch), len(batch)], dtype=torch.float64)
    loss, circuits = team.mean(sums.to(pipeline.device, torch.float32) if team.size > 1 else sums).tolist()
    return float(loss / circuits)


class _Pace:
    """Samples per second over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def mark(self, samples_seen: int, window: float = 10.0) -> None:
        now = time.perf_counter()
        self._marks.append((now, samples_seen))
        while len(self._marks) > 2 and self._marks[0][0] < now - window:
            self._marks.pop(0)

    def rate(self) -> float:
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - then) if now > then else 0.0
