"""What a search can reach at all: it is refused where the gates that are left provably cannot make what is asked for.

These are bounds, not proofs of the opposite: a search that passes them may still find nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import NO_GATE, InstructionTable
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.editing import Edit, plan_edit
from quantum_diffusion.pipeline.samples import EXACT


def check_srv_reach(label: Sequence[int], edit: Edit, table: InstructionTable, max_gates: int) -> None:
    """Refuse a search for circuits of a Schmidt rank vector that an edit makes impossible.

    Args:
        label: The vector, one entry a qubit.
        edit: What may not be chosen freely.
        table: The model's instructions.
        max_gates: Most gates of the model.

    Raises:
        ConfigError: The model cannot do the edit, or no circuit that keeps to it has the vector.
    """
    plan = plan_edit(edit, table, max_gates)
    uses = _qubits_used(plan.allowed, table, len(label))
    asked = f"sample.srv={list(label)}"
    if not len(uses):
        raise ConfigError(f"{asked}: edit.coupling and edit.fixed_qubits leave no gate at all, relax them")
    entangled, linked = np.array(label) == 2, _linked(uses)
    for qubit in np.flatnonzero(entangled):
        if (linked[qubit] & entangled).sum() < 2:
            raise ConfigError(
                f"{asked} entangles qubit {qubit}, but edit.coupling and edit.fixed_qubits leave no gates that join "
                "it with another entangled one: relax them, or ask for another vector"
            )
    # Each entangled qubit needs a gate that it shares with others.
    fewest = -(-int(entangled.sum()) // int(uses.sum(axis=1).max()))
    if fewest > plan.max_gates:
        raise ConfigError(
            f"{asked} takes {fewest} gates or more, but sample.max_gates is {plan.max_gates}: raise it to {fewest} or "
            "more"
        )


def check_unitary_reach(
    target: Matrix, gates: Sequence[str], edit: Edit, table: InstructionTable, max_gates: int
) -> None:
    """Refuse a search for circuits of a unitary that the gates and an edit make impossible.

    Args:
        target: complex128 [d, d], on the first qubits of the model.
        gates: Gates that circuits may use.
        edit: What may not be chosen freely.
        table: The model's instructions.
        max_gates: Most gates of the model.

    Raises:
        ConfigError: The model cannot do the edit, or no circuit that keeps to it is the target.
    """
    num_qubits = len(target).bit_length() - 1
    plan = plan_edit(edit, table, max_gates)
    for step in edit.keep:
        instruction = table.instructions[plan.ids[step] - 1]
        words = f"edit.keep has step {step}, {instruction.gate} on qubits {list(instruction.qubits)}"
        if instruction.gate not in gates:
            raise ConfigError(f"{words}, but compile.gates={list(gates)} leaves that out: add it, or do not keep it")
        if max(instruction.qubits) >= num_qubits:
            raise ConfigError(
                f"{words}, but the target has {num_qubits} qubits: do not keep it, or give another target"
            )
    chosen = np.isin(table.gate_index, [table.pool.names.index(gate) for gate in gates])
    uses = _qubits_used(plan.allowed & chosen, table, num_qubits)
    left = "compile.gates, edit.coupling and edit.fixed_qubits leave no gate"
    for qubit in np.flatnonzero(~uses.any(axis=0)):
        if _least_infidelity_without(target, int(qubit)) > EXACT:
            raise ConfigError(f"the target acts on qubit {qubit}, but {left} on it: relax them")
    for part in np.unique(_linked(uses), axis=0):
        if not part.all() and _least_infidelity_apart(target, np.flatnonzero(part)) > EXACT:
            raise ConfigError(
                f"the target joins qubits {np.flatnonzero(part).tolist()} with the others, but {left} between them: "
                "relax them"
            )


def _qubits_used(allowed: NDArray[np.bool_], table: InstructionTable, num_qubits: int) -> NDArray[np.bool_]:
    """Return the qubits of each allowed instruction on the first qubits, bool [K', num_qubits]."""
    fits = allowed & ~table.uses_qubit[:, num_qubits:].any(axis=1)
    fits[NO_GATE] = False
    used: NDArray[np.bool_] = table.uses_qubit[fits, :num_qubits]
    return used


def _linked(uses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which qubits [Q, Q] instructions [K, Q] join, directly or by way of others; each is joined with itself."""
    linked: NDArray[np.bool_] = np.einsum("kp,kq->pq", uses, uses) | np.eye(uses.shape[1], dtype=np.bool_)
    for _ in range(uses.shape[1]):
        linked = linked @ linked
    return linked


def _least_infidelity_without(target: Matrix, qubit: int) -> float:
    """Bound from below the infidelity of all circuits that leave a qubit alone."""
    blocks = target.reshape(-1, 2, 2**qubit, len(target) // 2 ** (qubit + 1), 2, 2**qubit)
    rest = np.einsum("aibcid->abcd", blocks).reshape(len(target) // 2, -1)
    # The best unitary on the rest has the nuclear norm as its overlap.
    return 1 - float(np.linalg.norm(rest, "nuc") / len(target)) ** 2


def _least_infidelity_apart(target: Matrix, part: NDArray[np.integer]) -> float:
    """Bound from below the infidelity of all products of a circuit on some qubits and one on the others."""
    num_qubits = len(target).bit_length() - 1
    rows = num_qubits - 1 - part  # qubit 0 is the last axis
    axes = np.concatenate([rows, rows + num_qubits])
    split = np.moveaxis(target.reshape((2,) * (2 * num_qubits)), axes, range(len(axes))).reshape(4 ** len(part), -1)
    # The overlap with a product is at most the largest operator-Schmidt coefficient times the product's norm.
    return 1 - float(np.linalg.norm(split, 2)) ** 2 / len(target)
