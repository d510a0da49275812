"""Hooks of the training loop: saving, stopping, measuring.

Observers (`callbacks.py`) only watch; hooks decide how the loop continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantum_diffusion.pipeline.state import TrainingState


@dataclass(frozen=True)
class Hooks:
    """Actions of a run around the loop, which itself writes no files.

    Attributes:
        save_checkpoint: Called when `is_due` says so, after every `checkpoint_epochs` epochs and the last one, when
            stopped, and when the loss is no longer finite (unless the weights are not, either).
        is_due: Asked after each step whether a checkpoint is due.
        save_best: Called when an epoch is the best so far.
        should_stop: Asked after each step; True ends training cleanly.
        after_step: Called after each step.
        checkpoint_epochs: Epochs between the checkpoints after epochs.
        measure: Returns the fraction of sampled circuits that are exact; called while the pipeline uses the averaged
            weights.
    """

    save_checkpoint: Callable[[TrainingState], None] = lambda state: None
    is_due: Callable[[TrainingState], bool] = lambda state: False
    save_best: Callable[[TrainingState], None] = lambda state: None
    should_stop: Callable[[], bool] = lambda: False
    after_step: Callable[[], None] = lambda: None
    checkpoint_epochs: int = 1
    measure: Callable[[], float] | None = None
