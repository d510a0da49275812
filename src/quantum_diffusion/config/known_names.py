"""Names used by genQC, diffusers, torch and common habit, and ours: translated if they mean the same, else suggested.

genQC's names come from configurations and functions of version 0.2.5. Case is ignored in values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]

CLIP_WEIGHTS = {
    ("ViT-B-32", "datacomp_xl_s13b_b90k"): "hf://laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    ("ViT-B-32", "laion2b_s34b_b79k"): "hf://laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    ("ViT-L-14", "datacomp_xl_s13b_b90k"): "hf://laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
}
"""OpenCLIP's (architecture, version) => address of these weights on the Hub; the first are genQC's default."""

GENQC_NOISE: Values = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "input_perturbation": 0.1,
}
"""Defaults of genQC's schedulers."""

GENQC_UNET: Values = {
    "model_features": [32, 32, 64],
    "clr_dim": 8,
    "t_emb_size": 128,
    "num_heads": [8, 8, 2],
    "num_res_blocks": [2, 2, 4],
    "transformer_depths": [1, 2, 1],
}
"""Defaults of genQC's U-Nets."""

GENQC_WIDTH = 512
"""Their default of `cond_emb_size`."""

GENQC_UNITARY_ENCODER: Values = {"num_heads": 8, "transformer_depths": [4, 4], "dropout": 0.1}
"""Defaults of genQC's unitary encoder."""


