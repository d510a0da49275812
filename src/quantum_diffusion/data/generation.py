"""Generates data sets of random, simplified, distinct, exactly labelled circuits.

`generate` calls it. Workers make shards of candidates, and circuits are selected in the order of the shards: the
result is the same, byte for byte, for any number of workers, any engine, and after a killed run is resumed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Angles, Ids, gate_count, instruction_table
from quantum_diffusion.circuits.matrices import as_two_channels, pieces
from quantum_diffusion.circuits.tokenizer import encode_ids
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.engines import num_workers, run_in_order
from quantum_diffusion.data.selection import KeySet, Quota, Selection, length_groups, length_quota
from quantum_diffusion.data.shards import make_shard
from quantum_diffusion.data.storage import (
    check_replaceable,
    is_dataset_folder,
    load_dataset_folder,
    read_description,
    save_blocks,
)
from quantum_diffusion.data.work import WorkFolder
from quantum_diffusion.errors import ConfigError, DatasetFormatError, memory_for, quoted, quoted_path
from quantum_diffusion.files import check_can_write
from quantum_diffusion.tasks.base import Candidates
from quantum_diffusion.tasks.candidates import check_draws
from quantum_diffusion.tasks.registry import TASKS

_SHARDS_AT_ONCE = 16
_STALLED_ROUNDS = 3
_STALLED_SHARE = 1e-4
"""Generation stops if the shards of this many rounds give less than this fraction of new circuits."""

_BLOCK_CIRCUITS = 2**16
GENERATOR_VERSION = 3
"""Incremented whenever the same settings give other circuits; see "Numerics" in CHANGELOG.md."""

_SETTINGS_THAT_DO_NOT_MATTER = ("n_jobs", "engine", "max_memory", "output_path", "overwrite")

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class GenerationReport:
    """The outcome of a generation run.

    Attributes:
        num_circuits: Number of distinct circuits in the data set.
        num_requested: Number of distinct circuits requested.
        num_candidates: Number of random circuits drawn.
        seconds: Wall time in seconds.
        prompt_counts: Number of circuits of each prompt.
        reused: Whether a complete data set with the same configuration already existed.
        num_continued: Number of candidates drawn by an earlier, interrupted run.
        num_balanced_away: Number of circuits that `balance_quantile` removed.
        longest: Maximum number of gates of a circuit in the data set.
    """

    num_circuits: int
    num_requested: int
    num_candidates: int
    seconds: float
    prompt_counts: dict[str, int]
    reused: bool = False
    num_continued: int = 0
    num_balanced_away: int = 0
    longest: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether fewer distinct circuits were found than requested."""
        return self.num_circuits + self.num_balanced_away < self.num_requested


