"""Data sets of random, simplified, distinct, exactly labelled circuits.

Candidates come in shards, each a pure function of (seed, shard number); shards are merged in their order, so that
any number of workers writes the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.labels import SchmidtRanks, schmidt_rank_vectors, srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours
from quantum_diffusion.circuits.tokenizer import encode_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.merging import rank_within_label, row_keys
from quantum_diffusion.data.storage import (
    check_replaceable,
    is_dataset_folder,
    load_dataset_folder,
    read_description,
    save_dataset,
)
from quantum_diffusion.errors import ConfigError, DatasetFormatError
from quantum_diffusion.files import check_can_write
from quantum_diffusion.seeding import numpy_generator

_SHARD_CANDIDATES = 2**14
_SHARD_AMPLITUDES = 2**24
"""Beyond 10 qubits, shards that are labelled by state vector have fewer candidates, so that each stays short."""

_SHARDS_PER_ROUND = 16
_STALLED_ROUNDS = 3
_STALLED_SHARE = 1e-4
"""The search ends when this many rounds in a row give less than this share of new circuits."""

GENERATOR_VERSION = 1
"""Changes when the same settings give other circuits; see "Numerics" in CHANGELOG.md."""

_SETTINGS_THAT_DO_NOT_MATTER = ("n_jobs", "engine", "output_path", "overwrite")

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class GenerationReport:
    """What a generation run did.

    Attributes:
        num_circuits: Distinct circuits delivered.
        num_requested: Distinct circuits asked for.
        num_candidates: Random circuits drawn for them.
        seconds: Wall time.
        prompt_counts: Circuits of each prompt.
        reused: Whether a complete data set of the same configuration was already there.
    """

    num_circuits: int
    num_requested: int
    num_candidates: int
    seconds: float
    prompt_counts: dict[str, int]
    reused: bool = False

    @property
    def exhausted(self) -> bool:
        """Whether fewer distinct circuits were found than asked for."""
        return self.num_circuits < self.num_requested


class DatasetGenerator:
    """Makes the data set a configuration describes.

    Args:
        config: What to make.

    Raises:
        GateSetError: A gate is unknown, or does not fit the qubits or the coupling.
    """

    def __init__(self, config: DatasetConfig) -> None:
        self.config = config
        self.table = instruction_table(GatePool(config.gate_set), config.num_qubits)
        _draw(config, self.table, 0, 0)  # refuses a coupling that leaves a gate no place

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration values that decide the content, as plain values."""
        values: dict[str, Any] = self.config.model_dump(mode="json")
        kept = {key: value for key, value in values.items() if key not in _SETTINGS_THAT_DO_NOT_MATTER}
        return kept | {"generator_version": GENERATOR_VERSION}

    def write(self, progress: ProgressCallback | None = None) -> GenerationReport:
        """Make the data set and write it to `output_path`.

        A complete data set of the same configuration is kept and reported as reused. Any other data set is replaced
        only if `overwrite` is set, and a folder with anything else in it is never replaced.

        Args:
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            DatasetFormatError: The folder holds something else, or cannot be written.
            ConfigError: No circuit at all fits the configuration.
        """
        path = Path(self.config.output_path)
        if is_dataset_folder(path) and not self.config.overwrite:
            return self._reuse(path)
        check_replaceable(path)
        check_can_write(path, DatasetFormatError)
        dataset, report = self.generate(progress)
        save_dataset(dataset, path, self.settings)
        return report

    def _reuse(self, path: Path) -> GenerationReport:
        mend = "choose another datasets.output_path or set datasets.overwrite=true"
        try:
            same = read_description(path).get("settings") == self.settings
            dataset = load_dataset_folder(path) if same else None
        except DatasetFormatError as problem:
            raise DatasetFormatError(f"{problem}; or {mend}") from None
        if dataset is None:
            raise DatasetFormatError(f"{str(path)!r} already holds a data set made with other settings: {mend}")
        return GenerationReport(len(dataset), self.config.num_samples, 0, 0.0, dataset.prompt_counts, reused=True)

    def generate(self, progress: ProgressCallback | None = None) -> tuple[CircuitDataset, GenerationReport]:
        """Make the data set in memory; see `write`.

        Raises:
            ConfigError: No circuit at all fits the configuration.
        """
        config, started = self.config, time.perf_counter()
        chosen = _Selection(config.num_samples, config.balance_max)
        shard_size = shard_candidates(config)
        round_size = int(np.clip(-(-2 * config.num_samples // shard_size), 1, _SHARDS_PER_ROUND))
        stalled, next_shard = 0, 0
        workers = min(round_size, joblib.cpu_count() if config.n_jobs == -1 else config.n_jobs)
        with joblib.Parallel(n_jobs=workers, backend="loky") as parallel:
            while not chosen.is_complete and stalled < _STALLED_ROUNDS:
                numbers = range(next_shard, next_shard + round_size)
                before = chosen.count
                for ids, ranks in parallel(joblib.delayed(make_shard)(config, number) for number in numbers):
                    chosen.add(ids, ranks)
                next_shard += round_size
                is_stalled = chosen.count - before < _STALLED_SHARE * round_size * shard_size
                stalled = stalled + 1 if is_stalled else 0
                if progress:
                    progress(chosen.count, config.num_samples)
        if not chosen.count:
            names = list(config.generation_gate_set or config.gate_set)
            raise ConfigError(
                f"no circuit of {config.min_gates} to {config.max_gates} gates of {names} survives "
                "simplification: lower datasets.min_gates or set datasets.optimize=none"
            )
        ids, ranks = chosen.arrays()
        dataset = _to_dataset(ids, ranks, self.table)
        report = GenerationReport(
            num_circuits=len(dataset),
            num_requested=config.num_samples,
            num_candidates=next_shard * shard_size,
            seconds=time.perf_counter() - started,
            prompt_counts=dataset.prompt_counts,
        )
        return dataset, report


def shard_candidates(config: DatasetConfig) -> int:
    """Return how many random circuits a shard draws."""
    if GatePool(config.gate_set).is_clifford:
        return _SHARD_CANDIDATES
    return min(_SHARD_CANDIDATES, max(1, _SHARD_AMPLITUDES >> config.num_qubits))


def make_shard(config: DatasetConfig, number: int) -> tuple[Ids, SchmidtRanks]:
    """Draw, simplify, de-duplicate and label one shard of candidates.

    Args:
        config: The data set's configuration.
        number: Which shard, from 0; with the seed it decides the result.

    Returns:
        Distinct circuits as instruction ids, int16 [M, T], in the order they were drawn, and their Schmidt rank
        vectors, int8 [M, Q].
    """
    table = instruction_table(GatePool(config.gate_set), config.num_qubits)
    ids = _draw(config, table, number, shard_candidates(config))
    if config.optimize == "rules":
        ids = cancel_inverse_neighbours(ids, table)
    ids = ids[gate_count(ids) >= config.min_gates]
    _, first = np.unique(row_keys(ids), return_index=True)
    ids = ids[np.sort(first)]
    return ids, schmidt_rank_vectors(ids, table)


def _draw(config: DatasetConfig, table: InstructionTable, number: int, count: int) -> Ids:
    return random_ids(
        numpy_generator(config.seed, "shard", number),
        table,
        count,
        config.min_gates,
        config.max_gates,
        coupling=config.coupling,
        generation_gates=config.generation_gate_set,
    )


class _Selection:
    """The circuits kept so far: distinct, at most so many a label, at most so many in all."""

    def __init__(self, most: int, most_per_label: int | None) -> None:
        self.most = most
        self.most_per_label = most_per_label
        self.count = 0
        self._ids: list[Ids] = []
        self._ranks: list[SchmidtRanks] = []
        self._seen = np.empty(0, dtype=np.uint64)  # sorted keys of the circuits kept
        self._label_counts: dict[int, int] = {}

    @property
    def is_complete(self) -> bool:
        return self.count >= self.most

    def add(self, ids: Ids, ranks: SchmidtRanks) -> None:
        if self.is_complete:
            return
        keys = row_keys(ids)
        position = np.searchsorted(self._seen, keys).clip(max=max(len(self._seen) - 1, 0))
        is_new = self._seen[position] != keys if len(self._seen) else np.ones(len(keys), dtype=np.bool_)
        rows = np.flatnonzero(is_new)
        if self.most_per_label is not None:
            labels = (ranks[rows] == 2) @ (1 << np.arange(ranks.shape[1]))
            have = np.array([self._label_counts.get(int(label), 0) for label in labels], dtype=np.int64)
            rows = rows[have + rank_within_label(labels) < self.most_per_label]
        rows = rows[: self.most - self.count]
        for label, number in zip(
            *np.unique((ranks[rows] == 2) @ (1 << np.arange(ranks.shape[1])), return_counts=True), strict=True
        ):
            self._label_counts[int(label)] = self._label_counts.get(int(label), 0) + int(number)
        self._ids.append(ids[rows])
        self._ranks.append(ranks[rows])
        self._seen = np.sort(np.concatenate([self._seen, keys[rows]]), kind="stable")
        self.count += len(rows)

    def arrays(self) -> tuple[Ids, SchmidtRanks]:
        return np.concatenate(self._ids), np.concatenate(self._ranks)


def _to_dataset(ids: Ids, ranks: SchmidtRanks, table: InstructionTable) -> CircuitDataset:
    vectors, index = np.unique(ranks, axis=0, return_inverse=True)
    prompts = [srv_prompt(vector) for vector in vectors]
    order = np.argsort(prompts)
    renumber = np.empty(len(prompts), dtype=np.int32)
    renumber[order] = np.arange(len(prompts))
    sizes = np.stack([np.full(len(ids), table.num_qubits), gate_count(ids)], axis=1).astype(np.int16)
    return CircuitDataset(
        tokens=encode_ids(ids, table),
        prompt_index=renumber[index.reshape(-1)],
        prompts=tuple(prompts[i] for i in order),
        sizes=sizes,
        gate_pool=table.pool,
    )
