"""Draws random circuits in bulk from a given generator, for data generation and baselines.

As in genQC, a circuit's length, each gate of it, and the gate's qubits (among those the coupling allows) are uniformly
distributed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable
from quantum_diffusion.errors import GateSetError

_REDRAWS = 256
"""Attempts to place a gate so that it entangles only the given qubits; one pair among 20 qubits is hit once in 190."""


def random_ids(
    rng: np.random.Generator,
    table: InstructionTable,
    num_circuits: int,
    min_gates: int,
    max_gates: int,
    coupling: Sequence[tuple[int, int]] | None = None,
    entangle: NDArray[np.bool_] | None = None,
    gates: NDArray[np.bool_] | None = None,
) -> Ids:
    """Draw random circuits as instruction ids.

    Args:
        rng: Source of randomness.
        table: The instructions to draw from.
        num_circuits: N.
        min_gates: Minimum length, at least 0.
        max_gates: Maximum length, and T of the result.
        coupling: Undirected pairs of connected qubits; None means that all pairs are connected.
        entangle: bool [N, Q], the qubits that multi-qubit gates may act on; None means all. A gate too wide for them is
            replaced by a one-qubit gate; if there is none, its step stays empty.
        gates: bool [N, G], at least one gate of the pool that each circuit is drawn from; None means all.

    Returns:
        int16 [N, T]; steps after a circuit's length are 0.

    Raises:
        GateSetError: The coupling allows a gate on no qubits.
        ValueError: `min_gates` is negative or larger than `max_gates`.
    """
    if not 0 <= min_gates <= max_gates:
        raise ValueError(f"expected 0 <= min_gates <= max_gates, given {min_gates} and {max_gates}")
    allowed = table.allowed(coupling)
    choices = []
    for index, name in enumerate(table.pool.names):
        rows = np.flatnonzero((table.gate_index == index) & allowed)
        if not len(rows):
            edges = [list(edge) for edge in coupling or ()]
            raise GateSetError(
                f"the coupling {edges} does not allow gate {name!r} on any qubits: add edges or drop the gate"
            )
        choices.append(rows)

    counts = np.array([len(rows) for rows in choices])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    places = np.concatenate(choices)
    if gates is None:
        gate = rng.integers(0, len(choices), (num_circuits, max_gates), dtype=np.int16)
    else:
        place = (rng.random((num_circuits, max_gates)) * gates.sum(axis=1)[:, None]).astype(np.int64)
        listed = np.argsort(~gates, axis=1, kind="stable").astype(np.int16)  # the allowed gates first
        gate = np.take_along_axis(listed, place, axis=1)

    def draw_places(gate: NDArray[np.int16]) -> Ids:
        place = (rng.random(gate.shape, dtype=np.float32) * counts[gate]).astype(np.int64)
        ids: Ids = places[starts[gate] + np.minimum(place, counts[gate] - 1)].astype(np.int16)
        return ids

    ids = draw_places(gate)
    lengths = rng.integers(min_gates, max_gates + 1, num_circuits)
    ids[np.arange(max_gates)[None, :] >= lengths[:, None]] = NO_GATE
    if entangle is None:
        return ids

    bits = 1 << np.arange(table.num_qubits)
    joined = np.where(table.uses_qubit.sum(axis=1) > 1, table.uses_qubit @ bits, 0)  # qubits an instruction joins
    apart = ~(entangle @ bits)
    rows, steps = np.nonzero(joined[ids] & apart[:, None])
    gate_sizes = np.array([kind.num_qubits for kind in table.pool])
    narrow = np.flatnonzero(gate_sizes == 1)
    for turn in range(_REDRAWS):
        if not len(rows):
            return ids
        kinds = gate[rows, steps]
        if turn == 0 and len(narrow):  # replace gates too wide for the qubits by one-qubit gates
            too_wide = gate_sizes[kinds] > entangle[rows].sum(axis=1)
            kinds[too_wide] = rng.choice(narrow, int(too_wide.sum()))
            gate[rows, steps] = kinds
        ids[rows, steps] = draw_places(kinds)
        wrong = joined[ids[rows, steps]] & apart[rows] != 0
        rows, steps = rows[wrong], steps[wrong]
    ids[rows, steps] = NO_GATE
    return ids
