"""What is left to do, on the device: a masked process knows which steps are revealed, and circuits can be simulated.

Each step still to be written is shown what the known ones have done (ADR 7). Only pipelines load this module: it needs
torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quantum_diffusion.circuits.instructions import InstructionTable
from quantum_diffusion.circuits.simulate import unitaries


class LeftToDo(ABC):
    """What is left to do for the targets of a task.

    Args:
        table: The model's instructions.
    """

    def __init__(self, table: InstructionTable) -> None:
        self._table = table
        self._gates: Tensor | None = None

    def at_start(self, targets: Tensor) -> Tensor:
        """Return what is left while no step is known: [B, 2, D, R] => [B, 2, D, C]."""
        return targets

    @abstractmethod
    def for_steps(self, targets: Tensor, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what each step would have to do if the gates known before it were taken off the target.

        Step i knows the steps of smaller rank; of those, the unbroken beginning and the unbroken end count.

        Args:
            targets: float32 [B, 2, D, R].
            ids: int64 [B, T], instructions; those of steps that are not revealed are never looked at.
            rank: int64 [B, T], when each step is revealed; T for steps that are not.

        Returns:
            float32 [B, T, 2, D, C].
        """

    def _gates_on(self, device: torch.device) -> Tensor:
        """complex64 [K + 1, D, D], the unitary of each instruction; made when needed: of 10 qubits it has gigabytes."""
        if self._gates is None:
            one_gate = np.arange(len(self._table) + 1, dtype=np.int16)[:, None]
            self._gates = torch.from_numpy(unitaries(one_gate, self._table).astype(np.complex64))
        if self._gates.device != device:
            self._gates = self._gates.to(device)
        return self._gates


class UnitariesLeft(LeftToDo):
    """Of a unitary U: W^dagger U V^dagger, where V is the known beginning and W the known end."""

    def for_steps(self, targets: Tensor, ids: Tensor, rank: Tensor) -> Tensor:
        """Return W^dagger U V^dagger of each step, float32 [B, T, 2, D, D]; see `LeftToDo.for_steps`."""
        adjoints = self._gates_on(ids.device)[ids].mH  # [B, T, D, D]
        begun = torch.complex(targets[:, 0], targets[:, 1])
        ended = torch.eye(begun.shape[-1], dtype=begun.dtype, device=begun.device).expand_as(begun)
        beginnings, ends = [begun], [ended]
        for step in range(ids.shape[1] - 1):
            beginnings.append(beginnings[-1] @ adjoints[:, step])
            ends.append(adjoints[:, -1 - step] @ ends[-1])
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        from_start, from_end = known_lengths(rank)
        left = torch.stack(ends, dim=1)[rows, from_end] @ torch.stack(beginnings, dim=1)[rows, from_start]
        return torch.view_as_real(left).movedim(-1, 2)


class StatesLeft(LeftToDo):
    """Of a state psi: the state V|0> that the known beginning V makes, and W^dagger psi, where W is the known end.

    A circuit is finished when the gates between take the first, column 0, to the second, column 1.
    """

    def at_start(self, targets: Tensor) -> Tensor:
        """Return |0> beside the targets: [B, 2, D, 1] => [B, 2, D, 2]."""
        return torch.cat([_zero_states(targets), targets], dim=3)

    def for_steps(self, targets: Tensor, ids: Tensor, rank: Tensor) -> Tensor:
        """Return both states of each step, float32 [B, T, 2, D, 2]; see `LeftToDo.for_steps`."""
        gates = self._gates_on(ids.device)[ids]  # [B, T, D, D]
        beginnings, ends = ([torch.complex(x[:, 0], x[:, 1])] for x in (_zero_states(targets), targets))
        for step in range(ids.shape[1] - 1):
            beginnings.append(gates[:, step] @ beginnings[-1])
            ends.append(gates[:, -1 - step].mH @ ends[-1])
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        from_start, from_end = known_lengths(rank)
        made, wanted = torch.stack(beginnings, dim=1)[rows, from_start], torch.stack(ends, dim=1)[rows, from_end]
        return torch.view_as_real(torch.cat([made, wanted], dim=3)).movedim(-1, 2)


def _zero_states(targets: Tensor) -> Tensor:
    """Return |0> in two channels, as many as there are targets: [B, 2, D, 1]."""
    zeros = torch.zeros_like(targets)
    zeros[:, 0, 0] = 1
    return zeros


def known_lengths(rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many steps from the start, and how many from the end, each step knows: int64 [B, T] both."""
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]: row i may look at column j
    from_start, from_end = (known.cumprod(dim=2).sum(dim=2) for known in (earlier, earlier.flip(2)))
    return from_start, from_end


LEFT_TO_DO: dict[str, Callable[[InstructionTable], LeftToDo]] = {"UNITARY": UnitariesLeft, "STATE": StatesLeft}
"""By the name of the task; a task without has no step shown anything."""
