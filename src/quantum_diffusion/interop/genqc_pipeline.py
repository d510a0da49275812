"""Opens genQC's U-Net pipeline folders, for Schmidt rank vectors and unitaries; `genqc_pipeline_export` writes them.

Class names are looked up in tables and never imported; `interop.genqc` renames the weights strictly.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.prompts import gates_prompt, srv_prompt
from quantum_diffusion.config.known_names import (
    CLIP_WEIGHTS,
    GENQC_NOISE,
    GENQC_UNET,
    GENQC_UNITARY_ENCODER,
    GENQC_WIDTH,
    gate_name,
)
from quantum_diffusion.config.presets import check_extent
from quantum_diffusion.config.validation import validate
from quantum_diffusion.errors import CheckpointError, ConfigError, GateSetError, unknown_name
from quantum_diffusion.files import DESCRIPTION, describe
from quantum_diffusion.interop.genqc import (
    UNITARY_ENCODER,
    gate_embedding_from_genqc,
    unet_weights_from_genqc,
)
from quantum_diffusion.interop.genqc_data import shown
from quantum_diffusion.models.clip import CONTEXT
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.models.weight_files import check_weights, read_weights
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.pipeline.checkpoint import PROMPTS
from quantum_diffusion.pipeline.compilation import make_pipeline
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.tasks.unitary import UnitaryTask

logger = logging.getLogger(__name__)

PIPELINES = {
    "genQC.pipeline.diffusion_pipeline.DiffusionPipeline": SrvTask.name,
    # The first of the two classes with this name is written: in genQC 0.2.5 the other fails when it samples.
    "genQC.pipeline.diffusion_pipeline_special.DiffusionPipeline_Compilation": UnitaryTask.name,
    "genQC.pipeline.compilation_diffusion_pipeline.DiffusionPipeline_Compilation": UnitaryTask.name,
}
UNETS = {
    SrvTask.name: "genQC.models.unet_qc.QC_Cond_UNet",
    UnitaryTask.name: "genQC.models.unet_qc.QC_Compilation_UNet",
}
SCHEDULERS = {
    "genQC.scheduler.scheduler_ddim.DDIMScheduler": "ddim",
    "genQC.scheduler.scheduler_ddpm.DDPMScheduler": "ddpm",
    "genQC.scheduler.scheduler_dpm.DPMScheduler": "dpmsolver++",
}
TEXT_ENCODER = "genQC.models.frozen_open_clip.CachedFrozenOpenCLIPEmbedder"
TEXT_ENCODERS = {
    f"genQC.models.{module}.{name}FrozenOpenCLIPEmbedder": bool(name)
    for module in ("frozen_open_clip", "clip.frozen_open_clip")
    for name in ("Cached", "")
}
"""Class => whether it caches features."""

OPEN_CLIP = "open_clip:"
"""Prefix of the names of weights whose address is not known, ARCHITECTURE/VERSION, in place of a path."""

ZERO_SIGNAL = "enable_zero_terminal_snr"
OBJECTIVES = {"epsilon": "epsilon", "v-type": "v", "x0": "x0"}
_SUFFIXES = ("safetensors", "pt", "ckpt")
_LARGEST_DESCRIPTION = 2**20
_MOST_LISTED = 12
"""Maximum number of qubits for which all Schmidt rank vectors are listed; genQC's models have at most 8."""
_NAMES_PIPELINE = re.compile(
    rb"(?:^(?:\xef\xbb\xbf)?|[{,]) *(['\"]?)target\1\s*:\s*['\"]?genQC\.pipeline\.", re.MULTILINE
)
"""In plain YAML and in flow style ({...}), perhaps after a byte order mark."""

MODEL, EMBEDDER, TEXT = "model", "embedder", "text_encoder"


def is_genqc_pipeline(folder: Path) -> bool:
    """Return whether genQC saved the pipeline in a folder, i.e. whether its `config.yaml` names a genQC pipeline."""
    try:
        with (folder / DESCRIPTION).open("rb") as file:
            text = file.read(_LARGEST_DESCRIPTION)
    except OSError:
        return False
    return _NAMES_PIPELINE.search(text) is not None


