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

from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable
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

    @abstractmethod
    def remainder(self, targets: Tensor) -> Remainder:
        """Return what is left of targets, float32 [B, 2, D, R], while circuits are written."""

    def _gates_on(self, device: torch.device) -> Tensor:
        """complex64 [K + 1, D, D], the unitary of each instruction; made when needed: of 10 qubits it has gigabytes."""
        if self._gates is None:
            one_gate = np.arange(len(self._table) + 1, dtype=np.int16)[:, None]
            self._gates = torch.from_numpy(unitaries(one_gate, self._table).astype(np.complex64))
        if self._gates.device != device:
            self._gates = self._gates.to(device)
        return self._gates


class Remainder(ABC):
    """What is left to do for circuits that are being written: brought up to date by the gates that are new.

    Args:
        gates: complex64 [K + 1, D, D], the unitary of each instruction.
        count: B, circuits.
    """

    def __init__(self, gates: Tensor, count: int) -> None:
        self._gates = gates
        self._begun = torch.zeros(count, 1, dtype=torch.int64, device=gates.device)
        self._ended = torch.zeros_like(self._begun)

    def update(self, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what every step that is not revealed would have to do; see `LeftToDo.for_steps`.

        Args:
            ids: int64 [B, T].
            rank: int64 [B, T], T for steps that are not revealed; those that are stay so from call to call.

        Returns:
            float32 [B, 2, D, C].
        """
        last = ids.shape[1] - 1
        revealed = rank <= last
        begun, ended = (known.cumprod(dim=1).sum(dim=1, keepdim=True) for known in (revealed, revealed.flip(1)))
        for _ in range(int((begun - self._begun).max())):
            self._begin(self._gates[_ids_at(ids, self._begun, self._begun < begun)])
            self._begun += self._begun < begun
        for _ in range(int((ended - self._ended).max())):
            self._end(self._gates[_ids_at(ids, last - self._ended, self._ended < ended)])
            self._ended += self._ended < ended
        return torch.view_as_real(self._left()).movedim(-1, 1)

    @abstractmethod
    def _begin(self, gates: Tensor) -> None:
        """Take gates complex64 [B, D, D] into the known beginnings."""

    @abstractmethod
    def _end(self, gates: Tensor) -> None:
        """Take gates complex64 [B, D, D] into the known ends."""

    @abstractmethod
    def _left(self) -> Tensor:
        """Return what is left, complex64 [B, D, C]."""


def _ids_at(ids: Tensor, steps: Tensor, are_new: Tensor) -> Tensor:
    """Return the instruction of one step a circuit, "no gate" where it is not new: [B]."""
    found = ids.gather(1, steps.clamp(0, ids.shape[1] - 1))
    return torch.where(are_new, found, NO_GATE)[:, 0]


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

    def remainder(self, targets: Tensor) -> Remainder:
        """Return what is left of unitaries while circuits are written; see `LeftToDo.remainder`."""
        return _UnitaryRemainder(self._gates_on(targets.device), targets)


class _UnitaryRemainder(Remainder):
    def __init__(self, gates: Tensor, targets: Tensor) -> None:
        super().__init__(gates, len(targets))
        self._remaining = torch.complex(targets[:, 0], targets[:, 1])

    def _begin(self, gates: Tensor) -> None:
        self._remaining = self._remaining @ gates.mH

    def _end(self, gates: Tensor) -> None:
        self._remaining = gates.mH @ self._remaining

    def _left(self) -> Tensor:
        return self._remaining


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

    def remainder(self, targets: Tensor) -> Remainder:
        """Return what is left of states while circuits are written; see `LeftToDo.remainder`."""
        return _StateRemainder(self._gates_on(targets.device), targets)


class _StateRemainder(Remainder):
    def __init__(self, gates: Tensor, targets: Tensor) -> None:
        super().__init__(gates, len(targets))
        self._made, self._wanted = (torch.complex(x[:, 0], x[:, 1]) for x in (_zero_states(targets), targets))

    def _begin(self, gates: Tensor) -> None:
        self._made = gates @ self._made

    def _end(self, gates: Tensor) -> None:
        self._wanted = gates.mH @ self._wanted

    def _left(self) -> Tensor:
        return torch.cat([self._made, self._wanted], dim=2)


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
