"""Builds the initial model of a run, with random weights or those of a saved model.

Its architecture follows from the configuration and the circuits.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError, IncompatibleDatasetsError, memory_for
from quantum_diffusion.files import DESCRIPTION
from quantum_diffusion.interop import opening
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline
from quantum_diffusion.pipeline.build import PipelineConfig, pipeline_config
from quantum_diffusion.pipeline.checkpoint import TRAINING_CONFIG
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.training.run_folder import differences

logger = logging.getLogger(__name__)

while_building = memory_for(
    "building the model",
    "lower training.model.params (width and depth, or model_features), or use a computer with more memory",
)


@while_building
def build_pipeline(config: TrainingConfig, dataset: CircuitDataset, device: torch.device) -> DiffusionPipeline:
    """Build the pipeline for a data set, with its initial weights, on a device.

    Raises:
        ConfigError: Sizes of the model are incompatible, or CLIP is needed for prompts but not at hand.
        IncompatibleDatasetsError: `general.init_from_pipeline_dir` has another gate pool or task.
        CheckpointError: It cannot be read, or has another architecture.
        OutOfMemoryError: The model is too large.
    """
    general = config.general
    architecture, source = pipeline_config(config, dataset), general.init_from_pipeline_dir
    if source is None:
        pipeline = make_pipeline(architecture, seed=general.seed)
        pipeline.check_prompts()
        return pipeline.to(device)
    origin = opening.load_pipeline(source)
    # Its table has a row for each of its own words.
    architecture = architecture.model_copy(update={"vocabulary": origin.config.vocabulary})
    pipeline = make_pipeline(architecture, seed=general.seed)
    _take_weights(origin, pipeline, source)
    _tell_other_settings(origin, pipeline, source)
    pipeline.check_prompts()
    return pipeline.to(device)


def _take_weights(origin: DiffusionPipeline, pipeline: DiffusionPipeline, source: str) -> None:
    """Copy the weights of a saved pipeline of the same architecture, and the features of its prompts."""
    theirs, ours = (TASKS[one.config.condition_type].asked for one in (origin, pipeline))
    if origin.gate_pool != pipeline.gate_pool:
        raise IncompatibleDatasetsError(
            f"the model {source!r} has the gates {list(origin.gate_pool.names)}, the data set "
            f"{list(pipeline.gate_pool.names)}: use a data set with the same gate pool"
        )
    try:
        pipeline.network.load_state_dict(origin.network.state_dict(), strict=True)
    except RuntimeError as problem:
        if theirs != ours:
            raise IncompatibleDatasetsError(
                f"the model {source!r} is for {theirs}, the data set holds circuits for {ours}: give a data set of the "
                "model's task, or another model"
            ) from problem
        found = differences(_architecture(origin), _architecture(pipeline), "training")
        raise CheckpointError(
            f"the model {source!r} does not fit this configuration and data set: it has "
            f"{', '.join(found) or 'other weights'}{_preset_hint(source)}"
        ) from problem
    if origin.prompt_features is not None and pipeline.prompt_features is not None:
        pipeline.prompt_features.take(origin.prompt_features)


def _architecture(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return the settings that determine the shapes of a pipeline's weights, by their keys."""
    config = pipeline.config.model_dump(mode="json")
    names = [
        "model",
        "text_encoder",
        "unitary_encoder",
        "state_encoder",
        "prefix_encoder",
        "prefix_head",
        "tells_gates",
    ]
    if config["model"]["type"] != "unet":  # a U-Net takes circuits of any size
        names += ["num_qubits", "max_gates"]
    if config["text_encoder"]["type"] == "clip":  # frozen, so it has no weights of its own here
        config["text_encoder"]["params"] = {"width": config["text_encoder"]["params"]["width"]}
    kind = "masked" if pipeline.config.scheduler.is_masked else "Gaussian diffusion"
    return {name: config[name] for name in names} | {"scheduler": kind}


def _tell_other_settings(origin: DiffusionPipeline, pipeline: DiffusionPipeline, source: str) -> None:
    """Warn of other settings of the process: the weights fit, but noise, objective or samples are not as they were."""

    def process(config: PipelineConfig) -> dict[str, Any]:
        kind, params = config.scheduler.type, config.scheduler.params.model_dump(mode="json")
        kept = {name: value for name, value in params.items() if name not in _OF_TRAINING_ALONE}
        return {"training": {"objective": config.objective}, "scheduler": {"type": kind, "params": kept}}

    found = differences(process(origin.config), process(pipeline.config), "training")
    if found:
        logger.warning(
            "the model %r has %s: the new one is trained and sampled with the latter; give the former to keep them%s",
            source,
            ", ".join(found),
            _preset_hint(source),
        )


def _preset_hint(source: str) -> str:
    """Say which preset has a model's settings; "" if there is none."""
    folder = Path(source)
    if (folder / TRAINING_CONFIG).is_file():
        return f" (training={folder / TRAINING_CONFIG} has its settings)"
    return f" (training={folder / DESCRIPTION} has its settings)" if is_genqc_pipeline(folder) else ""


_OF_TRAINING_ALONE = ("input_perturbation", "suffix_share")
