"""Labels of the beginnings of circuits, on the device: what the auxiliary head of a backbone learns to tell.

Only pipelines load this module: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.labels import MINOR_TOLERANCE, tableau_maps
from quantum_diffusion.circuits.simulate import unitaries

_BLOCK_BYTES = 2**26  # of unitaries, while their entries are looked for


class StabilizerPrefixes:
    """Which qubits each beginning of a Clifford circuit entangles, by its tableau: products of matrices of 0 and 1.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._num_qubits = table.num_qubits
        self._maps = torch.from_numpy(tableau_maps(table).astype(np.float32))  # [K + 1, 2Q, 2Q]

    def __call__(self, ids: Tensor) -> Tensor:
        """Return for ids int64 [B, T] bool [B, T, Q]: whether qubit q is entangled after the first t + 1 time steps."""
        if self._maps.device != ids.device:
            self._maps = self._maps.to(ids.device)
        # X and Z of each qubit (rows) in each of the generators (columns), which begin as Z of each qubit.
        tableau = torch.eye(2 * self._num_qubits, device=ids.device)[:, self._num_qubits :].expand(len(ids), -1, -1)
        entangled = []
        for step in range(ids.shape[1]):
            tableau = (self._maps[ids[:, step]] @ tableau).remainder(2)
            x, z = tableau.bool().chunk(2, dim=1)  # [B, Q, Q]
            entangled.append(x.any(dim=2) & z.any(dim=2) & (x != z).any(dim=2))
        return torch.stack(entangled, dim=1)


class StatePrefixes:
    """Which qubits each beginning of any circuit entangles, by the state it makes of |0...0>.

    A gate on one target has at most two entries in a row of its matrix: states are followed by these alone.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._num_qubits = table.num_qubits
        columns, values = _entries(table)
        self._columns, self._values = torch.from_numpy(columns), torch.from_numpy(values)  # [K + 1, D, S]

    def __call__(self, ids: Tensor) -> Tensor:
        """Return for ids int64 [B, T] bool [B, T, Q]; see `StabilizerPrefixes`."""
        asked_from = ids.device
        if ids.device.type == "mps":  # it has no float64
            ids = ids.cpu()
        if self._columns.device != ids.device:
            self._columns, self._values = self._columns.to(ids.device), self._values.to(ids.device)
        states = torch.zeros(len(ids), 2**self._num_qubits, dtype=torch.complex128, device=ids.device)
        states[:, 0] = 1
        entangled = []
        for step in range(ids.shape[1]):
            columns, values = self._columns[ids[:, step]], self._values[ids[:, step]]
            states = (values * states.gather(1, columns.flatten(1)).view_as(values)).sum(dim=2)
            entangled.append(self._entangled(states))
        return torch.stack(entangled, dim=1).to(asked_from)

    def _entangled(self, states: Tensor) -> Tensor:
        """States [B, D] => bool [B, Q], as `ranks_of_states`: the halves of an entangled qubit are not parallel."""
        found = []
        for qubit in range(self._num_qubits):
            zero, one = states.view(len(states), -1, 2, 2**qubit).unbind(dim=2)
            zero, one = zero.flatten(1), one.flatten(1)  # [B, D / 2]
            pivot = (zero.abs().square() + one.abs().square()).argmax(dim=1, keepdim=True)
            minors = zero.gather(1, pivot) * one - one.gather(1, pivot) * zero
            found.append((minors.abs() > MINOR_TOLERANCE).any(dim=1))
        return torch.stack(found, dim=1)


def _entries(table: InstructionTable) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
    """Return columns and values of the entries in each row of each instruction's matrix, [K + 1, D, S] both."""
    most = max(int((GATES[name].matrix() != 0).sum(axis=1).max()) for name in table.pool.names)
    block = max(1, _BLOCK_BYTES // (16 * 4**table.num_qubits))
    ids = np.arange(len(table) + 1, dtype=np.int16)[:, None]
    columns, values = [], []
    for first in range(0, len(ids), block):
        matrices = unitaries(ids[first : first + block], table)
        columns.append((matrices == 0).argsort(axis=2, kind="stable")[:, :, :most])
        values.append(np.take_along_axis(matrices, columns[-1], axis=2))
    return np.concatenate(columns), np.concatenate(values)


def schmidt_rank_prefixes(table: InstructionTable) -> Callable[[Tensor], Tensor]:
    """Return what labels beginnings with the qubits that they entangle, in the way that is fastest for the gates."""
    return StabilizerPrefixes(table) if table.pool.is_clifford else StatePrefixes(table)


PREFIX_LABELS: dict[str, Callable[[InstructionTable], Callable[[Tensor], Tensor]]] = {"SRV": schmidt_rank_prefixes}
"""By the name of the task; others have no labels of beginnings."""
