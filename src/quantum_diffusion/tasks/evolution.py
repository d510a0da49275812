"""Evolves |0...0> gate by gate on the device: as state vectors for any gates, as tableaus for Clifford gates.

`left_to_do` and `prefix_labels` use it. Only pipelines load this module: it needs torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.labels import MINOR_TOLERANCE, tableau_maps
from quantum_diffusion.circuits.simulate import unitaries

_BLOCK_BYTES = 2**26  # of unitaries, while their nonzero entries are extracted


class Evolution(ABC):
    """A way to represent and evolve |0...0>.

    Args:
        table: The instructions the ids number.
    """

    def __init__(self, table: InstructionTable) -> None:
        self.num_qubits = table.num_qubits

    @abstractmethod
    def start(self, count: int, device: torch.device) -> Tensor:
        """Return the representation of |0...0>, [count, ...]."""

    @abstractmethod
    def apply(self, descriptions: Tensor, ids: Tensor) -> Tensor:
        """Apply one more instruction, int64 [B], to each of the descriptions [B, ...]."""

    def after_each(self, ids: Tensor) -> Tensor:
        """Return the descriptions after 0, 1, ..., T steps of circuits int64 [B, T]: [B, T + 1, ...]."""
        made = [self.start(len(ids), ids.device)]
        for step in range(ids.shape[1]):
            made.append(self.apply(made[-1], ids[:, step]))
        return torch.stack(made, dim=1)


class TableauEvolution(Evolution):
    """Stabilizer tableaus [B, 2Q, Q] of 0 and 1: X and Z of each qubit (rows) in each generator (columns)."""

    def __init__(self, table: InstructionTable) -> None:
        super().__init__(table)
        self._maps = torch.from_numpy(tableau_maps(table).astype(np.float32))  # [K + 1, 2Q, 2Q]

    def start(self, count: int, device: torch.device) -> Tensor:
        """Return the tableau of |0...0>, whose generators are Z of each qubit."""
        return torch.eye(2 * self.num_qubits, device=device)[:, self.num_qubits :].expand(count, -1, -1)

    def apply(self, descriptions: Tensor, ids: Tensor) -> Tensor:
        """Multiply by the matrix of each instruction, modulo 2; see `Evolution.apply`."""
        if self._maps.device != ids.device:
            self._maps = self._maps.to(ids.device)
        return (self._maps[ids] @ descriptions).remainder(2)


class StateEvolution(Evolution):
    """States, complex [B, D].

    Only the nonzero entries of gate matrices are used; a gate with one target has at most two per row.

    Args:
        table: The instructions the ids number.
        dtype: complex128 or complex64.
    """

    def __init__(self, table: InstructionTable, dtype: torch.dtype) -> None:
        super().__init__(table)
        self._dtype = dtype
        columns, values = _entries(table)
        self._columns, self._values = torch.from_numpy(columns), torch.from_numpy(values).to(dtype)  # [K + 1, D, S]

    def start(self, count: int, device: torch.device) -> Tensor:
        """Return |0...0>."""
        states = torch.zeros(count, 2**self.num_qubits, dtype=self._dtype, device=device)
        states[:, 0] = 1
        return states

    def apply(self, descriptions: Tensor, ids: Tensor) -> Tensor:
        """Apply instructions to states; see `Evolution.apply`."""
        if self._columns.device != ids.device:
            self._columns, self._values = self._columns.to(ids.device), self._values.to(ids.device)
        columns, values = self._columns[ids], self._values[ids]
        return (values * descriptions.gather(1, columns.flatten(1)).view_as(values)).sum(dim=2)


def entangled_in_tableaus(tableaus: Tensor) -> Tensor:
    """Tell which qubits are entangled in stabilizer states: tableaus [..., 2Q, Q] => bool [..., Q]."""
    x, z = tableaus.bool().chunk(2, dim=-2)
    return x.any(dim=-1) & z.any(dim=-1) & (x != z).any(dim=-1)


def entangled_in_states(states: Tensor) -> Tensor:
    """Tell which qubits are entangled; the same test as `ranks_of_states`.

    Args:
        states: Complex [..., D], normalized.

    Returns:
        bool [..., Q].
    """
    found = []
    for qubit in range(states.shape[-1].bit_length() - 1):
        halves = states.unflatten(-1, (-1, 2, 2**qubit))
        zero, one = halves[..., 0, :].flatten(-2), halves[..., 1, :].flatten(-2)  # [..., D / 2]
        pivot = (zero.abs().square() + one.abs().square()).argmax(dim=-1, keepdim=True)
        minors = zero.gather(-1, pivot) * one - one.gather(-1, pivot) * zero
        found.append((minors.abs() > MINOR_TOLERANCE).any(dim=-1))
    return torch.stack(found, dim=-1)


def _entries(table: InstructionTable) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
    """Return columns and values of the nonzero entries of each row of each instruction's matrix, both [K + 1, D, S]."""
    most = max(int((GATES[name].example() != 0).sum(axis=1).max()) for name in table.pool.names)
    block = max(1, _BLOCK_BYTES // (16 * 4**table.num_qubits))
    ids = np.arange(len(table) + 1, dtype=np.int16)[:, None]
    columns, values = [], []
    for first in range(0, len(ids), block):
        matrices = unitaries(ids[first : first + block], table)
        columns.append((matrices == 0).argsort(axis=2, kind="stable")[:, :, :most])
        values.append(np.take_along_axis(matrices, columns[-1], axis=2))
    return np.concatenate(columns), np.concatenate(values)
