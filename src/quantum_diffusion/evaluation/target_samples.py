"""Targets and samples of an evaluation: draws targets from a data set, samples for them, and finds the best circuits.

`evaluation.target_evaluation` turns them into figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool, Matrix
from quantum_diffusion.circuits.instructions import (
    Angles,
    Ids,
    InstructionTable,
    compact,
    gate_count,
    gates_first,
    instruction_table,
)
from quantum_diffusion.circuits.keys import row_keys
from quantum_diffusion.circuits.matrices import (
    EXACT,
    EXACT_ANGLES,
    STORED_TOLERANCE,
    exact_below,
    from_two_channels,
    infidelities,
    matrix_keys,
)
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, circuits_from_ids
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.blocks import row_blocks
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import IncompatibleDatasetsError
from quantum_diffusion.evaluation.metrics import dataset_keys, shortest_distinct
from quantum_diffusion.evaluation.optimum import Optimum
from quantum_diffusion.evaluation.report.results import MOST_FAILED
from quantum_diffusion.evaluation.target_metrics import MOST_CIRCUITS
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetSamples, TargetTask

_BLOCK_BYTES = 2**28
"""Memory for the targets of one batch of samples."""


@dataclass(frozen=True, eq=False)
class Targets:
    """M targets and the circuits they were computed from.

    Attributes:
        task: Defines the targets.
        rows: int64 [M], their rows in the data set.
        requests: M requests, whose targets are computed from the targets' own circuits.
        ids: int16 [M, T], the targets' own circuits.
        table: The instructions that the ids index.
        angles: float64 [M, T, A], the angles of these circuits; None for gates without angles.
    """

    task: TargetTask
    rows: NDArray[np.int64]
    requests: Requests
    ids: Ids
    table: InstructionTable
    angles: Angles | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def matrices(self) -> Matrix:
        """Targets, complex128 [M, D, R], on all qubits of the data set."""
        assert self.requests.targets is not None
        return self.requests.targets

    @property
    def corners(self) -> list[Matrix]:
        """Targets restricted to their own qubits, M views of complex128 [d, r]."""
        widths = self.requests.num_qubits.tolist()
        return [self.task.corner(*pair) for pair in zip(self.matrices, widths, strict=True)]

    @property
    def gates(self) -> list[tuple[str, ...]]:
        """The gates allowed by each prompt."""
        return [self.task.gates_of(prompt, self.table.pool) for prompt in self.requests.prompts]

    @property
    def names(self) -> list[str]:
        """The name of each target, from its row in the data set."""
        return [f"target_{row:06d}" for row in self.rows.tolist()]

    @property
    def own_circuits(self) -> list[Circuit]:
        """The circuits that the targets were computed from."""
        return circuits_from_ids(self.ids, self.table, self.requests.num_qubits.tolist(), self.angles)

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> Targets:
        """Return some of the targets."""
        rows = np.arange(len(self))[chosen]
        angles = None if self.angles is None else self.angles[rows]
        return Targets(self.task, self.rows[rows], self.requests.take(rows), self.ids[rows], self.table, angles)


@dataclass(frozen=True, eq=False)
class Tries:
    """Samples for M targets, n for each.

    Attributes:
        ids: int16 [M, n, T], gates moved to the front.
        infidelities: float64 [M, n]; 1 for invalid samples.
        reasons: How often each kind of sample occurred, "valid" included.
        angles: float64 [M, n, T, A], refined angles; None for gates without angles.
    """

    ids: Ids
    infidelities: NDArray[np.float64]
    reasons: dict[str, int]
    angles: Angles | None = None

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which samples match their target, bool [M, n]."""
        exact: NDArray[np.bool_] = self.infidelities < (EXACT if self.angles is None else EXACT_ANGLES)
        return exact


# ------------------------------------------------------------------------------------------------- targets


