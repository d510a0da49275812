"""Inspects a data set: counts, repetitions, and a check of every circuit by decoding and simulation.

Sizes, labels and targets are recomputed from the tokens and compared with the stored ones. `quantum-diffusion inspect`
and reports show the results.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.keys import angle_keys, row_keys
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.matrices import UNITARY_TOLERANCE, pieces
from quantum_diffusion.circuits.pairs import FrequentPairs, frequent_pairs
from quantum_diffusion.circuits.prompts import GATES_PROMPTS, SRV_PROMPT, gates_prompt, parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.tokenizer import VALID
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import read_description
from quantum_diffusion.errors import ConfigError, DatasetFormatError, memory_for
from quantum_diffusion.evaluation.metrics import circuit_keys
from quantum_diffusion.files import DESCRIPTION
from quantum_diffusion.tasks.base import Task

HALF_TOLERANCE, BFLOAT16_TOLERANCE = 5e-4, 3e-3
"""Largest allowed error of an entry of a stored target whose entries all fit in 16 bits, as in genQC's data sets;
rounding causes errors up to 3.5e-4 and 2.8e-3. Others use `UNITARY_TOLERANCE`; float32 causes about 1e-7."""

MOST_SAMPLED = 2**16
"""Maximum number of circuits in which to count pairs of gates."""

MOST_ROWS = 5
"""Maximum number of wrong circuits to list."""

_BLOCK_CIRCUITS = 2**16
_BLOCK_CELLS = 2**22
"""Cells in a block: enough for efficient numpy calls, few enough to fit in the processor's cache."""
_MOST_THREADS = 8
"""Maximum number of threads; each uses up to about 100 MB."""

_TASKS = ("SRV", "UNITARY", "STATE")
"""The tasks whose labels can be checked."""

CHECKS = {
    "tokens": "one gate of the pool per time step",
    "sizes": "qubits and gates match the tokens",
    "labels": "the prompt is the Schmidt rank vector of the circuit, entry by entry",
    "gate lists": "the prompt lists every gate of the circuit, in the order of the pool",
    "prompts": "the prompt begins with " + " or ".join(f'"{begin}"' for begin in (SRV_PROMPT, *GATES_PROMPTS)),
    "targets": "the stored unitary or state is that of the circuit, up to a global phase",
}
"""The checks of a circuit, and what each requires."""


@dataclass(frozen=True)
class WrongCircuits:
    """Circuits that fail a check.

    Attributes:
        count: How many.
        first_rows: Their first rows in the loaded data set; at most `MOST_ROWS`.
    """

    count: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True)
class InspectionReport:
    """The content of `inspection.json`; counts are of circuits unless said otherwise.

    Attributes:
        num_circuits: Number of circuits.
        num_qubits: Qubits of the widest circuit (Q).
        max_gates: Time steps (T).
        gate_pool: The gates in token order.
        qubit_counts: Circuits by number of qubits, according to their sizes.
        prompt_counts: Circuits by prompt, in the order of the prompts; prompts without a circuit are left out.
        prompt_entangled: Entangled qubits requested by each prompt; prompts without a Schmidt rank vector are left out.
        entangled_counts: Circuits by number of entangled qubits, according to their prompts.
        length_counts: Circuits by length, according to their sizes.
        length_counts_by_entangled: The same for each number of entangled qubits.
        mean_length: Mean length of a circuit.
        mean_gates_by_kind: Mean number of each gate in a valid circuit.
        imbalance: Number of circuits of the most frequent prompt divided by that of the rarest.
        exact_repetitions: Circuits with the same tokens and prompt as an earlier one.
        normal_form_repetitions: Valid circuits with the same qubits and normal form as an earlier one, whatever its
            prompt; includes exact repetitions.
        invalid_reasons: What is wrong with invalid circuits, and how often.
        largest_target_error: Largest error of an entry of a stored target, up to a global phase; None without targets.
        wrong: The circuits that fail each check of `CHECKS`; those with wrong tokens are not checked further.
        gadgets: The most frequent pairs of gates, counted in at most `MOST_SAMPLED` valid circuits.
    """

    num_circuits: int
    num_qubits: int
    max_gates: int
    gate_pool: tuple[str, ...]
    qubit_counts: dict[str, int]
    prompt_counts: dict[str, int]
    prompt_entangled: dict[str, int]
    entangled_counts: dict[str, int]
    length_counts: dict[str, int]
    length_counts_by_entangled: dict[str, dict[str, int]]
    mean_length: float
    mean_gates_by_kind: dict[str, float]
    imbalance: float
    exact_repetitions: int
    normal_form_repetitions: int
    invalid_reasons: dict[str, int]
    largest_target_error: float | None
    wrong: dict[str, WrongCircuits]
    gadgets: FrequentPairs

    @property
    def is_right(self) -> bool:
        """Whether every check holds for every circuit; repetitions are allowed."""
        return not any(found.count for found in self.wrong.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"is_right": self.is_right, **asdict(self)}


