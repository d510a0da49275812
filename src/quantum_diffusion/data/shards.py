"""Shards of labelled candidate circuits: each a pure function of (configuration, shard number).

Nothing here knows of other shards, workers or files, so any worker on any machine makes the same shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, gate_count, instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.peephole import optimize
from quantum_diffusion.circuits.prompts import gates_prompt, srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.config.schema import DatasetConfig, Simplification
from quantum_diffusion.data.merging import row_keys
from quantum_diffusion.seeding import numpy_generator

Labels = NDArray[np.uint32]

_CANDIDATES = 2**14
_MOST_CANDIDATES = 2**18
"""Circuits with unitaries are drawn in one group a gate subset; many candidates keep these groups from being tiny."""
_AMPLITUDES = 2**24
"""Beyond 10 qubits, shards that are labelled by state vector have fewer candidates, so that each stays short."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Distinct labelled circuits in the order they were drawn.

    Attributes:
        ids: int16 [M, T], instruction ids of the whole gate pool.
        labels: uint32 [M]; bit q: qubit q is entangled (SRV), or bit k: gate k of the pool was allowed (UNITARY).
    """

    ids: Ids
    labels: Labels


def num_candidates(config: DatasetConfig) -> int:
    """Return how many random circuits a shard draws."""
    if config.condition_type == "UNITARY":
        return int(np.clip(2 ** (config.num_samples.bit_length() - 1), _CANDIDATES, _MOST_CANDIDATES))
    if generation_table(config).pool.is_clifford:
        return _CANDIDATES
    return min(_CANDIDATES, max(1, _AMPLITUDES >> config.num_qubits))


def generation_table(config: DatasetConfig) -> InstructionTable:
    """Return the instructions circuits are drawn from."""
    return instruction_table(GatePool(config.generation_gate_set or config.gate_set), config.num_qubits)


def check_draws(config: DatasetConfig) -> None:
    """Raise `GateSetError` when a gate does not fit the qubits, or the coupling leaves it no place."""
    random_ids(np.random.default_rng(0), generation_table(config), 0, 0, 1, coupling=config.coupling)


def make_shard(config: DatasetConfig, number: int) -> Shard:
    """Draw, simplify, de-duplicate and label one shard of candidates.

    Args:
        config: The data set's configuration.
        number: Which shard, from 0; with the seed it decides the result.
    """
    rng = numpy_generator(config.seed, "shard", number)
    count = num_candidates(config)
    if config.condition_type == "UNITARY":
        num_gates = len(config.generation_gate_set or config.gate_set)
        allowed = _random_subsets(rng, num_gates, rng.integers(1, num_gates + 1, count))
        ids, labels = _with_subsets(config, rng, allowed)
    else:
        table = generation_table(config)
        aim = None
        if config.sampling == "stratified":
            sizes = rng.choice(config.num_qubits + 1, count, p=_aims(config))
            aim = _random_subsets(rng, config.num_qubits, sizes)
        drawn = _draw(config, rng, table, count, aim)
        labels = ((schmidt_rank_vectors(drawn, table) == 2) @ _bits(config.num_qubits)).astype(np.uint32)
        ids = _in_pool(table, GatePool(config.gate_set))[drawn]
    long_enough = gate_count(ids) >= config.min_gates
    ids, labels = ids[long_enough], labels[long_enough]
    first = np.sort(np.unique(row_keys(ids), return_index=True)[1])
    return Shard(ids[first], labels[first])


def label_prompt(label: int, config: DatasetConfig) -> str:
    """Return the prompt of a label, as genQC writes it.

    Example:
        >>> label_prompt(0b110, DatasetConfig()), label_prompt(0b10, DatasetConfig(condition_type="UNITARY"))
        ('Generate SRV: [1, 2, 2]', "Compile using: ['cx']")
    """
    if config.condition_type == "UNITARY":
        gates = [name for k, name in enumerate(config.gate_set) if label >> k & 1]
        return gates_prompt(gates, GatePool(config.gate_set))
    return srv_prompt([1 + (label >> qubit & 1) for qubit in range(config.num_qubits)])


def _draw(
    config: DatasetConfig,
    rng: np.random.Generator,
    table: InstructionTable,
    count: int,
    entangle: NDArray[np.bool_] | None = None,
) -> Ids:
    """Draw and simplify; simplification stays within the gates circuits are drawn from."""
    ids = random_ids(rng, table, count, config.min_gates, config.max_gates, coupling=config.coupling, entangle=entangle)
    return SIMPLIFIERS[config.optimize](ids, table)


def _transpile(ids: Ids, table: InstructionTable) -> Ids:
    from quantum_diffusion.circuits.backends.qiskit import optimize as transpile

    return transpile(ids, table, level=3)


SIMPLIFIERS: dict[Simplification, Callable[[Ids, InstructionTable], Ids]] = {
    "none": lambda ids, table: ids,
    "rules": optimize,
    "qiskit": _transpile,
}


def _with_subsets(config: DatasetConfig, rng: np.random.Generator, allowed: NDArray[np.bool_]) -> tuple[Ids, Labels]:
    """Draw each circuit from its own subset of the generation gates; allowed is bool [N, gates]."""
    pool = GatePool(config.gate_set)
    names = np.array(config.generation_gate_set or config.gate_set)
    ids = np.zeros((len(allowed), config.max_gates), dtype=np.int16)
    labels = np.zeros(len(allowed), dtype=np.uint32)
    codes = allowed @ _bits(len(names))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        chosen = [name for name in pool.names if name in names[allowed[rows[0]]]]  # in pool order
        table = instruction_table(GatePool(chosen), config.num_qubits)
        ids[rows] = _in_pool(table, pool)[_draw(config, rng, table, len(rows))]
        labels[rows] = sum(1 << pool.names.index(name) for name in chosen)
    return ids, labels


def _random_subsets(rng: np.random.Generator, num_members: int, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Draw a subset of each size, all of one size alike, bool [N, members]."""
    places = rng.random((len(sizes), num_members)).argsort(axis=1).argsort(axis=1)
    return np.asarray(places < sizes[:, None])


