"""An observer that overrides nothing is told everything and does nothing."""

import dataclasses

import pytest

from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord

STEP = StepRecord(1, 10, 0, 16, 0.5, None, 1e-3, 0.1, 100.0)
EPOCH = EpochRecord(0, 10, 160, 0.4, None, 1.0)


def test_the_base_observer_ignores_everything() -> None:
    observer = FitObserver()
    observer.on_start(0, 10)
    observer.on_step(STEP)
    observer.on_epoch(EPOCH)
    observer.on_end("finished")


def test_records_cannot_be_changed() -> None:
    for record, name in ((STEP, "loss"), (EPOCH, "epoch")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, 0)
