"""Training data without end: every epoch has fresh circuits, made from the configuration of a data set.

An epoch is a function of (configuration, seed, epoch), so a resumed run sees what an undisturbed one would have seen.
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

from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.balancing import PromptBalance
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator, ProgressCallback
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.seeding import derive_seed

MadeOnce = Callable[[Callable[[], CircuitDataset]], CircuitDataset]
"""Returns the circuits that a function makes, which is called by one of several processes and given to all."""

_HELD_OUT = -1


class _StoppedError(Exception):
    """The circuits that are made ahead are not needed."""


class _MadeAhead:
    """The circuits of an epoch, made in worker processes while those of the one before are trained on.

    Args:
        number: Of the epoch.
        generator: Makes them.
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
        """Wait for the circuits."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._made is not None
        return self._made

    def stop(self) -> None:
        """Give up making them, when the shard in hand is done."""
        self._is_stopped = True
        self._thread.join()

    def _make(self) -> None:
        try:
            self._made = _generate(self._generator, self._go_on)
        except BaseException as problem:  # raised where the circuits are asked for
            self._problem = problem

    def _go_on(self, done: int, wanted: int) -> None:
        if self._is_stopped:
            raise _StoppedError


def _generate(generator: DatasetGenerator, progress: ProgressCallback | None = None) -> CircuitDataset:
    """Make circuits without targets, which take longer to make and to send than the circuits: models make them."""
    return generator.generate(progress, with_targets=False)[0]


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
        makes_ahead: Whether this process makes the circuits of the next epoch while it trains on others.

    Raises:
        ConfigError: There are fewer distinct circuits than an epoch and the validation need.
        GateSetError: A gate does not fit.
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
            raise ConfigError("condition_type=BOTH makes two data sets: stream one of SRV and UNITARY")
        self.config = config
        self.seed = seed
        self._made_once = made_once or (lambda make: make())
        # A single job would be done in this process, which trains; Ray's workers may be those that sample for it.
        self._makes_ahead = makes_ahead and config.engine == "local" and config.n_jobs != 1
        self._ahead: _MadeAhead | None = None
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

    def make_ahead(self, number: int) -> None:
        """Begin to make the circuits of an epoch, for which `epoch` then has to wait less."""
        if self._makes_ahead and (self._ahead is None or self._ahead.number != number):
            self.stop()
            self._ahead = _MadeAhead(number, self._generator(number, self.num_circuits + self.num_held_out))

    def stop(self) -> None:
        """Give up what is made ahead."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

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
        num_epochs: int = 0,
        max_batches: int | None = None,
    ) -> tuple[BatchLoader, BatchLoader | None]:
        """Batch the stream and what is held out; see `DatasetLoader.get_dataloaders`.

        Args:
            batch_size: See there.
            seed: See there.
            balance_prompts: See there.
            time_multiple: See there.
            num_workers: See there.
            num_epochs: Epochs that will be asked for; circuits of others are not made ahead.
            max_batches: Batches that will be asked for; None is all of these epochs.
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
        return made.take(np.flatnonzero(~np.isin(row_keys(made.tokens), row_keys(self._made_held_out.tokens))))

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
        scaled = None if most is None else -(-most * count // self.num_circuits)  # there is room for validation, too
        values = {"seed": seed, "num_samples": count, "balance_max": scaled}
        return DatasetGenerator(self.config.model_copy(update=values))

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
        """Give up what is made ahead."""
        self._stream.stop()
