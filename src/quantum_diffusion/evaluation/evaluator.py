"""Evaluation of a saved model: sample for every prompt, verify by simulation, compare with baselines, write results.

What is written can be used as it stands: figures as JSON and Markdown, pictures, and the verified circuits as QASM.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.prompts import parse_gates_prompt
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import IncompatibleDatasetsError, memory_for
from quantum_diffusion.evaluation import metrics
from quantum_diffusion.evaluation.compilation_evaluator import CompilationResult, evaluate_compilation
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.compilation import save_compilation_drawings, save_success_chart
from quantum_diffusion.evaluation.report.pictures import save_accuracy_chart, save_circuit_drawings
from quantum_diffusion.evaluation.report.results import check_results_folder, write_results_folder
from quantum_diffusion.evaluation.report.tables import summary_rows
from quantum_diffusion.evaluation.training_data import find_training_data
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.checkpoint import load_pipeline, read_metadata
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.samples import SrvSamples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation of a model of Schmidt rank vectors found.

    Attributes:
        metrics: The figures.
        samples: All samples.
        verified: Distinct exact circuits of each prompt, shortest first.
        folder: Where the results were written, None when they were not.
        unit: What `verified` has an entry for.
    """

    metrics: EvaluationMetrics
    samples: SrvSamples
    verified: dict[str, list[Circuit]]
    folder: Path | None = None
    unit: ClassVar[str] = "prompt"


