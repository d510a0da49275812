"""Edits: which gates of a circuit to keep, which gates are forbidden, and how many gates the result may have.

An edit is checked against a model before sampling and turned into arrays over time steps and instructions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.arguments import check_kind, check_list, check_number, check_whole, check_wholes
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, ids_from_circuits
from quantum_diffusion.diffusion.schedules import steps_redone
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Constraints on sampling; the defaults set none.

    Attributes:
        start: The circuit to edit; None starts from scratch.
        keep: Time steps of `start`, from 0, whose gates stay unchanged and in place. Steps before the last of them are
            always filled.
        strength: Fraction of the other steps (masked models: drawn for each sample, always including forbidden gates)
            or of the noise (Gaussian models) to redo, in (0, 1]; 1 redoes everything.
        coupling: Undirected pairs of connected qubits; gates on other pairs are forbidden. None connects all.
        fixed_qubits: Qubits that no gate may touch.
        min_gates: Minimum number of gates.
        max_gates: Maximum number of gates; None uses the model's limit.

    Example:
        >>> from quantum_diffusion.circuits.circuit import Instruction
        >>> bell = Circuit(3, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
        >>> edit = Edit(start=bell, keep=(0,), coupling=((0, 1), (1, 2)), max_gates=4)
    """

    start: Circuit | None = None
    keep: tuple[int, ...] = ()
    strength: float = 1.0
    coupling: tuple[tuple[int, int], ...] | None = None
    fixed_qubits: tuple[int, ...] = ()
    min_gates: int = 0
    max_gates: int | None = None

    def __post_init__(self) -> None:
        coupling = None if self.coupling is None else check_list(self.coupling, "edit.coupling", "((0, 1), (1, 2))")
        pairs = [check_wholes(pair, "a pair of edit.coupling", "(0, 1)") for pair in coupling or ()]
        check_number(self.strength, "edit.strength")
        values = {
            "start": None if self.start is None else check_kind(self.start, Circuit, "edit.start"),
            "keep": check_wholes(self.keep, "edit.keep", "(0, 1)"),
            "coupling": None if coupling is None else tuple(pairs),
            "fixed_qubits": check_wholes(self.fixed_qubits, "edit.fixed_qubits", "(0, 1)"),
            "min_gates": check_whole(self.min_gates, "edit.min_gates"),
            "max_gates": None if self.max_gates is None else check_whole(self.max_gates, "edit.max_gates"),
        }
        for name, value in values.items():  # lists become tuples, numpy numbers Python's
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class EditPlan:
    """An edit as arrays for a model with T time steps and K instructions besides "no gate".

    Attributes:
        ids: int16 [T], the circuit to edit; zeros without one.
        angles: float64 [T, A], its exact angles.
        kept: bool [T], steps to keep.
        allowed: bool [K+1], instructions within the coupling that touch no fixed qubit.
        fixed: bool [Q], qubits that no gate may touch.
        min_gates: Minimum number of gates, at least up to the last kept one.
        max_gates: Maximum number of gates.
        strength: Fraction of the other steps to redo, in (0, 1].
        bounds_length: Whether a qubit is fixed or the number of gates is bounded: then a Gaussian process, whose tokens
            distinguish "no gate" from "after the end", must know where a circuit ends.
    """

    ids: Ids
    angles: Angles
    kept: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    fixed: NDArray[np.bool_]
    min_gates: int
    max_gates: int
    strength: float
    bounds_length: bool

    @property
    def num_gates(self) -> int | None:
        """The number of gates wanted, None if it is not fixed."""
        return self.min_gates if self.min_gates == self.max_gates else None

    @property
    def beginning(self) -> Ids:
        """The leading kept gates, int16 [n]."""
        return self.ids[: int(self.kept.cumprod().sum())]

    def check_samples(self, allowed: NDArray[np.bool_], table: InstructionTable) -> None:
        """Refuse samples whose prompt or number of qubits contradicts the edit.

        Args:
            allowed: bool [N, K+1], instructions each sample may use, including this edit's own constraints.
            table: The instructions that the ids refer to.

        Raises:
            ConfigError: The message names the first such sample.
        """
        for step in np.flatnonzero(self.kept):
            refused = np.flatnonzero(~allowed[:, self.ids[step]])
            if len(refused):
                raise ConfigError(
                    f"edit.keep has step {step}, {_words(table, self.ids[step])}, but the prompt of sample "
                    f"{refused[0]} allows other gates or fewer qubits: change the prompt, or do not keep the step"
                )
        idle = np.flatnonzero(~allowed[:, 1:].any(axis=1))
        if self.min_gates > self.kept.sum() and len(idle):
            raise ConfigError(
                f"at least {self.min_gates} gates are required, but the prompt, coupling and fixed qubits of sample "
                f"{idle[0]} allow no gate at all: relax one of them, or lower edit.min_gates"
            )

    def step_allowances(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the instructions allowed at each step, bool [N, T, K+1], from those of each sample, bool [N, K+1].

        Gates of training circuits come first, so a bound on their number is a bound on the steps.
        """
        steps = np.arange(len(self.ids))
        per_step = np.repeat(allowed[:, None], len(steps), axis=1)
        per_step[:, steps >= self.max_gates, 1:] = False
        per_step[:, steps < self.min_gates, NO_GATE] = False
        return per_step

    def known_steps(self, per_step: NDArray[np.bool_], seeds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the steps of each sample that a masked process need not write, bool [N, T].

        Args:
            per_step: bool [N, T, K+1], from `step_allowances`.
            seeds: int64 [N], one seed per sample.
        """
        known = np.repeat(self.kept[None], len(seeds), axis=0)
        others = np.flatnonzero(~self.kept)
        spared = len(others) - steps_redone(self.strength, len(others))
        if spared:
            for row, seed in enumerate(seeds.tolist()):
                possible = others[per_step[row, others, self.ids[others]]]
                known[row, numpy_generator(seed, "spared").permutation(possible)[:spared]] = True
        return known

    def start_ids(self, allowed: NDArray[np.bool_]) -> Ids:
        """Return the circuit to edit without the gates that each sample forbids, int16 [N, T], for bool [N, K+1]."""
        return np.where(allowed[:, self.ids], self.ids, NO_GATE).astype(np.int16)


def plan_edit(edit: Edit, table: InstructionTable, max_gates: int) -> EditPlan:
    """Check an edit against a model and turn it into arrays.

    Args:
        edit: The constraints.
        table: The model's instructions.
        max_gates: The model's maximum number of gates, T.

    Raises:
        ConfigError: The model cannot satisfy the edit; the message names the key.
    """
    _check_numbers(edit, max_gates)
    _check_qubits("edit.fixed_qubits", edit.fixed_qubits, table.num_qubits)
    for pair in edit.coupling or ():
        _check_qubits("edit.coupling", pair, table.num_qubits)
        if len({*pair}) != 2:
            raise ConfigError(f"edit.coupling has {list(pair)}: give pairs of two different qubits, e.g. [[0,1],[1,2]]")
    fixed = np.isin(np.arange(table.num_qubits), edit.fixed_qubits)
    connected = table.allowed(edit.coupling)
    untouched = ~(table.uses_qubit & fixed).any(axis=1)
    ids, angles = np.zeros(max_gates, dtype=np.int16), np.zeros((max_gates, table.pool.num_angles))
    if edit.start is not None:
        _check_start(edit.start, table, max_gates)
        ids = ids_from_circuits([edit.start], table, max_gates)[0]
        angles = angles_of_circuits([edit.start], table, max_gates)[0]
    kept = np.isin(np.arange(max_gates), edit.keep)
    for step in np.flatnonzero(kept):
        for fine, rule in ((connected, "edit.coupling does not connect"), (untouched, "edit.fixed_qubits forbids")):
            if not fine[ids[step]]:
                raise ConfigError(
                    f"edit.keep has step {step}, {_words(table, ids[step])}, which {rule}: change that, or do not "
                    "keep it"
                )
    most = max_gates if edit.max_gates is None else edit.max_gates
    return EditPlan(
        ids=ids,
        angles=angles,
        kept=kept,
        allowed=connected & untouched,
        fixed=fixed,
        min_gates=max(edit.min_gates, max(edit.keep, default=-1) + 1),
        max_gates=most,
        strength=edit.strength,
        bounds_length=bool(edit.fixed_qubits) or edit.min_gates > 0 or most < max_gates,
    )


def _check_numbers(edit: Edit, max_gates: int) -> None:
    if not 0 < edit.strength <= 1:
        raise ConfigError(f"edit.strength={edit.strength} is out of range: give more than 0, at most 1")
    if edit.start is None and (edit.keep or edit.strength != 1):
        given = f"edit.keep={list(edit.keep)}" if edit.keep else f"edit.strength={edit.strength}"
        raise ConfigError(f"{given} needs a circuit: give it as edit.start")
    gates = 0 if edit.start is None else len(edit.start)
    if edit.keep and not gates:
        raise ConfigError(f"edit.keep={list(edit.keep)}, but edit.start has no gates: give a circuit that has some")
    for step in edit.keep:
        if not 0 <= step < gates:
            raise ConfigError(
                f"edit.keep has step {step}, but edit.start has {counted(gates, 'gate')}: give 0 to {gates - 1}"
            )
    if edit.max_gates is not None and not 1 <= edit.max_gates <= max_gates:
        raise ConfigError(f"max_gates={edit.max_gates}: the model writes 1 to {max_gates} gates, give one of these")
    most = max_gates if edit.max_gates is None else edit.max_gates
    if not 0 <= edit.min_gates <= most:
        raise ConfigError(f"edit.min_gates={edit.min_gates}: more than {most} are not possible, give 0 to {most}")
    if edit.keep and max(edit.keep) >= most:
        raise ConfigError(
            f"edit.keep has step {max(edit.keep)}, but max_gates={most}: raise it to {max(edit.keep) + 1} or more"
        )


def _check_qubits(key: str, qubits: tuple[int, ...], num_qubits: int) -> None:
    for qubit in qubits:
        if not 0 <= qubit < num_qubits:
            raise ConfigError(f"{key} has qubit {qubit}, but the model has {num_qubits}: give 0 to {num_qubits - 1}")


def _check_start(start: Circuit, table: InstructionTable, max_gates: int) -> None:
    if start.num_qubits > table.num_qubits or len(start) > max_gates:
        raise ConfigError(
            f"edit.start has {counted(start.num_qubits, 'qubit')} and {counted(len(start), 'gate')}, but the model "
            f"has {table.num_qubits} and {max_gates}: give a smaller circuit"
        )
    unknown = [gate for gate in start.gate_counts if gate not in table.pool.names]
    if unknown:
        raise ConfigError(
            f"edit.start has the gate {unknown[0]!r}, but the model knows {list(table.pool.names)}: rewrite the "
            "circuit with these"
        )


def _words(table: InstructionTable, number: int) -> str:
    instruction = table.instructions[number - 1]
    return f"{instruction.gate} on qubits {list(instruction.qubits)}"
