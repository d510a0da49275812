"""Large arrays a few rows at a time, so that nothing that looks at all of one needs a second of its size.

A memory-mapped array gives its pages back on the way; the system brings them in again where they are used.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 2**22
"""Few enough to stay in the processor's cache while a block is worked on."""


def row_blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in order, a block at a time; each block is a view."""
    for rows in _slices(array, len(array)):
        yield array[rows]
        release(array)


def take_rows(array: NDArray[Any], rows: NDArray[np.integer], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return `array[rows]`, gathered a block at a time.

    Args:
        array: [N, ...].
        rows: [M], numbers of rows in [0, N).
        out: Where to put them, [M, ...]; None makes a new array.
    """
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype) if out is None else out
    for some in _slices(array, len(rows)):
        taken[some] = array[rows[some]]
        release(array)
    return taken


def _slices(array: NDArray[Any], count: int) -> Iterator[slice]:
    """Cut `count` rows of an array's shape into blocks."""
    at_once = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
    return (slice(start, min(start + at_once, count)) for start in range(0, count, at_once))


def release(array: NDArray[Any]) -> None:
    """Let the pages of a memory-mapped array leave memory; an array of another kind stays as it is."""
    mapped = _map_of(array)
    # What was written to a private map would be lost; and not every system can do this.
    if mapped is not None and memoryview(mapped).readonly and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_whole(array: NDArray[Any]) -> bool:
    """Tell whether a memory-mapped file is still there as a whole; to touch what was cut off kills the process."""
    mapped = _map_of(array)
    return mapped is None or len(mapped) <= mapped.size()  # now


def _map_of(array: NDArray[Any]) -> mmap.mmap | None:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None
