"""Epochs in which every prompt comes equally often: row numbers are drawn, no circuit is copied.

How many circuits an epoch takes from each bucket never changes; which ones does, by chance alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PromptBalance:
    """Draws the rows of an epoch so that each of P prompts is expected M / P times.

    An epoch has as many circuits M as there are rows. The rows of one bucket and prompt, a *cell*, are expected as
    often as their share of the prompt's rows says, M / P * rows of the cell / rows of the prompt, so every circuit of
    a prompt is as likely as the next. A bucket has the sum of its cells, rounded, and one at least. With a single
    bucket every prompt comes M / P times, rounded up or down.

    Args:
        buckets: int64 [n] each, rows that are batched together, none of them empty; together M rows.
        prompt_index: int32 [N], the prompt of every row of the data set. Prompts without a row in `buckets` count
            for nothing.

    Attributes:
        counts: Circuits an epoch takes from each bucket; they sum to M.
    """

    def __init__(self, buckets: Sequence[NDArray[np.int64]], prompt_index: NDArray[np.int32]) -> None:
        labels = [prompt_index[rows] for rows in buckets]
        sizes = np.bincount(np.concatenate(labels))
        share = sizes.sum() / np.count_nonzero(sizes) / np.maximum(sizes, 1)  # of one circuit of each prompt
        self._cells = [_Cells(rows, own, share) for rows, own in zip(buckets, labels, strict=True)]
        self.counts = _rounded(np.array([cells.expected.sum() for cells in self._cells]))

    def draw(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Draw the rows of an epoch, int64 [count] a bucket, in random order."""
        return [cells.draw(count, rng) for cells, count in zip(self._cells, self.counts.tolist(), strict=True)]


class _Cells:
    """The rows of a bucket, ordered by their prompt.

    Args:
        rows: int64 [n], the bucket.
        labels: int32 [n], the prompts of the rows.
        share: float64 [prompts], how often a circuit of each prompt is expected.
    """

    def __init__(self, rows: NDArray[np.int64], labels: NDArray[np.int32], share: NDArray[np.float64]) -> None:
        self._rows = rows
        self._labels = labels
        present, self._sizes = np.unique(labels, return_counts=True)
        self.expected = share[present] * self._sizes

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        # Systematic sampling: whole numbers that differ from what is expected by less than one, and sum to `count`.
        steps = np.floor(np.cumsum(self.expected) * (count / self.expected.sum()) + rng.random())
        steps[-1] = count
        counts = np.diff(steps, prepend=0).astype(np.int64)
        # Every cell's rows in random order, as often over again as it takes.
        order = rng.permutation(len(self._rows))
        order = order[np.argsort(self._labels[order], kind="stable")]
        before = np.repeat(np.cumsum(self._sizes) - self._sizes, counts)
        turn = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)
        return rng.permutation(self._rows[order[before + turn % np.repeat(self._sizes, counts)]])


def _rounded(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round numbers that sum to a whole one to whole ones of the same sum, 1 or more (largest remainders).

    Without the least of 1 the circuits of a bucket that is hardly expected would never be trained on.
    """
    total = round(expected.sum())
    excess = np.maximum(expected - 1, 0)
    excess *= (total - len(expected)) / max(excess.sum(), 1e-9)
    counts = 1 + np.floor(excess).astype(np.int64)
    largest = np.argsort(np.floor(excess) - excess, kind="stable")
    counts[largest[: total - counts.sum()]] += 1
    return counts
