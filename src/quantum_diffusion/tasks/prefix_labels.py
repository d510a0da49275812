"""Labels of the beginnings of circuits, on the device: what the auxiliary head of a backbone learns to tell.

Only pipelines load this module: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.tasks.evolution import (
    StateEvolution,
    TableauEvolution,
    entangled_in_states,
    entangled_in_tableaus,
)


class StabilizerPrefixes:
    """Which qubits each beginning of a Clifford circuit entangles, by its tableau.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._tableaus = TableauEvolution(table)

    def __call__(self, ids: Tensor) -> Tensor:
        """Return for ids int64 [B, T] bool [B, T, Q]: whether qubit q is entangled after the first t + 1 time steps."""
        return entangled_in_tableaus(self._tableaus.after_each(ids)[:, 1:])


class StatePrefixes:
    """Which qubits each beginning of any circuit entangles, by the state it makes of |0...0>.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._states = StateEvolution(table, torch.complex128)

    def __call__(self, ids: Tensor) -> Tensor:
        """Return for ids int64 [B, T] bool [B, T, Q]; see `StabilizerPrefixes`."""
        asked_from = ids.device
        if ids.device.type == "mps":  # it has no float64
            ids = ids.cpu()
        return entangled_in_states(self._states.after_each(ids)[:, 1:]).to(asked_from)


def schmidt_rank_prefixes(table: InstructionTable) -> Callable[[Tensor], Tensor]:
    """Return what labels beginnings with the qubits that they entangle, in the way that is fastest for the gates."""
    return StabilizerPrefixes(table) if table.pool.is_clifford else StatePrefixes(table)


PREFIX_LABELS: dict[str, Callable[[InstructionTable], Callable[[Tensor], Tensor]]] = {"SRV": schmidt_rank_prefixes}
"""By the name of the task; others have no labels of beginnings."""
