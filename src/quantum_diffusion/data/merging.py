"""Merges data sets: pads them to a common shape, merges their prompts and balances them.

Loaders use it. The result depends only on the content of the parts, not on their order or folders.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.keys import Keys, angle_steps, cell_keys, row_keys
from quantum_diffusion.data.blocks import row_blocks, take_rows
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.engines import num_workers
from quantum_diffusion.errors import IncompatibleDatasetsError
from quantum_diffusion.seeding import numpy_generator

logger = logging.getLogger(__name__)


def merge_datasets(datasets: Sequence[CircuitDataset]) -> CircuitDataset:
    """Merge data sets with the same gate pool.

    Args:
        datasets: At least one. Circuits with fewer qubits or time steps than the largest are padded with the padding
            token, their targets by the identity on the other qubits (states by |0>). A circuit that occurs in several
            of them with the same prompt is kept once.

    Raises:
        IncompatibleDatasetsError: The gate pools or the tasks differ.
    """
    if not datasets:
        raise IncompatibleDatasetsError("no data sets to combine: give at least one")
    if len(datasets) == 1:
        return datasets[0]
    pools = {dataset.gate_pool.names for dataset in datasets}
    if len(pools) > 1:
        shown = " and ".join(str(list(names)) for names in sorted(pools))
        raise IncompatibleDatasetsError(
            f"cannot combine data sets with the gate pools {shown}, whose tokens mean different gates: "
            "generate them again with the same datasets.gate_set (datasets.generation_gate_set may differ)"
        )
    tasks = sorted({dataset.condition_type for dataset in datasets})
    if len(tasks) > 1:
        raise IncompatibleDatasetsError(
            f"cannot combine data sets of condition_type {' and '.join(tasks)}: give data sets of one condition_type, "
            f"e.g. the subfolder {tasks[0].lower()}"
        )

    parts = _in_order(datasets)
    shape = (max(part.num_qubits for part in parts), max(part.max_gates for part in parts))
    prompts = tuple(sorted({prompt for part in parts for prompt in part.prompts}))
    number = {prompt: index for index, prompt in enumerate(prompts)}
    renumbered = [np.array([number[p] for p in part.prompts], dtype=np.int32)[part.prompt_index] for part in parts]
    prompt_index, sizes = np.concatenate(renumbered), np.concatenate([part.sizes for part in parts])

    # Decide first which circuits are kept, so that the tokens need memory only once.
    threads = ThreadPoolExecutor(num_workers("local", -1))  # numpy leaves the interpreter to others
    token_keys = np.concatenate(list(threads.map(_token_keys, parts)))
    kept = _without_repetitions(token_keys, sizes, prompt_index)
    tokens = np.empty((len(kept), *shape), dtype=np.int8)
    task, targets = parts[0].task, None
    if all(part.targets is not None for part in parts):
        targets = np.zeros((len(kept), 2, 2 ** shape[0], task.columns(shape[0])), dtype=np.float32)
    pool, angles = parts[0].gate_pool, None
    if pool.num_angles:
        angles = np.zeros((len(kept), shape[1], pool.num_angles))
    starts = np.cumsum([0, *map(len, parts)])
    bounds = np.searchsorted(kept, starts)

    def write(part: CircuitDataset, start: int, first: int, last: int) -> None:
        if (part.num_qubits, part.max_gates) != shape:
            tokens[first:last] = part.gate_pool.padding_token
        place = tokens[first:last, : part.num_qubits, : part.max_gates]
        take_rows(part.tokens, kept[first:last] - start, place)
        if targets is not None and part.targets is not None:
            side, width = part.targets.shape[-2:]
            for copy in range(targets.shape[-1] // width):  # tensor product of the identity with a unitary
                rows, columns = slice(copy * side, (copy + 1) * side), slice(copy * width, (copy + 1) * width)
                take_rows(part.targets, kept[first:last] - start, targets[first:last, :, rows, columns])
        if angles is not None:
            take_rows(part.exact_angles, kept[first:last] - start, angles[first:last, : part.max_gates])

    with threads:
        list(threads.map(write, parts, starts, bounds, bounds[1:]))  # raises their errors
    return CircuitDataset(tokens, prompt_index[kept], prompts, sizes[kept], pool, task.name, targets, angles)


def _in_order(datasets: Sequence[CircuitDataset]) -> list[CircuitDataset]:
    """Sort data sets by shape; only those of equal shape need their fingerprints, which are slow to compute."""
    shapes = Counter((dataset.num_qubits, dataset.max_gates) for dataset in datasets)

    def rank(dataset: CircuitDataset) -> tuple[int, int, str]:
        shape = (dataset.num_qubits, dataset.max_gates)
        return (*shape, dataset.fingerprint if shapes[shape] > 1 else "")

    return sorted(datasets, key=rank)


def _token_keys(part: CircuitDataset) -> Keys:
    """Return a hash of the cells and angles of every circuit, uint64 [N]; padding and rounding do not matter."""
    padding = part.gate_pool.padding_token
    keys = np.concatenate([cell_keys(tokens * (tokens != padding)) for tokens in row_blocks(part.tokens)])
    if part.angles is None:
        return keys
    # The bytes of a time step's angles as cells: steps without angles add only zeros.
    of_angles = angle_steps(part.angles).view(np.int8).reshape(len(part), part.max_gates, -1).swapaxes(1, 2)
    return row_keys(np.column_stack([keys, cell_keys(of_angles)]))


def _without_repetitions(
    token_keys: Keys, sizes: NDArray[np.int16], prompt_index: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the first row of each circuit and prompt; repetitions would leak from training to validation."""
    keys = row_keys(np.column_stack([token_keys, row_keys(np.column_stack([sizes, prompt_index]))]))
    first = np.sort(np.unique(keys, return_index=True)[1])
    if len(first) < len(keys):
        logger.warning("dropped %d circuits that occur more than once in the data sets", len(keys) - len(first))
    return first


def balanced_rows(dataset: CircuitDataset, most: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted rows of at most `most` random circuits of each prompt."""
    order = numpy_generator(seed, "balance").permutation(len(dataset))
    return np.sort(order[rank_within_label(dataset.prompt_index[order]) < most])


def rank_within_label(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return for each entry the number of earlier entries with the same label, int64 [N].

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
