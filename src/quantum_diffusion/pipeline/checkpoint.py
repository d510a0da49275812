"""Saved pipelines (for use) and training checkpoints (for resuming): tensors and plain values, never code.

Everything is written under a temporary name, flushed and renamed, so that after a kill at any moment the files either
load or are refused with a clear message.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save

import quantum_diffusion
from quantum_diffusion.arguments import check_path
from quantum_diffusion.cards import CARD_FILE, may_write_card
from quantum_diffusion.config.schema import Weights
from quantum_diffusion.config.validation import validate
from quantum_diffusion.errors import (
    CheckpointError,
    ConfigError,
    OutOfMemoryError,
    QuantumDiffusionError,
    memory_for,
    unknown_name,
)
from quantum_diffusion.files import (
    DESCRIPTION,
    describe,
    is_sealed,
    new_entries,
    new_file,
    sealed,
    with_checksum,
    without_checksum,
    yaml_text,
)
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.card import model_card
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pretrained import model_folder

logger = logging.getLogger(__name__)

FORMAT = "quantum_diffusion.pipeline"
FORMAT_VERSION = 2

WEIGHTS, TRAINING_CONFIG, METADATA = "model.safetensors", "training_config.yaml", "metadata.yaml"
LAST_WEIGHTS = "last.safetensors"
PROMPTS = "prompts.safetensors"
"""Features of prompts, where a frozen text encoder made them: known prompts need no CLIP."""
FILES = (DESCRIPTION, WEIGHTS, LAST_WEIGHTS, PROMPTS, TRAINING_CONFIG, METADATA, "loss_curve.png")
"""The files of a model folder, besides its run."""


def is_finished_model(folder: Path) -> bool:
    """Tell whether a folder holds a saved pipeline.

    Raises:
        CheckpointError: It holds a `config.yaml` that is not a pipeline's and must not be replaced.
    """
    if not os.path.isfile(folder / DESCRIPTION):  # which, unlike pathlib's, never raises
        return False
    try:
        return bool(_parse(folder / DESCRIPTION)[1])
    except CheckpointError as problem:
        if isinstance(problem.__cause__, OSError):
            raise
        raise CheckpointError(
            f"{str(folder / DESCRIPTION)!r} does not belong to a model of this package: choose another "
            "training.general.output_path"
        ) from None


def save_pipeline(
    pipeline: DiffusionPipeline,
    folder: Path,
    training_config: str,
    metadata: Mapping[str, Any],
    last_weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a pipeline folder: config, weights, training configuration, metadata, card. Replaces a pipeline there.

    The configuration, which carries the weights' checksum, is put in place last.

    Args:
        pipeline: What to save.
        folder: Where; other files in it are left alone.
        training_config: The resolved training configuration as YAML.
        metadata: Plain scalars about the run.
        last_weights: The last weights, saved in addition to the averaged ones; None saves none.

    Raises:
        CheckpointError: The folder cannot be written (disk full, no permission); an earlier pipeline is intact.
    """
    with new_entries(folder, DESCRIPTION, CheckpointError) as staging:
        names = [WEIGHTS]
        _write_weights(staging / WEIGHTS, pipeline.network.state_dict())
        if last_weights is not None:
            names.append(LAST_WEIGHTS)
            _write_weights(staging / LAST_WEIGHTS, last_weights)
        features = pipeline.prompt_features
        if features is not None:
            names.append(PROMPTS)
            (staging / PROMPTS).write_bytes(features.saved())
        (staging / TRAINING_CONFIG).write_text(training_config, encoding="utf-8")
        (staging / METADATA).write_text(yaml_text(metadata), encoding="utf-8")
        if may_write_card(folder):
            (staging / CARD_FILE).write_text(model_card(pipeline, metadata), encoding="utf-8")
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "software": f"quantum_diffusion {quantum_diffusion.__version__}",
            "params": pipeline.config.model_dump(mode="json"),
        }
        (staging / DESCRIPTION).write_text(sealed(description, staging, names), encoding="utf-8")


def _write_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    # Written here, because safetensors and torch hide the operating system's error, such as a full disk.
    path.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))


def load_pipeline(
    folder: str | Path, device: torch.device | None = None, weights: str = "averaged"
) -> DiffusionPipeline:
    """Read a pipeline folder.

    Args:
        folder: A folder written by `save_pipeline`; or pretrained:NAME, or hf://owner/name.
        device: Where the weights go; None keeps the CPU.
        weights: "averaged", or "last" for the weights at the end of training; the same for models without averaging.

    Raises:
        ConfigError: The folder is no path, or the pretrained model or the weights do not exist.
        CheckpointError: The folder is missing, foreign, damaged, or its weights do not fit its configuration.
    """
    check_path(folder, "the folder of the model")
    folder = model_folder(folder)
    if weights not in get_args(Weights):
        raise ConfigError(unknown_name("weights", weights, get_args(Weights)))
    description = _read_description(folder)
    name = LAST_WEIGHTS if weights == "last" and LAST_WEIGHTS in description["sha256"] else WEIGHTS
    content = _read_sealed(folder / name, description)
    prompts = _read_sealed(folder / PROMPTS, description) if PROMPTS in description["sha256"] else None
    try:
        config = validate(PipelineConfig, description.get("params"), f"{folder / DESCRIPTION}: params")
        with memory_for(
            f"loading the model {str(folder)!r}", "close other programs, or use a computer with more memory"
        ):
            pipeline = make_pipeline(config)
            pipeline.network.load_state_dict(load(content), strict=True)
            if prompts is not None and pipeline.prompt_features is not None:
                pipeline.prompt_features.load_saved(prompts)
            pipeline = pipeline if device is None else pipeline.to(device)
    except OutOfMemoryError:
        raise
    except (QuantumDiffusionError, SafetensorError, RuntimeError, ValueError) as problem:
        reason = (
            str(problem) if isinstance(problem, QuantumDiffusionError) else f"its {name} is not of its {DESCRIPTION}"
        )
        raise CheckpointError(f"the model {str(folder)!r} cannot be used: {reason}; train again") from problem
    pipeline.network.eval()
    return pipeline


