"""Evaluation of a compilation model: many tries a target, each simulated, beside random circuits and Qiskit.

Targets are unitaries of a data set; those that the model has seen in training are counted and left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.backends.qiskit import synthesize
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact, gate_count, instruction_table
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.prompts import parse_gates_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import corners, infidelities, unitaries
from quantum_diffusion.circuits.tokenizer import VALID, DecodeReport, circuits_from_ids
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.blocks import row_blocks
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.merging import row_keys
from quantum_diffusion.data.selection import unitary_keys
from quantum_diffusion.errors import IncompatibleDatasetsError
from quantum_diffusion.evaluation import compilation_metrics as metrics
from quantum_diffusion.evaluation.compilation_metrics import CompilationMetrics
from quantum_diffusion.evaluation.metrics import dataset_keys, sampled_figures, shortest_distinct, wilson_interval
from quantum_diffusion.evaluation.training_data import TrainingData
from quantum_diffusion.pipeline.compilation import (
    CompilationDiffusionPipeline,
    Matrix,
    from_two_channels,
    pad_unitary,
)
from quantum_diffusion.pipeline.samples import EXACT, verify_unitaries
from quantum_diffusion.seeding import numpy_generator

MOST_CIRCUITS = 10
"""Distinct exact circuits of a target that are kept, shortest first."""

_STORED_TOLERANCE = 1e-4
"""Infidelity of a stored unitary with its own circuit; float16 leaves about 1e-6, another circuit 0.1 and more."""

_BLOCK_BYTES = 2**28
"""Memory for the targets of the samples that are asked for at once."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Unitaries to compile.

    Attributes:
        rows: int64 [M], where they are in the data set.
        prompts: M prompts that name the allowed gates.
        widths: int64 [M], qubits of each.
        unitaries: complex128 [M, D, D], computed from the targets' own circuits; the identity on qubits beyond these.
        ids: int16 [M, T], the circuits the targets were made with.
        table: The instructions the ids number.
    """

    rows: NDArray[np.int64]
    prompts: tuple[str, ...]
    widths: NDArray[np.int64]
    unitaries: Matrix
    ids: Ids
    table: InstructionTable

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gates(self) -> list[tuple[str, ...]]:
        """The gates that each prompt allows."""
        return [parse_gates_prompt(prompt, self.table.pool) for prompt in self.prompts]

    @property
    def names(self) -> list[str]:
        """One name a target, of its row in the data set."""
        return [f"target_{row:06d}" for row in self.rows.tolist()]

    @property
    def matrices(self) -> list[Matrix]:
        """The unitaries on the qubits they have, M of complex128 [d, d]."""
        return corners(self.unitaries, self.widths)

    @property
    def own_circuits(self) -> list[Circuit]:
        """The circuits the targets were made with."""
        return circuits_from_ids(self.ids, self.table, self.widths.tolist())

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> Targets:
        """Return some of the targets."""
        prompts = tuple(np.array(self.prompts, dtype=object)[chosen].tolist())
        rows, widths = self.rows[chosen], self.widths[chosen]
        return Targets(rows, prompts, widths, self.unitaries[chosen], self.ids[chosen], self.table)


@dataclass(frozen=True, eq=False)
class Tries:
    """What was sampled for M targets, n times each.

    Attributes:
        ids: int16 [M, n, T], gates moved to the front.
        infidelities: float64 [M, n]; 1 for invalid samples.
        reasons: How often each kind of sample occurred, "valid" included.
    """

    ids: Ids
    infidelities: NDArray[np.float64]
    reasons: dict[str, int]

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which samples are their target, bool [M, n]."""
        exact: NDArray[np.bool_] = self.infidelities < EXACT
        return exact


@dataclass(frozen=True)
class CompilationResult:
    """What an evaluation of a compilation model found.

    Attributes:
        metrics: The figures.
        targets: What was asked for.
        tries: All samples.
        verified: Distinct exact circuits of each target by its name, shortest first, at most `MOST_CIRCUITS`.
        folder: Where the results were written, None when they were not.
        unit: What `verified` has an entry for.
    """

    metrics: CompilationMetrics
    targets: Targets
    tries: Tries
    verified: dict[str, list[Circuit]]
    folder: Path | None = None
    unit: ClassVar[str] = "target"