def read_pipeline(folder: Path, device: torch.device | None = None) -> DiffusionPipeline:
    """Open a genQC pipeline folder.

    genQC saves no text encoder. If this package wrote the folder, known prompts do not need one; see `write_pipeline`.

    Args:
        folder: `config.yaml` with `model.safetensors` (or .pt, .ckpt) and, except in legacy layouts, `embedder.*`.
        device: Where the weights go; None means the CPU.

    Raises:
        CheckpointError: The folder holds another kind of pipeline, is damaged, or has parts that cannot be used here.
    """
    return _Reader(folder).read(device)


@dataclass(frozen=True)
class _Node:
    """A mapping in the description and its path, for error messages."""

    values: Mapping[str, Any]
    place: str

    def child(self, key: str) -> _Node:
        """Return the mapping under a key.

        Raises:
            CheckpointError: There is none.
        """
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self.place}.{key}: expected a mapping, given {shown(value)}")
        return _Node(value, f"{self.place}.{key}")

    def choose(self, key: str, valid: Mapping[str, Any], default: Any = None) -> Any:
        """Return the table entry for the name under a key; `default` is the name if there is none.

        Raises:
            CheckpointError: The table has no such name.
        """
        name = self.values.get(key, default)
        if not isinstance(name, str) or name not in valid:
            given = name[:120] if isinstance(name, str) else shown(name)
            raise CheckpointError(f"{self.place}.{key}: {unknown_name('name', given, valid)}")
        return valid[name]

    def switch(self, key: str, default: bool) -> bool:
        """Return the truth value under a key.

        Raises:
            CheckpointError: It is something else, such as text.
        """
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.place}.{key}: expected true or false, given {shown(value)}")
        return value


