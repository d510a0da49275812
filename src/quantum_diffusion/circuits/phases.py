"""Simplification up to a global phase: removes gates that together only change the phase.

Searches apply it to their results. The other rules preserve the phase, so they leave e.g. x z x z, which is -1.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable, compact, gate_count
from quantum_diffusion.circuits.simulate import random_images

_MOST_SUBSETS = 20_000
"""Maximum subsets of gates tried: pairs of 200 gates, triples of 50."""

_OVERLAP_TOLERANCE = 1e-9
"""Rounding in float64 is about 1e-15."""


def drop_phases(ids: Ids, table: InstructionTable) -> Ids:
    """Drop pairs and triples of gates whose removal changes only the global phase of a circuit.

    For example, x z x becomes z. The other rules may apply again to the result.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.

    Returns:
        int16 [N, T], gates at the start of each circuit, zeros at the end.
    """
    result = compact(ids)
    for row, count in enumerate(gate_count(result).tolist()):
        while (shorter := _without_phase(result[row, :count], table)) is not None:
            result[row] = NO_GATE
            result[row, : len(shorter)] = shorter
            count = len(shorter)
    return result


def _without_phase(steps: NDArray[np.int16], table: InstructionTable) -> NDArray[np.int16] | None:
    """Return the gates [n] of a circuit without the first pair or triple that can be dropped; None if there is none."""
    for size in (2, 3):
        if not 0 < math.comb(len(steps), size) <= _MOST_SUBSETS:
            continue
        subsets = np.array(list(itertools.combinations(range(len(steps)), size)))
        circuits = np.tile(steps, (len(subsets) + 1, 1))  # the last one stays complete
        circuits[np.arange(len(subsets))[:, None], subsets] = NO_GATE
        states = random_images(circuits, table)
        overlaps = np.abs(states[:-1] @ states[-1].conj())
        same = np.flatnonzero(overlaps > 1 - _OVERLAP_TOLERANCE)
        if len(same):
            return np.delete(steps, subsets[same[0]])
    return None
