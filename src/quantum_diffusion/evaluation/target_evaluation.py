"""Evaluates a model on targets: many samples each, all simulated, compared with random circuits and Qiskit.

Targets come from a data set; those that occur in the training data are counted and left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
from quantum_diffusion.errors import IncompatibleDatasetsError, counted
from quantum_diffusion.evaluation import target_metrics as metrics
from quantum_diffusion.evaluation.metrics import dataset_keys, sampled_figures, shortest_distinct, wilson_interval
from quantum_diffusion.evaluation.optimum import Optimum
from quantum_diffusion.evaluation.report.results import MOST_FAILED, content, write_results_folder
from quantum_diffusion.evaluation.report.tables import summary_rows, summary_table
from quantum_diffusion.evaluation.report.targets import save_success_chart, save_target_drawings
from quantum_diffusion.evaluation.target_metrics import MOST_CIRCUITS, AngleFigures, TargetMetrics
from quantum_diffusion.evaluation.training_data import TrainingData
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


@dataclass(frozen=True, repr=False)
class TargetResult:
    """Results of an evaluation on targets.

    Attributes:
        metrics: The figures.
        targets: The requests.
        tries: All samples.
        verified: Distinct exact circuits by target name, shortest first, at most `MOST_CIRCUITS` each.
        failed: The nearest circuit for some unsolved targets, each with its target and infidelity.
        folder: Folder of the written results, None if not written.
        unit: What a key of `verified` stands for.
    """

    metrics: TargetMetrics
    targets: Targets
    tries: Tries
    verified: dict[str, list[Circuit]]
    failed: list[tuple[str, Circuit]]
    folder: Path | None = None
    unit: ClassVar[str] = "target"

    def __str__(self) -> str:
        return summary_table(self.metrics)

    def __repr__(self) -> str:
        return f"<TargetResult: {counted(sum(map(len, self.verified.values())), 'verified circuit')}, in {self.folder}>"

    def write(self, folder: Path, config: EvaluationConfig) -> None:
        """Write the results into a folder; see `write_target_results`."""
        write_target_results(self, folder, config)


def evaluate_targets(
    pipeline: DiffusionPipeline,
    dataset: CircuitDataset,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
    on_training_data: bool | None = None,
    training: TrainingData | None = None,
) -> TargetResult:
    """Draw targets, sample for each, verify and compare, without writing anything.

    Args:
        pipeline: The model.
        dataset: Circuits with their targets, over the model's gate pool.
        config: The numbers of targets and samples, and the sampling options.
        progress: Called with (circuits so far, circuits wanted).
        on_training_data: Whether the model was trained on these targets; None if unknown.
        training: The model's training data, whose targets are left out; None leaves out none, as when evaluating on the
            training data.

    Raises:
        IncompatibleDatasetsError: A stored target does not match its circuit, or all targets occur in training.
        ConfigError: The model does not support a sampling option.
    """
    drawn = draw_targets(dataset, config.num_targets, config.seed)
    by_circuit = by_target = None
    targets = drawn
    if training is not None and training.datasets:
        known = [known_targets(drawn, dataset, trained) for trained in training.datasets]
        by_circuit, by_target = (np.any(kind, axis=0) for kind in zip(*known, strict=True))
        targets = drawn.take(~(by_circuit | by_target))
        if not len(targets):
            raise IncompatibleDatasetsError(
                f"every target drawn from {config.dataset!r} ({len(drawn)}) occurs in the training data: give a data "
                "set made with datasets.exclude, or the training data set itself"
            )

    started = time.perf_counter()
    tries = sample_tries(pipeline, targets, config, progress)
    seconds = time.perf_counter() - started
    samples = config.samples_per_target
    by_chance = random_infidelities(targets, samples, config.seed)
    below = exact_below(dataset.gate_pool)
    exact, random = tries.exact.sum(axis=1), (by_chance < below).sum(axis=1)
    counts, shortest = exact_circuits(pipeline, targets, tries)
    found = [len(circuits[0]) if circuits else None for circuits in shortest]
    own = gate_count(targets.ids)
    # The circuits found are in normal form, so the circuits compared with them must be, too.
    own_forms = gate_count(_own_forms(targets))
    qiskit = [targets.task.by_qiskit(*pair) for pair in zip(targets.corners, targets.gates, strict=True)]
    optima = least_gates(targets, found)
    best_of, random_best_of = (
        {str(k): metrics.best_of_k(successes, samples, k) for k in metrics.tries(samples)}
        for successes in (exact, random)
    )
    edges = metrics.INFIDELITY_EDGES if targets.angles is None else metrics.ANGLE_EDGES
    figures = TargetMetrics(
        num_targets=len(targets),
        samples_per_target=samples,
        exact_below=below,
        exact_rate=float(tries.exact.mean()),
        exact_rate_interval=metrics.rate_interval(exact / samples),
        best_of={k: float(chances.mean()) for k, chances in best_of.items()},
        best_of_intervals={k: wilson_interval(chances.sum(), len(chances)) for k, chances in best_of.items()},
        baseline_random_rate=float(random.mean() / samples),
        baseline_random_best_of={k: float(chances.mean()) for k, chances in random_best_of.items()},
        distinct_exact=float(np.mean(counts)),
        against_own=metrics.compare_gates(found, own_forms.tolist()),
        qiskit_rate=float(np.mean([circuit is not None for circuit in qiskit]))
        if targets.task.qiskit_competes
        else None,
        against_qiskit=metrics.compare_gates(found, [None if circuit is None else len(circuit) for circuit in qiskit]),
        against_optimum=metrics.compare_gates(found, optima),
        infidelity_edges=edges,
        infidelity_counts=metrics.histogram(tries.infidelities, edges),
        best_infidelity_counts=metrics.histogram(tries.infidelities.min(axis=1), edges),
        by_length=metrics.by_group(own, exact, random, samples),
        by_allowed_gates=metrics.by_group(np.array([len(gates) for gates in targets.gates]), exact, random, samples),
        on_training_data=on_training_data,
        not_checked=None if training is None else training.missing,
        num_known_circuits=None if by_circuit is None else int(by_circuit.sum()),
        num_known_targets=None if by_target is None else int(by_target.sum()),
        angles=_angle_figures(targets, tries, by_chance, exact, random),
        **sampled_figures(pipeline, config, tries.reasons, seconds),
    )
    verified = dict(zip(targets.names, shortest, strict=True))
    return TargetResult(figures, targets, tries, verified, nearest_circuits(pipeline, targets, tries))


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


def _own_forms(targets: Targets) -> Ids:
    """Return the targets' own circuits in the form that circuits found have, int16 [M, T]."""
    if targets.angles is None:
        return normal_form(targets.ids, targets.table)
    return merge_rotations(targets.ids, targets.angles, targets.table)[0]


