"""Training data without end: every epoch has fresh circuits, made from the configuration of a data set.

An epoch is a function of (configuration, seed, epoch), so a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.balancing import PromptBalance
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.seeding import derive_seed

MadeOnce = Callable[[Callable[[], CircuitDataset]], CircuitDataset]
"""Returns the circuits that a function makes, which is called by one of several processes and given to all."""

_HELD_OUT = -1


def stream_fingerprint(config: DatasetConfig, seed: int) -> str:
    """Return what `CircuitStream.fingerprint` is, without making any circuit."""
    return hashlib.sha256(f"{DatasetGenerator(config).settings} {seed}".encode()).hexdigest()


class CircuitStream:
    """Circuits for every epoch, and others to validate with, which no epoch trains on.

    Args:
        config: What an epoch is made of; its `num_samples` is the size of an epoch. condition_type BOTH is two data
            sets and no stream.
        seed: Seed of the training run; with the configuration's own it decides the circuits.
        validation_fraction: Circuits to validate with, as a share of an epoch's.
        made_once: How processes that train together come by the same circuits; None is for one that is alone.

    Raises:
        ConfigError: There are fewer distinct circuits than an epoch and the validation need.
        GateSetError: A gate does not fit.
    """

    def __init__(
        self, config: DatasetConfig, seed: int, validation_fraction: float, made_once: MadeOnce | None = None
    ) -> None:
        if config.condition_type == "BOTH":
            raise ConfigError("condition_type=BOTH makes two data sets: stream one of SRV and UNITARY")
        self.config = config
        self.seed = seed
        self._made_once = made_once or (lambda make: make())
        self.num_circuits = config.num_samples
        self.num_held_out = max(1, round(config.num_samples * validation_fraction)) if validation_fraction else 0
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._fresh = lru_cache(maxsize=1)(self._make_fresh)
        available = len(self._fresh(0))
        if available < self.num_circuits:
            raise ConfigError(
                f"a stream needs {self.num_circuits + self.num_held_out:,} distinct circuits an epoch, but under these "
                f"settings there are about {available + self.num_held_out:,}: lower num_samples, or raise balance_max "
                "or max_gates (in a YAML file, stream:FILE.yaml), or make a data set instead"
            )

    def epoch(self, number: int) -> CircuitDataset:
        """Return the circuits of an epoch, from 0; all epochs have as many circuits and the same prompts."""
        return self._epoch(number)

    @cached_property
    def held_out(self) -> CircuitDataset:
        """The circuits to validate with."""
        return self._with_known_prompts(self._made_held_out)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that is equal for equal streams."""
        return stream_fingerprint(self.config, self.seed)

    def loaders(
        self,
        batch_size: int,
        seed: int,
        *,
        balance_prompts: bool = False,
        time_multiple: int = 1,
        num_workers: int = 0,
    ) -> tuple[BatchLoader, BatchLoader | None]:
        """Batch the stream and what is held out; see `DatasetLoader.get_dataloaders`."""
        validation = None
        if self.num_held_out and len(self.held_out):
            rows = np.arange(len(self.held_out))
            validation = BatchLoader(self.held_out, rows, batch_size, seed, shuffle=False, time_multiple=time_multiple)
        training = StreamLoader(
            self,
            batch_size,
            seed,
            balance_prompts=balance_prompts,
            time_multiple=time_multiple,
            num_workers=num_workers,
        )
        return training, validation

    def _make_epoch(self, number: int) -> CircuitDataset:
        fresh = self._with_known_prompts(self._fresh(number))
        return fresh.take(np.resize(np.arange(len(fresh)), self.num_circuits))  # a few repeat if some were left out

    def _make_fresh(self, number: int) -> CircuitDataset:
        made = self._generate(number, self.num_circuits + self.num_held_out)
        if not self.num_held_out:
            return made
        return made.take(np.flatnonzero(~np.isin(row_keys(made.tokens), row_keys(self._made_held_out.tokens))))

    @cached_property
    def _made_held_out(self) -> CircuitDataset:
        return self._generate(_HELD_OUT, self.num_held_out)

    def _generate(self, number: int, count: int) -> CircuitDataset:
        seed = derive_seed(self.config.seed, "stream", self.seed, number)
        most = self.config.balance_max
        scaled = None if most is None else -(-most * count // self.num_circuits)  # there is room for validation, too
        values = {"seed": seed, "num_samples": count, "balance_max": scaled}
        generator = DatasetGenerator(self.config.model_copy(update=values))
        return self._made_once(lambda: generator.generate()[0])

    @cached_property
    def _prompts(self) -> tuple[str, ...]:
        return self._fresh(0).prompts

    def _with_known_prompts(self, dataset: CircuitDataset) -> CircuitDataset:
        """Number prompts as the first epoch does; circuits of other, very rare ones are left out."""
        place = {prompt: index for index, prompt in enumerate(self._prompts)}
        numbers = np.array([place.get(prompt, -1) for prompt in dataset.prompts], dtype=np.int32)
        index: NDArray[np.int32] = numbers[dataset.prompt_index]
        renumbered = replace(dataset, prompt_index=index, prompts=self._prompts)
        return renumbered.take(np.flatnonzero(index >= 0))


class StreamLoader(BatchLoader):
    """Batches of a stream: like a `BatchLoader`, but with the circuits of the epoch in question."""

    def __init__(self, stream: CircuitStream, batch_size: int, seed: int, **options: Any) -> None:
        rows = np.arange(stream.num_circuits)
        super().__init__(stream.epoch(0), rows, batch_size, seed, shuffle=True, **options)
        self._stream = stream

    def epoch(self, number: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; see `BatchLoader.epoch`."""
        self.dataset = self._stream.epoch(number)
        if self._balance is not None:
            self._balance = PromptBalance([self.rows], self.dataset.prompt_index)
        yield from super().epoch(number, first_batch)