class DatasetGenerator:
    """Generates the data set that a configuration describes.

    Args:
        config: The configuration.

    Raises:
        ConfigError: `config` is not a configuration, or `exclude` has other qubits or gates.
        GateSetError: A gate is unknown, or does not fit the qubits or the coupling.
    """

    def __init__(self, config: DatasetConfig) -> None:
        self.config = check_kind(config, DatasetConfig, "config", PRESETS_HINT)
        self.parts = _parts(config)
        self.task = TASKS[self.parts[0].condition_type]
        self.table = instruction_table(GatePool(config.gate_set), config.num_qubits)
        for part in self.parts:
            check_draws(part)
        self._excluded = None if config.exclude is None else load_dataset_folder(Path(config.exclude))
        if self._excluded is not None and (self._excluded.gate_pool, self._excluded.num_qubits) != (
            self.table.pool,
            config.num_qubits,
        ):
            raise ConfigError(
                f"datasets.exclude={quoted(config.exclude)} has {self._excluded.num_qubits} qubits and the gates "
                f"{list(self._excluded.gate_pool.names)}: give one with the num_qubits and gate_set of the new data set"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration values that determine the content, as plain values."""
        values: dict[str, Any] = self.config.model_dump(mode="json")
        kept = {key: value for key, value in values.items() if key not in _SETTINGS_THAT_DO_NOT_MATTER}
        if self._excluded is not None:
            kept["exclude"] = self._excluded.fingerprint  # the content matters, not the path
        return kept | {"generator_version": GENERATOR_VERSION}

    def write(self, progress: ProgressCallback | None = None) -> GenerationReport:
        """Generate the data set into `output_path`; condition_type BOTH writes its subfolders `srv` and `unitary`.

        A complete data set with the same configuration is reused. Any other data set is replaced only if `overwrite` is
        set; a folder with other content is never replaced. The next run resumes an interrupted or killed one.

        Args:
            progress: Called with (circuits so far, circuits requested).

        Raises:
            DatasetFormatError: The folder has other content, cannot be written, or another run is writing it.
            ConfigError: No circuit fits the configuration, or Ray is missing.
            OutOfMemoryError: This process or a worker ran out of memory.
        """
        if len(self.parts) > 1:
            return _sum([DatasetGenerator(part).write(progress) for part in self.parts])
        path = Path(self.config.output_path)
        if is_dataset_folder(path) and not self.config.overwrite:
            return self._reuse(path)
        check_replaceable(path)
        check_can_write(path, DatasetFormatError)
        started = time.perf_counter()
        work = WorkFolder(path, self.settings, self.config.overwrite)
        with work.locked() as folder, self._memory_errors():
            drafts = _Drafts(folder, self.config.max_gates, self.table.pool.num_angles)
            counts = self._select(folder, drafts, progress, work)
            report = self._report(drafts, counts, started)
            save_blocks(self._blocks(drafts, self._rows_at_once), report.num_circuits, path, self.settings)
        return report

    def generate(
        self, progress: ProgressCallback | None = None, *, with_targets: bool = True
    ) -> tuple[CircuitDataset, GenerationReport]:
        """Generate the data set in memory; see `write`. Not for condition_type BOTH, which makes two data sets.

        Args:
            progress: See `write`.
            with_targets: Whether to compute the targets that data sets of the task store.
        """
        assert len(self.parts) == 1
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="quantum-diffusion-") as folder, self._memory_errors():
            drafts = _Drafts(Path(folder), self.config.max_gates, self.table.pool.num_angles)
            counts = self._select(Path(folder), drafts, progress)
            report = self._report(drafts, counts, started)
            (dataset,) = self._blocks(drafts, self.config.num_samples, with_targets)
        return dataset, report

    # ------------------------------------------------------------------------------------------- details

    def _memory_errors(self) -> AbstractContextManager[None]:
        given = f"datasets.n_jobs={self.config.n_jobs} and datasets.max_memory={self.config.max_memory:g}"
        return memory_for(f"generating with {given}", "lower them; each worker needs its own memory")

    def _reuse(self, path: Path) -> GenerationReport:
        mend = "choose another datasets.output_path or set datasets.overwrite=true"
        try:
            same = read_description(path).get("settings") == self.settings
            dataset = load_dataset_folder(path) if same else None
        except DatasetFormatError as problem:
            check_replaceable(path)  # raises if overwriting would be refused, too
            raise DatasetFormatError(f"{problem}; or {mend}") from None
        if dataset is None:
            raise DatasetFormatError(f"{quoted_path(path)} already holds a data set made with other settings: {mend}")
        return GenerationReport(
            num_circuits=len(dataset),
            num_requested=self.config.num_samples,
            num_candidates=0,
            seconds=0.0,
            prompt_counts=dataset.prompt_counts,
            reused=True,
            longest=int(dataset.sizes[:, 1].max(initial=0)),
        )

    def _select(
        self, folder: Path, drafts: _Drafts, progress: ProgressCallback | None, work: WorkFolder | None = None
    ) -> tuple[int, int]:
        """Select the circuits of the data set; return the number of shards used, and of those that already existed."""
        config = self.config
        memory = int(config.max_memory * 2**30)
        seen = KeySet(folder, memory // 2)
        selection = Selection(config.num_samples, config.balance_max, seen, self._is_excluded())
        found: deque[int] = deque(maxlen=_STALLED_ROUNDS * self._usual_round)
        used = continued = 0
        for shard, is_old in self._shards(work):
            kept = selection.keep(shard)
            drafts.append(kept)
            found.append(len(kept.ids))
            used, continued = used + 1, continued + is_old
            if progress:
                progress(selection.count, config.num_samples)
            is_stalled = sum(found) < _STALLED_SHARE * len(found) * self.task.num_candidates(config)
            if selection.is_complete or (is_stalled and len(found) == found.maxlen):
                break
        if not selection.count:
            names = list(config.generation_gate_set or config.gate_set)
            raise ConfigError(
                f"no circuit of {config.min_gates} to {config.max_gates} gates of {names} survives "
                "simplification: lower datasets.min_gates or set datasets.optimize=none"
            )
        return used, continued

    def _is_excluded(self) -> Callable[[Candidates], NDArray[np.bool_]] | None:
        """Return a test for circuits of `exclude`; for tasks with targets, for circuits with one of its targets."""
        if self._excluded is None:
            return None

        def keys(ids: Ids, angles: Angles) -> NDArray[np.uint64]:
            missing = (0, steps - ids.shape[1])
            padded = np.pad(ids, ((0, 0), missing)), np.pad(angles, ((0, 0), missing, (0, 0)))
            return self._in_pieces(self.task.keys_of, *padded, np.empty(len(ids), dtype=np.uint64), columns=1)

        steps = max(self._excluded.max_gates, self.config.max_gates)
        known = np.unique(keys(self._excluded.decoded().ids, self._excluded.exact_angles))
        return lambda drawn: np.isin(keys(drawn.ids, drawn.angles), known)

    def _in_pieces(
        self, function: Callable[..., NDArray[Any]], ids: Ids, angles: Angles, result: NDArray[Any], columns: int
    ) -> NDArray[Any]:
        """Write a function of circuits to `result` in pieces; a circuit needs memory for complex [D, columns]."""

        def write(piece: slice) -> None:
            result[piece] = function(ids[piece], self.table, angles[piece] if self.table.pool.num_angles else None)

        with ThreadPoolExecutor(num_workers("local", self.config.n_jobs)) as threads:
            list(threads.map(write, pieces(len(ids), 2**self.config.num_qubits * columns)))  # raises their errors
        return result

    def _stored_targets(self, ids: Ids, angles: Angles) -> NDArray[np.float32] | None:
        """Return the targets of circuits as stored, float32 [N, 2, D, R]; None for tasks without targets."""
        columns = self.task.columns(self.config.num_qubits)
        if not columns:
            return None
        targets = np.empty((len(ids), 2, 2**self.config.num_qubits, columns), dtype=np.float32)
        return self._in_pieces(
            lambda *some: as_two_channels(self.task.targets_of(*some)), ids, angles, targets, columns
        )

    @property
    def _usual_round(self) -> int:
        """Number of shards that would be enough if all circuits were distinct; at most `_SHARDS_AT_ONCE`."""
        wanted = -(-2 * self.config.num_samples // self.task.num_candidates(self.config))
        return int(np.clip(wanted, 1, _SHARDS_AT_ONCE))

    def _shards(self, work: WorkFolder | None) -> Iterator[tuple[Candidates, bool]]:
        """Yield shards in order, without end, each with whether it already existed."""
        config, number = self.config, 0
        at_once = self._usual_round
        if at_once == _SHARDS_AT_ONCE:
            at_once = max(at_once, 2 * num_workers(config.engine, config.n_jobs))
        n_jobs = min(at_once, num_workers(config.engine, config.n_jobs))
        while True:
            numbers = range(number, number + at_once)
            number += at_once
            old = {n: shard for n in numbers if work and (shard := work.read_shard(n))}
            missing = [n for n in numbers if n not in old]
            with closing(run_in_order(config.engine, n_jobs, partial(make_shard, config), missing)) as new:
                for n in numbers:
                    shard = old[n] if n in old else next(new)
                    if work and n not in old:
                        work.write_shard(n, shard)
                    yield shard, n in old

    def _report(self, drafts: _Drafts, counts: tuple[int, int], started: float) -> GenerationReport:
        drafted = len(drafts)
        if self.config.balance_quantile is not None:
            drafts.balance_lengths(self.config.balance_quantile)
        numbers, label_counts = drafts.label_counts()
        texts = [self.task.label_prompt(number, self.config) for number in numbers]
        return GenerationReport(
            num_circuits=len(drafts),
            num_requested=self.config.num_samples,
            num_candidates=counts[0] * self.task.num_candidates(self.config),
            seconds=time.perf_counter() - started,
            prompt_counts=dict(sorted(zip(texts, label_counts, strict=True))),
            num_continued=counts[1] * self.task.num_candidates(self.config),
            num_balanced_away=drafted - len(drafts),
            longest=drafts.longest(),
        )

    @property
    def _rows_at_once(self) -> int:
        """Number of circuits in a block of a data set that is written: its targets need 32 MB at most."""
        entries = 2**self.config.num_qubits * self.task.columns(self.config.num_qubits)
        return min(_BLOCK_CIRCUITS, 2**22 // entries) if entries else _BLOCK_CIRCUITS

    def _blocks(self, drafts: _Drafts, rows: int, with_targets: bool = True) -> Iterator[CircuitDataset]:
        """Yield the data set in blocks of at most `rows` circuits, made from the drafts."""
        labels, _ = drafts.label_counts()
        texts = [self.task.label_prompt(label, self.config) for label in labels]
        prompts = tuple(sorted(texts))
        place = {prompt: index for index, prompt in enumerate(prompts)}
        numbers = np.array([place[text] for text in texts], dtype=np.int32)  # of each label, in ascending order
        for block in drafts.blocks(rows):
            ids = block.ids
            sizes = np.stack([np.full(len(ids), self.config.num_qubits), gate_count(ids)], axis=1).astype(np.int16)
            yield CircuitDataset(
                tokens=encode_ids(ids, self.table),
                prompt_index=numbers[np.searchsorted(labels, block.labels)],
                prompts=prompts,
                sizes=sizes,
                gate_pool=self.table.pool,
                condition_type=self.task.name,
                targets=self._stored_targets(ids, block.angles) if with_targets else None,
                angles=block.angles if self.table.pool.num_angles else None,
            )


class _Drafts:
    """Selected circuits and their labels, appended to files and read in blocks.

    Args:
        folder: Folder of the files; those of an earlier run are overwritten.
        num_steps: T.
        num_angles: A.
    """

    def __init__(self, folder: Path, num_steps: int, num_angles: int) -> None:
        self._shapes = {"ids": (num_steps,), "labels": (), "angles": (num_steps, num_angles)}
        self._files = {name: folder / f"drafts-{name}.bin" for name in self._shapes}
        self._drafted = 0
        self._kept: NDArray[np.bool_] | None = None
        for path in self._files.values():
            path.write_bytes(b"")

    def __len__(self) -> int:
        return self._drafted if self._kept is None else int(self._kept.sum())

    def append(self, shard: Candidates) -> None:
        for name, path in self._files.items():
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(getattr(shard, name)).data)
        self._drafted += len(shard.ids)

    def balance_lengths(self, quantile: float) -> None:
        """Limit the circuits of each length, for every label, to this quantile of the counts of its lengths."""
        counts: dict[int, int] = {}
        for block in self.blocks(_BLOCK_CIRCUITS):
            groups, numbers = np.unique(length_groups(block.labels, gate_count(block.ids)), return_counts=True)
            for group, count in zip(groups.tolist(), numbers.tolist(), strict=True):
                counts[group] = counts.get(group, 0) + count
        ordered = np.array(sorted(counts.items()), dtype=np.int64)
        quota = Quota(length_quota(ordered[:, 0], ordered[:, 1], quantile))
        blocks = self.blocks(_BLOCK_CIRCUITS)
        kept = [quota.admit(length_groups(block.labels, gate_count(block.ids))) for block in blocks]
        self._kept = np.concatenate(kept)

    def label_counts(self) -> tuple[list[int], list[int]]:
        """Return the labels in ascending order, and the number of circuits of each."""
        counts: dict[int, int] = {}
        for block in self.blocks(_BLOCK_CIRCUITS):
            for label, count in zip(*(a.tolist() for a in np.unique(block.labels, return_counts=True)), strict=True):
                counts[label] = counts.get(label, 0) + count
        return sorted(counts), [counts[label] for label in sorted(counts)]

    def longest(self) -> int:
        """Return the maximum number of gates of a circuit."""
        lengths = (int(gate_count(block.ids).max(initial=0)) for block in self.blocks(_BLOCK_CIRCUITS))
        return max(lengths, default=0)

    def blocks(self, rows: int) -> Iterator[Candidates]:
        """Yield at most `rows` circuits at a time."""
        for start in range(0, self._drafted, rows):
            count = min(rows, self._drafted - start)
            kept = slice(None) if self._kept is None else self._kept[start : start + count]
            yield Candidates(
                self._read("ids", np.int16, start, count)[kept],
                self._read("labels", np.uint32, start, count)[kept],
                self._read("angles", np.float64, start, count)[kept],
            )

    def _read(self, name: str, dtype: type[np.generic], start: int, count: int) -> NDArray[Any]:
        """Return some rows of an array."""
        size = math.prod(self._shapes[name])
        offset = start * size * np.dtype(dtype).itemsize
        flat = np.fromfile(self._files[name], dtype, count * size, offset=offset)
        return flat.reshape(count, *self._shapes[name])


def _parts(config: DatasetConfig) -> list[DatasetConfig]:
    """Split condition_type BOTH into one data set per condition."""
    if config.condition_type != "BOTH":
        return [config]
    return [
        config.model_copy(update={"condition_type": kind, "output_path": str(Path(config.output_path) / kind.lower())})
        for kind in ("SRV", "UNITARY")
    ]


def _sum(reports: list[GenerationReport]) -> GenerationReport:
    return GenerationReport(
        num_circuits=sum(report.num_circuits for report in reports),
        num_requested=sum(report.num_requested for report in reports),
        num_candidates=sum(report.num_candidates for report in reports),
        seconds=sum(report.seconds for report in reports),
        prompt_counts={prompt: count for report in reports for prompt, count in report.prompt_counts.items()},
        reused=all(report.reused for report in reports),
        num_continued=sum(report.num_continued for report in reports),
        num_balanced_away=sum(report.num_balanced_away for report in reports),
        longest=max((report.longest or 0 for report in reports), default=None),
    )
