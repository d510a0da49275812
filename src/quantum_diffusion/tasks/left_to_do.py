"""What is left to do, on the device: a masked process knows which steps are revealed, and circuits can be simulated.

Each step still to be written is shown what the known ones have done (ADR 7). Only pipelines load this module: it needs
torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.tasks.evolution import Evolution, StateEvolution, TableauEvolution


class LeftToDo(ABC):
    """What is left to do, of the form that the encoder of a task's steps takes: float32 [..., A, B, C].

    Args:
        table: The model's instructions.

    Attributes:
        has_two_ends: Whether what is left can be looked at from its end, too; see `Remainder.from_end`.
    """

    has_two_ends = False

    @abstractmethod
    def __init__(self, table: InstructionTable) -> None: ...

    def at_start(self, targets: Tensor) -> Tensor:
        """Return what is left of targets [B, 2, D, R] while no step is known."""
        return targets

    def targets_of(self, ids: Tensor) -> Tensor | None:
        """Return the targets that circuits int64 [B, T] are, float32 [B, 2, D, R]; None for tasks without."""
        return None

    @abstractmethod
    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what each step would have to do if the gates known before it were taken off the target.

        Step i knows the steps of smaller rank; of those, the unbroken beginning and the unbroken end count.

        Args:
            targets: float32 [B, 2, D, R]; None for tasks without.
            ids: int64 [B, T], instructions; those of steps that are not revealed are never looked at.
            rank: int64 [B, T], when each step is revealed; T for steps that are not.

        Returns:
            float32 [B, T, ...].
        """

    @abstractmethod
    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Return what is left while circuits are written.

        Args:
            targets: float32 [B, 2, D, R], on the device; None for tasks without.
            count: B.
            device: Where circuits are written.
        """


class Remainder(ABC):
    """What is left to do for circuits that are being written: brought up to date by the gates that are new.

    Args:
        count: B, circuits.
        device: Where they are.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._begun = torch.zeros(count, 1, dtype=torch.int64, device=device)
        self._ended = torch.zeros_like(self._begun)

    def update(self, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what every step that is not revealed would have to do; see `LeftToDo.for_steps`.

        Args:
            ids: int64 [B, T].
            rank: int64 [B, T], T for steps that are not revealed; those that are stay so from call to call.

        Returns:
            float32 [B, ...].
        """
        last = ids.shape[1] - 1
        revealed = rank <= last
        begun, ended = (known.cumprod(dim=1).sum(dim=1, keepdim=True) for known in (revealed, revealed.flip(1)))
        for _ in range(int((begun - self._begun).max())):
            self.begin(_ids_at(ids, self._begun, self._begun < begun))
            self._begun += self._begun < begun
        for _ in range(int((ended - self._ended).max())):
            self.end(_ids_at(ids, last - self._ended, self._ended < ended))
            self._ended += self._ended < ended
        return self.shown()

    def take(self, rows: Tensor) -> Self:
        """Return the remainders of some circuits, int64 [M]."""
        taken = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(taken, name, value[rows])
        return taken

    def append(self, ids: Tensor, at_end: Tensor | None = None) -> None:
        """Add one more instruction to the known ones of each circuit, before `update` sees it.

        Args:
            ids: int64 [B].
            at_end: bool [B], circuits where it stands before the known end; None lets all follow the known beginning.
        """
        if at_end is None:
            self.begin(ids)
            self._begun += 1
            return
        self.begin(ids.masked_fill(at_end, NO_GATE))
        self.end(ids.masked_fill(~at_end, NO_GATE))
        self._begun += ~at_end[:, None]
        self._ended += at_end[:, None]

    @property
    def missing(self) -> Tensor:
        """What the gates that are missing have to be, in the form of `TargetTask.completing`: float32 [B, 2, D, R]."""
        return self.shown()

    def from_end(self) -> Tensor | None:
        """Return what is left as it is shown to circuits of the inverse, which begin with the inverse of the last gate.

        None where it cannot be looked at so; see `LeftToDo.has_two_ends`.
        """
        return None

    @abstractmethod
    def begin(self, ids: Tensor) -> None:
        """Take instructions int64 [B] into the known beginnings."""

    @abstractmethod
    def end(self, ids: Tensor) -> None:
        """Take instructions int64 [B] into the known ends."""

    @abstractmethod
    def shown(self) -> Tensor:
        """Return what is left, float32 [B, ...]."""


def _ids_at(ids: Tensor, steps: Tensor, are_new: Tensor) -> Tensor:
    """Return the instruction of one step a circuit, "no gate" where it is not new: [B]."""
    found = ids.gather(1, steps.clamp(0, ids.shape[1] - 1))
    return torch.where(are_new, found, NO_GATE)[:, 0]


class _Gates:
    """The unitary of each instruction; made when needed: of 10 qubits they have gigabytes."""

    def __init__(self, table: InstructionTable) -> None:
        self._table = table
        self._matrices: Tensor | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids int64 [...] => complex64 [..., D, D], on their device."""
        if self._matrices is None:
            one_gate = np.arange(len(self._table) + 1, dtype=np.int16)[:, None]
            self._matrices = torch.from_numpy(unitaries(one_gate, self._table).astype(np.complex64))
        if self._matrices.device != ids.device:
            self._matrices = self._matrices.to(ids.device)
        return self._matrices[ids]


class UnitariesLeft(LeftToDo):
    """Of a unitary U: W^dagger U V^dagger, where V is the known beginning and W the known end; [..., 2, D, D]."""

    has_two_ends = True

    def __init__(self, table: InstructionTable) -> None:
        self._gates = _Gates(table)

    def targets_of(self, ids: Tensor) -> Tensor:
        """Return the unitaries of circuits; see `LeftToDo.targets_of`."""
        made = self._gates(ids[:, 0])
        for step in range(1, ids.shape[1]):
            made = self._gates(ids[:, step]) @ made
        return torch.view_as_real(made).movedim(-1, 1)

    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return W^dagger U V^dagger of each step, float32 [B, T, 2, D, D]; see `LeftToDo.for_steps`."""
        assert targets is not None
        adjoints = self._gates(ids).mH  # [B, T, D, D]
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

    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Return what is left of unitaries while circuits are written; see `LeftToDo.remainder`."""
        assert targets is not None
        return _UnitaryRemainder(self._gates, targets)


class _UnitaryRemainder(Remainder):
    def __init__(self, gates: _Gates, targets: Tensor) -> None:
        super().__init__(len(targets), targets.device)
        self._gates = gates
        self._remaining = torch.complex(targets[:, 0], targets[:, 1])

    def begin(self, ids: Tensor) -> None:
        self._remaining = self._remaining @ self._gates(ids).mH

    def end(self, ids: Tensor) -> None:
        self._remaining = self._gates(ids).mH @ self._remaining

    def shown(self) -> Tensor:
        return torch.view_as_real(self._remaining).movedim(-1, 1)

    def from_end(self) -> Tensor:
        return torch.view_as_real(self._remaining.mH.resolve_conj()).movedim(-1, 1)


class StatesLeft(LeftToDo):
    """Of a state psi: the state V|0> that the known beginning V makes, and W^dagger psi, where W is the known end.

    A circuit is finished when the gates between take the first, column 0, to the second, column 1; [..., 2, D, 2].
    """

    def __init__(self, table: InstructionTable) -> None:
        self._gates = _Gates(table)

    def targets_of(self, ids: Tensor) -> Tensor:
        """Return the states that circuits make; see `LeftToDo.targets_of`."""
        made = self._gates(ids[:, 0])[:, :, :1]
        for step in range(1, ids.shape[1]):
            made = self._gates(ids[:, step]) @ made
        return torch.view_as_real(made).movedim(-1, 1)

    def at_start(self, targets: Tensor) -> Tensor:
        """Return |0> beside the targets: [B, 2, D, 1] => [B, 2, D, 2]."""
        return torch.cat([_zero_states(targets), targets], dim=3)

    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return both states of each step, float32 [B, T, 2, D, 2]; see `LeftToDo.for_steps`."""
        assert targets is not None
        gates = self._gates(ids)  # [B, T, D, D]
        beginnings, ends = ([torch.complex(x[:, 0], x[:, 1])] for x in (_zero_states(targets), targets))
        for step in range(ids.shape[1] - 1):
            beginnings.append(gates[:, step] @ beginnings[-1])
            ends.append(gates[:, -1 - step].mH @ ends[-1])
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        from_start, from_end = known_lengths(rank)
        made, wanted = torch.stack(beginnings, dim=1)[rows, from_start], torch.stack(ends, dim=1)[rows, from_end]
        return torch.view_as_real(torch.cat([made, wanted], dim=3)).movedim(-1, 2)

    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Return what is left of states while circuits are written; see `LeftToDo.remainder`."""
        assert targets is not None
        return _StateRemainder(self._gates, targets)


class _StateRemainder(Remainder):
    def __init__(self, gates: _Gates, targets: Tensor) -> None:
        super().__init__(len(targets), targets.device)
        self._gates = gates
        self._made, self._wanted = (torch.complex(x[:, 0], x[:, 1]) for x in (_zero_states(targets), targets))

    def begin(self, ids: Tensor) -> None:
        self._made = self._gates(ids) @ self._made

    def end(self, ids: Tensor) -> None:
        self._wanted = self._gates(ids).mH @ self._wanted

    def shown(self) -> Tensor:
        return torch.view_as_real(torch.cat([self._made, self._wanted], dim=2)).movedim(-1, 1)

    @property
    def missing(self) -> Tensor:
        return torch.view_as_real(self._made).movedim(-1, 1)


def _zero_states(targets: Tensor) -> Tensor:
    """Return |0> in two channels, as many as there are targets: [B, 2, D, 1]."""
    zeros = torch.zeros_like(targets)
    zeros[:, 0, 0] = 1
    return zeros


class MadeByBeginning(LeftToDo):
    """For Schmidt rank vectors: what the known beginning makes of |0...0>. What is known of the end says nothing.

    States are shown as float32 [..., 2, D], tableaus as float32 [..., 2Q, Q].

    Args:
        table: The model's instructions.
        evolution: Makes the description that is shown.
    """

    def __init__(self, table: InstructionTable, evolution: Callable[[InstructionTable], Evolution]) -> None:
        self._evolution = evolution(table)

    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what is made before each step; see `LeftToDo.for_steps`."""
        made = self._evolution.after_each(ids[:, :-1])  # [B, T, ...]
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        return _in_real_numbers(made[rows, known_lengths(rank)[0]])

    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Return what is made while circuits are written; see `LeftToDo.remainder`."""
        return _Made(self._evolution, count, device)


class _Made(Remainder):
    def __init__(self, evolution: Evolution, count: int, device: torch.device) -> None:
        super().__init__(count, device)
        self._evolution = evolution
        self._descriptions = evolution.start(count, device)

    def begin(self, ids: Tensor) -> None:
        self._descriptions = self._evolution.apply(self._descriptions, ids)

    def end(self, ids: Tensor) -> None:
        pass

    def shown(self) -> Tensor:
        return _in_real_numbers(self._descriptions)


def _in_real_numbers(descriptions: Tensor) -> Tensor:
    """Return states complex [..., D] as [..., 2, D], and tableaus as they are."""
    return torch.view_as_real(descriptions).movedim(-1, -2) if descriptions.is_complex() else descriptions


def known_lengths(rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many steps from the start, and how many from the end, each step knows: int64 [B, T] both."""
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]: row i may look at column j
    from_start, from_end = (known.cumprod(dim=2).sum(dim=2) for known in (earlier, earlier.flip(2)))
    return from_start, from_end


def known_gates(ids: Tensor, rank: Tensor) -> Tensor:
    """Return how many gates each step knows, wherever they stand: int64 [B, T]; see `LeftToDo.for_steps`."""
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]
    return (earlier & (ids != NO_GATE)[:, None, :]).sum(dim=2)


_SHOWN_STATE = partial(MadeByBeginning, evolution=partial(StateEvolution, dtype=torch.complex64))

LEFT_TO_DO: dict[str, dict[str, Callable[[InstructionTable], LeftToDo]]] = {
    "UNITARY": {"matrix": UnitariesLeft},
    "STATE": {"amplitudes": StatesLeft},
    "SRV": {
        **dict.fromkeys(("state", "srv", "pairs"), _SHOWN_STATE),
        "tableau": partial(MadeByBeginning, evolution=TableauEvolution),
    },
}
"""By the name of the task and the type of the encoder of its steps."""
