"""Cancels neighbouring inverse gates, which preserves the unitary exactly.

Gates count as neighbours if only gates on other qubits lie between them; one pass cancels all pairs. Data generation
and the normal form use it.
"""

from __future__ import annotations

import numpy as np

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable, compact


def cancel_inverse_neighbours(ids: Ids, table: InstructionTable) -> Ids:
    """Remove pairs of neighbouring inverse instructions until none is left.

    A gate cancels if the last remaining gate on *all* its qubits is the same instruction and is its inverse. The gates
    kept so far never contain such a pair, and removing a last gate does not create one (as for words of a right-angled
    group), so a single pass from left to right suffices.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.

    Returns:
        int16 [N, T], gates at the start of each circuit, zeros at the end.
    """
    num_circuits, num_steps = ids.shape
    num_qubits = table.num_qubits
    rows = np.arange(num_circuits)
    # Step of the last remaining gate on each qubit (-1: none), and its value before each step: a stack per qubit.
    last = np.full((num_circuits, num_qubits), -1, dtype=np.int16)
    before = np.empty((num_circuits, num_steps, num_qubits), dtype=np.int16)
    result = ids.copy()
    for step in range(num_steps):
        current = result[:, step]
        used = table.uses_qubit[current]  # [N, Q]
        highest = np.where(used, last, -1).max(axis=1)
        partner = np.maximum(highest, 0)
        # An inverse acts on the same qubits, so the last gate on one of them is the last on all of them.
        cancels = (highest >= 0) & (table.canonical[result[rows, partner]] == table.inverse[current])

        before[:, step] = last
        kept = used & ~cancels[:, None]
        last[kept] = step
        gone = np.flatnonzero(cancels)
        if len(gone):
            mates = partner[gone]
            last[gone] = np.where(used[gone], before[gone, mates], last[gone])
            result[gone, mates] = NO_GATE
            result[gone, step] = NO_GATE
    return compact(result)
