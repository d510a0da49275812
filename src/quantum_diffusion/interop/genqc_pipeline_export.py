"""Writes U-Net pipelines as folders that genQC 0.2.5 opens; `genqc_pipeline` reads them and defines the names of parts.

Pipelines with parts that genQC lacks are rejected with an error that names these parts.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from quantum_diffusion.config.known_names import CLIP_WEIGHTS
from quantum_diffusion.errors import CheckpointError, ConfigError
from quantum_diffusion.files import DESCRIPTION, new_folder
from quantum_diffusion.interop.genqc import UNITARY_ENCODER, unet_weights_to_genqc
from quantum_diffusion.interop.genqc_export import check_export
from quantum_diffusion.interop.genqc_pipeline import (
    EMBEDDER,
    MODEL,
    OBJECTIVES,
    OPEN_CLIP,
    PIPELINES,
    SCHEDULERS,
    TEXT,
    TEXT_ENCODER,
    UNETS,
    ZERO_SIGNAL,
    gate_embedding_of,
)
from quantum_diffusion.models.clip import CONTEXT
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.checkpoint import PROMPTS
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.srv import SrvTask

logger = logging.getLogger(__name__)


def write_pipeline(pipeline: DiffusionPipeline, path: str | Path, dropout: float | None = None) -> str:
    """Write a U-Net pipeline as a folder that genQC 0.2.5 opens with `from_config_file`.

    The features of known prompts are saved next to genQC's files; `read_pipeline` reads them, genQC does not.

    Args:
        pipeline: A Gaussian U-Net with CLIP as the text encoder.
        path: A folder that does not exist or is empty.
        dropout: Probability with which training dropped prompts (`guidance_train_p`); None writes genQC's default.

    Returns:
        The name of genQC's class.

    Raises:
        ConfigError: The pipeline has parts that genQC lacks; the message names them.
        CheckpointError: The folder is not empty or cannot be written.
    """
    path = Path(path)
    check_export(path, CheckpointError)
    check_exportable(pipeline.config)
    config, network = pipeline.config, pipeline.network
    weights = network["backbone"].state_dict()
    if config.unitary_encoder is not None:
        weights |= network["unitary_encoder"].state_dict(prefix=UNITARY_ENCODER)
    embedding = gate_embedding_of(pipeline)
    state = unet_weights_to_genqc(weights, embedding, weights)
    target = next(name for name, task in PIPELINES.items() if task == config.condition_type)
    features = pipeline.prompt_features
    assert features is not None, "checked above"
    description = _description(config, target, len(embedding), features.length)
    if dropout is not None:
        description["params"] |= {"enable_guidance_train": dropout > 0, "guidance_train_p": dropout}
    _tell_what_differs(config)
    with new_folder(path, CheckpointError) as folder:
        (folder / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        for name in (MODEL, EMBEDDER):  # genQC reads the U-Net's own embedding from the second file
            content = save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()})
            (folder / f"{name}.safetensors").write_bytes(content)
        if features.prompts:
            (folder / PROMPTS).write_bytes(features.saved())
    return target.rpartition(".")[2]


def check_exportable(config: PipelineConfig) -> None:
    """Raise an error if a pipeline has parts that genQC lacks.

    Raises:
        ConfigError: It has such parts.
    """
    encoder = config.unitary_encoder
    problems = [
        problem
        for is_there, problem in (
            (config.condition_type not in UNETS, f"condition_type={config.condition_type}"),
            (config.model.type != "unet", f"model.type={config.model.type}"),
            (config.text_encoder.type != "clip", f"text_encoder.type={config.text_encoder.type}"),
            (encoder is not None and encoder.type != "convolution", "unitary_encoder.type=matrix"),
            (config.scheduler.type not in SCHEDULERS.values(), f"scheduler.type={config.scheduler.type}"),
            (config.loss != "mse", f"training.loss={config.loss}"),
        )
        if is_there
    ]
    if problems:
        raise ConfigError(
            f"genQC has no such model ({', '.join(problems)}): it opens U-Nets with model.type=unet, "
            "text_encoder.type=clip, scheduler.type=ddim, ddpm or dpmsolver++, loss=mse and, for unitaries, "
            "unitary_encoder.type=convolution"
        )


def _clip_model(weights: str) -> tuple[str, str] | None:
    """Return OpenCLIP's (architecture, version) of weights, those in a folder of genQC or known here; else None."""
    if weights.startswith(OPEN_CLIP):
        arch, _, version = weights.removeprefix(OPEN_CLIP).partition("/")
        return arch, version
    return next((model for model, address in CLIP_WEIGHTS.items() if address == weights), None)


