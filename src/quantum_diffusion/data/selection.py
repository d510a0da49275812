"""Selects the candidates that a data set keeps: distinct ones, in order, with a limit per label.

`generation` feeds it shards. It stores only the hashes of kept circuits, in memory-mapped files beyond a size limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.keys import Keys, row_keys
from quantum_diffusion.data.merging import rank_within_label
from quantum_diffusion.tasks.base import Candidates


class KeySet:
    """A growing set of 64-bit keys, as sorted runs of at least halving sizes.

    Args:
        folder: Folder for runs that are too large for memory.
        memory: Maximum bytes of keys held in memory.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder = folder
        self._largest = max(1, memory // 16)  # a merge holds a run twice
        self._runs: list[Keys] = []
        self._on_disk: list[Keys] = []

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Tell which keys are in the set, bool [N]."""
        order = np.argsort(keys)
        ordered = keys[order]  # sorted look-ups access neighbouring memory
        found = np.zeros(len(keys), dtype=np.bool_)
        for run in (*self._on_disk, *self._runs):
            position = np.searchsorted(run, ordered).clip(max=len(run) - 1)
            found[order] |= run[position] == ordered
        return found

    def add(self, keys: Keys) -> None:
        """Add keys that are not in the set."""
        if not len(keys):
            return
        run = np.sort(keys)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run) < self._largest:
            self._runs.append(run)
            return
        path = self._folder / f"keys-{len(self._on_disk)}.npy"
        np.save(path, run)
        try:
            self._on_disk.append(np.load(path, mmap_mode="r"))
        except OSError:  # the file system cannot map files
            self._on_disk.append(run)


class Quota:
    """Admits a limited number of rows per group, in order.

    Args:
        most: The limit for every group, or one limit for each.
    """

    def __init__(self, most: int | Mapping[int, int]) -> None:
        self._most = min(most, 2**62) if isinstance(most, int) else most  # fits int64
        self._counts: dict[int, int] = {}

    def admit(self, groups: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which rows are admitted, bool [N], and count them."""
        distinct, inverse = np.unique(groups, return_inverse=True)
        names = distinct.tolist()
        have = np.array([self._counts.get(name, 0) for name in names], dtype=np.int64)
        most = np.array(
            [self._most if isinstance(self._most, int) else self._most[name] for name in names], dtype=np.int64
        )
        admitted: NDArray[np.bool_] = have[inverse] + rank_within_label(inverse) < most[inverse]
        new = np.bincount(inverse[admitted], minlength=len(names))
        self._counts.update(zip(names, (have + new).tolist(), strict=True))
        return admitted


class Selection:
    """Selects circuits from shards, which must be fed in order.

    Args:
        most: Number of circuits to keep.
        most_per_label: Maximum number of circuits per label; None means no limit.
        seen: Keys of the circuits kept so far.
        excluded: Returns which circuits must not be kept, bool [N]; None excludes none.
    """

    def __init__(
        self,
        most: int,
        most_per_label: int | None,
        seen: KeySet,
        excluded: Callable[[Candidates], NDArray[np.bool_]] | None = None,
    ) -> None:
        self.most = most
        self.count = 0
        self._seen = seen
        self._excluded = excluded
        self._quota = None if most_per_label is None else Quota(most_per_label)

    @property
    def is_complete(self) -> bool:
        """Whether enough circuits are kept."""
        return self.count >= self.most

    def keep(self, shard: Candidates) -> Candidates:
        """Return the circuits of a shard to keep, and remember them."""
        keys = row_keys(shard.ids)
        rows = np.flatnonzero(~self._seen.contains(keys))
        if self._excluded is not None:
            rows = rows[~self._excluded(shard.take(rows))]
        if self._quota is not None:
            rows = rows[self._quota.admit(shard.labels[rows])]
        rows = rows[: self.most - self.count]
        self._seen.add(keys[rows])
        self.count += len(rows)
        return shard.take(rows)


def length_quota(groups: NDArray[np.int64], counts: NDArray[np.int64], quantile: float) -> dict[int, int]:
    """Return the number of circuits to keep of each (label, length) to balance lengths.

    Args:
        groups: [G], `length_groups` of the circuits, each once, in ascending order.
        counts: [G], number of circuits of each group.
        quantile: Every length of a label keeps at most this quantile of the label's counts, as in genQC's
            `add_balance_fn_quantile_qc_length`.
    """
    most: dict[int, int] = {}
    for rows in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups >> 16)) + 1):
        most.update(dict.fromkeys(groups[rows].tolist(), int(np.quantile(counts[rows], quantile, method="nearest"))))
    return most


def length_groups(labels: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one integer for each pair of label and length, int64 [N]."""
    return (labels.astype(np.int64) << 16) | lengths
