"""A normal form for circuits, the same for all orders of gates that act on different qubits.

Evaluation counts distinct and novel circuits in this form, so that a reordering or a cancelling pair does not count as
another circuit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable
from quantum_diffusion.circuits.simplify import cancel_inverse_neighbours


def normal_form(ids: Ids, table: InstructionTable) -> Ids:
    """Simplify circuits and order their gates by layer, then by instruction.

    Each gate moves to the earliest layer its qubits allow. Two circuits have the same normal form exactly if reordering
    gates on different qubits, cancelling inverse neighbours and permuting the qubits of symmetric gates turn one into
    the other.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.

    Returns:
        int16 [N, T], gates first, then zeros.

    Reference:
        Cartier and Foata, Lecture Notes in Mathematics 85 (1969): the normal form of partially commuting words.
    """
    ids = table.canonical[cancel_inverse_neighbours(ids, table)]
    result: Ids = np.take_along_axis(ids, layer_order(ids, table), axis=1)
    return result


def layer_order(ids: Ids, table: InstructionTable) -> NDArray[np.int64]:
    """Return the order of the steps of circuits by layer, then by instruction; steps without a gate are last.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.

    Returns:
        int64 [N, T].
    """
    num_circuits, num_steps = ids.shape
    depth = np.zeros((num_circuits, table.num_qubits), dtype=np.int64)  # layers used on each qubit
    order = np.full((num_circuits, num_steps), np.iinfo(np.int64).max)  # sorts by layer, then instruction
    for step in range(num_steps):
        used = table.uses_qubit[ids[:, step]]
        layer = np.where(used, depth, 0).max(axis=1) + 1
        depth = np.where(used, layer[:, None], depth)
        order[:, step] = np.where(ids[:, step] == NO_GATE, order[:, step], layer * (len(table) + 1) + ids[:, step])
    return np.argsort(order, axis=1, kind="stable")
