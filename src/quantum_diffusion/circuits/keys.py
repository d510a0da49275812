"""Hashes the rows of an array, to find equal circuits or equal matrices in bulk."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


_ANGLE_STEPS = 1e6
"""Steps in a radian below which angles count as equal: sums of the same angles differ by their rounding."""


def angle_keys(angles: NDArray[np.float64]) -> Keys:
    """Return a hash of the angles of each circuit, the same for angles equal up to rounding.

    Args:
        angles: float64 [N, T, A].

    Returns:
        uint64 [N].
    """
    return row_keys(angle_steps(angles))


def angle_steps(angles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return angles in steps so coarse that rounding errors rarely matter, int64 of the same shape."""
    return np.rint(angles * _ANGLE_STEPS).astype(np.int64)


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
        keys = (keys ^ (keys >> np.uint64(30))) * _MULTIPLIERS[0]
        keys = (keys ^ (keys >> np.uint64(27))) * _MULTIPLIERS[1]
        keys ^= keys >> np.uint64(31)
    return keys


def cell_keys(cells: NDArray[np.int8]) -> Keys:
    """Return a 64-bit hash of each circuit's cells, the same if rows or columns of zeros are added at their ends.

    Different circuits collide with probability 2**-64. Much faster than `row_keys` for small circuits in a large frame.

    Args:
        cells: int8 [N, Q, T].

    Returns:
        uint64 [N].
    """
    count, num_qubits, steps = cells.shape
    padded = np.zeros((count, num_qubits, -(-steps // 8) * 8), dtype=np.int8)
    padded[:, :, :steps] = cells
    words = padded.view(np.uint64)  # [N, Q, words]
    keys = np.zeros(count, dtype=np.uint64)
    for qubit, word in np.ndindex(words.shape[1:]):
        mixed = words[:, qubit, word] * _multiplier(qubit, word)  # a word of zeros adds nothing
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _MULTIPLIERS[0]
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _MULTIPLIERS[1]
        keys += mixed ^ (mixed >> np.uint64(32))
    return keys


@cache
def _multiplier(qubit: int, word: int) -> np.uint64:
    """Return the random odd number of a place; multiples of one number would let two words swap unnoticed."""
    return np.random.default_rng((qubit, word)).integers(2**64, dtype=np.uint64) | np.uint64(1)
