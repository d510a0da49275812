"""Random streams derived from one seed, so that every result can be made again.

A stream is named by what it is for and by integers (shard, epoch, step, sample), never by the order of calls.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_count


def derive_seed(seed: int, purpose: str, *path: int) -> int:
    """Derive an independent 63-bit seed.

    Args:
        seed: The user's seed, any non-negative integer.
        purpose: Which stream this is ("shard", "epoch", "sample").
        path: Integers that tell the members of the stream apart.

    Returns:
        An integer in [0, 2**63).

    Raises:
        ConfigError: The seed is no such number.
    """
    stream = _stream(seed, purpose)
    stream.update(",".join(str(int(p)) for p in path).encode())
    return int.from_bytes(stream.digest(), "little") >> 1


def _stream(seed: int, purpose: str) -> hashlib.blake2b:
    return hashlib.blake2b(f"{purpose}:{check_count(seed, 'seed')}:".encode(), digest_size=8)


def numpy_generator(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """Return the numpy generator of one stream; the arguments are those of `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, purpose, *path))


def sample_seeds(seed: int, count: int, first: int = 0) -> NDArray[np.int64]:
    """Return one seed a sample, so that a sample does not depend on the batch it is drawn in.

    Args:
        seed: The seed of the whole sampling run.
        count: Number of samples.
        first: Index of the first sample; a run of 10 equals a run of 6 followed by one of 4 from `first=6`.

    Returns:
        int64 [count].
    """
    stream, digests = _stream(seed, "sample"), []
    first = check_count(first, "first_sample")
    for index in range(first, first + count):  # as `derive_seed`, with what all have in common hashed once
        one = stream.copy()
        one.update(b"%d" % index)
        digests.append(one.digest())
    return (np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(1)).astype(np.int64)