def evaluate_compilation(
    pipeline: CompilationDiffusionPipeline,
    dataset: CircuitDataset,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
    on_training_data: bool | None = None,
    training: TrainingData | None = None,
) -> CompilationResult:
    """Draw targets, sample for each, verify and compare; writes nothing.

    Args:
        pipeline: The model.
        dataset: Circuits with their unitaries, over the model's gate pool.
        config: How many of what, and how to sample.
        progress: Called with (circuits so far, circuits wanted).
        on_training_data: Whether the model was trained on these targets; None when that is not known.
        training: What the model was trained on, to leave out the targets that occur there; None leaves out none, since
            they are the training data or nobody asks.

    Raises:
        IncompatibleDatasetsError: A stored unitary is not that of its circuit, or all targets occur in training.
        ConfigError: A sampling option is not for this model.
    """
    drawn = draw_targets(dataset, config.num_targets, config.seed)
    by_circuit = by_unitary = None
    targets = drawn
    if training is not None and training.datasets:
        known = [known_targets(drawn, dataset, trained) for trained in training.datasets]
        by_circuit, by_unitary = (np.any(kind, axis=0) for kind in zip(*known, strict=True))
        targets = drawn.take(~(by_circuit | by_unitary))
        if not len(targets):
            raise IncompatibleDatasetsError(
                f"every target drawn from {config.dataset!r} ({len(drawn)}) occurs in the training data: give a data "
                "set made with datasets.exclude, or the training data set itself"
            )

    started = time.perf_counter()
    tries = sample_tries(pipeline, targets, config, progress)
    seconds = time.perf_counter() - started
    samples = config.samples_per_target
    exact, random = tries.exact.sum(axis=1), random_successes(targets, samples, config.seed)
    counts, shortest = exact_circuits(pipeline, targets, tries)
    found = [len(circuits[0]) if circuits else None for circuits in shortest]
    own = gate_count(targets.ids)
    # Circuits found are in normal form, so what they are compared with is too.
    own_forms = gate_count(normal_form(targets.ids, targets.table))
    qiskit = [synthesize(target, gates) for target, gates in zip(targets.matrices, targets.gates, strict=True)]
    best_of, random_best_of = (
        {str(k): metrics.best_of_k(successes, samples, k) for k in metrics.tries(samples)}
        for successes in (exact, random)
    )
    figures = CompilationMetrics(
        num_targets=len(targets),
        samples_per_target=samples,
        exact_below=EXACT,
        exact_rate=float(tries.exact.mean()),
        exact_rate_interval=metrics.rate_interval(exact / samples),
        best_of={k: float(chances.mean()) for k, chances in best_of.items()},
        best_of_intervals={k: wilson_interval(chances.sum(), len(chances)) for k, chances in best_of.items()},
        baseline_random_rate=float(random.mean() / samples),
        baseline_random_best_of={k: float(chances.mean()) for k, chances in random_best_of.items()},
        distinct_exact=float(np.mean(counts)),
        against_own=metrics.compare_gates(found, own_forms.tolist()),
        qiskit_rate=float(np.mean([circuit is not None for circuit in qiskit])),
        against_qiskit=metrics.compare_gates(found, [None if circuit is None else len(circuit) for circuit in qiskit]),
        infidelity_edges=metrics.INFIDELITY_EDGES,
        infidelity_counts=metrics.histogram(tries.infidelities),
        best_infidelity_counts=metrics.histogram(tries.infidelities.min(axis=1)),
        by_length=metrics.by_group(own, exact, random, samples),
        by_allowed_gates=metrics.by_group(np.array([len(gates) for gates in targets.gates]), exact, random, samples),
        on_training_data=on_training_data,
        not_checked=None if training is None else training.missing,
        num_known_circuits=None if by_circuit is None else int(by_circuit.sum()),
        num_known_unitaries=None if by_unitary is None else int(by_unitary.sum()),
        **sampled_figures(pipeline, config, tries.reasons, seconds),
    )
    return CompilationResult(figures, targets, tries, dict(zip(targets.names, shortest, strict=True)))


# ------------------------------------------------------------------------------------------------- targets


def draw_targets(dataset: CircuitDataset, count: int, seed: int) -> Targets:
    """Draw targets at random; of those with equal unitaries, qubits and gates one is kept.

    Args:
        dataset: Circuits with their unitaries.
        count: Most targets.
        seed: Decides which.

    Raises:
        IncompatibleDatasetsError: A stored unitary is not that of its circuit.
    """
    assert dataset.unitaries is not None
    rows = np.sort(numpy_generator(seed, "targets").permutation(len(dataset))[:count])
    report, matrices = dataset.simulate(rows)
    stored = from_two_channels(dataset.unitaries[rows])
    wrong = rows[~report.valid | (infidelities(matrices, stored) > _STORED_TOLERANCE)]
    if len(wrong):
        raise IncompatibleDatasetsError(
            f"the unitary of row {wrong[0]} of the data set is not that of its circuit: see what is wrong with "
            "`quantum-diffusion inspect`, and generate the data set again"
        )
    widths, asked = dataset.sizes[rows, 0].astype(np.int64), dataset.prompt_index[rows]
    tasks = np.stack([unitary_keys(matrices), widths.astype(np.uint64), asked.astype(np.uint64)], axis=1)
    first = np.sort(np.unique(tasks, axis=0, return_index=True)[1])
    prompts = tuple(dataset.prompts[index] for index in asked.tolist())
    table = instruction_table(dataset.gate_pool, dataset.num_qubits)
    return Targets(rows, prompts, widths, matrices, compact(report.ids), table).take(first)


