"""Independent random streams derived from one seed, so that every result is reproducible.

Data generation, training and sampling name their streams by purpose and integers (shard, epoch, step, sample), never by
the order of calls.
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
        purpose: Name of the stream ("shard", "epoch", "sample").
        path: Integers that identify one member of the stream.

    Returns:
        An integer in [0, 2**63).

    Raises:
        ConfigError: The seed is not a non-negative integer.
    """
    stream = _stream(seed, purpose)
    stream.update(",".join(str(int(p)) for p in path).encode())
    return int.from_bytes(stream.digest(), "little") >> 1


def _stream(seed: int, purpose: str) -> hashlib.blake2b:
    return hashlib.blake2b(f"{purpose}:{check_count(seed, 'seed')}:".encode(), digest_size=8)


def numpy_generator(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """Return a numpy generator for one stream; see `derive_seed` for the arguments."""
    return np.random.default_rng(derive_seed(seed, purpose, *path))


def sample_seeds(seed: int, count: int, first: int = 0) -> NDArray[np.int64]:
    """Return one seed per sample, so that a sample does not depend on its batch.

    Args:
        seed: The seed of the whole sampling run.
        count: Number of samples.
        first: Index of the first sample: a run of 10 equals a run of 6 followed by a run of 4 with `first=6`.

    Returns:
        int64 [count].
    """
    stream, digests = _stream(seed, "sample"), []
    first = check_count(first, "first_sample")
    for index in range(first, first + count):  # like `derive_seed`, but hashes the common prefix only once
        one = stream.copy()
        one.update(b"%d" % index)
        digests.append(one.digest())
    return (np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(1)).astype(np.int64)
