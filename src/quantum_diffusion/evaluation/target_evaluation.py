"""Evaluates a model on targets: many samples each, all simulated, compared with random circuits and Qiskit.

Targets come from a data set; those that occur in the training data are counted and left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import gate_count
from quantum_diffusion.circuits.matrices import exact_below
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import IncompatibleDatasetsError, counted
from quantum_diffusion.evaluation import target_metrics as metrics
from quantum_diffusion.evaluation.metrics import sampled_figures, wilson_interval
from quantum_diffusion.evaluation.report.results import content, write_results_folder
from quantum_diffusion.evaluation.report.tables import summary_rows, summary_table
from quantum_diffusion.evaluation.report.targets import save_success_chart, save_target_drawings
from quantum_diffusion.evaluation.target_metrics import AngleFigures, TargetMetrics
from quantum_diffusion.evaluation.target_samples import (
    Targets,
    Tries,
    draw_targets,
    exact_circuits,
    known_targets,
    least_gates,
    nearest_circuits,
    own_forms,
    random_infidelities,
    sample_tries,
)
from quantum_diffusion.evaluation.training_data import TrainingData
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline


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
    own_lengths = gate_count(own_forms(targets))
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
        against_own=metrics.compare_gates(found, own_lengths.tolist()),
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
