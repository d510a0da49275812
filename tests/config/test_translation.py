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


VIT_L = "hf://laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"
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
        ("training.training.bucket_batch_size=null", "training.batching", "max_padded"),
        ("training.training.padding_mode=null", "training.batching", "max_padded"),
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
        ("datasets.backbone=genQC.platform.backends.circuits_qiskit.CircuitsQiskitBackend", "optimize", "qiskit"),
        ("datasets.gate_pool=[qiskit.circuit.library.standard_gates.h.HGate,x.CXGate]", "gate_set", ("h", "cx")),
        ("training.training.pct_start=0.25", "training.warmup_fraction", 0.25),
        ("training.text_encoder={type:clip,params:{arch:ViT-L-14}}", "text_encoder.params.weights", VIT_L),
        ("training.text_encoder={type:clip,params:{freeze:true}}", "text_encoder.params.max_length", None),
        (
            "training.text_encoder={type:clip,params:{enable_cache_token_limit:false}}",
            "text_encoder.params.max_length",
            77,
        ),
        ("training.text_encoder.type=FrozenOpenCLIPEmbedder", "text_encoder.params.max_length", 77),
        ("training.scheduler.params.prediction_type=x0", "scheduler.params.zero_terminal_snr", True),
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


FIELD = """
model: {type: QC_Cond_UNet}
training: {guidance_train_p: 0.3, lr_scheduler: CosineAnnealingLR}
"""
"""What a user of genQC leaves out has the defaults of genQC and torch."""


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("", "training.objective", "epsilon"),
        ("", "training.loss", "mse"),
        ("", "scheduler.type", "ddim"),
        ("", "scheduler.params.eta", 0),
        ("", "scheduler.params.beta_schedule", "linear"),
        ("", "scheduler.params.zero_terminal_snr", False),
        ("", "model.params.clr_dim", 8),
        ("", "text_encoder.params.width", 512),
        ("", "training.warmup_fraction", 0),
        ("training.lr_scheduler=OneCycleLR", "training.warmup_fraction", 0.3),
        ("training.lr_scheduler=one_cycle", "training.warmup_fraction", 0),
        ("enable_guidance_train=true", "training.condition_dropout", 0.3),
        ("enable_guidance_train=false", "training.condition_dropout", 0),
        ("padding_mode=bucket", "training.batching", "bucketed"),
        ("scheduler.type=DDPMScheduler", "scheduler.type", "ddpm"),
        ("scheduler.params.eta=0.5", "scheduler.params.eta", 0.5),
    ],
)
def test_left_out_settings_are_those_of_the_field(given: str, key: str, value: Any, tmp_path: Path) -> None:
    """In a file, and on a command line that completes it."""
    file = tmp_path / "field.yaml"
    file.write_text(FIELD)
    overrides = [f"training={file}", "training.general.dataset=data", *([f"training.{given}"] if given else [])]
    assert value_at(compose("training", SECTIONS["training"], overrides), key) == value


def test_a_class_on_the_command_line_keeps_what_the_file_says(tmp_path: Path) -> None:
    def composed(content: str, *given: str) -> Any:
        (tmp_path / "a.yaml").write_text(content)
        return compose(
            "training", SECTIONS["training"], [f"training={tmp_path / 'a.yaml'}", *BASE["training"][1:], *given]
        )

    explicit = "training: {lr_scheduler: OneCycleLR, pct_start: 0.2}"
    assert composed(explicit, "training.training.lr_scheduler=OneCycleLR").training.warmup_fraction == 0.2
    based = "defaults: [paper_srv_stage_1]\nscheduler: {type: DDIMScheduler}"
    kept = composed(based).scheduler.params
    assert (kept.beta_schedule, kept.eta) == ("cos_alpha", 1.0)
    both = composed("model: {type: QC_Cond_UNet}\ntraining: {padding_mode: bucket, bucket_batch_size: 16}").training
    assert (both.batching, both.batch_size) == ("bucketed", 16)
    qiskit = tmp_path / "d.yaml"
    qiskit.write_text("backbone: qiskit")
    chosen = compose("datasets", SECTIONS["datasets"], [f"datasets={qiskit}", "datasets.optimized=true"])
    assert value_at(chosen, "optimize") == "qiskit"


