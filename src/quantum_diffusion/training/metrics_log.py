"""Passes metrics from the training loop to the experiment logger.

Neither knows the other; this module maps the loop's records to metric names.
"""

from __future__ import annotations

from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord
from quantum_diffusion.tracking.experiment import ExperimentLogger


class MetricsLog(FitObserver):
    """Passes the loop's records on to the experiment logger."""

    def __init__(self, experiment: ExperimentLogger) -> None:
        self._experiment = experiment

    def on_step(self, record: StepRecord) -> None:
        """Log the numbers of a step."""
        self._experiment.log(
            record.step,
            {
                "loss": record.loss,
                "prefix_loss": record.prefix_loss,
                "learning_rate": record.learning_rate,
                "gradient_norm": record.gradient_norm,
                "samples_per_second": record.samples_per_second,
                "memory_gib": record.memory_gib,
            },
        )

    def on_epoch(self, record: EpochRecord) -> None:
        """Log the numbers of an epoch."""
        self._experiment.log(
            record.step,
            {
                "epoch_loss": record.training_loss,
                "validation_loss": record.validation_loss,
                "sampled_accuracy": record.sampled_accuracy,
            },
        )
