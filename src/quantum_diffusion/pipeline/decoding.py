"""Cell tokens of a batch as instruction ids, numbered by the pipeline's qubits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.instructions import Ids, InstructionTable
from quantum_diffusion.circuits.tokenizer import decode_tokens


def decode_batch(tokens: Tensor, table: InstructionTable) -> Ids:
    """Decode training circuits, integers [B, q, T] => int16 [B, T]."""
    return decode_tokens(widen(tokens.cpu().numpy(), table), table.pool).ids


def widen(tokens: NDArray[np.integer], table: InstructionTable) -> NDArray[np.integer]:
    """Pad the qubits of tokens [B, q, T] to those by which instructions are numbered."""
    missing = ((0, 0), (0, table.num_qubits - tokens.shape[1]), (0, 0))
    return np.pad(tokens, missing, constant_values=table.pool.padding_token)
