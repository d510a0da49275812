"""Stops a search early if the allowed gates provably cannot reach the target.

Searches call it before they start. These are necessary conditions only: a search that passes may still find nothing.
`circuits.invariants` knows what circuits of certain gates can never be, at any length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GATES, Matrix, have_angles
from quantum_diffusion.circuits.instructions import NO_GATE, Ids, InstructionTable
from quantum_diffusion.circuits.invariants import ROTATIONS, Invariant, may_be_exact, may_entangle
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.matrices import EXACT
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.pipeline.editing import Edit, EditPlan, plan_edit
from quantum_diffusion.pretrained import QUBITS_WITH_ANGLES, WITH_ANGLES
from quantum_diffusion.tasks.targets import TargetTask

_MOST_BYTES = 2**24
"""Memory for the unitaries of all circuits tried exhaustively: 16,000 circuits of three qubits."""


def check_srv_reach(label: Sequence[int], edit: Edit, table: InstructionTable, max_gates: int) -> None:
    """Refuse a search for a Schmidt rank vector that an edit makes impossible.

    Args:
        label: The vector, one entry per qubit.
        edit: Constraints on the circuits.
        table: The model's instructions.
        max_gates: The model's maximum number of gates.

    Raises:
        ConfigError: The model does not support the edit, or no circuit within the constraints has the vector.
    """
    plan = plan_edit(edit, table, max_gates)
    fits = _fitting(plan.allowed, table, len(label))
    uses = table.uses_qubit[fits, : len(label)]
    asked = f"sample.srv={list(label)}"
    if not fits.any():
        raise ConfigError(f"{asked}: edit.coupling and edit.fixed_qubits leave no gates; relax them")
    entangled, linked = np.array(label) == 2, _linked(uses)
    for qubit in np.flatnonzero(entangled):
        if (linked[qubit] & entangled).sum() < 2:
            raise ConfigError(
                f"{asked} entangles qubit {qubit}, but edit.coupling and edit.fixed_qubits leave no gates that join "
                "it with another entangled qubit: relax them, or ask for another vector"
            )
        gates = _names(np.flatnonzero(fits)[(uses & linked[qubit]).any(axis=1)], table)
        if not may_entangle(gates, len(label)):
            raise ConfigError(
                f"{asked} entangles qubit {qubit}, but {_listed(gates, 'and')}, the only gates left there, cannot "
                "entangle it: relax edit.coupling and edit.fixed_qubits, or ask for another vector"
            )
    # Each entangled qubit needs a multi-qubit gate.
    mend = _more_gates("sample.max_gates", plan)
    _check_length(asked, int(entangled.sum()), uses, plan, mend)
    every = _every_circuit(plan, fits, table)
    if every is not None and not (schmidt_rank_vectors(every, table)[:, : len(label)] == label).all(axis=1).any():
        raise ConfigError(_none_of(every, plan, f"has {asked}", mend))


def check_target_reach(
    task: TargetTask, target: Matrix, gates: Sequence[str], edit: Edit, table: InstructionTable, max_gates: int
) -> None:
    """Refuse a search for circuits for a target that the gates or an edit make impossible.

    Args:
        task: Task of the target.
        target: complex128 [d, ...], on the first qubits of the model.
        gates: Gates that circuits may use.
        edit: Constraints on the circuits.
        table: The model's instructions.
        max_gates: The model's maximum number of gates.

    Raises:
        ConfigError: The model does not support the edit, or no circuit within the constraints is the target.
    """
    num_qubits = len(target).bit_length() - 1
    section = task.command
    plan = plan_edit(edit, table, max_gates)
    for step in edit.keep:
        instruction = table.instructions[plan.ids[step] - 1]
        words = f"edit.keep has step {step}, {instruction.gate} on qubits {list(instruction.qubits)}"
        if instruction.gate not in gates:
            raise ConfigError(f"{words}, which {section}.gates={list(gates)} does not allow: add it, or do not keep it")
        if max(instruction.qubits) >= num_qubits:
            raise ConfigError(
                f"{words}, but the target has {num_qubits} qubits: do not keep it, or give another target"
            )
    possible = _fitting(plan.allowed, table, num_qubits)
    fits = possible & np.isin(table.gate_index, [table.pool.names.index(gate) for gate in gates])
    uses = table.uses_qubit[fits, :num_qubits]
    left = f"{section}.gates, edit.coupling and edit.fixed_qubits leave no gates"
    acted_on = [qubit for qubit in range(num_qubits) if task.acts_on(target, qubit)]
    for qubit in acted_on:
        if not uses[:, qubit].any():
            raise ConfigError(f"the target acts on qubit {qubit}, but {left} on it: relax them")
    for part in np.unique(_linked(uses), axis=0):
        if not part.all() and task.joins(target, np.flatnonzero(part)):
            raise ConfigError(
                f"the target joins qubits {np.flatnonzero(part).tolist()} with the others, but {left} between them: "
                "relax them"
            )
    used = _names(np.flatnonzero(fits), table)
    broken = task.broken_invariants(target, used)
    if broken:
        raise ConfigError(
            f"no circuit of {_listed(used, 'and')} is the target: {task.words_of(broken[0])}, and the target is not: "
            f"{_mend(broken, used, _names(np.flatnonzero(possible), table), target, section)}"
        )
    mend = _more_gates(f"{section}.max_gates", plan)
    _check_length("the target", len(acted_on), uses, plan, mend)
    every = _every_circuit(plan, fits, table)
    if every is not None:
        whole = task.pad(target.reshape(len(target), -1), table.num_qubits)[None]
        if (task.distances(every, whole, table) > EXACT).all():
            raise ConfigError(_none_of(every, plan, "is the target", mend))


def _every_circuit(plan: EditPlan, fits: NDArray[np.bool_], table: InstructionTable) -> Ids | None:
    """Return all circuits within a length limit or with kept gates, int16 [N, T].

    None if they are too many, as those of gates with angles always are.
    """
    if table.pool.num_angles or (plan.max_gates == len(plan.ids) and not plan.kept.any()):
        return None
    free = np.flatnonzero(fits).tolist()
    choices = [
        [int(number)] if kept else [NO_GATE, *free]
        for number, kept in zip(plan.ids[: plan.max_gates], plan.kept, strict=False)
    ]
    if 16 * 4**table.num_qubits * math.prod(map(len, choices)) > _MOST_BYTES:
        return None
    return np.array(list(itertools.product(*choices)), dtype=np.int16)


def _none_of(every: Ids, plan: EditPlan, wanted: str, mend: str) -> str:
    kept, fewer = (" with the gates of edit.keep", "keep fewer gates, or ") if plan.kept.any() else ("", "")
    tried = counted(len(every), "was", "were")
    return f"no circuit of at most {counted(plan.max_gates, 'gate')}{kept} {wanted} ({tried} tried): {fewer}{mend}"


def _check_length(asked: str, num_qubits: int, uses: NDArray[np.bool_], plan: EditPlan, mend: str) -> None:
    """Refuse a length limit that is too small for a gate on each of the qubits."""
    fewest = -(-num_qubits // int(uses.sum(axis=1).max(initial=1)))
    if fewest > plan.max_gates:
        raise ConfigError(f"{asked} needs at least {fewest} gates, but circuits have at most {plan.max_gates}: {mend}")


def _more_gates(key: str, plan: EditPlan) -> str:
    """Return advice on how to allow more gates."""
    if plan.max_gates < len(plan.ids):
        return f"raise {key} (at most {len(plan.ids)})"
    return "use a model trained on longer circuits (datasets.max_gates)"


def _mend(
    broken: Sequence[Invariant], used: Sequence[str], possible: Sequence[str], target: Matrix, section: str
) -> str:
    """Return advice on gates outside the invariants: of those that may be used, or else of all known gates."""
    num_qubits = len(target).bit_length() - 1
    without_angles = [gate for gate in GATES.values() if not gate.num_angles]
    if not have_angles(possible) and not may_be_exact(target, [gate.name for gate in without_angles], len(target) ** 2):
        return (
            f"no gates without angles make it exactly: set {section}.tolerance, e.g. to 0.01, to accept approximate "
            f"circuits, or use a model of gates with angles (pretrained:{WITH_ANGLES[section][0]})"
        )
    if [*broken] == [ROTATIONS] and num_qubits > 3:
        # This includes the other gates: an exact circuit would be a root of unity times a matrix of determinant 1.
        every = "on more than three qubits all gates have determinant 1"
        return f"{every}: extend the target by an idle qubit"
    added = _leading_out(broken, [name for name in possible if name not in used], num_qubits)
    if added:
        return f"add {added} to {section}.gates"
    added = _leading_out(broken, [gate.name for gate in without_angles if gate.num_qubits <= num_qubits], num_qubits)
    trained = f"use a model that was also trained on {added} (datasets.gate_set)"
    if not have_angles(possible) and num_qubits <= QUBITS_WITH_ANGLES[section]:
        trained += f"; or give gates with angles, such as {section}.gates=[h,cx,rz], and no {section}.model_dir"
    return trained


def _leading_out(broken: Sequence[Invariant], names: Sequence[str], num_qubits: int) -> str:
    """List gates that, alone or together, are outside all of the invariants; empty if there are none."""

    def lead_out(chosen: Sequence[str]) -> bool:
        return all(any(not invariant.has(name, num_qubits) for name in chosen) for invariant in broken)

    names = [name for name in names if GATES[name].inverse not in names[: names.index(name)]]  # s, but not also sdg
    alone = [name for name in names if lead_out([name])]
    if alone:
        return _listed(alone, "or")
    if not lead_out(names):
        return ""
    for name in reversed(names):
        rest = [other for other in names if other != name]
        names = rest if lead_out(rest) else names
    return _listed(names, "and")


def _listed(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _names(rows: NDArray[np.integer], table: InstructionTable) -> list[str]:
    """Return the names of the gates of instructions, in pool order."""
    return [table.pool.names[index] for index in np.unique(table.gate_index[rows])]


def _fitting(allowed: NDArray[np.bool_], table: InstructionTable, num_qubits: int) -> NDArray[np.bool_]:
    """Return which instructions are allowed and act on the first qubits only, bool [K+1]; "no gate" is excluded."""
    fits: NDArray[np.bool_] = allowed & ~table.uses_qubit[:, num_qubits:].any(axis=1)
    fits[NO_GATE] = False
    return fits


def _linked(uses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which qubits instructions [K, Q] join, directly or through other qubits, bool [Q, Q]; reflexive."""
    linked: NDArray[np.bool_] = np.einsum("kp,kq->pq", uses, uses) | np.eye(uses.shape[1], dtype=np.bool_)
    for _ in range(uses.shape[1]):
        linked = linked @ linked
    return linked
