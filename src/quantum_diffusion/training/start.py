"""Builds the initial model of a run, with random weights or those of a saved model.

Its architecture follows from the configuration and the circuits.
"""

from __future__ import annotations

from typing import Any

import torch

from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import CheckpointError, IncompatibleDatasetsError, memory_for
from quantum_diffusion.interop import opening
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.training.run_folder import first_difference

while_building = memory_for(
    "building the model",
    "lower training.model.params (width and depth, or model_features), or use a computer with more memory",
)


@while_building
def build_pipeline(config: TrainingConfig, dataset: CircuitDataset, device: torch.device) -> DiffusionPipeline:
    """Build the pipeline for a data set, with its initial weights, on a device.

    Raises:
        ConfigError: Sizes of the model are incompatible.
        IncompatibleDatasetsError: `general.init_from_pipeline_dir` has another gate pool.
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
    pipeline.check_prompts()
    return pipeline.to(device)


def _take_weights(origin: DiffusionPipeline, pipeline: DiffusionPipeline, source: str) -> None:
    """Copy the weights of a saved pipeline of the same architecture."""
    if origin.gate_pool != pipeline.gate_pool:
        raise IncompatibleDatasetsError(
            f"the model {source!r} has the gates {list(origin.gate_pool.names)}, the data set "
            f"{list(pipeline.gate_pool.names)}: use a data set with the same gate pool"
        )
    known = origin.prompt_features
    if pipeline.prompt_features is not None and known is not None and known.prompts:
        pipeline.prompt_features.load_saved(known.saved())
    try:
        pipeline.network.load_state_dict(origin.network.state_dict(), strict=True)
    except RuntimeError as problem:
        difference = first_difference(_architecture(origin), _architecture(pipeline), "training")
        raise CheckpointError(
            f"the model {source!r} does not fit this configuration and data set: it has {difference}"
        ) from problem


def _architecture(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return the settings that determine the shapes of a pipeline's weights, by their keys."""
    config = pipeline.config.model_dump(mode="json")
    names = ("model", "text_encoder", "scheduler", "num_qubits", "max_gates", "prefix_head", "tells_gates")
    return {name: config[name] for name in names}
