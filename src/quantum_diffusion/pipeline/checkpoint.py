"""Saved pipelines (for users) and training checkpoints (for resuming): tensors and plain values, never code.

Everything is written under a temporary name, flushed and renamed, so that a kill at any moment leaves a state that
loads or says clearly that it does not.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import quantum_diffusion
from quantum_diffusion.config.validation import validate
from quantum_diffusion.errors import CheckpointError, QuantumDiffusionError
from quantum_diffusion.files import new_entries, new_file, sha256_of
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline

FORMAT = "quantum_diffusion.pipeline"
FORMAT_VERSION = 1

CONFIG, WEIGHTS, TRAINING_CONFIG, METADATA = "config.yaml", "model.safetensors", "training_config.yaml", "metadata.yaml"
FILES = (CONFIG, WEIGHTS, TRAINING_CONFIG, METADATA, "loss_curve.png")
"""What a model folder holds beside its run."""


def is_finished_model(folder: Path) -> bool:
    """Tell whether a folder holds a saved pipeline.

    Raises:
        CheckpointError: It holds a `config.yaml` of something else, which a pipeline must not replace.
    """
    if not (folder / CONFIG).is_file():
        return False
    try:
        _read_description(folder)
    except CheckpointError as problem:
        raise CheckpointError(f"no model can be saved to {str(folder)!r}: {problem}; choose another folder") from None
    return True


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, training_config: str, metadata: Mapping[str, Any]) -> None:
    """Write a pipeline folder: config, weights, training configuration, metadata. Replaces a pipeline there.

    The configuration, which carries the weights' checksum, is put in place last.

    Args:
        pipeline: What to save.
        folder: Where; other files in it are left alone.
        training_config: The resolved training configuration as YAML.
        metadata: Plain scalars about the run.

    Raises:
        CheckpointError: The folder cannot be written (disk full, no permission); an earlier pipeline is intact.
    """
    with new_entries(folder, CONFIG, CheckpointError) as staging:
        weights = {name: tensor.contiguous().cpu() for name, tensor in pipeline.network.state_dict().items()}
        # Written by us: safetensors and torch hide the operating system's error, a full disk for one.
        (staging / WEIGHTS).write_bytes(save(weights))
        (staging / TRAINING_CONFIG).write_text(training_config, encoding="utf-8")
        (staging / METADATA).write_text(yaml.safe_dump(dict(metadata), sort_keys=False), encoding="utf-8")
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "software": f"quantum_diffusion {quantum_diffusion.__version__}",
            "params": pipeline.config.model_dump(mode="json"),
            "sha256": {WEIGHTS: sha256_of(staging / WEIGHTS)},
        }
        (staging / CONFIG).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def load_pipeline(folder: Path, device: torch.device | None = None) -> DiffusionPipeline:
    """Read a pipeline folder.

    Args:
        folder: A folder written by `save_pipeline`.
        device: Where the weights go; None keeps the CPU.

    Raises:
        CheckpointError: The folder is missing, foreign, damaged, or its weights do not fit its configuration.
    """
    description = _read_description(folder)
    checksums = description.get("sha256")
    expected = checksums.get(WEIGHTS) if isinstance(checksums, dict) else None
    weights_file = folder / WEIGHTS
    if not weights_file.is_file():
        raise CheckpointError(f"the model {str(folder)!r} lacks {WEIGHTS}: copy it again, or train again")
    if sha256_of(weights_file) != expected:
        raise CheckpointError(
            f"{str(weights_file)!r} does not belong to the {CONFIG} beside it (its checksum is wrong; was saving cut "
            "short?): run the training command again, or copy the folder again"
        )
    try:
        config = validate(PipelineConfig, description.get("params"), f"{folder / CONFIG}: params")
        pipeline = DiffusionPipeline(config)
        pipeline.network.load_state_dict(load_file(weights_file), strict=True)
    except (QuantumDiffusionError, SafetensorError, RuntimeError, ValueError) as problem:
        reason = " ".join(str(problem).split())[:300]
        raise CheckpointError(f"the model {str(folder)!r} cannot be used: {reason}") from problem
    pipeline.network.eval()
    return pipeline.to(device) if device is not None else pipeline


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(f"no saved model at {str(folder)!r}: give the folder that scripts/train_model.py wrote")
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as problem:
        raise CheckpointError(f"{str(file)!r} cannot be read: {str(problem).splitlines()[0]}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(file)!r} does not describe a {FORMAT}: give a folder that scripts/train_model.py wrote"
        )
    if description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{str(folder)!r} has format version {description.get('format_version')!r}, this software reads "
            f"{FORMAT_VERSION}: update quantum_diffusion"
        )
    return description


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read a model's `metadata.yaml`.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    try:
        metadata = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise CheckpointError(f"cannot read {str(folder / METADATA)!r}: {str(problem).splitlines()[0]}") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{str(folder / METADATA)!r} is empty or no mapping: train again")
    return metadata


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training checkpoint of tensors and plain values, whole or not at all.

    Raises:
        CheckpointError: The file cannot be written; an earlier checkpoint is intact.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with new_file(path, CheckpointError) as staging:
        staging.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a training checkpoint; never runs code from it.

    Raises:
        CheckpointError: The file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {str(path)!r}: check training.general.resume") from None
    except Exception as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise CheckpointError(f"the checkpoint {str(path)!r} is damaged or foreign ({reason[:200]})") from problem
    if not isinstance(state, dict):
        raise CheckpointError(f"the checkpoint {str(path)!r} is foreign: expected a training state")
    return state
