"""Many data sets to one: padding to a common shape, merging prompts, balancing.

The result depends on the content of the parts alone, not on the order or the folders they come in.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.data.blocks import row_blocks, take_rows
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import IncompatibleDatasetsError
from quantum_diffusion.seeding import numpy_generator

logger = logging.getLogger(__name__)


def merge_datasets(datasets: Sequence[CircuitDataset]) -> CircuitDataset:
    """Join data sets over the same gate pool.

    Args:
        datasets: One or more; circuits of fewer qubits or time steps than the largest are padded with the padding
            token, their unitaries with the identity on the other qubits. A circuit that several of them hold with
            the same prompt is kept once.

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
    if len({dataset.unitaries is None for dataset in datasets}) > 1:
        raise IncompatibleDatasetsError(
            "cannot combine data sets with unitaries and data sets without: give one kind, e.g. the sub-folder srv or "
            "unitary"
        )

    parts = _in_order(datasets)
    shape = (max(part.num_qubits for part in parts), max(part.max_gates for part in parts))
    prompts = tuple(sorted({prompt for part in parts for prompt in part.prompts}))
    number = {prompt: index for index, prompt in enumerate(prompts)}
    renumbered = [np.array([number[p] for p in part.prompts], dtype=np.int32)[part.prompt_index] for part in parts]
    prompt_index, sizes = np.concatenate(renumbered), np.concatenate([part.sizes for part in parts])

    # What is kept is decided first: then there is room for the tokens once, and for nothing else of their size.
    kept = _without_repetitions(_token_keys(parts, shape), sizes, prompt_index)
    tokens = np.full((len(kept), *shape), parts[0].gate_pool.padding_token, dtype=np.int8)
    unitaries = None
    if parts[0].unitaries is not None:
        unitaries = np.zeros((len(kept), 2, 2 ** shape[0], 2 ** shape[0]), dtype=np.float32)
    starts = np.cumsum([0, *map(len, parts)])
    bounds = np.searchsorted(kept, starts)
    for part, start, first, last in zip(parts, starts, bounds, bounds[1:], strict=False):
        place = tokens[first:last, : part.num_qubits, : part.max_gates]
        take_rows(part.tokens, kept[first:last] - start, place)
        if unitaries is not None and part.unitaries is not None:
            side = part.unitaries.shape[-1]
            for corner in range(0, unitaries.shape[-1], side):  # the identity's tensor product with it
                block = unitaries[first:last, :, corner : corner + side, corner : corner + side]
                take_rows(part.unitaries, kept[first:last] - start, block)
    return CircuitDataset(tokens, prompt_index[kept], prompts, sizes[kept], parts[0].gate_pool, unitaries)


def _in_order(datasets: Sequence[CircuitDataset]) -> list[CircuitDataset]:
    """Sort data sets by shape and, where several have the same, by their fingerprints, which take time to compute."""
    shapes = Counter((dataset.num_qubits, dataset.max_gates) for dataset in datasets)

    def rank(dataset: CircuitDataset) -> tuple[int, int, str]:
        shape = (dataset.num_qubits, dataset.max_gates)
        return (*shape, dataset.fingerprint if shapes[shape] > 1 else "")

    return sorted(datasets, key=rank)


def _token_keys(parts: Sequence[CircuitDataset], shape: tuple[int, int]) -> NDArray[np.uint64]:
    """Return a key for the cells of every circuit, uint64 [N], the same whatever shape it is padded to."""
    keys = []
    for part in parts:
        for tokens in row_blocks(part.tokens):
            cells = np.zeros((len(tokens), *shape), dtype=np.int8)
            is_cell = tokens != part.gate_pool.padding_token
            np.copyto(cells[:, : part.num_qubits, : part.max_gates], tokens, where=is_cell)
            keys.append(row_keys(cells))
    return np.concatenate(keys)


def _without_repetitions(
    token_keys: NDArray[np.uint64], sizes: NDArray[np.int16], prompt_index: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the first row of each circuit and prompt: the others would leak from training to validation."""
    keys = row_keys(np.column_stack([token_keys, row_keys(np.column_stack([sizes, prompt_index]))]))
    first = np.sort(np.unique(keys, return_index=True)[1])
    if len(first) < len(keys):
        logger.warning("%d circuits occur in several of the data sets: each is used once", len(keys) - len(first))
    return first


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


def balanced_rows(dataset: CircuitDataset, most: int, seed: int) -> NDArray[np.int64]:
    """Return the rows, rising, of at most `most` circuits of each prompt, chosen at random by `seed`."""
    order = numpy_generator(seed, "balance").permutation(len(dataset))
    return np.sort(order[rank_within_label(dataset.prompt_index[order]) < most])


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