def _angle_figures(
    targets: Targets,
    tries: Tries,
    by_chance: NDArray[np.float64],
    exact: NDArray[np.int64],
    random: NDArray[np.int64],
) -> AngleFigures | None:
    """Return the figures of circuits with angles, None for gates without."""
    if targets.angles is None:
        return None
    nothing = np.zeros((len(targets), 1), dtype=np.int16)
    empty = targets.task.distances(nothing, targets.matrices, targets.table)
    return AngleFigures(
        solved_below=metrics.solved_below(tries.infidelities),
        baseline_random_solved_below=metrics.solved_below(by_chance),
        empty_solved_below=metrics.solved_below(empty[:, None]),
        mean_empty_infidelity=float(empty.mean()),
        by_angles=metrics.by_group(
            targets.table.num_angles[targets.ids].sum(axis=1), exact, random, tries.infidelities.shape[1]
        ),
    )


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


# ------------------------------------------------------------------------------------------------- results


def write_target_results(result: TargetResult, folder: Path, config: EvaluationConfig) -> None:
    """Write the results of `evaluate_targets` into a folder, replacing those of an earlier evaluation.

    Raises:
        CheckpointError: The folder cannot be written; its previous contents are unchanged.
    """
    targets = result.targets
    pairs = [
        (name, own, result.verified[name][0])
        for name, own in zip(targets.names, targets.own_circuits, strict=True)
        if result.verified[name]
    ]
    pictures: dict[str, Callable[[Path], None]] = {
        "success.png": lambda path: save_success_chart(result.metrics, path),
        "circuits.png": lambda path: save_target_drawings(pairs, path, -(-config.max_drawings // 2)),
    }
    write_results_folder(
        folder,
        content(result.metrics, config),
        summary_rows(result.metrics),
        {name: circuits for name, circuits in result.verified.items() if circuits},
        dict(zip(targets.names, targets.requests.prompts, strict=True)),
        pictures,
        result.failed,
    )
