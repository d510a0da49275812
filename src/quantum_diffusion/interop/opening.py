"""The model loader of the commands, for our saved models and genQC's: in folders, in the package or on the Hub.

The loader of data sets is in `interop.loading`, which does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from quantum_diffusion.arguments import check_path
from quantum_diffusion.interop.genqc_pipeline import is_genqc_pipeline, read_pipeline
from quantum_diffusion.pipeline import checkpoint
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import model_folder


def load_pipeline(
    folder: str | Path, device: torch.device | None = None, weights: str = "averaged"
) -> DiffusionPipeline:
    """Read a saved model, ours or genQC's.

    Args:
        folder: Its folder, pretrained:NAME, or hf://owner/name[/folder].
        device: Where the weights go; None means the CPU.
        weights: See `pipeline.checkpoint.load_pipeline`; ignored for genQC's models, which have only one set.

    Raises:
        ConfigError, CheckpointError: See `pipeline.checkpoint.load_pipeline` and `interop.genqc_pipeline`.
    """
    check_path(folder, "the folder of the model")
    place = model_folder(folder)
    if is_genqc_pipeline(place):
        return read_pipeline(place, device)
    return checkpoint.load_pipeline(place, device, weights)


def read_configuration(folder: Path) -> PipelineConfig:
    """Read the configuration of a saved model, ours or genQC's.

    Raises:
        CheckpointError: The folder is missing, foreign or damaged.
    """
    return read_pipeline(folder).config if is_genqc_pipeline(folder) else checkpoint.read_configuration(folder)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the metadata of a saved model; empty for genQC's models.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    return {} if is_genqc_pipeline(folder) else checkpoint.read_metadata(folder)


def condition_dropout(folder: str | Path) -> float | None:
    """Return the probability with which a saved model's training dropped conditions; None if it is not known."""
    try:
        content = yaml.safe_load((model_folder(folder) / checkpoint.TRAINING_CONFIG).read_text(encoding="utf-8"))
        dropout = content["training"]["condition_dropout"]
    except Exception:  # none, or one of another software: PyYAML raises many kinds
        return None
    return float(dropout) if isinstance(dropout, int | float) and 0 <= dropout < 1 else None
