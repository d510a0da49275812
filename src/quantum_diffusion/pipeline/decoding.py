"""Decodes cell tokens to instruction ids, numbered by the pipeline's qubits, in numpy and on the device.

Tokens say nothing of angles: ids decode with all angles 0, and `AngleGrid` finds those of given angles.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable


def widen(tokens: NDArray[np.integer], table: InstructionTable) -> NDArray[np.integer]:
    """Pad tokens [B, q, T] to the number of qubits of an instruction table."""
    missing = ((0, 0), (0, table.num_qubits - tokens.shape[1]), (0, 0))
    return np.pad(tokens, missing, constant_values=table.pool.padding_token)


class DeviceDecoder:
    """`decode_tokens` on the device, so that a training step never waits for numpy.

    Args:
        table: The instructions to number by.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._padding = table.pool.padding_token
        generator = torch.Generator().manual_seed(0)
        self._multipliers = torch.randint(1, 2**62, (table.num_qubits,), generator=generator) * 2 + 1
        columns = torch.from_numpy(table.columns.astype(np.int64))  # [K + 1, Q]
        first = torch.from_numpy(np.unique(table.first).astype(np.int64))
        # A hash of each column, modulo 2**64; the columns are compared too, so that garbage never decodes to a gate.
        self._keys, order = (columns[first] * self._multipliers).sum(dim=1).sort()
        self._order = first[order]
        assert len(self._keys.unique()) == len(self._keys), "two instructions of one hash"
        self._columns = columns

    def __call__(self, tokens: Tensor) -> Tensor:
        """Decode integers [B, q, T], with q at most the table's qubits, to int64 ids [B, T]; other columns give 0."""
        self._move(tokens.device)
        missing = len(self._multipliers) - tokens.shape[1]
        tokens = F.pad(tokens.long(), (0, 0, 0, missing), value=self._padding)
        cells = tokens.abs() == self._padding
        missing_qubit = cells.all(dim=2, keepdim=True)  # [B, Q, 1]
        after_end = cells.all(dim=1).flip(1).long().cumprod(dim=1).flip(1).bool()  # [B, T]
        columns = tokens.masked_fill(missing_qubit | after_end[:, None], 0).transpose(1, 2)  # [B, T, Q]
        keys = (columns * self._multipliers).sum(dim=2)
        place = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        ids = self._order[place]
        return ids.where((self._columns[ids] == columns).all(dim=2), NO_GATE)

    def _move(self, device: torch.device) -> None:
        if self._keys.device != device:
            for name in ("_multipliers", "_keys", "_order", "_columns"):
                setattr(self, name, getattr(self, name).to(device))


class AngleGrid:
    """Rounds exact angles to the grid on which a model writes angles, on the device.

    An angle becomes one of its two neighbours at random, the nearer one more often, so that it is right on average.
    What steps are shown is then off by as much in training as in sampling, where the prefix is on the grid, too.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._first = torch.from_numpy(table.first.astype(np.int64))
        self._step = torch.from_numpy(table.step.astype(np.float32))
        self._num_steps = torch.from_numpy(table.num_steps)
        self._strides = torch.from_numpy(table.strides)

    def __call__(self, ids: Tensor, angles: Tensor, uniform: Tensor) -> Tensor:
        """Return ids int64 [B, T] of the same gates on the grid.

        Args:
            ids: int64 [B, T], of any angles.
            angles: float32 [B, T, A].
            uniform: float32 [B, T * A] in [0, 1), the source of randomness.
        """
        if self._first.device != ids.device:
            for name, value in vars(self).items():
                setattr(self, name, value.to(ids.device))
        place = angles / self._step[ids][..., None] + uniform.view(angles.shape)
        numbers = place.floor().long() % self._num_steps[ids][..., None]
        return self._first[ids] + (numbers * self._strides[ids]).sum(dim=-1)
