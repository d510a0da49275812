"""The circuits of a training run: a data set, or a `stream:` that generates fresh circuits for every epoch.

The rest of training does not depend on which of the two it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.config.store import dataset_preset
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.stream import CircuitStream, stream_fingerprint
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.augmentation import check_augmentation
from quantum_diffusion.pipeline.team import Team
from quantum_diffusion.tasks.registry import TASKS

logger = logging.getLogger(__name__)

STREAM = "stream:"
"""Prefix of a `general.dataset` that is generated during training."""

Loaders = tuple[BatchLoader, BatchLoader | None]
"""Batches to train on, and batches to validate with, if any."""


@dataclass(frozen=True, eq=False)
class Source:
    """The circuits of a run.

    Attributes:
        dataset: All circuits; for a stream, those of the first epoch.
        fingerprint: SHA-256 of the circuits.
        make_loaders: Makes the batches, given the number that T of every batch must be a multiple of.
    """

    dataset: CircuitDataset
    fingerprint: str
    make_loaders: Callable[[int], Loaders]


def open_source(config: TrainingConfig, dataset: CircuitDataset | None = None, team: Team | None = None) -> Source:
    """Open the circuits of a run.

    Args:
        config: The run.
        dataset: The circuits; None loads or generates `general.dataset`.
        team: The processes that train together; the first generates the circuits of a stream. None is this process.

    Raises:
        DatasetFormatError, IncompatibleDatasetsError: The data set cannot be used.
        ConfigError, GateSetError: The stream cannot be made.
    """
    if dataset is None and config.general.dataset.startswith(STREAM):
        return _open_stream(config, team or Team())
    return _open_data_set(config, dataset)


def find_fingerprint(config: TrainingConfig) -> str:
    """Return the fingerprint of `general.dataset`, without generating the circuits of a stream.

    Raises:
        ConfigError, DatasetFormatError: The circuits cannot be found or read.
    """
    general = config.general
    if general.dataset.startswith(STREAM):
        return stream_fingerprint(_stream_config(config), general.seed)
    return dataset_loader().load_dataset(general.dataset).fingerprint


def check_settings(config: TrainingConfig, dataset: CircuitDataset) -> None:
    """Refuse settings that do not fit the circuits, and warn about those that have no effect.

    Raises:
        ConfigError: The message names the setting.
    """
    name, loop, task = config.general.dataset, config.training, dataset.task
    if not task.labels_prefixes and loop.prefix_head_weight > 0:
        raise ConfigError(
            f"training.training.prefix_head_weight={loop.prefix_head_weight} trains on Schmidt rank vectors, but "
            f"{name!r} holds {task.asked} (condition_type {task.name}): set it to 0"
        )
    if task.encoder is None and loop.joint_dropout:
        raise ConfigError(
            f"training.training.joint_dropout=true drops prompts together with targets, but {name!r} "
            f"holds none (condition_type {task.name}): set it to false"
        )
    for encoder in sorted({other.step_encoder for other in TASKS.values()} - {task.step_encoder}):
        if getattr(config, encoder) != TrainingConfig.model_fields[encoder].default:
            logger.warning(
                "training.%s has no effect: the model learns %s, for %r is of condition_type %s",
                encoder,
                task.asked,
                name,
                task.name,
            )
    check_augmentation(dataset, loop.augment)


def _open_data_set(config: TrainingConfig, dataset: CircuitDataset | None) -> Source:
    general, loop = config.general, config.training
    loader = dataset_loader(general.seed)
    loaded = dataset if dataset is not None else loader.load_dataset(general.dataset)
    fingerprint = loaded.fingerprint
    combined = loader.combine_datasets([loaded], loop.balance_max, loop.max_samples)

    def make_loaders(time_multiple: int) -> Loaders:
        return loader.get_dataloaders(
            combined,
            loop.batch_size,
            loop.validation_fraction,
            bucketed=loop.batching == "bucketed",
            balance_prompts=loop.balance_prompts,
            time_multiple=time_multiple,
            num_workers=loop.num_workers,
        )

    return Source(combined, fingerprint, make_loaders)


def _open_stream(config: TrainingConfig, team: Team) -> Source:
    general, loop = config.general, config.training
    if loop.batching == "bucketed":
        raise ConfigError(
            f"training.training.batching=bucketed needs a data set, given general.dataset={general.dataset}: use "
            "max_padded, or make a data set"
        )
    stream = CircuitStream(
        _stream_config(config), general.seed, loop.validation_fraction, partial(_made_by_first, team), team.is_first
    )

    def make_loaders(time_multiple: int) -> Loaders:
        return stream.loaders(
            loop.batch_size,
            general.seed,
            balance_prompts=loop.balance_prompts,
            time_multiple=time_multiple,
            num_workers=loop.num_workers,
            num_epochs=loop.num_epochs,
            max_batches=None if loop.max_steps is None else loop.max_steps * loop.accumulate_batches,
        )

    return Source(stream.epoch(0), stream.fingerprint, make_loaders)


def _made_by_first(team: Team, make: Callable[[], CircuitDataset]) -> CircuitDataset:
    """Generate circuits on the first process of a team and send them to all."""

    def parts() -> dict[str, Any]:
        dataset = make()
        values: dict[str, Any] = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
        values["gate_pool"] = dataset.gate_pool.names
        return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}

    given: dict[str, Any] = team.of_first(parts)
    values: dict[str, Any] = {name: v.cpu().numpy() if isinstance(v, Tensor) else v for name, v in given.items()}
    values["gate_pool"] = GatePool(values["gate_pool"])
    return CircuitDataset(**values)


def _stream_config(config: TrainingConfig) -> DatasetConfig:
    """Return the configuration of one epoch of the stream, within the limits of the run."""
    preset, loop = dataset_preset(config.general.dataset.removeprefix(STREAM)), config.training
    limits = {
        "num_samples": min(preset.num_samples, loop.max_samples or preset.num_samples),
        "balance_max": loop.balance_max or preset.balance_max,
    }
    return preset.model_copy(update=limits)
