"""Builds pipelines from a configuration, and names the compilation pipeline as the literature does."""

from __future__ import annotations

from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.unitary import UnitaryTask


class CompilationDiffusionPipeline(DiffusionPipeline):
    """A diffusion model of circuits conditioned on a unitary and the gates that may be used.

    It is just a `DiffusionPipeline` of the task UNITARY, under the name used in the literature.

    Args:
        config: The architecture, of condition_type UNITARY.
        seed: Seed of the initial weights.

    Raises:
        ConfigError: See `DiffusionPipeline`.
    """

    task: UnitaryTask


def make_pipeline(config: PipelineConfig, seed: int = 0) -> DiffusionPipeline:
    """Build the pipeline that a configuration describes; see `DiffusionPipeline`."""
    return (CompilationDiffusionPipeline if config.condition_type == UnitaryTask.name else DiffusionPipeline)(
        config, seed
    )
