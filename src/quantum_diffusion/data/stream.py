"""Streams of training data: every epoch has new circuits, generated from the configuration of a data set.

An epoch is a pure function of (configuration, seed, epoch), so a resumed run sees the same circuits as an uninterrupted
one.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.balancing import PromptBalance
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator, ProgressCallback
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.seeding import derive_seed

MadeOnce = Callable[[Callable[[], CircuitDataset]], CircuitDataset]
"""Calls a function on one of several processes and returns its circuits on all of them."""

_HELD_OUT = -1


class _StoppedError(Exception):
    """The circuits being made ahead are no longer needed."""


class _MadeAhead:
    """The circuits of an epoch, made in worker processes while the previous epoch is trained on.

    Args:
        number: Index of the epoch.
        generator: Makes the circuits.
    """

    def __init__(self, number: int, generator: DatasetGenerator) -> None:
        self.number = number
        self._generator = generator
        self._made: CircuitDataset | None = None
        self._problem: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._make, name="circuits of the next epoch", daemon=True)
        self._thread.start()

    def result(self) -> CircuitDataset:
        """Wait for the circuits and return them."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._made is not None
        return self._made

    def stop(self) -> None:
        """Stop after the current shard."""
        self._is_stopped = True
        self._thread.join()

    def _make(self) -> None:
        try:
            self._made = _generate(self._generator, self._check_stopped)
        except BaseException as problem:  # raised again by `result`
            self._problem = problem

    def _check_stopped(self, done: int, wanted: int) -> None:
        if self._is_stopped:
            raise _StoppedError


def _generate(generator: DatasetGenerator, progress: ProgressCallback | None = None) -> CircuitDataset:
    """Generate circuits without targets: those are slow to compute and to send, and models compute them anyway."""
    return generator.generate(progress, with_targets=False)[0]


def stream_fingerprint(config: DatasetConfig, seed: int) -> str:
    """Return `CircuitStream.fingerprint` without generating circuits."""
    return hashlib.sha256(f"{DatasetGenerator(config).settings} {seed}".encode()).hexdigest()


