"""Labels of the beginnings of circuits, on the device: what the auxiliary head of a backbone learns to tell.

Only pipelines load this module: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.labels import prefix_rank_vectors, tableau_maps


class SchmidtRankPrefixes:
    """Which qubits each beginning of a circuit entangles.

    Clifford circuits are followed by their stabilizer tableau, a product of matrices over two elements; others are
    simulated by numpy, as data sets are.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._table = table
        self._maps: Tensor | None = None
        if table.pool.is_clifford:
            self._maps = torch.from_numpy(tableau_maps(table).astype(np.float32))  # [K + 1, 2Q, 2Q]

    def __call__(self, ids: Tensor) -> Tensor:
        """Return for ids int64 [B, T] bool [B, T, Q]: whether qubit q is entangled after the first t + 1 time steps."""
        if self._maps is None:
            ranks = prefix_rank_vectors(ids.cpu().numpy().astype(np.int16), self._table)
            return torch.from_numpy(ranks == 2).to(ids.device)
        if self._maps.device != ids.device:
            self._maps = self._maps.to(ids.device)
        num_qubits = self._table.num_qubits
        # X and Z of each qubit (rows) in each of the generators (columns), which begin as Z of each qubit.
        tableau = torch.eye(2 * num_qubits, device=ids.device)[:, num_qubits:].expand(len(ids), -1, -1)
        entangled = []
        for step in range(ids.shape[1]):
            tableau = (self._maps[ids[:, step]] @ tableau).remainder(2)
            x, z = tableau.bool().chunk(2, dim=1)  # [B, Q, Q]
            entangled.append(x.any(dim=2) & z.any(dim=2) & (x != z).any(dim=2))
        return torch.stack(entangled, dim=1)


PREFIX_LABELS: dict[str, Callable[[InstructionTable], Callable[[Tensor], Tensor]]] = {"SRV": SchmidtRankPrefixes}
"""By the name of the task; others have no labels of beginnings."""
