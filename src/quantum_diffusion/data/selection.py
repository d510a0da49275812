"""Which candidates a data set keeps: distinct ones, at most so many a label, in the order they come.

The keys of what was kept are the only memory, and beyond a limit they lie in files that the system pages in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import Ids
from quantum_diffusion.circuits.keys import Keys, row_keys
from quantum_diffusion.data.merging import rank_within_label
from quantum_diffusion.data.shards import Shard


class KeySet:
    """A growing set of 64-bit keys, as sorted runs of at least halving sizes.

    Args:
        folder: Where runs go that are too large for memory.
        memory: Bytes of keys held in memory.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder = folder
        self._largest = max(1, memory // 16)  # a merge holds a run twice
        self._runs: list[Keys] = []
        self._on_disk: list[Keys] = []

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Tell which keys are in the set, bool [N]."""
        order = np.argsort(keys)
        ordered = keys[order]  # neighbouring look-ups touch neighbouring memory
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
        except OSError:  # its file system cannot map files
            self._on_disk.append(run)


class Quota:
    """Lets at most so many rows of a group through, in the order they come.

    Args:
        most: How many; or how many of each group.
    """

    def __init__(self, most: int | Mapping[int, int]) -> None:
        self._most = min(most, 2**62) if isinstance(most, int) else most  # numpy's integers end there
        self._counts: dict[int, int] = {}

    def admit(self, groups: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which rows are let through, bool [N], and count them."""
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
    """The rule of a data set, fed with shards in their order.

    Args:
        most: Circuits wanted.
        most_per_label: Most circuits of one label; None for no limit.
        seen: Keys of the circuits kept so far.
        excluded: Tells of circuits, int16 [N, T], which are not to be kept; None excludes none.
    """

    def __init__(
        self,
        most: int,
        most_per_label: int | None,
        seen: KeySet,
        excluded: Callable[[Ids], NDArray[np.bool_]] | None = None,
    ) -> None:
        self.most = most
        self.count = 0
        self._seen = seen
        self._excluded = excluded
        self._quota = None if most_per_label is None else Quota(most_per_label)

    @property
    def is_complete(self) -> bool:
        """Whether as many circuits as wanted are kept."""
        return self.count >= self.most

    def keep(self, shard: Shard) -> Shard:
        """Return the circuits of a shard that are kept."""
        keys = row_keys(shard.ids)
        rows = np.flatnonzero(~self._seen.contains(keys))
        if self._excluded is not None:
            rows = rows[~self._excluded(shard.ids[rows])]
        if self._quota is not None:
            rows = rows[self._quota.admit(shard.labels[rows])]
        rows = rows[: self.most - self.count]
        self._seen.add(keys[rows])
        self.count += len(rows)
        return Shard(shard.ids[rows], shard.labels[rows])


def length_quota(groups: NDArray[np.int64], counts: NDArray[np.int64], quantile: float) -> dict[int, int]:
    """Return how many circuits of each (label, length) stay when long and short ones are balanced.

    Args:
        groups: [G], `length_groups` of the circuits, each once, in rising order.
        counts: [G], how many circuits each has.
        quantile: Every length of a label keeps at most this quantile of the label's counts, as in genQC's
            `add_balance_fn_quantile_qc_length`.
    """
    most: dict[int, int] = {}
    for rows in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups >> 16)) + 1):
        most.update(dict.fromkeys(groups[rows].tolist(), int(np.quantile(counts[rows], quantile, method="nearest"))))
    return most


def length_groups(labels: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number a pair of label and length."""
    return (labels.astype(np.int64) << 16) | lengths