@dataclass(frozen=True)
class Translation:
    """A key of the field that is read as ours, or several that mean something only together.

    Attributes:
        names: Their keys, by the last part or parts of the dotted key: `lr` is read wherever it stands.
        keys: The keys that are set instead, dotted within the section; () if none is needed, or it is refused.
        translate: Given their values by name, returns ours by key; raises ValueError if one has no meaning here.
        note: What else there is to know, for the documentation.
        recall: Given the value of the first key in an earlier source, returns what it means under these names, so that
            a command line can complete a file.
        imply: Like `translate`, for what is meant unless it is given otherwise.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    translate: Callable[[Mapping[str, Any]], Values]
    note: str = ""
    recall: Callable[[Any], Values] = lambda value: {}
    imply: Callable[[Mapping[str, Any]], Values] = lambda given: {}


def _renamed(name: str, key: str, note: str = "") -> Translation:
    return Translation((name,), (key,), lambda given: {key: given[name]}, note)


def _refused(name: str, reason: str) -> Translation:
    def translate(given: Mapping[str, Any]) -> Values:
        if given[name] is not None:
            raise ValueError(f"has no meaning here: {reason}")
        return {}

    return Translation((name,), (), translate, reason)


def _always(name: str, reason: str) -> Translation:
    """Accept a switch that is always on here."""

    def translate(given: Mapping[str, Any]) -> Values:
        if _switch(given[name]) is False:
            raise ValueError(f"cannot be switched off: {reason}")
        return {}

    return Translation((name,), (), translate, reason)


def _switch(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, given {value!r}")


def _dropout(given: Mapping[str, Any]) -> Values:
    if _switch(given.get("enable_guidance_train")) is False:
        return {"training.condition_dropout": 0.0}
    return {"training.condition_dropout": given.get("guidance_train_p", 0.1)}  # genQC's default


def _wandb_switch(given: Mapping[str, Any]) -> Values:
    usual = ["csv", "jsonl", "tensorboard"]
    return {"general.loggers": [*usual, "wandb"] if _switch(given["wandb.enable"]) else usual}


def _batching(given: Mapping[str, Any]) -> Values:
    mode, size = given.get("padding_mode"), given.get("bucket_batch_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise ValueError(
            f"expected a whole number as bucket_batch_size, given {size!r}: -1 pads to the largest circuit"
        )
    if size is None:
        return {} if mode is None else {"training.batching": mode}
    by_size = size > 0
    if mode is not None and str(mode).casefold() in ("max", "bucket") and by_size != (str(mode).casefold() == "bucket"):
        raise ValueError(
            f"contradict each other, given {mode!r} and {size}: give bucket with a positive number, or max without one"
        )
    if by_size:
        return {"training.batching": mode or "bucketed", "training.batch_size": size}
    return {"training.batching": mode or "max_padded"}


def _clip_weights(given: Mapping[str, Any]) -> Values:
    first = next(iter(CLIP_WEIGHTS))
    model = (str(given.get("arch") or first[0]), str(given.get("version") or first[1]))
    if model not in CLIP_WEIGHTS:
        raise ValueError(
            f"name CLIP weights that are not known here, {'/'.join(model)[:120]}: give a copy on this machine as "
            "text_encoder.params.weights"
        )
    return {"text_encoder.params.weights": CLIP_WEIGHTS[model]}


def _all_tokens(given: Mapping[str, Any]) -> Values:
    return {"text_encoder.params.max_length": 77} if _switch(given["enable_cache_token_limit"]) is False else {}


def _zero_signal(given: Mapping[str, Any]) -> Values:
    noise = str(given["prediction_type"]).casefold() in ("none", "epsilon", "eps", "noise")
    return {} if noise else {"scheduler.params.zero_terminal_snr": True}


def gate_name(name: str) -> str:
    """Return the name of a gate in a gate pool of genQC; genQC 0.1 wrote the path of its Qiskit class instead."""
    path = re.fullmatch(r"(?:\w+\.)*(\w+)Gate", name)
    return path[1].lower() if path else name


def _gate_set(given: Mapping[str, Any]) -> Values:
    names = given["gate_pool"]
    if isinstance(names, list):
        names = [gate_name(name) if isinstance(name, str) else name for name in names]
    return {"gate_set": names}


def _unitary_encoder(given: Mapping[str, Any]) -> Values:
    values = given["unitary_encoder_config"]
    if not isinstance(values, Mapping):
        raise ValueError(f"expected nested keys, given {values!r}")
    values = dict(values.get("params", values))
    result: Values = {"unitary_encoder.type": "convolution"}
    width = values.get("cond_emb_size")
    if width is not None:
        result["text_encoder.params.width"] = width
    features = values.get("model_features")
    if features is None and isinstance(width, int):
        features = [2, width // 4, width // 2, width]
    if isinstance(features, list) and len(features) == 4:
        result["unitary_encoder.params.features"] = features[1:3]
    elif features is not None:
        raise ValueError(f"model_features is {features!r}, expected four numbers: [2,32,64,512]")
    for name, default in GENQC_UNITARY_ENCODER.items():
        result[f"unitary_encoder.params.{name}"] = values.get(name, default)
    unknown = sorted(set(values) - {"cond_emb_size", "model_features", *GENQC_UNITARY_ENCODER})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: expected the parameters of genQC's Unitary_encoder")
    return result


def _simplification(given: Mapping[str, Any]) -> Values:
    backbone = given.get("backbone")
    last = "rules" if backbone is None else str(backbone).rpartition(".")[2].lower()
    name = "qiskit" if last == "circuitsqiskitbackend" else last
    if name not in ("rules", "qiskit"):
        raise ValueError(
            f"expected qiskit or rules, given backbone={str(backbone)[:80]}: that only chooses who simplifies "
            "circuits, which are drawn and labelled by our own exact code"
        )
    return {"optimize": "none" if _switch(given.get("optimized")) is False else name}


_SAMPLING = (
    _renamed("g", "model_params.guidance_scale"),
    _renamed("guidance_sample_mode", "model_params.guidance_mode", "`normal` is `plain`; there is no `fastai`"),
    _renamed("num_inference_steps", "model_params.sample_steps"),
    _refused("no_bar", "give verbose=false to an evaluation or training; other commands draw no bar"),
)

TRANSLATIONS: dict[str, tuple[Translation, ...]] = {
    "training": (
        _renamed("lr", "training.learning_rate"),
        _renamed("max_grad_norm", "training.gradient_clip", "`null` does not clip, as there"),
        _renamed("lr_sched", "training.lr_scheduler"),
        _renamed("loss_fn", "training.loss"),
        _renamed("optim_fn", "training.optimizer"),
        _renamed("compile_model", "training.compile"),
        Translation(
            ("enable_guidance_train", "guidance_train_p"),
            ("training.condition_dropout",),
            _dropout,
            "false is 0; true without a probability is 0.1, genQC's default",
            recall=lambda dropout: {"guidance_train_p": dropout} if dropout else {},
        ),
        _always("cached_text_enc", "each distinct prompt is always encoded only once"),
        Translation(
            ("padding_mode", "bucket_batch_size"),
            ("training.batching", "training.batch_size"),
            _batching,
            "`max` is `max_padded`, `bucket` is `bucketed`; a positive number is also the batch size",
        ),
        _renamed("pct_start", "training.warmup_fraction"),
        _renamed("ckpt_interval", "general.checkpoint_epochs", "in epochs"),
        _refused(
            "ckpt_path",
            "checkpoints lie in run/checkpoints of the output folder; to continue from one, give "
            "training.general.resume",
        ),
        Translation(
            ("wandb.enable",),
            ("general.loggers",),
            _wandb_switch,
            "true adds `wandb` to the usual loggers; it stays offline unless `general.wandb_mode=online`",
        ),
        _renamed("wandb.project", "general.experiment_name"),
        _renamed("wandb.run_name", "general.run_name"),
        _renamed("model.target", "model.type"),
        _renamed("text_encoder.target", "text_encoder.type"),
        _renamed("scheduler.target", "scheduler.type"),
        Translation(
            ("prediction_type",),
            ("training.objective",),
            lambda given: {"training.objective": given["prediction_type"]},
            "`v-type` is `v`",
            imply=_zero_signal,
        ),
        _renamed("enable_zero_terminal_snr", "scheduler.params.zero_terminal_snr", "genQC's own default is true"),
        _renamed("cond_emb_size", "text_encoder.params.width"),
        Translation(
            ("unitary_encoder_config",),
            ("unitary_encoder.type", "unitary_encoder.params.features"),
            _unitary_encoder,
            "with its heads, depths and dropout",
        ),
        Translation(
            ("arch", "version"), ("text_encoder.params.weights",), _clip_weights, "OpenCLIP's names of CLIP weights"
        ),
        _always("text_encoder.params.freeze", "CLIP's weights are never trained"),
        Translation(
            ("enable_cache_token_limit",),
            ("text_encoder.params.max_length",),
            _all_tokens,
            "false is 77; true is null, the tokens of the longest prompt",
        ),
        _refused("scheduler.params.device", "training.general.device is where everything runs"),
        _refused("dataset_to_gpu", "batches are kept on a GPU wherever one is used"),
        _refused("embedder", "gates are embedded by the U-Net's own table, as in genQC"),
        _refused("num_clrs", "it follows from the gates of the data set"),
        _refused("add_config", "sizes and gates follow from the data set"),
        _refused("non_blocking", "data is always moved to the device that way"),
    ),
    "datasets": (
        Translation(("gate_pool",), ("gate_set",), _gate_set, "Qiskit's classes count by their names"),
        _renamed("num_of_qubits", "num_qubits"),
        _renamed("random_samples", "num_samples"),
        Translation(
            ("optimized", "backbone"),
            ("optimize",),
            _simplification,
            "true is `rules`, or `qiskit` with `backbone=qiskit`; false is `none`",
            recall=lambda optimize: {"backbone": optimize} if optimize in ("rules", "qiskit") else {},
        ),
        _refused("pad_constant", "it follows from the gates"),
    ),
    **dict.fromkeys(("evaluation", "sample", "compile", "prepare"), _SAMPLING),
}
"""Keys of the field that a command reads as ours, by section."""


def _scheduler(**others: Any) -> Values:
    return {
        "training.objective": "epsilon",
        "training.loss": "mse",
        **{f"scheduler.params.{name}": value for name, value in (GENQC_NOISE | others).items()},
    }


_UNET: Values = {
    **{f"model.params.{name}": value for name, value in GENQC_UNET.items()},
    "text_encoder.params.width": GENQC_WIDTH,
    "scheduler.type": "DDIMScheduler",
}

IMPLIED: dict[tuple[str, str], Values] = {
    ("model.type", "qc_cond_unet"): _UNET,
    ("model.type", "qc_compilation_unet"): _UNET | {"unitary_encoder.type": "convolution"},
    ("text_encoder.type", "frozenopenclipembedder"): {"text_encoder.params.max_length": 77},
    ("scheduler.type", "ddimscheduler"): _scheduler(eta=0.0),
    ("scheduler.type", "ddpmscheduler"): _scheduler(),
    ("scheduler.type", "dpmscheduler"): _scheduler(),
    ("training.lr_scheduler", "onecyclelr"): {"training.warmup_fraction": 0.3},
    ("training.lr_scheduler", "cosineannealinglr"): {"training.warmup_fraction": 0.0},
}
"""(Key, value of the field) => what it means beside ours, unless given otherwise: the defaults of genQC and torch.