def draw_targets(dataset: CircuitDataset, count: int, seed: int) -> Targets:
    """Draw targets at random, without duplicates (equal targets with equal qubits and gates).

    Args:
        dataset: Circuits with their targets.
        count: Maximum number of targets.
        seed: Seed of the selection.

    Raises:
        IncompatibleDatasetsError: A stored target does not match its circuit.
    """
    task = dataset.task
    assert isinstance(task, TargetTask)
    assert dataset.targets is not None
    rows = np.sort(numpy_generator(seed, "targets").permutation(len(dataset))[:count])
    circuits = dataset.labelled(rows)
    # float64; the stored targets may be rounded to 16 bits
    matrices = task.targets_of(circuits.ids, circuits.table, circuits.angles)
    valid = dataset.decoded(rows).valid
    wrong = rows[~valid | (infidelities(matrices, from_two_channels(dataset.targets[rows])) > STORED_TOLERANCE)]
    if len(wrong):
        raise IncompatibleDatasetsError(
            f"the target stored in row {wrong[0]} of the data set is not that of its circuit: see what is wrong with "
            "`quantum-diffusion inspect`, and generate the data set again"
        )
    asked = dataset.prompt_index[rows]
    tasks = np.stack([matrix_keys(matrices), circuits.num_qubits.astype(np.uint64), asked.astype(np.uint64)], axis=1)
    first = np.sort(np.unique(tasks, axis=0, return_index=True)[1])
    corners = [task.corner(*pair) for pair in zip(matrices, circuits.num_qubits.tolist(), strict=True)]
    requests = task.requests(circuits.prompts, corners, circuits.table)
    if circuits.angles is None:
        return Targets(task, rows, requests, compact(circuits.ids), circuits.table).take(first)
    ids, angles = gates_first(circuits.ids, circuits.angles)
    return Targets(task, rows, requests, ids, circuits.table, angles).take(first)