class _Reader:
    """Reads one folder; every reading method also validates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = _Node(self._description(), f"{folder / DESCRIPTION}: pipeline")

    def read(self, device: torch.device | None) -> DiffusionPipeline:
        """Return the pipeline with its weights."""
        task = self._root.choose("target", PIPELINES)
        params = self._root.child("params")
        unet = params.child(MODEL)
        if unet.choose("target", {name: name for name in UNETS.values()}) != UNETS[task]:
            raise CheckpointError(f"{unet.place}.target: expected {UNETS[task]!r} for this pipeline")
        state = self._weights(MODEL, unet)
        embedder = self._weights(EMBEDDER, params.child(EMBEDDER)) if EMBEDDER in params.values else state
        pipeline = make_pipeline(self._configuration(task, params, unet.child("params")))
        network = pipeline.network
        weights = network["backbone"].state_dict()
        if task == UnitaryTask.name:
            weights |= network["unitary_encoder"].state_dict(prefix=UNITARY_ENCODER)
        weights = unet_weights_from_genqc(state, weights)
        if task == UnitaryTask.name:
            names = [name for name in weights if name.startswith(UNITARY_ENCODER)]
            own = {name.removeprefix(UNITARY_ENCODER): weights.pop(name) for name in names}
            network["unitary_encoder"].load_state_dict(own)
        network["backbone"].load_state_dict(weights)
        self._take_embedding(pipeline, gate_embedding_from_genqc(embedder))
        self._take_features(pipeline)
        network.eval()
        return pipeline if device is None else pipeline.to(device)

    def _description(self) -> Mapping[str, Any]:
        file = self._folder / DESCRIPTION
        try:
            text = file.read_bytes()[:_LARGEST_DESCRIPTION].decode("utf-8-sig")
            check_extent(text)
            description = yaml.safe_load(text)
        except OSError as problem:
            raise CheckpointError(f"cannot read {str(file)!r}: {describe(problem)}") from problem
        except Exception as problem:  # PyYAML raises many exception types
            reason = f" ({problem})" if type(problem) is ValueError else ""
            raise CheckpointError(
                f"{str(file)!r} is not readable YAML{reason}: copy the folder again, or save it again with genQC"
            ) from None
        if not isinstance(description, Mapping):
            raise CheckpointError(f"{str(file)!r} is no mapping: expected a pipeline that genQC saved")
        return description

    def _weights(self, name: str, node: _Node) -> dict[str, Tensor]:
        """Read the weights of a part from this folder, whatever path the description gives."""
        kind = node.values.get("save_type")
        names = [f"{name}.{suffix}" for suffix in sorted(_SUFFIXES, key=lambda suffix: suffix != kind)]
        for file in names:
            if os.path.lexists(self._folder / file):
                weights = read_weights(self._folder / file, CheckpointError)
                check_weights(weights, self._folder / file, CheckpointError)
                return weights
        raise CheckpointError(
            f"genQC's pipeline {str(self._folder)!r} lacks {names[0]}: copy the whole folder, or save it again with "
            "genQC"
        )

    # ------------------------------------------------------------------------------------------ configuration

    def _configuration(self, task: str, params: _Node, unet: _Node) -> PipelineConfig:
        pool, num_qubits, max_gates = self._sizes(params)
        scheduler = params.child("scheduler")
        process = scheduler.child("params")
        objective = process.choose("prediction_type", OBJECTIVES, "epsilon")
        text = self._text_encoder(params.child(TEXT), unet.values.get("cond_emb_size", GENQC_WIDTH))
        is_unitary, sampler = task == UnitaryTask.name, scheduler.choose("target", SCHEDULERS)
        # genQC's models of x0 and v end at zero signal unless told not to; it saves no such setting, but we do.
        zero = process.switch(ZERO_SIGNAL, True) and objective != "epsilon"
        sizes = {key: unet.values.get(key, default) for key, default in GENQC_UNET.items()}
        steps = {key: process.values.get(key, default) for key, default in (GENQC_NOISE | {"eta": 0.0}).items()}
        if sampler == "dpmsolver++" and zero:
            # Our solvers cannot start at zero signal; DDIM without noise is DPM-Solver++ of order 1, and can.
            sampler, steps = "ddim", {**steps, "eta": 0.0}
        prompts = (gates_prompt(pool.names, pool),) if is_unitary else _srv_prompts(num_qubits)
        values: dict[str, Any] = {
            "gate_pool": pool.names,
            "num_qubits": num_qubits,
            "max_gates": max_gates,
            "length_counts": {},
            "prompts": prompts,
            "objective": objective,
            "loss": "mse",
            "prefix_head": False,
            "bucketed": True,
            "model": {"type": "unet", "params": sizes},
            "text_encoder": text,
            "scheduler": {
                "type": sampler,
                "params": steps
                | {
                    "zero_terminal_snr": zero,
                    # genQC's pipeline for Schmidt rank vectors uses CFG++, the one for unitaries does not.
                    "guidance_mode": "cfg++" if sampler == "ddim" and not is_unitary else "plain",
                },
            },
            "condition_type": task,
        }
        if is_unitary:
            values["unitary_encoder"] = self._unitary_encoder(unet.child("unitary_encoder_config"))
        try:
            return validate(PipelineConfig, values, params.place)
        except ConfigError as problem:
            raise CheckpointError(f"genQC's pipeline {str(self._folder)!r} cannot be used: {problem}") from problem

    def _sizes(self, params: _Node) -> tuple[GatePool, int, int]:
        """Return the gate pool and the maximum numbers of qubits and gates, which genQC stores as data set settings."""
        data = params.child("add_config").child("dataset").child("params")
        names = data.values.get("gate_pool")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{data.place}.gate_pool: expected a list of gates, given {shown(names)}")
        gates = [gate_name(name) for name in names]
        known = [name for name, gate in GATES.items() if not gate.num_angles]  # it writes no angles
        unknown = [name for name in gates if name not in known]
        if unknown:
            raise CheckpointError(f"{data.place}.gate_pool: {unknown_name('gate', unknown[0][:60], known)}")
        try:
            pool = GatePool(gates)
        except GateSetError as problem:
            raise CheckpointError(f"{data.place}.gate_pool: {problem}") from None
        sizes = []
        for key, most in (("num_of_qubits", 64), ("max_gates", 2**15)):
            value = data.values.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise CheckpointError(f"{data.place}.{key}: expected a whole number up to {most}, given {shown(value)}")
            sizes.append(value)
        return pool, sizes[0], sizes[1]

    def _text_encoder(self, node: _Node, width: Any) -> dict[str, Any]:
        is_cached = node.choose("target", TEXT_ENCODERS)
        given = node.child("params")
        params, (arch, version) = given.values, next(iter(CLIP_WEIGHTS))
        model = (params.get("arch", arch), params.get("version", version))
        if not all(isinstance(name, str) and len(name) < 120 for name in model):
            raise CheckpointError(f"{given.place}: expected names as arch and version, given {shown(model)}")
        if model not in CLIP_WEIGHTS:
            logger.warning(
                "%r names unknown CLIP weights, %s: name a copy on this machine (QUANTUM_DIFFUSION_CLIP)",
                str(self._folder),
                shown(model),
            )
        weights = CLIP_WEIGHTS.get(model, f"{OPEN_CLIP}{'/'.join(model)}")
        found = {"layer": params["layer"]} if "layer" in params else {}
        # genQC cuts prompts to max_length only where it caches their features.
        is_cut = is_cached and given.switch("enable_cache_token_limit", True)
        found["max_length"] = params.get("max_length", CONTEXT) if is_cut else CONTEXT
        return {"type": "clip", "params": {"weights": weights, "width": width} | found}

    def _unitary_encoder(self, node: _Node) -> dict[str, Any]:
        values = node.values
        features = values.get("model_features")
        width = values.get("cond_emb_size")
        if features is None and isinstance(width, int):
            features = [2, width // 4, width // 2, width]
        if not isinstance(features, list) or len(features) != 4 or features[0] != 2 or features[3] != width:
            raise CheckpointError(
                f"{node.place}.model_features: expected [2, F, F', cond_emb_size], given {str(features)[:80]}"
            )
        found = {name: values.get(name, default) for name, default in GENQC_UNITARY_ENCODER.items()}
        return {"type": "convolution", "params": {"features": features[1:3]} | found}

    # ------------------------------------------------------------------------------------------------ content

    def _take_embedding(self, pipeline: DiffusionPipeline, rows: Tensor) -> None:
        """Copy genQC's gate embedding; rows after "no gate", the pool and padding are unused."""
        ours = gate_embedding_of(pipeline)
        if rows.dim() != 2 or rows.shape[1] != ours.shape[1] or len(rows) < len(ours):
            raise CheckpointError(
                f"genQC's pipeline {str(self._folder)!r} embeds gates in {tuple(rows.shape)}: expected "
                f"{tuple(ours.shape)} or more rows, for {len(ours) - 2} gates, none and padding"
            )
        if len(rows) > len(ours):
            logger.warning(
                "%r embeds %d gates and add_config names a gate_pool of %d: if it lacks some, samples are wrong; give "
                "the gates that the model was trained with, in their order",
                str(self._folder),
                len(rows) - 2,
                len(ours) - 2,
            )
        ours.copy_(rows[: len(ours)])

    def _take_features(self, pipeline: DiffusionPipeline) -> None:
        """Read the features of prompts, if this package saved them next to genQC's files."""
        file = self._folder / PROMPTS
        if pipeline.prompt_features is None or not file.is_file():
            return
        try:
            pipeline.prompt_features.load_saved(file.read_bytes())
        except (OSError, ValueError) as problem:
            raise CheckpointError(f"{str(file)!r} cannot be used: {problem}; remove it, or copy it again") from problem


def _srv_prompts(num_qubits: int) -> tuple[str, ...]:
    """Return the possible prompts of a model for Schmidt rank vectors: genQC does not save its training prompts."""
    if num_qubits > _MOST_LISTED:
        return (srv_prompt([2] * num_qubits),)
    every = (srv for size in range(2, num_qubits + 1) for srv in itertools.product((1, 2), repeat=size))
    return tuple(srv_prompt(srv) for srv in every if srv.count(2) != 1)


def gate_embedding_of(pipeline: DiffusionPipeline) -> Tensor:
    """Return the gate embedding of a U-Net pipeline, float32 [V, C]."""
    embedding = pipeline.network["gate_embedding"]
    assert isinstance(embedding, GateEmbedding)
    return embedding.weight