class Evaluator:
    """Evaluates the model a configuration names.

    Args:
        config: What to evaluate and how.

    Raises:
        CheckpointError: The model cannot be loaded, or `save_folder` holds something else or cannot be written.
        DatasetFormatError: The data set cannot be read.
        IncompatibleDatasetsError: Model and data set do not fit.
        ConfigError: The device or a sampling option is not possible.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = check_kind(config, EvaluationConfig, "config", PRESETS_HINT)
        self.folder = config.results_folder
        check_results_folder(self.folder)
        device = select_device(config.device)
        self.pipeline = load_pipeline(Path(config.model_dir), device, config.model_params.weights)
        self.pipeline.check_sampling(config.model_params)
        self.dataset = dataset_loader().load_dataset(config.dataset)
        check_fit(self.pipeline, self.dataset)

    @memory_for(
        "evaluating",
        "lower evaluation.num_samples (or num_targets and samples_per_target), or use a computer with more memory",
    )
    def run(self, progress: Callable[[int, int], None] | None = None) -> EvaluationResult | CompilationResult:
        """Evaluate and write the results; returns them too.

        Args:
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            IncompatibleDatasetsError: No target is left to evaluate on; see `evaluate_compilation`.
            CheckpointError: The results cannot be written.
        """
        config, pipeline = self.config, self.pipeline
        trained_on = read_metadata(Path(config.model_dir)).get("dataset_sha256")
        same = None if not trained_on else trained_on == self.dataset.fingerprint
        if isinstance(pipeline, CompilationDiffusionPipeline):
            training = None if same else find_training_data(Path(config.model_dir), Path(config.dataset))
            if training is not None and training.missing is not None:
                logger.warning("it is not checked whether training had the targets: %s", training.missing)
            found = evaluate_compilation(pipeline, self.dataset, config, progress, same, training)
            write_compilation(found, self.folder, config)
            return replace(found, folder=self.folder)
        result = evaluate(pipeline, self.dataset, config, progress, on_training_data=same)
        write_results(result, self.folder, config)
        return replace(result, folder=self.folder)


def check_fit(pipeline: DiffusionPipeline, dataset: CircuitDataset) -> None:
    """Refuse a data set that a model cannot be evaluated on.

    Raises:
        IncompatibleDatasetsError: The data set is for another kind of model, the gate pools differ, or the data set has
            more qubits.
        ConfigError: A prompt is not of the form that names the allowed gates (compilation models).
    """
    compiles = isinstance(pipeline, CompilationDiffusionPipeline)
    if compiles and dataset.unitaries is None:
        raise IncompatibleDatasetsError(
            "the model compiles unitaries, but the data set holds none: give one made with "
            "datasets.condition_type=UNITARY"
        )
    if not compiles and dataset.unitaries is not None:
        raise IncompatibleDatasetsError(
            "the data set holds unitaries, but the model was trained on prompts alone: give the data set it was "
            "trained on, or a model trained on unitaries"
        )
    if dataset.gate_pool != pipeline.gate_pool:
        raise IncompatibleDatasetsError(
            f"the model speaks {list(pipeline.gate_pool.names)}, the data set {list(dataset.gate_pool.names)}: "
            "give the data set it was trained on, or one of the same datasets.gate_set"
        )
    if dataset.num_qubits > pipeline.config.num_qubits:
        raise IncompatibleDatasetsError(
            f"the data set has circuits of {dataset.num_qubits} qubits, the model makes at most "
            f"{pipeline.config.num_qubits}: give the data set it was trained on"
        )
    if compiles:
        for prompt in dataset.prompts:
            parse_gates_prompt(prompt, pipeline.gate_pool)


def evaluate(
    pipeline: DiffusionPipeline,
    dataset: CircuitDataset,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
    on_training_data: bool | None = None,
) -> EvaluationResult:
    """Sample, verify and compare; writes nothing. See `Evaluator` and `EvaluationMetrics`."""
    prompts = [dataset.prompts[i % len(dataset.prompts)] for i in range(config.num_samples)]
    started = time.perf_counter()
    samples = pipeline.sample(prompts, config.seed, config.model_params, progress=progress)
    seconds = time.perf_counter() - started

    valid, empty = samples.report.valid, samples.empty
    keys = metrics.circuit_keys(samples.ids, pipeline.table, samples.num_qubits)
    known = metrics.dataset_keys(dataset, pipeline.config.num_qubits, pipeline.config.max_gates)
    novel = ~np.isin(keys, known) & ~empty
    figures = EvaluationMetrics(
        num_samples=len(samples),
        empty_rate=float(empty.mean()),
        srv_accuracy=float(samples.matches.mean()),
        srv_accuracy_interval=metrics.wilson_interval(int(samples.matches.sum()), len(samples)),
        srv_accuracy_novel=float(samples.matches[novel].mean()) if novel.any() else None,
        srv_accuracy_by_entangled=metrics.accuracy_by_entangled(samples),
        srv_accuracy_by_prompt=metrics.accuracy_by_prompt(samples),
        baseline_shuffled_accuracy=metrics.shuffled_accuracy(samples, config.seed),
        baseline_random_accuracy=metrics.random_accuracy(samples, dataset, config.seed),
        distinct_rate=metrics.distinct_rate(keys[valid]),
        novel_rate=metrics.novel_rate(keys[valid & ~empty], known),
        on_training_data=on_training_data,
        exact_distinct_rate=metrics.distinct_rate(keys[samples.matches]),
        mean_gates=metrics.mean_gates(samples.ids[valid]),
        gate_count_by_gate=metrics.mean_gate_counts(samples.ids[valid], pipeline.table),
        **metrics.sampled_figures(pipeline, config, samples.report.counts, seconds),
    )
    return EvaluationResult(figures, samples, verified_circuits(samples))


def verified_circuits(samples: SrvSamples) -> dict[str, list[Circuit]]:
    """Return the distinct exact circuits of each prompt, shortest first; prompts in the order of first use."""
    table = instruction_table(samples.gate_pool, samples.ranks.shape[1])
    keys = metrics.circuit_keys(samples.ids, table, samples.num_qubits)
    prompts = np.array(samples.prompts)
    verified = {}
    for prompt in dict.fromkeys(samples.prompts):
        rows = np.flatnonzero(samples.matches & (prompts == prompt))
        verified[prompt] = samples.circuits(rows[metrics.shortest_distinct(keys[rows], samples.gate_counts[rows])])
    return verified


def write_results(result: EvaluationResult, folder: Path, config: EvaluationConfig) -> None:
    """Write the results of `evaluate` into a folder; those of an earlier evaluation are replaced.

    Raises:
        CheckpointError: The folder cannot be written; what was there before is unchanged.
    """
    pictures: dict[str, Callable[[Path], None]] = {
        "accuracy.png": lambda path: save_accuracy_chart(result.metrics, path),
        "circuits.png": lambda path: save_circuit_drawings(result.samples, path, config.max_drawings),
    }
    names = {prompt: "srv_" + "".join(filter(str.isdigit, prompt)) for prompt in result.verified}
    write_results_folder(
        folder,
        result.metrics.to_dict() | {"evaluation": config.model_dump(mode="json")},
        summary_rows(result.metrics),
        {names[prompt]: circuits for prompt, circuits in result.verified.items()},
        {names[prompt]: prompt for prompt in result.verified},
        pictures,
    )


def write_compilation(result: CompilationResult, folder: Path, config: EvaluationConfig) -> None:
    """Write the results of `evaluate_compilation` into a folder; see `write_results`."""
    targets = result.targets
    pairs = [
        (name, own, result.verified[name][0])
        for name, own in zip(targets.names, targets.own_circuits, strict=True)
        if result.verified[name]
    ]
    pictures: dict[str, Callable[[Path], None]] = {
        "success.png": lambda path: save_success_chart(result.metrics, path),
        "circuits.png": lambda path: save_compilation_drawings(pairs, path, -(-config.max_drawings // 2)),
    }
    write_results_folder(
        folder,
        result.metrics.to_dict() | {"evaluation": config.model_dump(mode="json")},
        summary_rows(result.metrics),
        {name: circuits for name, circuits in result.verified.items() if circuits},
        dict(zip(targets.names, targets.prompts, strict=True)),
        pictures,
    )