class CircuitStream:
    """Circuits for every epoch, and held-out circuits for validation that no epoch trains on.

    Args:
        config: Configuration of an epoch's circuits; its `num_samples` is the size of an epoch. condition_type BOTH,
            which makes two data sets, is not allowed.
        seed: Seed of the training run; together with the configuration's seed it determines the circuits.
        validation_fraction: Number of validation circuits, as a fraction of an epoch's.
        made_once: Shares the circuits between the processes of a distributed run; None for a single process.
        makes_ahead: Whether this process makes the circuits of the next epoch while it trains.

    Raises:
        ConfigError: There are not enough distinct circuits for an epoch and the validation.
        GateSetError: A gate does not fit the qubits or the coupling.
    """

    def __init__(
        self,
        config: DatasetConfig,
        seed: int,
        validation_fraction: float,
        made_once: MadeOnce | None = None,
        makes_ahead: bool = True,
    ) -> None:
        if config.condition_type == "BOTH":
            raise ConfigError("condition_type=BOTH cannot be streamed, as it makes two data sets: use SRV or UNITARY")
        self.config = config
        self.seed = seed
        self._made_once = made_once or (lambda make: make())
        # A single job would run in this process, which trains; Ray's workers may be busy sampling for it.
        self._makes_ahead = makes_ahead and config.engine == "local" and config.n_jobs != 1
        self._ahead: _MadeAhead | None = None
        self.num_circuits = config.num_samples
        self.num_held_out = max(1, round(config.num_samples * validation_fraction)) if validation_fraction else 0
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._fresh = lru_cache(maxsize=1)(self._make_fresh)
        available = len(self._fresh(0))
        if available < self.num_circuits:
            raise ConfigError(
                f"a stream needs {self.num_circuits + self.num_held_out:,} distinct circuits per epoch, but these "
                f"settings give only about {available + self.num_held_out:,}: lower num_samples, or raise balance_max "
                "or max_gates (in a YAML file, stream:FILE.yaml), or make a data set instead"
            )

    def epoch(self, number: int) -> CircuitDataset:
        """Return the circuits of an epoch, numbered from 0; all epochs have the same size and the same prompts."""
        return self._epoch(number)

    def make_ahead(self, number: int) -> None:
        """Start making the circuits of an epoch in the background, so that `epoch` returns sooner."""
        if self._makes_ahead and (self._ahead is None or self._ahead.number != number):
            self.stop()
            self._ahead = _MadeAhead(number, self._generator(number, self.num_circuits + self.num_held_out))

    def stop(self) -> None:
        """Stop making circuits ahead."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    @cached_property
    def held_out(self) -> CircuitDataset:
        """The circuits for validation."""
        return self._with_known_prompts(self._made_held_out)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the stream."""
        return stream_fingerprint(self.config, self.seed)

    def loaders(
        self,
        batch_size: int,
        seed: int,
        *,
        balance_prompts: bool = False,
        time_multiple: int = 1,
        num_workers: int = 0,
        num_epochs: int = 0,
        max_batches: int | None = None,
    ) -> tuple[BatchLoader, BatchLoader | None]:
        """Batch the stream and the held-out circuits; see `DatasetLoader.get_dataloaders`.

        Args:
            batch_size: See `DatasetLoader.get_dataloaders`.
            seed: Seed of the order of batches.
            balance_prompts: See `DatasetLoader.get_dataloaders`.
            time_multiple: See `DatasetLoader.get_dataloaders`.
            num_workers: See `DatasetLoader.get_dataloaders`.
            num_epochs: Number of epochs that will be used; circuits of later ones are not made ahead.
            max_batches: Number of batches that will be used; None means all of these epochs.
        """
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
            num_epochs=num_epochs,
            max_batches=max_batches,
        )
        return training, validation

    def _make_epoch(self, number: int) -> CircuitDataset:
        fresh = self._with_known_prompts(self._fresh(number))
        return fresh.take(np.resize(np.arange(len(fresh)), self.num_circuits))  # a few repeat if some were left out

    def _make_fresh(self, number: int) -> CircuitDataset:
        made = self._made_once(partial(self._make_or_wait_for, number))
        if not self.num_held_out:
            return made
        return made.take(np.flatnonzero(~np.isin(made.keys, self._made_held_out.keys)))

    @cached_property
    def _made_held_out(self) -> CircuitDataset:
        return self._made_once(lambda: _generate(self._generator(_HELD_OUT, self.num_held_out)))

    def _make_or_wait_for(self, number: int) -> CircuitDataset:
        if self._ahead is not None and self._ahead.number == number:
            ahead, self._ahead = self._ahead, None
            return ahead.result()
        return _generate(self._generator(number, self.num_circuits + self.num_held_out))

    def _generator(self, number: int, count: int) -> DatasetGenerator:
        seed = derive_seed(self.config.seed, "stream", self.seed, number)
        most = self.config.balance_max
        scaled = None if most is None else -(-most * count // self.num_circuits)  # leaves room for validation
        values = {"seed": seed, "num_samples": count, "balance_max": scaled}
        return DatasetGenerator(self.config.model_copy(update=values))

    @cached_property
    def _prompts(self) -> tuple[str, ...]:
        return self._fresh(0).prompts

    def _with_known_prompts(self, dataset: CircuitDataset) -> CircuitDataset:
        """Number prompts as in the first epoch, and drop circuits of other (very rare) prompts."""
        place = {prompt: index for index, prompt in enumerate(self._prompts)}
        numbers = np.array([place.get(prompt, -1) for prompt in dataset.prompts], dtype=np.int32)
        index: NDArray[np.int32] = numbers[dataset.prompt_index]
        renumbered = replace(dataset, prompt_index=index, prompts=self._prompts)
        return renumbered.take(np.flatnonzero(index >= 0))


class StreamLoader(BatchLoader):
    """Batches of a stream: a `BatchLoader` whose circuits change with the epoch."""

    def __init__(
        self,
        stream: CircuitStream,
        batch_size: int,
        seed: int,
        *,
        num_epochs: int = 0,
        max_batches: int | None = None,
        **options: Any,
    ) -> None:
        rows = np.arange(stream.num_circuits)
        super().__init__(stream.epoch(0), rows, batch_size, seed, shuffle=True, **options)
        self._stream = stream
        self._num_batches = min(num_epochs * len(self), math.inf if max_batches is None else max_batches)

    def epoch(self, number: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; see `BatchLoader.epoch`."""
        self.dataset = self._stream.epoch(number)
        if self._balance is not None:
            self._balance = PromptBalance([self.rows], self.dataset.prompt_index)
        if (number + 1) * len(self) < self._num_batches:
            self._stream.make_ahead(number + 1)
        yield from super().epoch(number, first_batch)

    def close(self) -> None:
        """Stop making circuits ahead."""
        self._stream.stop()
