"""Computes on the device what is left to do, given the revealed steps of a circuit, by simulating them.

The masked process conditions each remaining step on it (ADR 7). Only pipelines load this module: it needs torch.
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
from quantum_diffusion.tasks.rotations import rotations_of


class LeftToDo(ABC):
    """Computes what is left to do, in the form that the task's step encoder takes: float32 [..., A, B, C].

    Args:
        table: The model's instructions.

    Attributes:
        has_two_ends: Whether circuits can also be written from the end; see `Remainder.from_end`.
    """

    has_two_ends = False

    @abstractmethod
    def __init__(self, table: InstructionTable) -> None: ...

    def at_start(self, targets: Tensor) -> Tensor:
        """Return what is left of targets [B, 2, D, R] before any step is known."""
        return targets

    def targets_of(self, ids: Tensor, angles: Tensor | None = None) -> Tensor | None:
        """Return the targets that circuits implement, float32 [B, 2, D, R]; None for tasks without targets.

        Args:
            ids: int64 [B, T].
            angles: float32 [B, T, A]; None takes those of the ids.
        """
        return None

    @abstractmethod
    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what is left to do at each step, given the steps revealed before it.

        Step i knows the steps of smaller rank; only those that form an unbroken prefix or suffix of the circuit count.

        Args:
            targets: float32 [B, 2, D, R]; None for tasks without targets.
            ids: int64 [B, T], instructions; those of unrevealed steps are ignored.
            rank: int64 [B, T], the order in which steps are revealed; T for unrevealed steps.

        Returns:
            float32 [B, T, ...].
        """

    @abstractmethod
    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Return an object that tracks what is left while circuits are sampled.

        Args:
            targets: float32 [B, 2, D, R], on the device; None for tasks without targets.
            count: B.
            device: Device of the samples.
        """


class Remainder(ABC):
    """What is left to do for circuits that are being sampled, updated incrementally with each new gate.

    Args:
        count: B, number of circuits.
        device: Their device.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._begun = torch.zeros(count, 1, dtype=torch.int64, device=device)
        self._ended = torch.zeros_like(self._begun)

    def update(self, ids: Tensor, rank: Tensor) -> Tensor:
        """Return what is left to do for the unrevealed steps; see `LeftToDo.for_steps`.

        Args:
            ids: int64 [B, T].
            rank: int64 [B, T], T for unrevealed steps; a revealed step must stay revealed in later calls.

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
        """Return the remainders of the circuits with indices `rows`, int64 [M]."""
        taken = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(taken, name, value[rows])
        return taken

    def append(self, ids: Tensor, at_end: Tensor | None = None) -> None:
        """Add one instruction to each circuit's known ones directly, without `update`.

        Args:
            ids: int64 [B].
            at_end: bool [B], whether it goes before the known suffix; None: all go after the known prefix.
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
        """What the missing gates have to implement, in the form of `TargetTask.completing`: float32 [B, 2, D, R]."""
        return self.shown()

    def from_end(self) -> Tensor | None:
        """Return what is left for the inverse circuit, which begins with the inverse of the last gate.

        None if the task does not allow this; see `LeftToDo.has_two_ends`.
        """
        return None

    @abstractmethod
    def begin(self, ids: Tensor) -> None:
        """Append instructions int64 [B] to the known prefixes."""

    @abstractmethod
    def end(self, ids: Tensor) -> None:
        """Prepend instructions int64 [B] to the known suffixes."""

    @abstractmethod
    def shown(self) -> Tensor:
        """Return what is left in the form the step encoder takes, float32 [B, ...]."""


def _ids_at(ids: Tensor, steps: Tensor, are_new: Tensor) -> Tensor:
    """Return the instruction at one step of each circuit, or "no gate" if it is not new: [B]."""
    found = ids.gather(1, steps.clamp(0, ids.shape[1] - 1))
    return torch.where(are_new, found, NO_GATE)[:, 0]


class _Gates:
    """The unitary of each instruction; computed on first use, because for 10 qubits they take gigabytes."""

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

    def first_columns(self, ids: Tensor, angles: Tensor | None, count: int | None) -> Tensor:
        """Return the first columns of circuits' unitaries, complex64 [B, D, count]; None returns all.

        Args:
            ids: int64 [B, T].
            angles: float32 [B, T, A]; None takes those of the ids.
            count: Number of columns.
        """
        if angles is None:
            gates = [self(step) for step in ids.unbind(dim=1)]
        else:
            gates = [*rotations_of(self._table).to(ids.device).of_ids(ids, angles).unbind(dim=1)]
        made = gates[0][:, :, :count]
        for gate in gates[1:]:
            made = gate @ made
        return made


class UnitariesLeft(LeftToDo):
    """For a unitary U, what is left is W^dagger U V^dagger, with known prefix V and known suffix W; [..., 2, D, D]."""

    has_two_ends = True

    def __init__(self, table: InstructionTable) -> None:
        self._gates = _Gates(table)

    def targets_of(self, ids: Tensor, angles: Tensor | None = None) -> Tensor:
        """Return the unitaries of circuits; see `LeftToDo.targets_of`."""
        made = self._gates.first_columns(ids, angles, None)
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
        """Track what is left of unitaries; see `LeftToDo.remainder`."""
        assert targets is not None
        return _UnitaryRemainder(self._gates, targets)