def known_targets(
    targets: Targets, dataset: CircuitDataset, training: CircuitDataset
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which targets occur in the training data, by the normal form of their own circuit and by the target.

    Args:
        targets: Targets drawn from `dataset`.
        dataset: The data set they come from.
        training: Circuits with targets of the same task and gate pool.

    Returns:
        bool [M] and bool [M].
    """
    assert training.targets is not None
    num_qubits = max(dataset.num_qubits, training.num_qubits)
    shape = num_qubits, max(dataset.max_gates, training.max_gates)
    by_circuit = np.isin(dataset_keys(dataset.take(targets.rows), *shape), dataset_keys(training, *shape))
    mine = matrix_keys(targets.task.pad(targets.matrices, num_qubits))
    by_target = np.zeros(len(targets), dtype=np.bool_)
    for block in row_blocks(training.targets):
        by_target |= np.isin(mine, matrix_keys(targets.task.pad(from_two_channels(block), num_qubits)))
    return by_circuit, by_target


# ------------------------------------------------------------------------------------------------- samples


def sample_tries(
    pipeline: DiffusionPipeline,
    targets: Targets,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Tries:
    """Sample `samples_per_target` circuits per target, in blocks to limit memory; blocks do not affect the samples."""
    samples, task = config.samples_per_target, targets.task
    asked = pipeline.requests(targets.requests.prompts, targets.corners)
    total = samples * len(targets)
    entries = 2**pipeline.config.num_qubits * task.columns(pipeline.config.num_qubits)
    size = max(1, _BLOCK_BYTES // (16 * entries))
    parts: list[TargetSamples] = []
    reasons = Counter[str]()
    for first in range(0, total, size):
        rows = np.arange(first, min(first + size, total)) // samples

        def advance(done: int, _: int, first: int = first) -> None:
            if progress:
                progress(first + done, total)

        part = pipeline.sample(asked.take(rows), config.seed, config.model_params, first_sample=first, progress=advance)
        assert isinstance(part, TargetSamples)
        parts.append(part)
        reasons.update(part.report.reasons)
    ids = np.concatenate([part.ids for part in parts])
    angles = [part.angles for part in parts if part.angles is not None]
    return Tries(
        ids=ids.reshape(len(targets), samples, -1),
        infidelities=np.concatenate([part.infidelities for part in parts]).reshape(len(targets), samples),
        reasons=dict(reasons.most_common()),
        angles=np.concatenate(angles).reshape(len(targets), samples, ids.shape[1], -1) if angles else None,
    )


def random_infidelities(targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
    """Return the infidelities of random circuits for each target, float64 [M, samples].

    They are as long as the target's own circuit, with gates uniform over those its prompt allows, and refined angles.
    """
    rng = numpy_generator(seed, "random baseline")
    found = []
    lengths, widths = gate_count(targets.ids).tolist(), targets.requests.num_qubits.tolist()
    for target, gates, length, width in zip(targets.corners, targets.gates, lengths, widths, strict=True):
        fitting = GatePool(gate for gate in gates if GATES[gate].num_qubits <= width)
        table = instruction_table(fitting, width)
        ids = random_ids(rng, table, samples, length, length)
        asked = targets.task.requests([targets.task.prompt(fitting.names, fitting)], [target], table)
        report = DecodeReport(ids, np.ones(samples, dtype=np.bool_), (VALID,) * samples)
        wanted = asked.repeated(samples)
        assert wanted.targets is not None
        angles = refine(ids, table.angles[ids], wanted.targets, table)[0] if table.pool.num_angles else None
        found.append(targets.task.verify(wanted, report, table, angles).infidelities)
    return np.array(found)


def own_forms(targets: Targets) -> Ids:
    """Return the targets' own circuits in the form that circuits found have, int16 [M, T]."""
    if targets.angles is None:
        return normal_form(targets.ids, targets.table)
    return merge_rotations(targets.ids, targets.angles, targets.table)[0]


def exact_circuits(
    pipeline: DiffusionPipeline, targets: Targets, tries: Tries
) -> tuple[list[int], list[list[Circuit]]]:
    """Return the number of distinct exact circuits of each target, and the shortest of them.

    Circuits are reduced to normal form, where no two neighbours cancel, and simulated again in that form; see
    `normal_form`.
    """
    counts, shortest, table = [], [], pipeline.table
    widths = targets.requests.num_qubits.tolist()
    for row, (target, width) in enumerate(zip(targets.corners, widths, strict=True)):
        ids, angles = tries.ids[row, tries.exact[row]], None
        if tries.angles is None:
            forms = normal_form(ids, table)
        else:
            forms, angles = merge_rotations(ids, tries.angles[row, tries.exact[row]], table)
        distinct = shortest_distinct(row_keys(table.first[forms]), gate_count(forms))
        counts.append(len(distinct))
        chosen = distinct[:MOST_CIRCUITS]
        wanted = targets.task.pad(target, table.num_qubits)[None]
        exact = None if angles is None else angles[chosen]
        good = targets.task.distances(forms[chosen], wanted, table, exact) < exact_below(table.pool)
        chosen, exact = chosen[good], None if exact is None else exact[good]
        shortest.append(circuits_from_ids(forms[chosen], table, [width] * len(chosen), exact))
    return counts, shortest


def nearest_circuits(pipeline: DiffusionPipeline, targets: Targets, tries: Tries) -> list[tuple[str, Circuit]]:
    """Return the nearest circuits for the first unsolved targets, at most `MOST_FAILED`.

    Each comes with a line that gives the target, prompt and infidelity. Targets that no sample comes near are left out.
    """
    best = tries.infidelities.argmin(axis=1)
    least = tries.infidelities.min(axis=1)
    rows = np.flatnonzero((least >= exact_below(pipeline.gate_pool)) & (least < 1))[:MOST_FAILED].tolist()
    widths = targets.requests.num_qubits[rows].tolist()
    angles = None if tries.angles is None else tries.angles[rows, best[rows]]
    circuits = circuits_from_ids(tries.ids[rows, best[rows]], pipeline.table, widths, angles)
    titles = [f"{targets.names[row]}, {targets.requests.prompts[row]}: infidelity {least[row]:.2g}" for row in rows]
    return list(zip(titles, circuits, strict=True))


def least_gates(targets: Targets, found: Sequence[int | None]) -> list[int | None]:
    """Return the minimum number of gates for each target with its allowed gates; None where it is unknown.

    Args:
        targets: M targets, each with its own circuit.
        found: Number of gates of the shortest circuit found for each target; None if none was found.
    """
    if targets.table.pool.num_angles:
        return [None] * len(targets)  # circuits with angles cannot be listed
    optima: list[int | None] = []
    tables: dict[bytes, Optimum] = {}
    for target, allowed, own, shortest in zip(
        targets.matrices, targets.requests.allowed, gate_count(targets.ids).tolist(), found, strict=True
    ):
        key = allowed.tobytes()
        if key not in tables:
            tables[key] = Optimum(targets.task, targets.table, allowed)
        optima.append(tables[key].least_gates(target, min(own, own if shortest is None else shortest)))
    return optima