def test_names_of_the_field_over_several_presets_are_refused_where_they_differ(tmp_path: Path) -> None:
    (tmp_path / "cosine.yaml").write_text("training: {lr_scheduler: cosine, warmup_fraction: 0.05}")
    presets = f"training=paper_srv_stage_1,{tmp_path / 'cosine.yaml'}"
    with pytest.raises(ConfigError, match="mean different things over paper_srv_stage_1 and cosine: give our names"):
        parse_arguments(["-m", presets, "training.training.lr_scheduler=CosineAnnealingLR"], "training")


PIPELINE = """
target: genQC.pipeline.diffusion_pipeline.DiffusionPipeline
params:
  scheduler: {target: genQC.scheduler.scheduler_ddim.DDIMScheduler, params: {device: cpu, beta_schedule: cos_alpha}}
  model:
    target: genQC.models.unet_qc.QC_Cond_UNet
    save_path: /somewhere/model
    params: {model_features: [64, 64], clr_dim: 5, num_clrs: 7, t_emb_size: 16, cond_emb_size: 128, num_heads: [2, 2],
             num_res_blocks: [1, 1], transformer_depths: [1, 1]}
  text_encoder:
    target: genQC.models.frozen_open_clip.CachedFrozenOpenCLIPEmbedder
    params: {arch: ViT-L-14, version: datacomp_xl_s13b_b90k, max_length: 9, freeze: true, layer: last}
  embedder: {target: genQC.models.unet_qc.QC_Cond_UNet, params: {}}
  device: cpu
  enable_guidance_train: true
  guidance_train_p: 0.2
  add_config: {dataset: {params: {gate_pool: [h]}}}
"""


def test_the_description_of_a_model_of_genqc_is_a_preset(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(PIPELINE)
    (tmp_path / "mine.yaml").write_text("defaults: [config]\ntraining: {lr: 0.0001}")
    for name in ("config", "mine"):
        config: Any = compose(
            "training", SECTIONS["training"], [f"training={tmp_path / name}.yaml", *BASE["training"][1:]]
        )
        assert config.model.params.model_features == (64, 64)
        assert (config.text_encoder.params.weights, config.text_encoder.params.layer) == (VIT_L, "last")
        assert (config.text_encoder.params.width, config.text_encoder.params.max_length) == (128, None)
        process = config.scheduler.params
        assert (process.beta_schedule, process.eta, process.guidance_mode) == ("cos_alpha", 0, "cfg++")
        assert (config.training.objective, config.training.condition_dropout) == ("epsilon", 0.2)
    assert config.training.learning_rate == 0.0001


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
        (["datasets.backbone=cudaq"], "given backbone=cudaq: that only chooses who simplifies"),
        (["sample.model_params.no_bar=true"], "'no_bar' has no meaning here"),
        (["sample.model_params.guidance_sample_mode=fastai"], "unknown value 'fastai'"),
        (["training.training.optimizer=torch.optim.SGD"], "unknown value 'torch.optim.SGD'"),
        (["-m", "training.training.lr_scheduler=OneCycleLR,CosineAnnealingLR"], "sweep over our keys instead"),
        (["training.training.lr=1", "training.lr=2"], "training.training.lr is given twice, also as training.lr"),
        (["training.training.bucket_batch_size=abc"], "expected a whole number as bucket_batch_size, given 'abc'"),
        (
            ["training.training.padding_mode=max", "training.training.bucket_batch_size=8"],
            "'padding_mode' and 'bucket_batch_size' contradict each other, given 'max' and 8",
        ),
        (["training.text_encoder.params.arch=RN50"], "not known here, RN50/datacomp_xl_s13b_b90k: give a copy"),
        (["training.text_encoder.params.freeze=false"], "cannot be switched off: CLIP's weights are never trained"),
        (["training.scheduler.params.device=cpu"], "has no meaning here: training.general.device is where"),
        (["training.dataset_to_gpu=true"], "has no meaning here: batches are kept on a GPU"),
        (["training.embedder={target:X}"], "has no meaning here: gates are embedded by"),
        (["training.general.experiment_name=[a]"], "training.general.experiment_name: expected text"),
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