def _read_sealed(file: Path, description: Mapping[str, Any]) -> bytes:
    """Read a file whose checksum stands in the description beside it."""
    try:
        content = file.read_bytes()  # not mapped: not every file system can do that
    except FileNotFoundError:
        raise CheckpointError(
            f"the model {str(file.parent)!r} lacks {file.name}: copy it again, or train again"
        ) from None
    except OSError as problem:
        raise CheckpointError(f"cannot read {str(file)!r}: {describe(problem)}") from problem
    if hashlib.sha256(content).hexdigest() != description["sha256"].get(file.name):
        raise CheckpointError(
            f"{str(file)!r} does not belong to the {DESCRIPTION} beside it (its checksum is wrong; was saving "
            "cut short?): run the training command again, or copy the folder again"
        )
    return content


def read_configuration(folder: Path) -> PipelineConfig:
    """Read the configuration of a saved pipeline, without its weights.

    Raises:
        CheckpointError: The folder is missing, foreign or damaged.
    """
    params = _read_description(folder).get("params")
    try:
        return validate(PipelineConfig, params, f"{folder / DESCRIPTION}: params")
    except ConfigError as problem:
        raise CheckpointError(f"the model {str(folder)!r} cannot be used: {problem}; train again") from problem


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    if not os.path.isfile(file) and os.path.isfile(folder / "run" / "run.yaml"):
        so_far = folder / "run" / "interrupted"
        instead = f", or give the model so far, {str(so_far)!r}" if os.path.isfile(so_far / DESCRIPTION) else ""
        raise CheckpointError(
            f"no saved model at {str(folder)!r} yet, its training has not finished: wait, or run the training command "
            f"again to continue it{instead}"
        )
    text, description = _parse(file)
    if description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{str(folder)!r} has format version {str(description.get('format_version'))[:20]}, this software reads "
            f"{FORMAT_VERSION}: use the version of quantum_diffusion that wrote it, or train again"
        )
    if not is_sealed(text, description.get("sha256")):
        raise CheckpointError(
            f"{str(file)!r} is damaged or was edited (its checksum is wrong): copy the folder again, or train again"
        )
    return description


def _parse(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text and content of a pipeline's description, without checking its version or checksum."""
    try:
        text = file.read_text(encoding="utf-8")
        description = yaml.safe_load(text)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"no saved model at {str(file.parent)!r}: give the folder that `quantum-diffusion train` or genQC wrote, "
            "pretrained:NAME or hf://owner/name"
        ) from None
    except OSError as problem:
        raise CheckpointError(f"cannot read {str(file)!r}: {describe(problem)}") from problem
    except Exception:  # PyYAML raises many kinds: `!!bool x` is a KeyError
        raise CheckpointError(f"{str(file)!r} is no readable YAML: copy the folder again, or train again") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(file)!r} does not describe a {FORMAT}: give a folder that `quantum-diffusion train` wrote"
        )
    return text, description


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read a model's `metadata.yaml`.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    try:
        metadata = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise CheckpointError(
            f"cannot read {str(folder / METADATA)!r}: copy the folder again, or train again"
        ) from problem
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{str(folder / METADATA)!r} is empty or no mapping: train again")
    return metadata


class CheckpointStore:
    """The checkpoints of a run, named by their step; only the newest few are kept.

    Args:
        folder: Where they are.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.folder.glob("[0-9]*.pt"), reverse=True)

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step and remove the oldest beyond `keep`; see `write_checkpoint`."""
        write_checkpoint(self.folder / f"{step:09d}.pt", state)
        with suppress(OSError):  # the new checkpoint is safe even if an old one remains
            for path in self.paths()[self.keep :]:
                path.unlink(missing_ok=True)

    def read_newest(self, device: torch.device) -> tuple[Path, dict[str, Any]] | None:
        """Read the newest intact checkpoint; None if there are no checkpoints.

        Raises:
            CheckpointError: All checkpoints are damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return path, read_checkpoint(path, device)
            except CheckpointError as problem:
                logger.warning("%s; trying the one before", problem)
        if not paths:
            return None
        raise CheckpointError(
            f"every checkpoint in {str(self.folder)!r} is damaged: start over with training.general.resume=never"
        )

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training checkpoint of tensors and plain values, atomically.

    Raises:
        CheckpointError: The file cannot be written; an earlier checkpoint is intact.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with new_file(path, CheckpointError) as staging:
        staging.write_bytes(with_checksum(buffer.getbuffer()))


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a training checkpoint; never runs code from it.

    Raises:
        CheckpointError: The file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        content = without_checksum(path.read_bytes())
        if content is None:
            raise ValueError("wrong checksum")
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {str(path)!r}: check training.general.resume") from None
    except Exception as problem:  # torch and pickle raise many kinds, with messages for their developers
        raise _no_checkpoint(path) from problem
    if not isinstance(state, dict):
        raise _no_checkpoint(path)
    return state


def _no_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {str(path)!r} is damaged or foreign (expected a checkpoint that training wrote): start "
        "over with training.general.resume=never, or name another one"
    )
