"""Random circuits in bulk, a pure function of the generator that is passed in.

As in genQC, a circuit's length is uniform, each gate is uniform over the pool, and its qubits are uniform over
the choices the coupling allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable
from quantum_diffusion.errors import GateSetError


def random_ids(
    rng: np.random.Generator,
    table: InstructionTable,
    num_circuits: int,
    min_gates: int,
    max_gates: int,
    coupling: Sequence[tuple[int, int]] | None = None,
    generation_gates: Sequence[str] | None = None,
) -> Ids:
    """Draw random circuits as instruction ids.

    Args:
        rng: Source of randomness.
        table: The instructions to number by.
        num_circuits: N.
        min_gates: Smallest length, from 0.
        max_gates: Largest length, and T of the result.
        coupling: Undirected pairs of connected qubits; None means every pair.
        generation_gates: Gates to draw from; None means the whole pool.

    Returns:
        int16 [N, T]; steps after a circuit's length are 0.

    Raises:
        GateSetError: A gate has no place under the coupling, or is not in the pool.
        ValueError: `min_gates` is negative or larger than `max_gates`.
    """
    if not 0 <= min_gates <= max_gates:
        raise ValueError(f"expected 0 <= min_gates <= max_gates, given {min_gates} and {max_gates}")
    names = table.pool.names if generation_gates is None else GatePool(generation_gates).names
    allowed = table.allowed(coupling)
    choices = []
    for name in names:
        if name not in table.pool.names:
            raise GateSetError(f"gate {name!r} is not in the gate pool {list(table.pool.names)}: add it there")
        rows = np.flatnonzero((table.gate_index == table.pool.names.index(name)) & allowed)
        if not len(rows):
            edges = [list(edge) for edge in coupling or ()]
            raise GateSetError(f"gate {name!r} has no place under the coupling {edges}: add edges or drop the gate")
        choices.append(rows)

    counts = np.array([len(rows) for rows in choices])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    shape = (num_circuits, max_gates)
    gate = rng.integers(0, len(choices), shape, dtype=np.int16)
    place = (rng.random(shape, dtype=np.float32) * counts[gate]).astype(np.int64)
    ids: Ids = np.concatenate(choices)[starts[gate] + np.minimum(place, counts[gate] - 1)].astype(np.int16)
    lengths = rng.integers(min_gates, max_gates + 1, num_circuits)
    ids[np.arange(max_gates)[None, :] >= lengths[:, None]] = NO_GATE
    return ids
