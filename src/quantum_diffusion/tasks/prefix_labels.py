"""Labels of prefixes of circuits, computed on the device, for the auxiliary head of a backbone.

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
    """Labels each prefix of a Clifford circuit with the qubits it entangles, by its tableau.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._tableaus = TableauEvolution(table)

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids int64 [B, T] => bool [B, T, Q]: whether qubit q is entangled after the first t + 1 time steps."""
        return entangled_in_tableaus(self._tableaus.after_each(ids)[:, 1:])


class StatePrefixes:
    """Labels each prefix of any circuit with the qubits it entangles, by its state vector.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._states = StateEvolution(table, torch.complex128)

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids int64 [B, T] => bool [B, T, Q]; see `StabilizerPrefixes`."""
        device = ids.device
        if device.type == "mps":  # it has no float64
            ids = ids.cpu()
        return entangled_in_states(self._states.after_each(ids)[:, 1:]).to(device)


def schmidt_rank_prefixes(table: InstructionTable) -> Callable[[Tensor], Tensor]:
    """Return the fastest labelling of prefixes by the qubits they entangle for the table's gates."""
    return StabilizerPrefixes(table) if table.pool.is_clifford else StatePrefixes(table)


PREFIX_LABELS: dict[str, Callable[[InstructionTable], Callable[[Tensor], Tensor]]] = {"SRV": schmidt_rank_prefixes}
"""By the name of the task; other tasks have no labels of prefixes."""
