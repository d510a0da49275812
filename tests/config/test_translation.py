"""Settings with the names of genQC and torch: read as ours, shown as ours, or refused with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantum_diffusion.config.known_names import TRANSLATIONS
from quantum_diffusion.config.presets import config_folder, read_yaml
from quantum_diffusion.config.schema import SECTIONS
from quantum_diffusion.config.store import compose, parse_arguments, show
from quantum_diffusion.config.translation import translated
from quantum_diffusion.config.validation import fields_at
from quantum_diffusion.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "genqc.md"
BASE = {
    "training": ["training=paper_srv_stage_1", "training.general.dataset=data"],
    "datasets": [],
    "evaluation": ["evaluation.dataset=data", "evaluation.model_dir=model"],
    "sample": ["sample.srv=[1,2,2]"],
    "compile": ["compile.target=toffoli"],
    "prepare": ["prepare.target=ghz"],
}


def value_at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


USUAL = ("csv", "jsonl", "tensorboard")


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("training.model.type=QC_Cond_UNet", "model.type", "unet"),
        ("training.model.target=genQC.models.unet_qc.QC_Cond_UNet", "model.type", "unet"),
        ("training.model.type=QC_Compilation_UNet", "unitary_encoder.type", "convolution"),
        ("training.scheduler.type=DDIMScheduler", "scheduler.type", "ddim"),
        ("training.scheduler.type=DDPMScheduler", "scheduler.type", "ddpm"),
        ("training.scheduler.type=DPMScheduler", "scheduler.type", "dpmsolver++"),
        ("training.text_encoder.type=CachedFrozenOpenCLIPEmbedder", "text_encoder.type", "clip"),
        ("training.text_encoder.type=FrozenOpenCLIPEmbedder", "text_encoder.type", "clip"),
        ("training.training.optimizer=torch.optim.AdamW", "training.optimizer", "adamw"),
        ("training.training.optim_fn=Adam", "training.optimizer", "adam"),
        ("training.training.loss=torch.nn.MSELoss", "training.loss", "mse"),
        ("training.training.lr=1e-3", "training.learning_rate", 1e-3),
        ("training.lr=1e-3", "training.learning_rate", 1e-3),
        ("training.training={lr:1e-3,num_epochs:7}", "training.num_epochs", 7),
        ("training.training.enable_guidance_train=true", "training.condition_dropout", 0.1),
        ("training.training.enable_guidance_train=false", "training.condition_dropout", 0),
        ("training.training.guidance_train_p=0.2", "training.condition_dropout", 0.2),
        ("training.training.cached_text_enc=true", "text_encoder.type", "prompt"),
        ("training.training.padding_mode=max", "training.batching", "max_padded"),
        ("training.training.padding_mode=bucket", "training.batching", "bucketed"),
        ("training.training.bucket_batch_size=64", "training.batch_size", 64),
        ("training.training.bucket_batch_size=-1", "training.batching", "max_padded"),
        ("training.training.ckpt_interval=5", "general.checkpoint_epochs", 5),
        ("training.training.ckpt_path=null", "general.resume", "auto"),
        ("training.training.max_grad_norm=0.5", "training.gradient_clip", 0.5),
        ("training.training.max_grad_norm=null", "training.gradient_clip", None),
        ("training.training.lr_scheduler=OneCycleLR", "training.lr_scheduler", "one_cycle"),
        ("training.training.lr_scheduler=OneCycleLR", "training.warmup_fraction", 0.3),
        ("training.training.lr_scheduler=CosineAnnealingLR", "training.lr_scheduler", "cosine"),
        ("training.training.lr_scheduler=CosineAnnealingLR", "training.warmup_fraction", 0),
        ("training.wandb.enable=true", "general.loggers", (*USUAL, "wandb")),
        ("training.general.wandb.enable=false", "general.loggers", USUAL),
        ("training.wandb.project=circuits", "general.experiment_name", "circuits"),
        ("training.wandb.run_name=first", "general.run_name", "first"),
        ("training.scheduler.params.prediction_type=v-type", "training.objective", "v"),
        ("training.scheduler.params.enable_zero_terminal_snr=false", "scheduler.params.zero_terminal_snr", False),
        ("training.model.params.cond_emb_size=256", "text_encoder.params.width", 256),
        (
            "training.model.params.unitary_encoder_config={model_features:[2,64,96,512],num_heads:4}",
            "unitary_encoder.params.features",
            (64, 96),
        ),
        ("datasets.optimized=true", "optimize", "rules"),
        ("datasets.optimized=false", "optimize", "none"),
        ("datasets.backbone=qiskit", "optimize", "qiskit"),
        ("datasets.n_jobs=2", "n_jobs", 2),
        ("datasets.gate_pool=[h,cx,z]", "gate_set", ("h", "cx", "z")),
        ("datasets.num_of_qubits=4", "num_qubits", 4),
        ("datasets.random_samples=12", "num_samples", 12),
        ("evaluation.model_params.guidance_scale=7.5", "model_params.guidance_scale", 7.5),
        ("evaluation.model_params.sample_steps=40", "model_params.sample_steps", 40),
        ("evaluation.model_params.auto_batch_size=64", "model_params.auto_batch_size", 64),
        ("evaluation.model_params.g=7.5", "model_params.guidance_scale", 7.5),
        ("sample.model_params.guidance_sample_mode=normal", "model_params.guidance_mode", "plain"),
        ("compile.model_params.guidance_sample_mode=rescaled", "model_params.guidance_mode", "rescaled"),
        ("prepare.model_params.num_inference_steps=5", "model_params.sample_steps", 5),
    ],
)
def test_a_setting_of_the_field_is_read_as_ours(given: str, key: str, value: Any) -> None:
    section = given.partition(".")[0]
    config = compose(section, SECTIONS[section], [*BASE[section], given])
    assert value_at(config, key) == value


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        (["enable_guidance_train=false", "guidance_train_p=0.2"], "training.condition_dropout", 0),
        (["guidance_train_p=0.2", "enable_guidance_train=true"], "training.condition_dropout", 0.2),
        (["lr_scheduler=CosineAnnealingLR", "warmup_fraction=0.2"], "training.warmup_fraction", 0.2),
        (["lr=1", "lr=0.5"], "training.learning_rate", 0.5),
        (["lr=${training.training.weight_decay}", "weight_decay=0.3"], "training.learning_rate", 0.3),
    ],
)
def test_settings_that_belong_together_are_read_together(given: list[str], key: str, value: float) -> None:
    overrides = [f"training.training.{one}" for one in given]
    assert value_at(compose("training", SECTIONS["training"], [*BASE["training"], *overrides]), key) == value


def test_who_simplifies_follows_from_two_settings() -> None:
    both = ["datasets.backbone=qiskit", "datasets.optimized=false"]
    assert compose("datasets", SECTIONS["datasets"], both).model_dump()["optimize"] == "none"


def parse_and_compose(section: str, given: list[str]) -> None:
    """Read a command line as far as a command does before its work, sweeps only as far as Hydra."""
    arguments = parse_arguments([*BASE[section], *given], section)
    if not arguments.is_sweep:
        compose(section, SECTIONS[section], [*BASE[section], *given])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["training.training.ckpt_path=here"], "'ckpt_path' has no meaning here: checkpoints lie in run/checkpoints"),
        (["training.training.cached_text_enc=false"], "'cached_text_enc' cannot be switched off: each distinct prompt"),
        (["training.model.params.num_clrs=8"], "'num_clrs' has no meaning here: it follows from the gates"),
        (["training.wandb.enable=perhaps"], "'wandb.enable' expected true or false, given 'perhaps'"),
        (["training.training.lr=1", "training.training.learning_rate=2"], "learning_rate is given twice, also as 'lr'"),
        (["training.model.params.unitary_encoder_config={model_features:[1,2]}"], "expected four numbers"),
        (["training.model.params.unitary_encoder_config={heads:1}"], "unknown key 'heads'"),
        (["training.model.params.unitary_encoder_config=3"], "expected nested keys"),
        (["datasets.backbone=cudaq"], "backbone=cudaq has no meaning here: circuits are drawn and labelled by our own"),
        (["sample.model_params.no_bar=true"], "'no_bar' has no meaning here"),
        (["sample.model_params.guidance_sample_mode=fastai"], "unknown value 'fastai'"),
        (["training.training.optimizer=torch.optim.SGD"], "unknown value 'torch.optim.SGD'"),
        (["-m", "training.training.lr_scheduler=OneCycleLR,CosineAnnealingLR"], "sweep over our keys instead"),
        (["training.training.lr=fast"], "training.training.learning_rate: expected a number, given 'fast'"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(given: list[str], message: str) -> None:
    section = given[-1].partition(".")[0]
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_and_compose(section, given)


def test_a_sweep_goes_over_translated_values() -> None:
    arguments = parse_arguments(
        ["-m", "training.training.optimizer=Adam,torch.optim.AdamW", "training.lr=1,2"], "training"
    )
    assert arguments.overrides == (
        "++training.training.optimizer='adam','adamw'",
        "++training.training.learning_rate=1,2",
    )
    switched = parse_arguments(["-m", "training.training.enable_guidance_train=true,false"], "training")
    assert switched.overrides == ("++training.training.condition_dropout=0.1,0.0",)


GENQC_YAML = """
# A training as users of genQC write it.
general:
  dataset: ./genqc_data
