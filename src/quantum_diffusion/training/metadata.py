"""The content of a run's `metadata.yaml`: progress, data and software, enough to repeat it on another machine.

`DiffusionTrainer` writes it beside the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.pipeline.provenance import provenance
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.pipeline.step import low_precision
from quantum_diffusion.pretrained import PREFIX
from quantum_diffusion.training.source import STREAM, Source


def describe_run(
    config: TrainingConfig,
    source: Source,
    state: TrainingState | None,
    *,
    status: str,
    run_id: str,
    device: torch.device,
    num_parameters: int,
) -> dict[str, Any]:
    """Return the metadata of a model, plain values under the names they have in the file.

    Args:
        config: The run.
        source: Its training data.
        state: The training state; None before training began.
        status: "finished" or "interrupted".
        run_id: Unique id of the run.
        device: Where it trained.
        num_parameters: Number of parameters of the model.
    """
    general = config.general
    return {
        "status": status,
        "run_id": run_id,
        "experiment_name": general.experiment_name,
        **provenance(device),
        "arithmetic": str(low_precision(config.training, device) or torch.float32).removeprefix("torch."),
        "seed": general.seed,
        "num_parameters": num_parameters,
        "dataset": str(general.dataset),
        "dataset_path": _absolute(general.dataset),
        "dataset_sha256": source.fingerprint,
        "init_from": _origin(general.init_from_pipeline_dir),
        "num_circuits": len(source.dataset),
        "epochs": 0 if state is None else state.epoch,
        "steps": 0 if state is None else state.step,
        "samples_seen": 0 if state is None else state.samples_seen,
        "seconds": 0.0 if state is None else round(state.seconds, 1),
        "training_loss": None if state is None else state.training_loss,
        "validation_loss": None if state is None else state.validation_loss,
    }


def _absolute(path: str | None) -> str | None:
    """Return the absolute path of a folder; None for other addresses."""
    return None if path is None or path.startswith((STREAM, "hf:")) else str(Path(path).absolute())


def _origin(model: str | None) -> str | None:
    """Return the absolute path of a model, or its address."""
    return model if model is None or model.startswith((PREFIX, "hf:")) else _absolute(model)