What an earlier source gives holds, too, if it has the same value, or one that is in `ALIKE` with it.
"""

ALIKE = {"scheduler.type": ("ddim", "ddpm", "dpmsolver++", "unipc")}
"""Key => values of ours that share their other settings."""

KEYS = {
    "bs": "training.training.batch_size",
    "wd": "training.training.weight_decay",
    "epochs": "training.training.num_epochs",
    "n_epochs": "training.training.num_epochs",
    "max_epochs": "training.training.num_epochs",
    "num_train_epochs": "training.training.num_epochs",
    "scheduler": "training.scheduler.type",
    "optim": "training.training.optimizer",
    "wandb": "training.general.loggers",
    "target": "type",
    "ema": "training.training.ema_decay",
    "grad_clip": "training.training.gradient_clip",
    "clip_grad_norm": "training.training.gradient_clip",
    "gradient_accumulation_steps": "training.training.accumulate_batches",
    "warmup": "training.training.warmup_fraction",
    "warmup_steps": "training.training.warmup_fraction",
    "val_split": "training.training.validation_fraction",
    "early_stopping": "training.training.patience",
    "cfg_dropout": "training.training.condition_dropout",
    "amp": "training.training.precision",
    "fp16": "training.training.precision",
    "bf16": "training.training.precision",
    "mixed_precision": "training.training.precision",
    "torch_compile": "training.training.compile",
    "logger": "training.general.loggers",
    "data": "training.general.dataset",
    "dataset_path": "training.general.dataset",
    "output": "training.general.output_path",
    "output_dir": "training.general.output_path",
    "save_path": "training.general.output_path",
    "pretrained": "training.general.init_from_pipeline_dir",
    "d_model": "training.model.params.width",
    "hidden_size": "training.model.params.width",
    "num_layers": "training.model.params.depth",
    "n_heads": "training.model.params.num_heads",
    "gates": "datasets.gate_set",
    "basis_gates": "datasets.gate_set",
    "qubits": "datasets.num_qubits",
    "n_qubits": "datasets.num_qubits",
    "max_depth": "datasets.max_gates",
    "coupling_map": "datasets.coupling",
    "num_workers": "datasets.n_jobs",
    "model": "model_dir",
    "model_path": "model_dir",
    "timesteps": "sample_steps",
    "steps": "sample_steps",
    "cfg_scale": "guidance_scale",
    "shots": "max_tries",
    "num_samples": "num_circuits",
    "unitary": "target",
    "state": "target",
} | {
    name: f"{section}.{translation.keys[0]}" if section in ("training", "datasets") else translation.keys[0]
    for section in ("training", "datasets", "evaluation")
    for translation in TRANSLATIONS[section]
    for name in translation.names
    if translation.keys and "." not in name
}
"""Key elsewhere => our key to suggest: dotted, or only its last part if several commands have it."""

NEEDLESS_KEYS = {"pin_memory": "data is always moved to the device that way"} | {
    translation.names[0]: translation.note
    for translations in TRANSLATIONS.values()
    for translation in translations
    if not translation.keys
}
"""Key elsewhere => why we have none."""

VALUES = {
    "qc_cond_unet": "unet",
    "qc_compilation_unet": "unet",
    "ddimscheduler": "ddim",
    "ddpmscheduler": "ddpm",
    "dpmscheduler": "dpmsolver++",
    "dpmsolvermultistepscheduler": "dpmsolver++",
    "unipcmultistepscheduler": "unipc",
    "frozenopenclipembedder": "clip",
    "cachedfrozenopenclipembedder": "clip",
    "unitary_encoder": "convolution",
    "mseloss": "mse",
    "l2": "mse",
    "crossentropyloss": "cross_entropy",
    "ce": "cross_entropy",
    "onecyclelr": "one_cycle",
    "cosineannealinglr": "cosine",
    "constantlr": "constant",
    "sample": "x0",
    "v_prediction": "v",
    "v-type": "v",
    "eps": "epsilon",
    "noise": "epsilon",
    "scaled_linear": "linear_sqrt",
    "squaredcos_cap_v2": "cos_alpha",
    "normal": "plain",
    "float32": "32",
    "fp32": "32",
    "bfloat16": "bf16",
    "float16": "16",
    "fp16": "16",
    "no": "none",
    "tb": "tensorboard",
    "weights_and_biases": "wandb",
    "bucket": "bucketed",
    "max": "max_padded",
}
"""Value elsewhere => our value, if valid for the key; only the last part of a class path counts (torch.optim.Adam)."""
