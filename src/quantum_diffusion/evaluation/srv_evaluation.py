"""Evaluates a model of Schmidt rank vectors: sample for every prompt, verify, compare with baselines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation import metrics
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.pictures import rows_to_show, save_accuracy_chart, save_circuit_drawings
from quantum_diffusion.evaluation.report.results import MOST_FAILED, content, write_results_folder
from quantum_diffusion.evaluation.report.tables import summary_rows, summary_table
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.srv import SrvSamples


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Results of an evaluation of a model of Schmidt rank vectors.

    Attributes:
        metrics: The figures.
        samples: All samples.
        verified: Distinct exact circuits of each prompt, shortest first.
        folder: Folder of the written results, None if not written.
        unit: What a key of `verified` stands for.
    """

    metrics: EvaluationMetrics
    samples: SrvSamples
    verified: dict[str, list[Circuit]]
    folder: Path | None = None
    unit: ClassVar[str] = "prompt"

    def __str__(self) -> str:
        return summary_table(self.metrics)

    def __repr__(self) -> str:
        verified = counted(sum(map(len, self.verified.values())), "verified circuit")
        return f"<EvaluationResult: {verified}, in {self.folder}>"

    def write(self, folder: Path, config: EvaluationConfig) -> None:
        """Write the results into a folder; see `write_results`."""
        write_results(self, folder, config)


def evaluate(
    pipeline: DiffusionPipeline,
    dataset: CircuitDataset,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
    on_training_data: bool | None = None,
) -> EvaluationResult:
    """Sample for every prompt, verify and compare, without writing anything. See `EvaluationMetrics`.

    Args:
        pipeline: The model.
        dataset: Its prompts are the requests; circuits outside it count as novel.
        config: The number of samples, and the sampling options.
        progress: Called with (circuits so far, circuits wanted).
        on_training_data: Whether the model was trained on this data set; None if unknown.

    Raises:
        ConfigError: The model does not support a sampling option.
    """
    prompts = [dataset.prompts[i % len(dataset.prompts)] for i in range(config.num_samples)]
    started = time.perf_counter()
    samples = pipeline.sample(prompts, config.seed, config.model_params, progress=progress)
    seconds = time.perf_counter() - started
    assert isinstance(samples, SrvSamples)

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
    """Return the distinct exact circuits of each prompt, shortest first; prompts in order of first use."""
    table = instruction_table(samples.gate_pool, samples.ranks.shape[1])
    keys = metrics.circuit_keys(samples.ids, table, samples.num_qubits)
    prompts = np.array(samples.prompts)
    verified = {}
    for prompt in dict.fromkeys(samples.prompts):
        rows = np.flatnonzero(samples.matches & (prompts == prompt))
        verified[prompt] = samples.circuits(rows[metrics.shortest_distinct(keys[rows], samples.gate_counts[rows])])
    return verified


def write_results(result: EvaluationResult, folder: Path, config: EvaluationConfig) -> None:
    """Write the results of `evaluate` into a folder, replacing those of an earlier evaluation.

    Raises:
        CheckpointError: The folder cannot be written; its previous contents are unchanged.
    """
    pictures: dict[str, Callable[[Path], None]] = {
        "accuracy.png": lambda path: save_accuracy_chart(result.metrics, path),
        "circuits.png": lambda path: save_circuit_drawings(result.samples, path, config.max_drawings),
    }
    names = {prompt: "srv_" + "".join(filter(str.isdigit, prompt)) for prompt in result.verified}
    write_results_folder(
        folder,
        content(result.metrics, config),
        summary_rows(result.metrics),
        {names[prompt]: circuits for prompt, circuits in result.verified.items()},
        {names[prompt]: prompt for prompt in result.verified},
        pictures,
        failed_circuits(result.samples),
    )


def failed_circuits(samples: SrvSamples) -> list[tuple[str, Circuit]]:
    """Return distinct valid circuits that miss their request, at most `MOST_FAILED`, with their actual labels."""
    rows = rows_to_show(samples, samples.report.valid & ~samples.matches, MOST_FAILED)
    return [(samples.outcome(row), circuit) for row, circuit in zip(rows, samples.circuits(rows), strict=True)]
