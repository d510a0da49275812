"""Converts circuits to cell tokens and back, in genQC's convention: one gate per time step, controls -k, targets +k.

Cells outside a circuit hold the padding token. A model's output may not be a valid circuit: decoding reports this for
each sample instead of raising.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.errors import GateSetError

Tokens = NDArray[np.int8]

VALID = "valid"

_BEYOND = 127
"""A token outside the range of every gate pool."""


@dataclass(frozen=True, eq=False)
class DecodeReport:
    """The result of decoding a batch of token arrays.

    Attributes:
        ids: int16 [N, T], instruction ids; rows of invalid samples hold the readable steps and 0 elsewhere.
        valid: bool [N], whether every time step is a gate, empty, or padding after the end.
        reasons: One string per sample: "valid" or the first problem found.
    """

    ids: Ids
    valid: NDArray[np.bool_]
    reasons: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of occurrences of each reason, most frequent first."""
        return dict(Counter(self.reasons).most_common())


def encode_ids(
    ids: Ids,
    table: InstructionTable,
    sizes: NDArray[np.int16] | None = None,
    shape: tuple[int, int] | None = None,
) -> Tokens:
    """Write instruction ids as cell tokens.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.
        sizes: int16 [N, 2], qubits and time steps of each circuit; cells outside hold the padding token.
            None: every circuit fills the array and steps after its last gate are 0.
        shape: (Q, T) of the result, at least the table's qubits and the T of `ids`; None uses these.

    Returns:
        int8 [N, Q, T].

    Raises:
        ValueError: `shape` is too small.
    """
    num_qubits, steps = shape or (table.num_qubits, ids.shape[1])
    if num_qubits < table.num_qubits or steps < ids.shape[1]:
        raise ValueError(f"shape {shape} is smaller than {table.num_qubits} qubits and {ids.shape[1]} time steps")
    padding = table.pool.padding_token
    tokens = np.full((len(ids), num_qubits, steps), padding, dtype=np.int8)
    tokens[:, : table.num_qubits, : ids.shape[1]] = table.columns[ids].transpose(0, 2, 1)
    if sizes is not None:
        outside_qubits = np.arange(num_qubits)[None, :] >= sizes[:, 0, None]  # [N, Q]
        outside_steps = np.arange(steps)[None, :] >= sizes[:, 1, None]  # [N, T]
        tokens[outside_qubits[:, :, None] | outside_steps[:, None, :]] = padding
    return tokens


def decode_tokens(tokens: NDArray[np.integer], pool: GatePool, angles: Angles | None = None) -> DecodeReport:
    """Decode cell tokens to instruction ids and report which samples are valid circuits.

    Args:
        tokens: integers [N, Q, T]; a padding cell counts as "no gate" when its whole row (a missing qubit) or its
            whole column (after the end) is padding, whatever its sign.
        pool: The gate pool the tokens number.
        angles: float64 [N, T, A], of which the ids have the nearest on the grid; None means zeros.
    """
    table = instruction_table(pool, tokens.shape[1])
    if tokens.dtype != np.int8:  # single bytes make large data sets fast
        tokens = tokens.astype(np.int64).clip(-_BEYOND, _BEYOND).astype(np.int8)  # clip so that no value wraps around
    cells = (tokens == pool.padding_token) | (tokens == -pool.padding_token)
    missing_qubit = cells.all(axis=2, keepdims=True)  # [N, Q, 1]
    after_end = np.logical_and.accumulate(cells.all(axis=1)[:, ::-1], axis=1)[:, ::-1]  # [N, T]
    columns = np.where(missing_qubit | after_end[:, None, :], 0, tokens).transpose(0, 2, 1)  # [N, T, Q]

    keys, order = _sorted_keys(pool, tokens.shape[1])
    wanted = _column_keys(columns)
    position = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    candidates = order[position]
    found = np.ones(candidates.shape, dtype=np.bool_)  # [N, T]
    for qubit in range(tokens.shape[1]):
        np.logical_and(found, table.columns[candidates, qubit] == columns[:, :, qubit], out=found)
    ids = np.where(found, candidates, NO_GATE).astype(np.int16)
    valid = np.asarray(found.all(axis=1))
    if angles is not None:
        ids = table.on_grid(ids, angles)

    reasons = np.full(len(tokens), VALID, dtype=object)
    for row in np.flatnonzero(~valid):
        column = columns[row, np.flatnonzero(~found[row])[0]]
        reasons[row] = _what_is_wrong(column.astype(np.int64), pool)
    return DecodeReport(ids, valid, tuple(reasons))


