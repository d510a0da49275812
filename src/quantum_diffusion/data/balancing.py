"""Draws epochs in which every prompt occurs equally often, as row indices without copying circuits.

Loaders use it. The number of circuits per bucket is the same in each epoch; which ones are drawn is random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PromptBalance:
    """Draws the rows of an epoch so that each of P prompts is expected M / P times.

    An epoch has M circuits, as many as there are rows. The rows of one bucket and prompt form a *cell*. A cell is
    expected M / P * (rows of the cell) / (rows of the prompt) times, so all circuits of a prompt are equally likely.
    The count of a bucket is the rounded sum over its cells, at least 1. With a single bucket, every prompt occurs M / P
    times, rounded up or down.

    Args:
        buckets: int64 [n] each, non-empty sets of rows that are batched together, M rows in total.
        prompt_index: int32 [N], the prompt of every row of the data set. Prompts without a row in `buckets` are
            ignored.

    Attributes:
        counts: Number of circuits per epoch from each bucket; they sum to M.
    """

    def __init__(self, buckets: Sequence[NDArray[np.int64]], prompt_index: NDArray[np.int32]) -> None:
        labels = [prompt_index[rows] for rows in buckets]
        sizes = np.bincount(np.concatenate(labels))
        share = sizes.sum() / np.count_nonzero(sizes) / np.maximum(sizes, 1)  # expected count of one circuit
        self._cells = [_Cells(rows, own, share) for rows, own in zip(buckets, labels, strict=True)]
        self.counts = _rounded(np.array([cells.expected.sum() for cells in self._cells]))

    def draw(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Draw the rows of an epoch in random order, one int64 [count] per bucket."""
        return [cells.draw(count, rng) for cells, count in zip(self._cells, self.counts.tolist(), strict=True)]


class _Cells:
    """The rows of a bucket, grouped by prompt.

    Args:
        rows: int64 [n], the bucket.
        labels: int32 [n], the prompts of the rows.
        share: float64 [prompts], expected count of a circuit of each prompt.
    """

    def __init__(self, rows: NDArray[np.int64], labels: NDArray[np.int32], share: NDArray[np.float64]) -> None:
        self._rows = rows
        self._labels = labels
        present, self._sizes = np.unique(labels, return_counts=True)
        self.expected = share[present] * self._sizes

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        # Systematic sampling: integers that differ from the expected counts by less than one and sum to `count`.
        steps = np.floor(np.cumsum(self.expected) * (count / self.expected.sum()) + rng.random())
        steps[-1] = count
        counts = np.diff(steps, prepend=0).astype(np.int64)
        # The rows of every cell in random order, repeated as often as necessary.
        order = rng.permutation(len(self._rows))
        order = order[np.argsort(self._labels[order], kind="stable")]
        before = np.repeat(np.cumsum(self._sizes) - self._sizes, counts)
        turn = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)
        return rng.permutation(self._rows[order[before + turn % np.repeat(self._sizes, counts)]])


def _rounded(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round numbers with an integer sum to integers >= 1 with the same sum (largest remainders).

    Without the minimum of 1, circuits of a bucket with a tiny expected count would never be trained on.
    """
    total = round(expected.sum())
    excess = np.maximum(expected - 1, 0)
    excess *= (total - len(expected)) / max(excess.sum(), 1e-9)
    counts = 1 + np.floor(excess).astype(np.int64)
    largest = np.argsort(np.floor(excess) - excess, kind="stable")
    counts[largest[: total - counts.sum()]] += 1
    return counts