def known_targets(
    targets: Targets, dataset: CircuitDataset, training: CircuitDataset
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which targets occur in training: by the normal form of their own circuit, and by their unitary.

    Args:
        targets: Targets drawn from `dataset`.
        dataset: Where they are from.
        training: Circuits with unitaries, of the same gate pool.

    Returns:
        bool [M] and bool [M].
    """
    assert training.unitaries is not None
    num_qubits = max(dataset.num_qubits, training.num_qubits)
    shape = num_qubits, max(dataset.max_gates, training.max_gates)
    by_circuit = np.isin(dataset_keys(dataset.take(targets.rows), *shape), dataset_keys(training, *shape))
    mine = unitary_keys(pad_unitary(targets.unitaries, num_qubits))
    by_unitary = np.zeros(len(targets), dtype=np.bool_)
    for block in row_blocks(training.unitaries):
        by_unitary |= np.isin(mine, unitary_keys(pad_unitary(from_two_channels(block), num_qubits)))
    return by_circuit, by_unitary


# ------------------------------------------------------------------------------------------------- samples


def sample_tries(
    pipeline: CompilationDiffusionPipeline,
    targets: Targets,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Tries:
    """Sample `samples_per_target` circuits for each target, in blocks that bound memory; blocks change no sample."""
    samples = config.samples_per_target
    prompts = np.array(targets.prompts, dtype=object)
    total = samples * len(targets)
    size = max(1, _BLOCK_BYTES // (16 * 4**pipeline.config.num_qubits))
    parts, reasons = [], Counter[str]()
    for first in range(0, total, size):
        rows = np.arange(first, min(first + size, total)) // samples

        def advance(done: int, _: int, first: int = first) -> None:
            if progress:
                progress(first + done, total)

        part = pipeline.sample_padded(
            prompts[rows].tolist(),
            pad_unitary(targets.unitaries[rows], pipeline.config.num_qubits),
            targets.widths[rows],
            config.seed,
            config.model_params,
            first_sample=first,
            progress=advance,
        )
        parts.append(part)
        reasons.update(part.report.reasons)
    ids = np.concatenate([part.ids for part in parts])
    return Tries(
        ids=ids.reshape(len(targets), samples, -1),
        infidelities=np.concatenate([part.infidelities for part in parts]).reshape(len(targets), samples),
        reasons=dict(reasons.most_common()),
    )


def random_successes(targets: Targets, samples: int, seed: int) -> NDArray[np.int64]:
    """Return how many random circuits are exact for each target, int64 [M].

    A target gets `samples` circuits of its own circuit's length, of gates uniform over those its prompt allows.
    """
    rng = numpy_generator(seed, "random baseline")
    successes = []
    lengths = gate_count(targets.ids).tolist()
    for target, prompt, gates, length in zip(targets.matrices, targets.prompts, targets.gates, lengths, strict=True):
        width = len(target).bit_length() - 1
        table = instruction_table(GatePool(gate for gate in gates if GATES[gate].num_qubits <= width), width)
        ids = random_ids(rng, table, samples, length, length)
        report = DecodeReport(ids, np.ones(samples, dtype=np.bool_), (VALID,) * samples)
        wanted = np.broadcast_to(target, (samples, *target.shape))
        found = verify_unitaries([prompt] * samples, wanted, np.full(samples, width), report, table)
        successes.append(int(found.matches.sum()))
    return np.array(successes, dtype=np.int64)


def exact_circuits(
    pipeline: CompilationDiffusionPipeline, targets: Targets, tries: Tries
) -> tuple[list[int], list[list[Circuit]]]:
    """Return the number of distinct exact circuits of each target, and the shortest of them.

    Circuits are in normal form, where no two neighbours cancel, and simulated once more in that form; see
    `normal_form`.
    """
    counts, shortest = [], []
    for ids, exact, target in zip(tries.ids, tries.exact, targets.matrices, strict=True):
        forms = normal_form(ids[exact], pipeline.table)
        forms = forms[shortest_distinct(row_keys(forms), gate_count(forms))]
        counts.append(len(forms))
        chosen = forms[:MOST_CIRCUITS]
        wanted = pad_unitary(target, pipeline.config.num_qubits)
        distances = infidelities(
            unitaries(chosen, pipeline.table), np.broadcast_to(wanted, (len(chosen), *wanted.shape))
        )
        chosen = chosen[distances < EXACT]
        shortest.append(circuits_from_ids(chosen, pipeline.table, [len(target).bit_length() - 1] * len(chosen)))
    return counts, shortest
