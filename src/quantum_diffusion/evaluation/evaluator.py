"""Evaluation of a saved model: sample for every prompt, verify by simulation, compare with baselines, write results.

What is written can be used as it stands: figures as JSON and Markdown, pictures, and the verified circuits as QASM.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.device import select_device
from quantum_diffusion.diffusion.masked import MaskedDiffusion
from quantum_diffusion.errors import CheckpointError, IncompatibleDatasetsError
from quantum_diffusion.evaluation import metrics
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.pictures import save_accuracy_chart, save_circuit_drawings
from quantum_diffusion.evaluation.report.tables import markdown_table, summary_rows
from quantum_diffusion.files import check_can_write, new_entries
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.pipeline.checkpoint import load_pipeline, read_metadata
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.samples import SampledCircuits

METRICS_FILE = "metrics.json"
CIRCUITS_FOLDER = "circuits"
RESULTS = (METRICS_FILE, "metrics.md", "accuracy.png", "circuits.png", CIRCUITS_FOLDER)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        metrics: The figures.
        samples: All samples.
        verified: Distinct exact circuits of each prompt, shortest first.
        folder: Where the results were written, None when they were not.
    """

    metrics: EvaluationMetrics
    samples: SampledCircuits
    verified: dict[str, list[Circuit]]
    folder: Path | None = None


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
        self.config = config
        self.folder = Path(config.save_folder) if config.save_folder else Path(config.model_dir) / "evaluation"
        check_can_write(self.folder / CIRCUITS_FOLDER, CheckpointError)
        foreign = [name for name in RESULTS if (self.folder / name).exists()]
        if foreign and METRICS_FILE not in foreign:
            raise CheckpointError(
                f"{str(self.folder)!r} holds {foreign[0]!r}, but no earlier evaluation that might be replaced: "
                "choose another evaluation.save_folder"
            )
        device = select_device(config.device)
        self.pipeline = load_pipeline(Path(config.model_dir), device, config.model_params.weights)
        self.pipeline.check_sampling(config.model_params)
        self.dataset = dataset_loader().load_dataset(config.dataset)
        check_fit(self.pipeline, self.dataset)

    def run(self, progress: Callable[[int, int], None] | None = None) -> EvaluationResult:
        """Evaluate and write the results; returns them too.

        Args:
            progress: Called with (circuits so far, circuits wanted).
        """
        trained_on = read_metadata(Path(self.config.model_dir)).get("dataset_sha256")
        same = None if not trained_on else trained_on == self.dataset.fingerprint
        result = evaluate(self.pipeline, self.dataset, self.config, progress, on_training_data=same)
        write_results(result, self.folder, self.config)
        return EvaluationResult(result.metrics, result.samples, result.verified, self.folder)


def check_fit(pipeline: DiffusionPipeline, dataset: CircuitDataset) -> None:
    """Refuse a data set that a model cannot be evaluated on.

    Raises:
        IncompatibleDatasetsError: The gate pools differ, or the data set has more qubits.
    """
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


def evaluate(
    pipeline: DiffusionPipeline,
    dataset: CircuitDataset,
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None = None,
    on_training_data: bool | None = None,
) -> EvaluationResult:
    """Sample, verify and compare; writes nothing. See `Evaluator` and `EvaluationMetrics`."""
    options = config.model_params
    prompts = [dataset.prompts[i % len(dataset.prompts)] for i in range(config.num_samples)]
    started = time.perf_counter()
    samples = pipeline.sample(prompts, config.seed, options, progress=progress)
    seconds = time.perf_counter() - started

    valid, empty = samples.report.valid, samples.empty
    keys = metrics.circuit_keys(samples.ids, pipeline.table, samples.num_qubits)
    known = metrics.dataset_keys(dataset, pipeline.config.num_qubits, pipeline.config.max_gates)
    novel = ~np.isin(keys, known) & ~empty
    defaults, process = pipeline.config.scheduler.params, pipeline.process
    order = options.order or process.order if isinstance(process, MaskedDiffusion) else None
    figures = EvaluationMetrics(
        num_samples=len(samples),
        valid_rate=float(valid.mean()),
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
        reasons=samples.report.counts,
        guidance_scale=defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale,
        steps=pipeline.sample_steps(options),
        scheduler=options.scheduler or pipeline.config.scheduler.type,
        order=order,
        seed=config.seed,
        seconds=seconds,
    )
    return EvaluationResult(figures, samples, verified_circuits(samples))


def verified_circuits(samples: SampledCircuits) -> dict[str, list[Circuit]]:
    """Return the distinct exact circuits of each prompt, shortest first; prompts in the order of first use."""
    table = instruction_table(samples.gate_pool, samples.ranks.shape[1])
    keys = metrics.circuit_keys(samples.ids, table, samples.num_qubits)
    prompts = np.array(samples.prompts)
    verified = {}
    for prompt in dict.fromkeys(samples.prompts):
        rows = np.flatnonzero(samples.matches & (prompts == prompt))
        rows = rows[np.argsort(samples.gate_counts[rows], kind="stable")]
        _, first = np.unique(keys[rows], return_index=True)  # the shortest of equal ones
        verified[prompt] = samples.circuits(rows[np.sort(first)])
    return verified


def write_results(result: EvaluationResult, folder: Path, config: EvaluationConfig) -> None:
    """Write the entries of `RESULTS` into a folder; those of an earlier evaluation are replaced.

    Raises:
        CheckpointError: The folder cannot be written; what was there before is unchanged.
    """
    with new_entries(folder, METRICS_FILE, CheckpointError) as staging:
        figures = result.metrics.to_dict() | {"evaluation": config.model_dump(mode="json")}
        (staging / METRICS_FILE).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (staging / "metrics.md").write_text(markdown_table(summary_rows(result.metrics)), encoding="utf-8")
        save_accuracy_chart(result.metrics, staging / "accuracy.png")
        if config.max_drawings:
            save_circuit_drawings(result.samples, staging / "circuits.png", config.max_drawings)
        for prompt, circuits in result.verified.items():
            name = "srv_" + "".join(character for character in prompt if character.isdigit())
            (staging / CIRCUITS_FOLDER / name).mkdir(parents=True)
            for number, circuit in enumerate(circuits, start=1):
                text = f"// {prompt}: verified by simulation\n{circuit.to_qasm2()}"
                (staging / CIRCUITS_FOLDER / name / f"{number:05d}.qasm").write_text(text, encoding="utf-8")
