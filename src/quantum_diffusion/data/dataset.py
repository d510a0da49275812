"""Loading data sets from folders and feeding them to training in a reproducible order.

Loading never writes; the order of batches is a pure function of (seed, epoch), so that a resumed run continues it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count, check_kind, check_list, check_number, check_path
from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.data.balancing import PromptBalance
from quantum_diffusion.data.blocks import is_whole
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.merging import balanced_rows, merge_datasets
from quantum_diffusion.data.storage import is_dataset_folder, load_dataset_folder
from quantum_diffusion.errors import ConfigError, DatasetFormatError, counted, memory_for
from quantum_diffusion.files import describe
from quantum_diffusion.seeding import numpy_generator

ForeignReader = Callable[[Path], CircuitDataset | None]
"""Reads a data set of another software; returns None where the path is none of its own."""


Decode = Callable[[torch.Tensor], torch.Tensor]
"""Makes instruction ids [B, T] of tokens [B, Q, T], on their device."""

_DECODED_AT_ONCE = 2**16


class DatasetLoader:
    """Reads, combines and batches data sets; holds no state but its arguments.

    Args:
        seed: Decides balancing, the train/validation split and the order of batches.
        readers: Asked, in this order, for a folder before it is read as a native data set.
    """

    def __init__(self, seed: int = 0, readers: Sequence[ForeignReader] = ()) -> None:
        self.seed = seed
        self.readers = tuple(readers)

    def load_dataset(self, path: str | Path) -> CircuitDataset:
        """Read one data set folder, or every data set in a folder of such folders.

        Raises:
            DatasetFormatError: The folder is missing, empty, damaged or foreign.
            IncompatibleDatasetsError: The data sets in the folder have different gate pools.
        """
        folder = check_path(path, "the path of the data set")
        with memory_for(f"loading the data set {str(folder)!r}", "take fewer circuits, or a computer with more memory"):
            whole = self._read(folder)
            if whole is not None:
                return whole
            try:
                children = _visible(folder) if folder.is_dir() else []
            except OSError as problem:
                raise DatasetFormatError(f"cannot read {str(folder)!r}: {describe(problem)}") from problem
            parts = [part for part in map(self._read, children) if part is not None]
            return merge_datasets(parts or [load_dataset_folder(folder)])  # the latter says what is missing

    def _read(self, folder: Path) -> CircuitDataset | None:
        """Read a folder that is a data set, or claims to be one; None where it does not."""
        for read in self.readers:
            dataset = read(folder)
            if dataset is not None:
                return dataset
        return load_dataset_folder(folder) if is_dataset_folder(folder) else None

    def combine_datasets(
        self, datasets: Sequence[CircuitDataset], balance_max: int | None = None, max_samples: int | None = None
    ) -> CircuitDataset:
        """Join data sets and limit them.

        Args:
            datasets: Data sets over one gate pool; their order does not matter.
            balance_max: Most circuits of one prompt; None takes all.
            max_samples: Most circuits in all, chosen at random; None takes all.

        Raises:
            IncompatibleDatasetsError: The gate pools differ.
        """
        dataset = merge_datasets(_checked(datasets))
        balance_max = None if balance_max is None else check_count(balance_max, "balance_max", 1)
        max_samples = None if max_samples is None else check_count(max_samples, "max_samples", 1)
        rows = np.arange(len(dataset)) if balance_max is None else balanced_rows(dataset, balance_max, self.seed)
        if max_samples is not None and max_samples < len(rows):
            chosen = numpy_generator(self.seed, "max_samples").permutation(len(rows))[:max_samples]
            rows = rows[np.sort(chosen)]
        return dataset if len(rows) == len(dataset) else dataset.take(rows)

    def get_dataloaders(
        self,
        dataset: CircuitDataset,
        batch_size: int,
        validation_fraction: float = 0.05,
        *,
        bucketed: bool = False,
        balance_prompts: bool = False,
        time_multiple: int = 1,
        num_workers: int = 0,
    ) -> tuple[BatchLoader, BatchLoader | None]:
        """Split a data set and batch both parts.

        Args:
            dataset: The circuits.
            batch_size: Circuits a batch; the last batch of an epoch may be smaller.
            validation_fraction: Share of circuits for validation, in [0, 1).
            bucketed: Group circuits by qubits and length and cut batches to their size.
            balance_prompts: Draw every prompt equally often in training; see `PromptBalance`. Validation has each of
                its circuits once.
            time_multiple: T of every batch is padded to a multiple of this.
            num_workers: Threads that make batches ahead of time; the batches are the same.

        Returns:
            Training loader, and validation loader (None when `validation_fraction` is 0).

        Raises:
            ConfigError: A number is out of range, or the split leaves no circuit to train on.
        """
        check_kind(dataset, CircuitDataset, "dataset")
        batch_size = check_count(batch_size, "batch_size", 1)
        num_workers = check_count(num_workers, "num_workers")
        time_multiple = check_count(time_multiple, "time_multiple", 1)
        check_number(validation_fraction, "validation_fraction")
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"validation_fraction is {validation_fraction}: give 0 or more, less than 1")
        order = numpy_generator(self.seed, "split").permutation(len(dataset))
        held_out = round(len(dataset) * validation_fraction)
        if validation_fraction > 0:
            held_out = max(1, held_out)
        if held_out >= len(dataset):
            raise ConfigError(
                f"training.training.validation_fraction={validation_fraction} leaves none of "
                f"{counted(len(dataset), 'circuit')} to train on: lower it, to 0 for no validation, or train on more"
            )

        def loader(rows: NDArray[np.int64], is_training: bool) -> BatchLoader:
            return BatchLoader(
                dataset,
                np.sort(rows),
                batch_size,
                self.seed,
                shuffle=is_training,
                bucketed=bucketed,
                balance_prompts=balance_prompts and is_training,
                time_multiple=time_multiple,
                num_workers=num_workers,
            )

        return loader(order[held_out:], True), loader(order[:held_out], False) if held_out else None


def _checked(datasets: Sequence[CircuitDataset]) -> list[CircuitDataset]:
    if isinstance(datasets, CircuitDataset):  # it has a length, too
        return [datasets]
    listed = check_list(datasets, "datasets", "[dataset]")
    return [check_kind(dataset, CircuitDataset, "a data set", "load_dataset reads one") for dataset in listed]


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; hidden entries are what an interrupted writer left."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


class BatchLoader:
    """Batches of chosen rows of a data set, in an order that depends on (seed, epoch) alone.

    Args:
        dataset: The circuits.
        rows: int64 [M], the rows to use.
        batch_size: Circuits a batch; the last batch may be smaller.
        seed: Decides the order.
        shuffle: Another order each epoch; False keeps the rows' order (buckets one after the other).
        bucketed: Group circuits by qubits and length and cut batches to their size.
        balance_prompts: Draw as many rows as there are anew each epoch, every prompt equally often, in random order;
            see `PromptBalance`.
        time_multiple: T of every batch is padded to a multiple of this with the padding token.
        num_workers: Threads that make batches ahead of time; the batches are the same.
    """

    def __init__(
        self,
        dataset: CircuitDataset,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        shuffle: bool,
        bucketed: bool = False,
        balance_prompts: bool = False,
        time_multiple: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.num_workers = num_workers
        self.dataset = dataset
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.bucketed = bucketed
        self.time_multiple = time_multiple
        self._device: torch.device | None = None
        self._decode: Decode | None = None
        self._kept: tuple[CircuitDataset, Batch | None] | None = None
        self._buckets = self._group_rows()
        self._balance = PromptBalance(self._buckets, dataset.prompt_index) if balance_prompts else None

    def _group_rows(self) -> list[NDArray[np.int64]]:
        if not self.bucketed:
            return [self.rows]
        sizes = self.dataset.sizes[self.rows].astype(np.int32)
        steps = np.maximum(-(-sizes[:, 1] // self.time_multiple), 1)
        bucket = sizes[:, 0] * (steps.max() + 1) + steps
        order = np.argsort(bucket, kind="stable")
        return np.split(self.rows[order], np.flatnonzero(np.diff(bucket[order])) + 1)

    def keep_on(self, device: torch.device, decode: Decode | None = None) -> None:
        """Keep the circuits on a device and gather batches there, where they fit into a quarter of its free memory.

        Batches of a data set that is too large for a CUDA device are made ahead, in memory that it copies by itself.

        Args:
            device: Where.
            decode: What a model makes of tokens; called once for all circuits that are kept. None makes no ids.
        """
        self._device = device
        self._decode = decode
        if device.type == "cuda":
            self.num_workers = max(1, self.num_workers)

    def __len__(self) -> int:
        """Batches of an epoch."""
        counts = map(len, self._buckets) if self._balance is None else self._balance.counts.tolist()
        return sum(-(-count // self.batch_size) for count in counts)

    @property
    def num_circuits(self) -> int:
        """Circuits of an epoch."""
        return len(self.rows)

    def epoch(self, number: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            number: Which epoch, from 0.
            first_batch: Batches to leave out at the start, to continue an interrupted epoch.

        Raises:
            DatasetFormatError: A file of the data set is shorter than it was when it was opened.
        """
        if not all(is_whole(array) for array in self.dataset.arrays):
            raise DatasetFormatError(
                "the data set was changed while it is in use: one of its files is shorter than it was; generate or "
                "copy it again, and give the same command again"
            )
        rng = numpy_generator(self.seed, "epoch", number)
        if self._balance is not None:
            orders = self._balance.draw(rng)
        else:
            orders = [rng.permutation(rows) if self.shuffle else rows for rows in self._buckets]
        batches = [order[i : i + self.batch_size] for order in orders for i in range(0, len(order), self.batch_size)]
        if self.shuffle and len(self._buckets) > 1:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        if not self.num_workers or self._on_device() is not None:
            yield from map(self.batch, batches[first_batch:])
            return
        with ThreadPoolExecutor(self.num_workers) as threads:
            ahead: deque[Future[Batch]] = deque()
            for rows in batches[first_batch:]:
                ahead.append(threads.submit(self.batch, rows))
                if len(ahead) > 2 * self.num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def close(self) -> None:
        """Give up what was prepared for further epochs, of which none will be asked for."""

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Gather rows into one batch, cut to their bucket and padded to `time_multiple`."""
        on_device = self._on_device()
        if on_device is not None:
            return self._cut(
                on_device.take(torch.from_numpy(rows).to(on_device.tokens.device, non_blocking=True)), rows
            )
        batch = self._cut(_batch_of(self.dataset, rows), rows)
        return batch.pinned() if self._device is not None and self._device.type == "cuda" else batch

    def _cut(self, batch: Batch, rows: NDArray[np.int64]) -> Batch:
        tokens, ids = batch.tokens, batch.ids
        if self.bucketed:
            sizes = self.dataset.sizes[rows].astype(np.int64)
            longest = max(int(sizes[:, 1].max()), 1)
            steps = -(-longest // self.time_multiple) * self.time_multiple  # of the bucket, not of this batch
            tokens = tokens[:, : sizes[:, 0].max(), :steps]
            ids = None if ids is None else ids[:, :steps]
        missing = -tokens.shape[2] % self.time_multiple
        if missing:
            tokens = F.pad(tokens, (0, missing), value=self.dataset.gate_pool.padding_token)
            ids = None if ids is None else F.pad(ids, (0, missing), value=NO_GATE)
        return replace(batch, tokens=tokens.contiguous(), ids=None if ids is None else ids.contiguous())

    def _on_device(self) -> Batch | None:
        """Return all circuits of the data set, where they are kept on a device, which gets them when first asked."""
        if self._device is None:
            return None
        if self._kept is None or self._kept[0] is not self.dataset:
            self._kept = None  # the circuits of an earlier epoch make room
            fits = sum(array.nbytes for array in self.dataset.arrays) <= _free_bytes(self._device) / 4
            self._kept = self.dataset, self._whole(self._device) if fits else None
        return self._kept[1]

    def _whole(self, device: torch.device) -> Batch:
        """Return all circuits on a device, decoded there."""
        batch = _batch_of(self.dataset, slice(None)).to(device)
        if self._decode is None:
            return batch
        blocks = batch.tokens.split(_DECODED_AT_ONCE)
        return replace(batch, ids=torch.cat([self._decode(block).to(torch.int16) for block in blocks]))


def _batch_of(dataset: CircuitDataset, rows: NDArray[np.int64] | slice) -> Batch:
    """Return rows of a data set as they are stored, in memory."""
    tokens, prompts, sizes, targets = (
        None if array is None else torch.from_numpy(np.require(array[rows], requirements=["C", "W"]))
        for array in (dataset.tokens, dataset.prompt_index, dataset.sizes, dataset.targets)
    )
    assert tokens is not None
    assert prompts is not None
    assert sizes is not None
    return Batch(tokens, prompts, sizes, targets)


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def pad_time(tokens: NDArray[np.int8], multiple: int, padding_token: int) -> NDArray[np.int8]:
    """Pad the time axis of tokens [B, Q, T] to a multiple with the padding token."""
    missing = -tokens.shape[2] % multiple
    if not missing:
        return tokens
    return np.pad(tokens, ((0, 0), (0, 0), (0, missing)), constant_values=padding_token)
