"""Loads data sets from folders and feeds them to training in a reproducible order.

The order of batches is a pure function of (seed, epoch), so that a resumed run continues it. Loading never writes.
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
from quantum_diffusion.errors import ConfigError, DatasetFormatError, counted, memory_for, quoted_path
from quantum_diffusion.files import describe
from quantum_diffusion.seeding import numpy_generator

ForeignReader = Callable[[Path], CircuitDataset | None]
"""Reads a data set in the format of other software; returns None if the path is not in that format."""

Decode = Callable[[torch.Tensor], torch.Tensor]
"""Converts tokens [B, Q, T] to instruction ids [B, T], on their device."""

EncodePrompts = Callable[[Sequence[str]], torch.Tensor]
"""Encodes P prompts as conditions, float32 [P, S, E], such as `FrozenPromptEncoder.encode`."""

_DECODED_AT_ONCE = 2**16


class DatasetLoader:
    """Reads, combines and batches data sets; has no state besides its arguments.

    Args:
        seed: Seed of balancing, the train/validation split and the order of batches.
        readers: Readers of other formats, tried in this order before the native one.
    """

    def __init__(self, seed: int = 0, readers: Sequence[ForeignReader] = ()) -> None:
        self.seed = seed
        self.readers = tuple(readers)

    def load_dataset(self, path: str | Path) -> CircuitDataset:
        """Read one data set folder, or every data set in a folder of such folders.

        Raises:
            DatasetFormatError: The folder is missing, empty, damaged or in an unknown format.
            IncompatibleDatasetsError: The data sets in the folder have different gate pools.
        """
        folder = check_path(path, "the path of the data set")
        with memory_for(
            f"loading the data set {quoted_path(folder)}", "take fewer circuits, or a computer with more memory"
        ):
            whole = self._read(folder)
            if whole is not None:
                return whole
            try:
                children = _visible(folder) if folder.is_dir() else []
            except OSError as problem:
                raise DatasetFormatError(f"cannot read {quoted_path(folder)}: {describe(problem)}") from problem
            parts = [part for part in map(self._read, children) if part is not None]
            return merge_datasets(parts or [load_dataset_folder(folder)])  # raises with what is missing

    def _read(self, folder: Path) -> CircuitDataset | None:
        """Read a folder if it is a data set, valid or not; return None if it is not one."""
        for read in self.readers:
            dataset = read(folder)
            if dataset is not None:
                return dataset
        return load_dataset_folder(folder) if is_dataset_folder(folder) else None

    def combine_datasets(
        self, datasets: Sequence[CircuitDataset], balance_max: int | None = None, max_samples: int | None = None
    ) -> CircuitDataset:
        """Merge data sets and limit their size.

        Args:
            datasets: Data sets with the same gate pool; their order does not matter.
            balance_max: Maximum number of circuits per prompt; None keeps all.
            max_samples: Maximum total number of circuits, chosen at random; None keeps all.

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
        text_encoder: EncodePrompts | None = None,
    ) -> tuple[BatchLoader, BatchLoader | None]:
        """Split a data set and batch both parts.

        Args:
            dataset: The circuits.
            batch_size: Circuits per batch; the last batch of an epoch may be smaller.
            validation_fraction: Fraction of the circuits for validation, in [0, 1).
            bucketed: Whether to group circuits by qubits and length and cut batches to their size.
            balance_prompts: Whether to draw every prompt equally often in training; see `PromptBalance`. Validation
                uses each of its circuits once.
            time_multiple: Pad T of every batch to a multiple of this.
            num_workers: Number of threads that prepare batches ahead of time; does not change the batches.
            text_encoder: Encodes the data set's distinct prompts, once; batches then have `conditions`. None leaves the
                prompts to the model, which trains on their indices.

        Returns:
            Training loader, and validation loader (None if `validation_fraction` is 0).

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
                f"{counted(len(dataset), 'circuit')} to train on: lower it (0: no validation), or use more circuits"
            )

        conditions = None
        if text_encoder is not None:
            conditions = text_encoder(dataset.prompts)
            if conditions.dim() != 3 or len(conditions) != len(dataset.prompts):
                raise ConfigError(
                    f"text_encoder returned {list(conditions.shape)} for {counted(len(dataset.prompts), 'prompt')}: "
                    "expected a tensor [prompts, tokens, channels]"
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
                conditions=conditions,
            )

        return loader(order[held_out:], True), loader(order[:held_out], False) if held_out else None


def _checked(datasets: Sequence[CircuitDataset]) -> list[CircuitDataset]:
    if isinstance(datasets, CircuitDataset):  # a single one, not a list
        return [datasets]
    listed = check_list(datasets, "datasets", "[dataset]")
    return [check_kind(dataset, CircuitDataset, "a data set", "load_dataset reads one") for dataset in listed]


def _visible(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted, without hidden ones, which interrupted writers leave."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


class BatchLoader:
    """Batches of some rows of a data set, in an order that depends only on (seed, epoch).

    Args:
        dataset: The circuits.
        rows: int64 [M], the rows to use.
        batch_size: Circuits per batch; the last batch may be smaller.
        seed: Seed of the order.
        shuffle: Whether to shuffle each epoch; False keeps the order of the rows, bucket by bucket.
        bucketed: Whether to group circuits by qubits and length and cut batches to their size.
        balance_prompts: Whether to draw M rows anew each epoch, with every prompt equally often, in random order; see
            `PromptBalance`.
        time_multiple: Pad T of every batch with the padding token to a multiple of this.
        num_workers: Number of threads that prepare batches ahead of time; does not change the batches.
        conditions: float32 [P, S, E], the encoded prompts of the data set; None hands out only their indices.
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
        conditions: torch.Tensor | None = None,
    ) -> None:
        self.num_workers = num_workers
        self._conditions = conditions
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
        """Keep the circuits on a device and gather batches there, if they fit into a quarter of its free memory.

        If the data set is too large for a CUDA device, batches are prepared ahead of time in pinned memory.

        Args:
            device: The device.
            decode: Converts tokens to ids, once for all circuits that are kept; None makes no ids.
        """
        self._device = device
        self._decode = decode
        if device.type == "cuda":
            self.num_workers = max(1, self.num_workers)

    def __len__(self) -> int:
        """Number of batches per epoch."""
        counts = map(len, self._buckets) if self._balance is None else self._balance.counts.tolist()
        return sum(-(-count // self.batch_size) for count in counts)

    @property
    def num_circuits(self) -> int:
        """Number of circuits per epoch."""
        return len(self.rows)

    def epoch(self, number: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            number: Index of the epoch, from 0.
            first_batch: Number of batches to skip, to continue an interrupted epoch.

        Raises:
            DatasetFormatError: A file of the data set has become shorter since it was opened.
        """
        if not all(is_whole(array) for array in self.dataset.arrays):
            raise DatasetFormatError(
                "the data set was changed while in use: one of its files has become shorter; generate or copy it "
                "again, then run the same command again"
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
        """Release what was prepared for further epochs; call it when no more epochs are needed."""

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Gather rows into one batch, cut to their bucket and padded to `time_multiple`."""
        on_device = self._on_device()
        if on_device is not None:
            there = torch.from_numpy(rows).to(on_device.tokens.device, non_blocking=True)
            return self._cut(self._with_conditions(on_device.take(there)), rows)
        batch = self._cut(self._with_conditions(_batch_of(self.dataset, rows)), rows)
        return batch.pinned() if self._device is not None and self._device.type == "cuda" else batch

    def _with_conditions(self, batch: Batch) -> Batch:
        if self._conditions is None:
            return batch
        self._conditions = self._conditions.to(batch.prompt_ids.device)
        return replace(batch, conditions=self._conditions[batch.prompt_ids.long()])

    def _cut(self, batch: Batch, rows: NDArray[np.int64]) -> Batch:
        tokens, ids, angles = batch.tokens, batch.ids, batch.angles
        if self.bucketed:
            sizes = self.dataset.sizes[rows].astype(np.int64)
            longest = max(int(sizes[:, 1].max()), 1)
            steps = -(-longest // self.time_multiple) * self.time_multiple  # the same for all batches of a bucket
            tokens = tokens[:, : sizes[:, 0].max(), :steps]
            ids = None if ids is None else ids[:, :steps]
            angles = None if angles is None else angles[:, :steps]
        missing = -tokens.shape[2] % self.time_multiple
        if missing:
            tokens = F.pad(tokens, (0, missing), value=self.dataset.gate_pool.padding_token)
            ids = None if ids is None else F.pad(ids, (0, missing), value=NO_GATE)
            angles = None if angles is None else F.pad(angles, (0, 0, 0, missing))
        ids, angles = (None if part is None else part.contiguous() for part in (ids, angles))
        return replace(batch, tokens=tokens.contiguous(), ids=ids, angles=angles)

    def _on_device(self) -> Batch | None:
        """Return all circuits of the data set on the device, copied on first use; None if they are not kept there."""
        if self._device is None:
            return None
        if self._kept is None or self._kept[0] is not self.dataset:
            self._kept = None  # free the circuits of the previous epoch first
            fits = sum(array.nbytes for array in self.dataset.arrays) <= _free_bytes(self._device) / 4
            self._kept = self.dataset, self._whole(self._device) if fits else None
        return self._kept[1]

    def _whole(self, device: torch.device) -> Batch:
        """Copy all circuits to a device and decode them there."""
        batch = _batch_of(self.dataset, slice(None)).to(device)
        if self._decode is None:
            return batch
        blocks = batch.tokens.split(_DECODED_AT_ONCE)
        return replace(batch, ids=torch.cat([self._decode(block).to(torch.int16) for block in blocks]))


def _batch_of(dataset: CircuitDataset, rows: NDArray[np.int64] | slice) -> Batch:
    """Return rows of a data set as a batch in memory."""
    tokens, prompts, sizes, targets = (
        None if array is None else torch.from_numpy(np.require(array[rows], requirements=["C", "W"]))
        for array in (dataset.tokens, dataset.prompt_index, dataset.sizes, dataset.targets)
    )
    assert tokens is not None
    assert prompts is not None
    assert sizes is not None
    angles = None if dataset.angles is None else torch.from_numpy(dataset.angles[rows].astype(np.float32))
    return Batch(tokens, prompts, sizes, targets, angles=angles)


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def pad_time(tokens: NDArray[np.int8], multiple: int, padding_token: int) -> NDArray[np.int8]:
    """Pad the time axis of tokens [B, Q, T] to a multiple with the padding token."""
    missing = -tokens.shape[2] % multiple
    if not missing:
        return tokens
    return np.pad(tokens, ((0, 0), (0, 0), (0, missing)), constant_values=padding_token)
