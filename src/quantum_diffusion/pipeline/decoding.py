"""Decodes cell tokens to instruction ids, numbered by the pipeline's qubits, in numpy and on the device."""

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
        # A hash of each column, modulo 2**64; the columns are compared too, so that garbage never decodes to a gate.
        self._keys, self._order = (columns * self._multipliers).sum(dim=1).sort()
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