def _tell_what_differs(config: PipelineConfig) -> None:
    """Warn of what the folder cannot say."""
    text, process = config.text_encoder.params.model_dump(), config.scheduler.params.model_dump()
    if config.condition_type == SrvTask.name and process["guidance_mode"] != "cfg++":
        logger.warning(
            "genQC always guides models for Schmidt rank vectors by CFG++, this one has guidance_mode=%s: samples with "
            "guidance differ there",
            process["guidance_mode"],
        )
    if _clip_model(text["weights"]) is None:
        logger.warning(
            "which of OpenCLIP's models the weights %r are is not known: config.yaml names %s; if they are others, "
            "correct arch and version of text_encoder there",
            text["weights"],
            "/".join(next(iter(CLIP_WEIGHTS))),
        )


def _description(config: PipelineConfig, target: str, vocabulary_size: int, length: int | None) -> dict[str, Any]:
    """Return the content of genQC's `config.yaml`; `length` is the number of tokens per prompt (None: `CONTEXT`)."""
    parts = (config.model, config.scheduler, config.text_encoder)
    unet, process, text = (part.params.model_dump(mode="json") for part in parts)
    sizes = {
        **{key: unet[key] for key in ("model_features", "clr_dim")},
        "num_clrs": vocabulary_size,
        "t_emb_size": unet["t_emb_size"],
        "cond_emb_size": text["width"],
        **{key: unet[key] for key in ("num_heads", "num_res_blocks", "transformer_depths")},
    }
    if config.unitary_encoder is not None:
        encoder = config.unitary_encoder.params.model_dump(mode="json")
        sizes["unitary_encoder_config"] = {
            "cond_emb_size": text["width"],
            "model_features": [2, *encoder["features"], text["width"]],
            **{key: encoder[key] for key in ("num_heads", "transformer_depths", "dropout")},
        }
    kind, eta = config.scheduler.type, process["eta"]
    if kind == "ddpm":  # genQC's DDPM fails when it samples; DDIM with all its noise is the same step
        kind, eta = "ddim", 1.0
    elif kind == "dpmsolver++" and config.objective == "epsilon":  # genQC's DPM cannot; this is the same of order 1
        kind, eta = "ddim", 0.0
    noise = {key: process[key] for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")}
    noise |= {
        "device": "cpu",
        "input_perturbation": process["input_perturbation"],
        "prediction_type": next(theirs for theirs, ours in OBJECTIVES.items() if ours == config.objective),
        ZERO_SIGNAL: process["zero_terminal_snr"],
        **({"eta": eta} if kind == "ddim" else {}),
    }
    arch, version = _clip_model(text["weights"]) or next(iter(CLIP_WEIGHTS))
    part = {"target": UNETS[config.condition_type], "save_type": "safetensors", "params": sizes}
    return {
        "target": target,
        "params": {
            "scheduler": {
                "target": next(theirs for theirs, ours in SCHEDULERS.items() if ours == kind),
                "params": noise,
            },
            MODEL: part,
            TEXT: {
                "target": TEXT_ENCODER,
                "params": {
                    "arch": arch,
                    "version": version,
                    "max_length": length or CONTEXT,
                    "freeze": True,
                    "layer": text["layer"],
                    "enable_cache_token_limit": True,
                },
            },
            EMBEDDER: part,
            "device": "cpu",
            "enable_guidance_train": True,
            "guidance_train_p": 0.1,
            "cached_text_enc": True,
            "add_config": {
                "dataset": {
                    "params": {
                        "num_of_qubits": config.num_qubits,
                        "max_gates": config.max_gates,
                        "gate_pool": list(config.gate_pool),
                    }
                }
            },
        },
    }
