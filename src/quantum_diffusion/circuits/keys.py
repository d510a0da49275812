"""Hashes the rows of an array, to find equal circuits or equal matrices in bulk."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


_ANGLE_STEPS = 1e6
"""Steps in a radian below which angles count as equal: sums of the same angles differ by their rounding."""


def angle_keys(angles: NDArray[np.float64]) -> Keys:
    """Return a hash of the angles of each circuit, the same for angles equal up to rounding.

    Args:
        angles: float64 [N, T, A].

    Returns:
        uint64 [N].
    """
    return row_keys(np.rint(angles * _ANGLE_STEPS).astype(np.int64))


def row_keys(rows: NDArray[Any]) -> Keys:
    """Return a 64-bit hash of each row; different rows collide with probability 2**-64.

    Args:
        rows: [N, ...], any fixed-size dtype.

    Returns:
        uint64 [N].

    Reference:
        Mixing steps of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    flat = np.ascontiguousarray(rows).reshape(len(rows), math.prod(rows.shape[1:])).view(np.uint8)
    keys = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, flat.shape[1], 8):
        word = np.zeros((len(rows), 8), dtype=np.uint8)
        piece = flat[:, start : start + 8]
        word[:, : piece.shape[1]] = piece
        keys += word.view(np.uint64)[:, 0] + np.uint64(0x9E3779B97F4A7C15)
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        keys ^= keys >> np.uint64(31)
    return keys
