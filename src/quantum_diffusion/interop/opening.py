"""The loader of models that commands use: saved models of ours and of genQC, in folders, shipped, or on the Hub.

Data sets have theirs in `interop.loading`, which loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantum_diffusion.arguments import check_path
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline, read_pipeline
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import model_folder


def load_pipeline(
    folder: str | Path, device: torch.device | None = None, weights: str = "averaged"
) -> DiffusionPipeline:
    """Read a saved model, of ours or of genQC.

    Args:
        folder: Its folder; or pretrained:NAME, or hf://owner/name.
        device: Where the weights go; None keeps the CPU.
        weights: See `pipeline.checkpoint.load_pipeline`; a model of genQC has only those it was saved with.

    Raises:
        ConfigError, CheckpointError: See `pipeline.checkpoint.load_pipeline` and `interop.genqc_pipeline`.
    """
    check_path(folder, "the folder of the model")
    place = model_folder(folder)
    if is_genqc_pipeline(place):
        return read_pipeline(place, device)
    return checkpoint.load_pipeline(place, device, weights)


def read_configuration(folder: Path) -> PipelineConfig:
    """Read what a saved model is, of ours or of genQC.

    Raises:
        CheckpointError: The folder is missing, foreign or damaged.
    """
    return read_pipeline(folder).config if is_genqc_pipeline(folder) else checkpoint.read_configuration(folder)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read what is noted beside a saved model, which is nothing for one of genQC.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    return {} if is_genqc_pipeline(folder) else checkpoint.read_metadata(folder)