model:
  type: QC_Cond_UNet
  params: {model_features: [64, 64], num_heads: [2, 2], num_res_blocks: [1, 1], transformer_depths: [1, 1]}
text_encoder: {type: CachedFrozenOpenCLIPEmbedder}
scheduler:
  type: DDIMScheduler
  params: {beta_schedule: cos_alpha, prediction_type: epsilon, enable_zero_terminal_snr: false}
training:
  optimizer: torch.optim.Adam
  loss: MSELoss
  lr: 0.0003
  lr_scheduler: OneCycleLR
  enable_guidance_train: true
  guidance_train_p: 0.1
  cached_text_enc: true
  padding_mode: max
  max_grad_norm: 1.0
  ckpt_interval: 5
wandb: {enable: false}
"""


def test_a_file_of_the_field_is_shown_as_ours(tmp_path: Path) -> None:
    file = tmp_path / "genqc.yaml"
    file.write_text(GENQC_YAML, encoding="utf-8")
    arguments = parse_arguments([f"training={file}", "training.lr=0.001", "--cfg=job", "--resolve"], "training")
    shown = yaml.safe_load(show(arguments))["training"]
    assert (shown["model"]["type"], shown["scheduler"]["type"]) == ("unet", "ddim")
    assert shown["model"]["params"]["model_features"] == [64, 64]
    loop = shown["training"]
    assert (loop["optimizer"], loop["loss"], loop["objective"]) == ("adam", "mse", "epsilon")
    assert (loop["learning_rate"], loop["gradient_clip"], loop["batching"]) == (0.001, 1.0, "max_padded")
    assert shown["general"]["checkpoint_epochs"] == 5
    assert "lr" not in loop
    assert "wandb" not in shown

    file.write_text("training: {ckpt_path: here}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"genqc.yaml': training: 'ckpt_path' has no meaning here"):
        parse_and_compose("training", [f"training={file}"])
    file.write_text("training: {lr: 1, learning_rate: 2}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"genqc.yaml': training.training.learning_rate is given twice"):
        parse_and_compose("training", [f"training={file}"])


@pytest.mark.parametrize("section", ["datasets", "training", "evaluation"])
def test_settings_under_our_names_stay_as_they_are(section: str) -> None:
    for file in (config_folder() / section).glob("*.yaml"):
        values = read_yaml(file)
        values.pop("defaults", None)
        assert translated(section, values) == values, file.name


def test_every_translation_sets_keys_that_exist() -> None:
    for section, translations in TRANSLATIONS.items():
        for translation in translations:
            for key in translation.keys:
                assert fields_at(SECTIONS[section], key.split(".")), (section, key)
            for name in translation.names:
                assert not fields_at(SECTIONS[section], name.split(".")), (section, name)


def test_the_page_lists_every_translation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for section, translations in TRANSLATIONS.items():
        for translation in translations:
            for name in translation.names:
                rows = [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]
                assert rows, (section, name)
                for key in translation.keys:
                    assert any(f"{key}`" in row for row in rows), (section, name, key)
