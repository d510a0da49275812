"""Names used by genQC, diffusers, torch and common habit, and ours: translated if they mean the same, else suggested.

genQC's names come from configurations and functions of version 0.2.5. Case is ignored in values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True)
class Translation:
    """A key of the field that is read as ours, or several that mean something only together.

    Attributes:
        names: Their keys, by the last part or parts of the dotted key: `lr` is read wherever it stands.
        keys: The keys that are set instead, dotted within the section; () if none is needed, or it is refused.
        translate: Given their values by name, returns ours by key; raises ValueError if one has no meaning here.
        note: What else there is to know, for the documentation.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    translate: Callable[[Mapping[str, Any]], Values]
    note: str = ""


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
    size = given["bucket_batch_size"]
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return {"training.batching": "bucketed", "training.batch_size": size}
    return {"training.batching": "max_padded"}


def _unitary_encoder(given: Mapping[str, Any]) -> Values:
    values = given["unitary_encoder_config"]
    if not isinstance(values, Mapping):
        raise ValueError(f"expected nested keys, given {values!r}")
    values = dict(values.get("params", values))
    result: Values = {"unitary_encoder.type": "convolution"}
    if values.get("cond_emb_size") is not None:
        result["text_encoder.params.width"] = values["cond_emb_size"]
    features = values.get("model_features")
    if isinstance(features, list) and len(features) == 4:
        result["unitary_encoder.params.features"] = features[1:3]
    elif features is not None:
        raise ValueError(f"model_features is {features!r}, expected four numbers: [2,32,64,512]")
    for name in ("num_heads", "transformer_depths", "dropout"):
        if name in values:
            result[f"unitary_encoder.params.{name}"] = values[name]
    unknown = sorted(set(values) - {"cond_emb_size", "model_features", "num_heads", "transformer_depths", "dropout"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: expected the parameters of genQC's Unitary_encoder")
    return result


def _simplification(given: Mapping[str, Any]) -> Values:
    backbone = given.get("backbone")
    name = "rules" if backbone is None else str(backbone).rpartition(".")[2].lower()
    if name not in ("rules", "qiskit"):
        raise ValueError(
            f"backbone={backbone} has no meaning here: circuits are drawn and labelled by our own exact code; "
            "qiskit or rules choose who simplifies them"
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
        ),
        _always("cached_text_enc", "each distinct prompt is always encoded only once"),
        _renamed("padding_mode", "training.batching", "`max` is `max_padded`, `bucket` is `bucketed`"),
        Translation(
            ("bucket_batch_size",),
            ("training.batching", "training.batch_size"),
            _batching,
            "a positive number batches by size, others pad to the largest",
        ),
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
        _renamed("prediction_type", "training.objective", "`v-type` is `v`"),
        _renamed("enable_zero_terminal_snr", "scheduler.params.zero_terminal_snr", "genQC's own default is true"),
        _renamed("cond_emb_size", "text_encoder.params.width"),
        Translation(
            ("unitary_encoder_config",),
            ("unitary_encoder.type", "unitary_encoder.params.features"),
            _unitary_encoder,
            "with its heads, depths and dropout",
        ),
        _refused("num_clrs", "it follows from the gates of the data set"),
        _refused("add_config", "sizes and gates follow from the data set"),
        _refused("non_blocking", "data is always moved to the device that way"),
    ),
    "datasets": (
        _renamed("gate_pool", "gate_set"),
        _renamed("num_of_qubits", "num_qubits"),
        _renamed("random_samples", "num_samples"),
        Translation(
            ("optimized", "backbone"),
            ("optimize",),
            _simplification,
            "true is `rules`, or `qiskit` with `backbone=qiskit`; false is `none`",
        ),
        _refused("pad_constant", "it follows from the gates"),
    ),
    **dict.fromkeys(("evaluation", "sample", "compile", "prepare"), _SAMPLING),
}
"""Keys of the field that a command reads as ours, by section."""

IMPLIED: dict[tuple[str, str], Values] = {
    ("model.type", "qc_compilation_unet"): {"unitary_encoder.type": "convolution"},
    ("training.lr_scheduler", "cosineannealinglr"): {"training.warmup_fraction": 0.0},
}
"""(Key, value of the field) => what that value means beside ours, unless it is given otherwise."""

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