@lru_cache(maxsize=8)
def _aims(config: DatasetConfig) -> NDArray[np.float64]:
    """Return how often gates should be kept to a set of k qubits, [Q+1], so that all labels come as often as possible.

    Circuits kept to k qubits often entangle fewer. A pilot tells how often; the weights then minimise the
    Kullback-Leibler divergence between the labels wanted (all alike) and those that come, by expectation maximisation
    over the mixture.
    """
    num_qubits = config.num_qubits
    if num_qubits == 1:
        return np.array([1.0, 0.0])
    rng = numpy_generator(config.seed, "pilot")
    table = generation_table(config)
    sizes = rng.integers(2, num_qubits + 1, num_candidates(config))
    ids = _draw(config, rng, table, len(sizes), _random_subsets(rng, num_qubits, sizes))
    kept = gate_count(ids) >= config.min_gates
    entangled = (schmidt_rank_vectors(ids, table) == 2).sum(axis=1)
    came = np.zeros((num_qubits + 1, num_qubits + 1))
    np.add.at(came, (sizes[kept], entangled[kept]), 1)
    came /= np.maximum(np.bincount(sizes, minlength=num_qubits + 1)[:, None], 1)  # [aimed at, entangled]
    wanted = np.array([math.comb(num_qubits, k) * (k != 1) for k in range(num_qubits + 1)], dtype=float)
    wanted *= came.sum(axis=0) > 0
    wanted /= max(wanted.sum(), 1)
    weights = np.zeros(num_qubits + 1)
    weights[2:] = 1 / (num_qubits - 1)
    for _ in range(200):
        expected = weights @ came
        weights *= came @ np.divide(wanted, expected, out=np.zeros_like(wanted), where=expected > 0)
        weights /= weights.sum() or 1
    if not weights.sum():  # no circuit of the pilot was long enough
        weights[num_qubits] = 1
    return weights


def _bits(count: int) -> NDArray[np.int64]:
    return 1 << np.arange(count)


@lru_cache(maxsize=4096)
def _in_pool(table: InstructionTable, pool: GatePool) -> Ids:
    """Number a table's instructions by the table of a larger pool; int16 [K+1]."""
    larger = instruction_table(pool, table.num_qubits)
    number = {instruction: i for i, instruction in enumerate(larger.instructions, start=1)}
    return np.array([0, *(number[instruction] for instruction in table.instructions)], dtype=np.int16)