@memory_for("verifying the data set", "end other programs, or use a computer with more memory")
def inspect_dataset(dataset: CircuitDataset, progress: Callable[[int, int], None] | None = None) -> InspectionReport:
    """Summarise a data set and verify every circuit.

    Args:
        dataset: The circuits.
        progress: Called with (circuits so far, circuits in total).

    Raises:
        ConfigError: The data set is for a task defined outside the package, whose labels cannot be checked here.
        GateSetError: The circuits have too many qubits to label; see `schmidt_rank_vectors`.
    """
    if dataset.condition_type not in _TASKS:
        raise ConfigError(
            f"the data set is of condition_type {dataset.condition_type}, but only {', '.join(_TASKS)} can be "
            "inspected: compare its labels with the task's own `verify`"
        )
    labels = _Labels(dataset)
    step = max(1, min(_BLOCK_CIRCUITS, _BLOCK_CELLS // (dataset.num_qubits * dataset.max_gates)))
    slices = [slice(start, min(start + step, len(dataset))) for start in range(0, len(dataset), step)]
    blocks = []
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:  # numpy releases the GIL
        for block in threads.map(partial(_inspect_block, dataset, labels), slices):
            blocks.append(block)
            if progress:
                progress(slices[len(blocks) - 1].stop, len(dataset))
    num_valid = sum(len(block.form_keys) for block in blocks)
    num_gates = sum((block.num_gates for block in blocks), np.zeros(len(dataset.gate_pool))) / max(num_valid, 1)

    lengths = dataset.sizes[:, 1].astype(np.int64)
    entangled = labels.entangled[dataset.prompt_index]
    counts = {prompt: count for prompt, count in dataset.prompt_counts.items() if count}
    per_prompt = counts.values() or [1]
    return InspectionReport(
        num_circuits=len(dataset),
        num_qubits=dataset.num_qubits,
        max_gates=dataset.max_gates,
        gate_pool=dataset.gate_pool.names,
        qubit_counts=_counts(dataset.sizes[:, 0]),
        prompt_counts=counts,
        prompt_entangled={
            prompt: number
            for prompt, number in zip(dataset.prompts, labels.entangled.tolist(), strict=True)
            if number >= 0 and prompt in counts
        },
        entangled_counts=_counts(entangled[entangled >= 0]),
        length_counts=_counts(lengths),
        length_counts_by_entangled={
            str(number): _counts(lengths[entangled == number]) for number in np.unique(entangled[entangled >= 0])
        },
        mean_length=float(lengths.mean()) if len(lengths) else 0.0,
        mean_gates_by_kind=dict(zip(dataset.gate_pool.names, num_gates.tolist(), strict=True)),
        imbalance=max(per_prompt) / min(per_prompt),
        exact_repetitions=len(dataset) - _num_distinct([block.exact_keys for block in blocks]),
        normal_form_repetitions=num_valid - _num_distinct([block.form_keys for block in blocks]),
        invalid_reasons=dict(sum((block.reasons for block in blocks), Counter()).most_common()),
        largest_target_error=None
        if dataset.targets is None
        else max((block.largest_target_error for block in blocks), default=0.0),
        wrong={check: _wrong([block.wrong[check] for block in blocks]) for check in CHECKS},
        gadgets=_gadgets(dataset),
    )


def _gadgets(dataset: CircuitDataset) -> FrequentPairs:
    """Count the pairs of gates in a data set, or in evenly spaced circuits of a large one."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_SAMPLED)).astype(np.int64))
    report = dataset.decoded(rows)
    return frequent_pairs(report.ids[report.valid], instruction_table(dataset.gate_pool, dataset.num_qubits))


def generation_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings used to generate a native data set; None for other paths."""
    if not os.path.isfile(path / DESCRIPTION):
        return None
    try:
        settings = read_description(path).get("settings")
    except DatasetFormatError:
        return None  # a genQC data set
    return dict(settings) if isinstance(settings, dict) else None


def _counts(values: NDArray[np.integer]) -> dict[str, int]:
    numbers, counts = np.unique(values, return_counts=True)
    return {str(number): count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}


def _num_distinct(keys: list[NDArray[np.uint64]]) -> int:
    return len(np.unique(np.concatenate(keys))) if keys else 0


def _wrong(rows: list[NDArray[np.integer]]) -> WrongCircuits:
    first = itertools.chain.from_iterable(part[:MOST_ROWS].tolist() for part in rows)
    return WrongCircuits(sum(map(len, rows)), tuple(itertools.islice(first, MOST_ROWS)))


class _Labels:
    """The parsed prompts of a data set.

    Attributes:
        is_srv: bool [P], whether the prompt requests a Schmidt rank vector.
        is_gates: bool [P], whether it lists gates.
        ranks: int8 [P, Q], the vector; 0 after its last entry, and all 0 if it cannot be read.
        entangled: int64 [P], number of entangled qubits; -1 for other prompts.
        listed: bool [P, gates], the gates listed; all False if any is unknown, repeated or out of order.
    """

    def __init__(self, dataset: CircuitDataset) -> None:
        prompts, pool = dataset.prompts, dataset.gate_pool
        self.is_srv = np.array([prompt.startswith(SRV_PROMPT) for prompt in prompts], dtype=np.bool_)
        self.is_gates = np.array([prompt.startswith(GATES_PROMPTS) for prompt in prompts], dtype=np.bool_)
        self.ranks = np.zeros((len(prompts), dataset.num_qubits), dtype=np.int8)
        self.entangled = np.full(len(prompts), -1)
        self.listed = np.zeros((len(prompts), len(pool)), dtype=np.bool_)
        for row in np.flatnonzero(self.is_srv):
            label = _vector(prompts[row], dataset.num_qubits)
            self.ranks[row, : len(label)] = label
            self.entangled[row] = label.count(2) if label else -1
        for row in np.flatnonzero(self.is_gates):
            self.listed[row] = _listed_gates(prompts[row], pool)


def _vector(prompt: str, num_qubits: int) -> tuple[int, ...]:
    """Read the Schmidt rank vector of a prompt; empty if it is wrong or its spacing differs from that of data sets."""
    try:
        label = parse_srv_prompt(prompt, num_qubits)
    except ConfigError:
        return ()
    return label if prompt == srv_prompt(label) else ()


def _listed_gates(prompt: str, pool: GatePool) -> list[bool]:
    """Return which gates of the pool "Compile using: ['h', 'cx']" lists; all False if the list is wrong."""
    listed, begin = re.findall(r"'(\w+)'", prompt), prompt.partition("[")[0]
    return [name in listed and prompt == gates_prompt(listed, pool, begin) for name in pool.names]


@dataclass(frozen=True, eq=False)
class _Block:
    """The findings in a block of circuits.

    Attributes:
        exact_keys: uint64 [n], equal for equal tokens and prompts.
        form_keys: uint64 [valid circuits], equal for equal qubits and normal forms.
        reasons: What is wrong with invalid circuits, and how often.
        num_gates: int64 [gates], number of gates of each kind.
        wrong: The rows of the data set that fail each check, in ascending order.
        largest_target_error: As in `InspectionReport`, for this block.
    """

    exact_keys: NDArray[np.uint64]
    form_keys: NDArray[np.uint64]
    reasons: Counter[str]
    num_gates: NDArray[np.int64]
    wrong: dict[str, NDArray[np.integer]]
    largest_target_error: float


def _inspect_block(dataset: CircuitDataset, labels: _Labels, block: slice) -> _Block:
    """Verify the circuits of a block; circuits with wrong tokens are not checked further."""
    table = instruction_table(dataset.gate_pool, dataset.num_qubits)
    tokens, sizes, prompts = dataset.tokens[block], dataset.sizes[block], dataset.prompt_index[block]
    report = dataset.decoded(block)
    keys = [row_keys(tokens), prompts.astype(np.uint64), angle_keys(dataset.exact_angles[block])]
    exact_keys = row_keys(np.column_stack(keys))

    rows = np.flatnonzero(report.valid)
    angles = None if dataset.angles is None else dataset.angles[block][rows]
    tokens, sizes, prompts, ids = tokens[rows], sizes[rows], prompts[rows], report.ids[rows]
    widths, are_right = _widths(tokens, sizes, table.pool)
    used = _gates_used(ids, table)
    is_srv, is_gates, listed = labels.is_srv[prompts], labels.is_gates[prompts], labels.listed[prompts]
    is_wrong = {
        "sizes": ~are_right | (sizes[:, 1] != _lengths(ids)),
        "labels": is_srv.copy(),
        "gate lists": is_gates & (((used > 0) & ~listed).any(axis=1) | ~listed.any(axis=1)),
        "prompts": ~is_srv & ~is_gates,
        "targets": np.zeros(len(rows), dtype=np.bool_),
    }
    if is_srv.any():
        ranks = schmidt_rank_vectors(ids[is_srv], table)
        ranks[np.arange(table.num_qubits) >= widths[is_srv, None]] = 0
        is_wrong["labels"][is_srv] = (ranks != labels.ranks[prompts[is_srv]]).any(axis=1)
    largest_error = 0.0
    if dataset.targets is not None:
        is_wrong["targets"], largest_error = _check_targets(
            ids, angles, dataset.targets[block][rows], table, dataset.task
        )
    return _Block(
        exact_keys=exact_keys,
        form_keys=row_keys(circuit_keys(ids, table, widths, angles)),
        reasons=Counter(reason for reason in report.reasons if reason != VALID),
        num_gates=used.sum(axis=0),
        wrong={"tokens": block.start + np.flatnonzero(~report.valid)}
        | {check: block.start + rows[found] for check, found in is_wrong.items()},
        largest_target_error=largest_error,
    )


def _widths(
    tokens: NDArray[np.int8], sizes: NDArray[np.int16], pool: GatePool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the number of qubits of each circuit, found from its tokens, and whether its size agrees.

    A circuit without gates may be all padding; then any size is accepted.

    Returns:
        int64 [N] and bool [N].
    """
    present = (np.abs(tokens) != pool.padding_token).any(axis=2)  # [N, Q]
    last = np.where(present, np.arange(1, present.shape[1] + 1), 0).max(axis=1)
    without_gaps = present.sum(axis=1) == last
    return np.where(last > 0, last, sizes[:, 0]), (last == 0) | (without_gaps & (last == sizes[:, 0]))


def _lengths(ids: Ids) -> NDArray[np.int64]:
    """Return the number of time steps of each circuit up to its last gate, int64 [N]."""
    lengths: NDArray[np.int64] = np.where(ids != NO_GATE, np.arange(1, ids.shape[1] + 1), 0).max(axis=1)
    return lengths


def _gates_used(ids: Ids, table: InstructionTable) -> NDArray[np.int64]:
    """Return how often each circuit uses each gate, int64 [N, gates]."""
    kinds = table.gate_index[ids]
    return np.stack([np.count_nonzero(kinds == index, axis=1) for index in range(len(table.pool))], axis=1)


def _check_targets(
    ids: Ids, angles: Angles | None, stored: NDArray[np.float32], table: InstructionTable, task: Task
) -> tuple[NDArray[np.bool_], float]:
    """Return which stored targets are wrong, bool [N], and the largest error; see `_target_errors`."""
    errors = _target_errors(ids, angles, stored, table, task)
    is_wrong = errors > UNITARY_TOLERANCE
    doubtful = np.flatnonzero(is_wrong)
    is_wrong[doubtful] = errors[doubtful] > _tolerances(stored[doubtful])
    return is_wrong, float(errors.max(initial=0))


def _target_errors(
    ids: Ids, angles: Angles | None, stored: NDArray[np.float32], table: InstructionTable, task: Task
) -> NDArray[np.float64]:
    """Return the largest error of each stored target, up to a global phase.

    Args:
        ids: int16 [N, T].
        angles: float64 [N, T, A]; None for gates without angles.
        stored: float32 [N, 2, D, R].
        table: The instructions that the ids index.
        task: Defines the targets.

    Returns:
        float64 [N]; infinite where an entry is NaN.
    """
    errors = np.zeros(len(ids))
    for piece in pieces(len(ids), stored.shape[2] * stored.shape[3]):
        exact = task.targets_of(ids[piece], table, None if angles is None else angles[piece])
        given = stored[piece, 0] + 1j * stored[piece, 1].astype(np.float64)
        overlap = np.einsum("nij,nij->n", exact.conj(), given)
        phase = np.where(np.abs(overlap) > 0, overlap, 1)  # without overlap, any phase will do
        exact *= (phase / np.abs(phase))[:, None, None]
        errors[piece] = np.abs(given - exact).max(axis=(1, 2))
    return np.nan_to_num(errors, nan=np.inf)


def _tolerances(stored: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the allowed error of each matrix, float64 [N]: larger if all its entries fit in 16 bits."""
    with np.errstate(over="ignore"):  # overflow gives inf, which differs from the stored value
        is_half = (stored.astype(np.float16) == stored).all(axis=(1, 2, 3))
    is_bfloat16 = (stored.view(np.uint32) % 2**16 == 0).all(axis=(1, 2, 3))  # bfloat16 is the upper half of a float32
    tolerances = np.where(is_half, HALF_TOLERANCE, UNITARY_TOLERANCE)
    return np.where(is_bfloat16, BFLOAT16_TOLERANCE, tolerances)