def _column_keys(columns: NDArray[np.integer]) -> NDArray[np.uint64]:
    # A hash of each column. `decode_tokens` also compares the columns, so garbage never passes for an instruction;
    # no two instructions collide (tested).
    multipliers = np.random.default_rng(0).integers(1, 2**63, (columns.shape[-1],), dtype=np.uint64) | np.uint64(1)
    keys = np.zeros(columns.shape[:-1], dtype=np.uint64)
    for qubit in range(columns.shape[-1]):
        keys += columns[..., qubit].astype(np.int64).view(np.uint64) * multipliers[qubit]
    return keys


@lru_cache(maxsize=64)
def _sorted_keys(pool: GatePool, num_qubits: int) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    keys = _column_keys(instruction_table(pool, num_qubits).columns)
    order = np.argsort(keys, kind="stable")
    return keys[order], order


def _what_is_wrong(column: NDArray[np.integer], pool: GatePool) -> str:
    used = column[column != 0]
    kinds = np.unique(np.abs(used))
    if kinds.max() > pool.padding_token:
        return "token out of range"
    if pool.padding_token in kinds:
        return "padding inside the circuit"
    if len(kinds) > 1:
        return "two gates in one time step"
    if not (used > 0).any():
        return "controls without a target"
    return "wrong number of controls or targets"


def circuits_from_ids(
    ids: Ids, table: InstructionTable, num_qubits: Sequence[int] | None = None, angles: Angles | None = None
) -> list[Circuit]:
    """Build `Circuit` objects from instruction ids.

    Args:
        ids: int16 [N, T].
        table: The instructions the ids number.
        num_qubits: Number of qubits of each circuit; None uses the table's for all.
        angles: float64 [N, T, A]; None takes those of the ids.
    """
    widths = num_qubits if num_qubits is not None else [table.num_qubits] * len(ids)
    if angles is None:
        return [
            Circuit(int(width), tuple(table.instructions[i - 1] for i in row if i != NO_GATE))
            for row, width in zip(ids.tolist(), widths, strict=True)
        ]
    return [
        Circuit(
            int(width),
            tuple(
                replace(kind, angles=tuple(exact[: len(kind.angles)]))
                for kind, exact in ((table.instructions[i - 1], e) for i, e in zip(row, steps, strict=True) if i)
            ),
        )
        for row, steps, width in zip(ids.tolist(), angles.tolist(), widths, strict=True)
    ]


def ids_from_circuits(circuits: Sequence[Circuit], table: InstructionTable, num_steps: int) -> Ids:
    """Convert circuits to instruction ids with the nearest angles; the inverse of `circuits_from_ids`.

    Args:
        circuits: Circuits over the table's pool, with at most `num_steps` gates and the table's qubits.
        table: The instructions the ids number.
        num_steps: T of the result; shorter circuits end in zeros.

    Returns:
        int16 [N, T].

    Raises:
        GateSetError: A circuit is too long or too wide, or uses a gate outside the pool.
    """
    columns = np.zeros((len(circuits), table.num_qubits, num_steps), dtype=np.int8)
    angles = angles_of_circuits(circuits, table, num_steps) if table.pool.num_angles else None
    for row, circuit in enumerate(circuits):
        if len(circuit) > num_steps or circuit.num_qubits > table.num_qubits:
            raise GateSetError(
                f"a circuit of {circuit.num_qubits} qubits and {len(circuit)} gates does not fit "
                f"{table.num_qubits} qubits and {num_steps} time steps"
            )
        for step, instruction in enumerate(circuit.instructions):
            if instruction.gate not in table.pool.names:
                raise GateSetError(f"gate {instruction.gate!r} is not in the gate pool {list(table.pool.names)}")
            token = table.pool.names.index(instruction.gate) + 1
            columns[row, list(instruction.controls), step] = -token
            columns[row, list(instruction.targets), step] = token
    return decode_tokens(columns, table.pool, angles).ids


def angles_of_circuits(circuits: Sequence[Circuit], table: InstructionTable, num_steps: int) -> Angles:
    """Return the exact angles of circuits, float64 [N, num_steps, A]; see `ids_from_circuits`."""
    angles = np.zeros((len(circuits), num_steps, table.pool.num_angles))
    for row, circuit in enumerate(circuits):
        for step, instruction in enumerate(circuit.instructions[:num_steps]):
            angles[row, step, : len(instruction.angles)] = instruction.angles[: angles.shape[2]]
    return angles
