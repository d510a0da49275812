"""Processes large arrays a few rows at a time, so that reading all of one does not need memory of its size.

Data set code uses it. Pages of a memory-mapped array are released on the way; the system loads them again when needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 2**22
"""Small enough for a block to stay in the processor's cache."""


def row_blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in order, in blocks that are views."""
    for rows in _slices(array, len(array)):
        yield array[rows]
        release(array)


def take_rows(array: NDArray[Any], rows: NDArray[np.integer], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return `array[rows]`, gathered in blocks.

    Args:
        array: [N, ...].
        rows: [M], row indices in [0, N).
        out: Array [M, ...] to write to; None creates one.
    """
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype) if out is None else out
    for some in _slices(array, len(rows)):
        taken[some] = array[rows[some]]
        release(array)
    return taken


def _slices(array: NDArray[Any], count: int) -> Iterator[slice]:
    """Return slices that cut `count` rows of the array's size into blocks."""
    at_once = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
    return (slice(start, min(start + at_once, count)) for start in range(0, count, at_once))


def release(array: NDArray[Any]) -> None:
    """Release the memory of a memory-mapped array's pages; does nothing for other arrays."""
    mapped = _map_of(array)
    # Changes to a private map would be lost, and not every system has MADV_DONTNEED.
    if mapped is not None and memoryview(mapped).readonly and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_whole(array: NDArray[Any]) -> bool:
    """Tell whether a memory-mapped file still has its full size; access past its end would kill the process."""
    mapped = _map_of(array)
    return mapped is None or len(mapped) <= mapped.size()  # size() is the current size of the file


def _map_of(array: NDArray[Any]) -> mmap.mmap | None:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None
