"""Evaluates a saved model: sample for every prompt, verify by simulation, compare with baselines, write results.

The results are figures as JSON and Markdown, pictures, and the verified circuits as OpenQASM.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from quantum_diffusion.arguments import PRESETS_HINT, check_kind
from quantum_diffusion.config.schema import EvaluationConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.device import select_device
from quantum_diffusion.errors import ConfigError, IncompatibleDatasetsError, memory_for
from quantum_diffusion.evaluation.report.results import check_results_folder
from quantum_diffusion.evaluation.srv_evaluation import EvaluationResult, evaluate
from quantum_diffusion.evaluation.target_evaluation import TargetResult, evaluate_targets
from quantum_diffusion.evaluation.training_data import find_training_data
from quantum_diffusion.interop.loading import dataset_loader
from quantum_diffusion.interop.opening import load_pipeline, read_metadata
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import model_folder

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (circuits so far, circuits wanted)."""

_told_of_memory = memory_for(
    "evaluating",
    "lower evaluation.num_samples (or num_targets and samples_per_target), or use a computer with more memory",
)


class Evaluator:
    """Evaluates the model named in a configuration.

    Args:
        config: What to evaluate and how.

    Raises:
        CheckpointError: The model cannot be loaded, or `save_folder` holds something else or cannot be written.
        DatasetFormatError: The data set cannot be read.
        IncompatibleDatasetsError: The model and the data set do not match.
        ConfigError: The device is missing, the model does not support a sampling option, or its task has no figures.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = check_kind(config, EvaluationConfig, "config", PRESETS_HINT)
        self.folder = config.results_folder
        check_results_folder(self.folder)
        self._folder = model_folder(config.model_dir)
        device = select_device(config.device)
        self.pipeline = load_pipeline(self._folder, device, config.model_params.weights)
        if self.pipeline.task.name not in MEASURES:
            raise ConfigError(
                f"evaluation has figures for the tasks {', '.join(MEASURES)}, but the model's is "
                f"{self.pipeline.task.name}: add it to quantum_diffusion.evaluation.evaluator.MEASURES, or count the "
                "matches of pipeline.sample"
            )
        self.pipeline.check_sampling(config.model_params)
        self.dataset = dataset_loader().load_dataset(config.dataset)
        check_fit(self.pipeline, self.dataset)

    def run(self, progress: Progress | None = None) -> EvaluationResult | TargetResult:
        """Evaluate, write the results and return them. See `measure` and `write`."""
        return self.write(self.measure(progress))

    @_told_of_memory
    def measure(self, progress: Progress | None = None) -> EvaluationResult | TargetResult:
        """Sample, verify and compare, without writing anything.

        Args:
            progress: Called with (circuits so far, circuits wanted).

        Raises:
            IncompatibleDatasetsError: No target is left to evaluate on; see `evaluate_targets`.
        """
        trained_on = read_metadata(self._folder).get("dataset_sha256")
        same = None if not trained_on else trained_on == self.dataset.fingerprint
        return MEASURES[self.pipeline.task.name](self, same, progress)

    @_told_of_memory
    def write(self, result: EvaluationResult | TargetResult) -> EvaluationResult | TargetResult:
        """Write the results of `measure` and return them with their folder.

        Raises:
            CheckpointError: The results cannot be written; earlier ones are unchanged.
        """
        result.write(self.folder, self.config)
        return replace(result, folder=self.folder)

    def _measure_labels(self, same: bool | None, progress: Progress | None) -> EvaluationResult:
        return evaluate(self.pipeline, self.dataset, self.config, progress, on_training_data=same)

    def _measure_targets(self, same: bool | None, progress: Progress | None) -> TargetResult:
        config = self.config
        training = None if same else find_training_data(self._folder, Path(config.dataset))
        if training is not None and training.missing is not None:
            logger.warning("cannot check whether targets occur in the training data: %s", training.missing)
        return evaluate_targets(self.pipeline, self.dataset, config, progress, same, training)


MEASURES: dict[str, Callable[[Evaluator, bool | None, Progress | None], EvaluationResult | TargetResult]] = {
    "SRV": Evaluator._measure_labels,
    "UNITARY": Evaluator._measure_targets,
    "STATE": Evaluator._measure_targets,
}
"""How each task is measured; the second argument says whether the model was trained on the data set."""


def check_fit(pipeline: DiffusionPipeline, dataset: CircuitDataset) -> None:
    """Raise an error if the model cannot be evaluated on the data set.

    Raises:
        IncompatibleDatasetsError: The data set is for another kind of model, the gate pools differ, or the data set has
            more qubits.
        ConfigError: A prompt does not belong to the model's task.
    """
    task = pipeline.task
    if dataset.condition_type != task.name:
        raise IncompatibleDatasetsError(
            f"the model is for {task.asked}, but the data set is of condition_type {dataset.condition_type}: give one "
            f"generated with datasets.condition_type={task.name}"
        )
    if dataset.gate_pool != pipeline.gate_pool:
        raise IncompatibleDatasetsError(
            f"the model has the gates {list(pipeline.gate_pool.names)}, the data set {list(dataset.gate_pool.names)}: "
            "give the data set it was trained on, or one with the same datasets.gate_set"
        )
    if dataset.num_qubits > pipeline.config.num_qubits:
        raise IncompatibleDatasetsError(
            f"the data set has circuits of {dataset.num_qubits} qubits, but the model writes at most "
            f"{pipeline.config.num_qubits}: give the data set it was trained on"
        )
    for prompt in dataset.prompts:
        task.check_prompt(prompt, pipeline.gate_pool, pipeline.config.num_qubits)
