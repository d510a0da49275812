"""Draws and simplifies random circuits as candidates for a data set, as ids over the whole gate pool.

Tasks label them; this module does not depend on the task.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Angles,
    Ids,
    InstructionTable,
    in_pool,
    instruction_table,
)
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.peephole_subsets import optimize_subsets
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.config.schema import AngleKind, DatasetConfig, Simplification

CANDIDATES = 2**14
"""Default number of circuits per shard."""


def generation_table(config: DatasetConfig) -> InstructionTable:
    """Return the table of instructions that circuits are drawn from."""
    return instruction_table(GatePool(config.generation_gate_set or config.gate_set), config.num_qubits)


def check_draws(config: DatasetConfig) -> None:
    """Raise `GateSetError` if a gate does not fit the qubits or the coupling."""
    random_ids(np.random.default_rng(0), generation_table(config), 0, 0, 1, coupling=config.coupling)


def draw_circuits(
    config: DatasetConfig,
    rng: np.random.Generator,
    table: InstructionTable,
    count: int,
    entangle: NDArray[np.bool_] | None = None,
) -> Ids:
    """Draw circuits and simplify them, using only the gates they are drawn from.

    Args:
        config: Lengths, coupling and optimizer.
        rng: Source of randomness.
        table: Instructions to draw from.
        count: N.
        entangle: bool [N, Q], qubits that gates may entangle; None allows all.

    Returns:
        int16 [N, T].
    """
    ids = random_ids(rng, table, count, config.min_gates, config.max_gates, coupling=config.coupling, entangle=entangle)
    return SIMPLIFIERS[config.optimize](ids, table)


def draw_with_subsets(config: DatasetConfig, rng: np.random.Generator, count: int) -> tuple[Ids, NDArray[np.uint32]]:
    """Draw each circuit from a random subset of the generation gates; all subset sizes are equally likely.

    Returns:
        ids int16 [count, T] over the whole `gate_set`; and uint32 [count], in which bit k allows gate k of the pool.
    """
    pool = GatePool(config.gate_set)
    names = np.array(config.generation_gate_set or config.gate_set)
    allowed = random_subsets(rng, len(names), rng.integers(1, len(names) + 1, count))
    ids = np.zeros((count, config.max_gates), dtype=np.int16)
    labels = np.zeros(count, dtype=np.uint32)
    codes = allowed @ bits(len(names))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        chosen = [name for name in pool.names if name in names[allowed[rows[0]]]]  # in pool order
        table = instruction_table(GatePool(chosen), config.num_qubits)
        drawn = random_ids(rng, table, len(rows), config.min_gates, config.max_gates, coupling=config.coupling)
        if config.optimize != "rules":
            drawn = SIMPLIFIERS[config.optimize](drawn, table)
        ids[rows] = in_pool(table, pool)[drawn]
        labels[rows] = sum(1 << pool.names.index(name) for name in chosen)
    if config.optimize == "rules":  # for all subsets together, which is twice as fast
        ids = optimize_subsets(ids, labels, instruction_table(pool, config.num_qubits))
    return ids, labels


def draw_with_angles(
    config: DatasetConfig, rng: np.random.Generator, count: int
) -> tuple[Ids, NDArray[np.uint32], Angles]:
    """Draw each circuit from a random subset of the generation gates, with angles of one of the given kinds.

    Returns:
        ids int16 [count, T] and labels uint32 [count] as of `draw_with_subsets`, and angles float64 [count, T, A].
    """
    pool = GatePool(config.gate_set)
    table = instruction_table(pool, config.num_qubits)
    drawable = np.isin(pool.names, config.generation_gate_set or config.gate_set)
    allowed = np.zeros((count, len(pool)), dtype=np.bool_)
    most = int(drawable.sum())
    allowed[:, drawable] = random_subsets(rng, most, rng.integers(1, most + 1, count))
    ids = random_ids(rng, table, count, config.min_gates, config.max_gates, coupling=config.coupling, gates=allowed)
    kinds = rng.integers(0, len(config.angles), count)
    angles = np.empty((*ids.shape, pool.num_angles))
    for number, kind in enumerate(config.angles):
        rows = kinds == number
        ids[rows], angles[rows] = DRAW_ANGLES[kind](rng, ids[rows], table)
    angles = np.where(np.arange(pool.num_angles) < table.num_angles[ids][..., None], angles, 0.0)
    if config.optimize == "none":
        angles = table.in_period(ids, angles)
    else:
        ids, angles = merge_rotations(ids, angles, table)
    return table.on_grid(ids, angles), (allowed @ bits(len(pool))).astype(np.uint32), angles


def _uniform(rng: np.random.Generator, ids: Ids, table: InstructionTable) -> tuple[Ids, Angles]:
    """Draw each angle from the whole period."""
    return ids, table.random_angles(ids, rng)


def _eighths(rng: np.random.Generator, ids: Ids, table: InstructionTable) -> tuple[Ids, Angles]:
    """Draw each angle from the multiples of pi / 4."""
    return ids, rng.integers(0, 8, (*ids.shape, table.pool.num_angles)) * np.float64(np.pi / 4)


def _small(rng: np.random.Generator, ids: Ids, table: InstructionTable) -> tuple[Ids, Angles]:
    """Draw each angle near zero, with a standard deviation of 0.3 radians."""
    return ids, 0.3 * rng.standard_normal((*ids.shape, table.pool.num_angles))


def _repeated(rng: np.random.Generator, ids: Ids, table: InstructionTable) -> tuple[Ids, Angles]:
    """Repeat the first two to four gates of each circuit, angles included, as a Trotter formula does."""
    ids, angles = _uniform(rng, ids, table)
    length = rng.integers(2, 5, len(ids))[:, None]
    source = np.arange(ids.shape[1]) % length
    repeated = np.where(ids == NO_GATE, NO_GATE, np.take_along_axis(ids, source, axis=1)).astype(np.int16)
    return repeated, np.take_along_axis(angles, source[..., None], axis=1)


DRAW_ANGLES: dict[AngleKind, Callable[..., tuple[Ids, Angles]]] = {
    "uniform": _uniform,
    "eighths": _eighths,
    "small": _small,
    "repeated": _repeated,
}
"""How the angles of a circuit are drawn, by the values of `datasets.angles`."""


def random_subsets(rng: np.random.Generator, num_members: int, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Draw a uniformly random subset of each given size, bool [N, members]."""
    places = rng.random((len(sizes), num_members)).argsort(axis=1).argsort(axis=1)
    return np.asarray(places < sizes[:, None])


def bits(count: int) -> NDArray[np.int64]:
    """Return 1, 2, 4, ..., the weights that pack `count` booleans into an integer."""
    return 1 << np.arange(count)


def _transpile(ids: Ids, table: InstructionTable) -> Ids:
    from quantum_diffusion.circuits.backends.qiskit import optimize as transpile

    return transpile(ids, table)


SIMPLIFIERS: dict[Simplification, Callable[[Ids, InstructionTable], Ids]] = {
    "none": lambda ids, table: ids,
    "rules": optimize,
    "qiskit": _transpile,
}