class TargetRemainder(Remainder):
    """What is left of targets, whose known gates may also be circuits with angles off the grid."""

    def __init__(self, gates: _Gates, targets: Tensor) -> None:
        super().__init__(len(targets), targets.device)
        self._gates = gates

    def begin(self, ids: Tensor) -> None:
        """Append instructions; see `Remainder.begin`."""
        self._begin_with(self._gates(ids))

    def append_circuits(self, made: Tensor, lengths: Tensor) -> None:
        """Add circuits to the known prefixes, which are empty.

        Args:
            made: complex64 [B, D, D], their unitaries.
            lengths: int64 [B], their numbers of gates.
        """
        self._begin_with(made)
        self._begun = self._begun + lengths[:, None]

    @abstractmethod
    def _begin_with(self, made: Tensor) -> None:
        """Append unitaries complex64 [B, D, D] to the known prefixes."""


class _UnitaryRemainder(TargetRemainder):
    def __init__(self, gates: _Gates, targets: Tensor) -> None:
        super().__init__(gates, targets)
        self._remaining = torch.complex(targets[:, 0], targets[:, 1])

    def _begin_with(self, made: Tensor) -> None:
        self._remaining = self._remaining @ made.mH

    def end(self, ids: Tensor) -> None:
        self._remaining = self._gates(ids).mH @ self._remaining

    def shown(self) -> Tensor:
        return torch.view_as_real(self._remaining).movedim(-1, 1)

    def from_end(self) -> Tensor:
        return torch.view_as_real(self._remaining.mH.resolve_conj()).movedim(-1, 1)


class StatesLeft(LeftToDo):
    """For a state psi, what is left is the pair V|0> and W^dagger psi, with known prefix V and known suffix W.

    The missing gates must map the first, column 0, to the second, column 1; [..., 2, D, 2].
    """

    def __init__(self, table: InstructionTable) -> None:
        self._gates = _Gates(table)

    def targets_of(self, ids: Tensor, angles: Tensor | None = None) -> Tensor:
        """Return the states that circuits prepare; see `LeftToDo.targets_of`."""
        made = self._gates.first_columns(ids, angles, 1)
        return torch.view_as_real(made).movedim(-1, 1)

    def at_start(self, targets: Tensor) -> Tensor:
        """Return |0> next to the targets: [B, 2, D, 1] => [B, 2, D, 2]."""
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
        """Track what is left of states; see `LeftToDo.remainder`."""
        assert targets is not None
        return _StateRemainder(self._gates, targets)


class _StateRemainder(TargetRemainder):
    def __init__(self, gates: _Gates, targets: Tensor) -> None:
        super().__init__(gates, targets)
        self._made, self._wanted = (torch.complex(x[:, 0], x[:, 1]) for x in (_zero_states(targets), targets))

    def _begin_with(self, made: Tensor) -> None:
        self._made = made @ self._made

    def end(self, ids: Tensor) -> None:
        self._wanted = self._gates(ids).mH @ self._wanted

    def shown(self) -> Tensor:
        return torch.view_as_real(torch.cat([self._made, self._wanted], dim=2)).movedim(-1, 1)

    @property
    def missing(self) -> Tensor:
        return torch.view_as_real(self._made).movedim(-1, 1)


def _zero_states(targets: Tensor) -> Tensor:
    """Return one |0> in two channels per target: [B, 2, D, 1]."""
    zeros = torch.zeros_like(targets)
    zeros[:, 0, 0] = 1
    return zeros


class MadeByBeginning(LeftToDo):
    """For Schmidt rank vectors: the state that the known prefix makes from |0...0>; a known suffix is ignored.

    States are given as float32 [..., 2, D], tableaus as float32 [..., 2Q, Q].

    Args:
        table: The model's instructions.
        evolution: Makes the representation of the state.
    """

    def __init__(self, table: InstructionTable, evolution: Callable[[InstructionTable], Evolution]) -> None:
        self._evolution = evolution(table)

    def for_steps(self, targets: Tensor | None, ids: Tensor, rank: Tensor) -> Tensor:
        """Return the state before each step; see `LeftToDo.for_steps`."""
        made = self._evolution.after_each(ids[:, :-1])  # [B, T, ...]
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        return _in_real_numbers(made[rows, known_lengths(rank)[0]])

    def remainder(self, targets: Tensor | None, count: int, device: torch.device) -> Remainder:
        """Track the state that the prefixes make; see `LeftToDo.remainder`."""
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
    """Convert states complex [..., D] to [..., 2, D]; return tableaus unchanged."""
    return torch.view_as_real(descriptions).movedim(-1, -2) if descriptions.is_complex() else descriptions


def known_lengths(rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths of the prefix and of the suffix that each step knows, both int64 [B, T]."""
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]: step i (row) knows step j (column)
    from_start, from_end = (known.cumprod(dim=2).sum(dim=2) for known in (earlier, earlier.flip(2)))
    return from_start, from_end


def known_gates(ids: Tensor, rank: Tensor) -> Tensor:
    """Return the number of gates that each step knows, at any position: int64 [B, T]; see `LeftToDo.for_steps`."""
    earlier = rank[:, None, :] < rank[:, :, None]  # [B, T, T]
    return (earlier & (ids != NO_GATE)[:, None, :]).sum(dim=2)


_SHOWN_STATE = partial(MadeByBeginning, evolution=partial(StateEvolution, dtype=torch.complex64))

LEFT_TO_DO: dict[str, dict[str, Callable[[InstructionTable], LeftToDo]]] = {
    "UNITARY": dict.fromkeys(("matrix", "pauli"), UnitariesLeft),
    "STATE": {"amplitudes": StatesLeft},
    "SRV": {
        **dict.fromkeys(("state", "srv", "pairs"), _SHOWN_STATE),
        "tableau": partial(MadeByBeginning, evolution=TableauEvolution),
    },
}
"""By the name of the task and the type of its step encoder."""
