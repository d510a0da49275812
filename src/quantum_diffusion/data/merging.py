"""Many data sets to one: padding to a common shape, merging prompts, balancing.

The result depends on the content of the parts alone, not on the order or the folders they come in.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import IncompatibleDatasetsError
from quantum_diffusion.seeding import numpy_generator

logger = logging.getLogger(__name__)


def merge_datasets(datasets: Sequence[CircuitDataset]) -> CircuitDataset:
    """Join data sets over the same gate pool.

    Args:
        datasets: One or more; circuits of fewer qubits or time steps than the largest are padded with the padding
            token. A circuit that several of them hold with the same prompt is kept once.

    Raises:
        IncompatibleDatasetsError: The gate pools differ, or only some have unitaries.
    """
    if not datasets:
        raise IncompatibleDatasetsError("no data sets to combine: give at least one")
    if len(datasets) == 1:
        return datasets[0]
    pools = {dataset.gate_pool.names for dataset in datasets}
    if len(pools) > 1:
        shown = " and ".join(str(list(names)) for names in sorted(pools))
        raise IncompatibleDatasetsError(
            f"cannot combine data sets with the gate pools {shown}: tokens mean different gates; "
            "generate them again with one datasets.gate_set (datasets.generation_gate_set may differ)"
        )
    if len({dataset.unitaries is None for dataset in datasets}) > 1 or any(d.unitaries is not None for d in datasets):
        raise IncompatibleDatasetsError(
            "cannot combine data sets with unitaries: give one of them, e.g. the sub-folder srv or unitary"
        )

    parts = sorted(datasets, key=lambda d: (d.num_qubits, d.max_gates, d.fingerprint))
    num_qubits = max(part.num_qubits for part in parts)
    max_gates = max(part.max_gates for part in parts)
    prompts = tuple(sorted({prompt for part in parts for prompt in part.prompts}))
    number = {prompt: index for index, prompt in enumerate(prompts)}

    tokens = np.full((sum(map(len, parts)), num_qubits, max_gates), parts[0].gate_pool.padding_token, dtype=np.int8)
    start = 0
    for part in parts:
        tokens[start : start + len(part), : part.num_qubits, : part.max_gates] = part.tokens
        start += len(part)
    renumbered = [np.array([number[p] for p in part.prompts], dtype=np.int32)[part.prompt_index] for part in parts]
    merged = CircuitDataset(
        tokens=tokens,
        prompt_index=np.concatenate(renumbered),
        prompts=prompts,
        sizes=np.concatenate([part.sizes for part in parts]),
        gate_pool=parts[0].gate_pool,
    )
    return _without_repetitions(merged)


def _without_repetitions(dataset: CircuitDataset) -> CircuitDataset:
    """Keep the first of equal circuits with equal prompts: the others would leak from training to validation."""
    cells = np.where(dataset.tokens == dataset.gate_pool.padding_token, np.int8(0), dataset.tokens)
    numbers = np.column_stack([dataset.sizes, dataset.prompt_index])
    keys = row_keys(np.column_stack([row_keys(cells), row_keys(numbers)]))
    first = np.unique(keys, return_index=True)[1]
    if len(first) == len(dataset):
        return dataset
    logger.warning("%d circuits occur in several of the data sets: each is used once", len(dataset) - len(first))
    return dataset.take(np.sort(first))


def row_keys(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a 64-bit key a row, uint64 [N]; equal rows have equal keys.

    Two different rows share a key with probability 2**-64.

    Args:
        rows: [N, ...] of any numbers of fixed size.

    Reference:
        The mixing steps are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
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


def balance(dataset: CircuitDataset, most: int, seed: int) -> CircuitDataset:
    """Keep at most `most` circuits of each prompt, chosen at random by `seed`; the order of rows is kept."""
    return dataset.take(np.flatnonzero(_first_of_each(dataset.prompt_index, most, numpy_generator(seed, "balance"))))


def _first_of_each(labels: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    order = rng.permutation(len(labels))
    kept = np.zeros(len(labels), dtype=np.bool_)
    kept[order] = rank_within_label(labels[order]) < most
    return kept


def rank_within_label(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return, for each entry, how many earlier entries have the same label; int64 [N].

    Example:
        >>> rank_within_label(np.array([7, 8, 7, 7])).tolist()
        [0, 0, 1, 2]
    """
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    first = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]]) if len(labels) else np.array([], int)
    group_sizes = np.diff(np.r_[first, len(labels)])
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(first, group_sizes)
    return ranks
