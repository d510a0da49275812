"""The section of training: where a run writes, how it learns, and which settings are compatible.

`quantum-diffusion train` reads it; the parts of the model are in `models` and `processes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from quantum_diffusion.config.schema.models import (
    ModelConfig,
    PrefixEncoderConfig,
    StateEncoderConfig,
    TextEncoderConfig,
    UnitaryEncoderConfig,
)
from quantum_diffusion.config.schema.processes import (
    GaussianParams,
    Loss,
    MaskedParams,
    Objective,
    Sampler,
    SchedulerConfig,
)
from quantum_diffusion.config.schema.values import FolderName, Fraction, PathText, Positive, Rate, Seed, StoreUri, Text
from quantum_diffusion.config.validation import Rule, Section, refuse

Logger = Literal["csv", "jsonl", "tensorboard", "wandb", "mlflow"]
WandbMode = Literal["offline", "online"]
Symmetry = Literal["permute_qubits", "invert"]


class GeneralConfig(Section):
    """Input, output and device of a training run (keys `training.general.*`)."""

    dataset: PathText
    """Folder of a data set or of several; or stream:PRESET (a preset of conf/datasets, or a YAML file), which generates
    fresh circuits for every epoch, num_samples of the preset each."""
    output_path: PathText = "./models/model"
    """Folder of the trained model."""
    model_name: FolderName | None = None
    """Sub-folder of output_path for this model; null writes to output_path itself."""
    experiment_name: Text = "experiment"
    """Name under which the run is logged; the project of wandb."""
    run_name: Text | None = None
    """Name of the run among those of its experiment, in wandb and mlflow; null takes the name of the model's folder."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    seed: Seed = 0
    """Seed of weights, split, batches, noise and dropout."""
    verbose: bool = True
    """Show the progress bar and the summary."""
    init_from_pipeline_dir: PathText | None = None
    """Saved model to take initial weights from, also pretrained:NAME or hf://owner/name; null starts from random
    weights."""
    resume: PathText = "auto"
    """auto continues an interrupted run in output_path; never starts over; a path names a checkpoint."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between checkpoints, in addition to those after epochs; null takes none by time."""
    checkpoint_steps: Positive | None = None
    """Steps between checkpoints, in addition to the others; null takes none by steps."""
    checkpoint_epochs: Positive = 1
    """Epochs between the checkpoints taken after epochs."""
    keep_checkpoints: Positive = 2
    """Number of newest checkpoints to keep; all are removed when the run finishes."""
    overwrite: bool = False
    """Replace a finished model in output_path."""
    loggers: tuple[Logger, ...] = ("csv", "jsonl", "tensorboard")
    """Loggers of metrics and drawn circuits; csv is always included; wandb and mlflow are extras of the package."""
    wandb_mode: WandbMode = "offline"
    """offline writes to run/wandb, for `wandb sync`; online needs an account."""
    mlflow_uri: StoreUri | None = None
    """Store of the logger mlflow, e.g. the address of a server; null uses the SQLite file mlflow.db in output_path."""

    @property
    def model_folder(self) -> Path:
        """Folder of the trained model."""
        return Path(self.output_path) / (self.model_name or "")

    @field_validator("loggers")
    @classmethod
    def _with_csv(cls, value: tuple[Logger, ...]) -> tuple[Logger, ...]:
        return value if "csv" in value else ("csv", *value)  # the loss curve and `quantum-diffusion runs` need it


class LoopConfig(Section):
    """The training loop (keys `training.training.*`)."""

    batch_size: Positive = 256
    """Circuits per batch, summed over all devices."""
    accumulate_batches: Positive = 1
    """Batches per optimizer step."""
    num_epochs: Positive = 10
    """Passes over the training circuits."""
    optimizer: Literal["adam", "adamw", "muon"] = "adamw"
    """Optimizer; muon uses Muon for the weight matrices of blocks and AdamW for everything else."""
    learning_rate: Rate = 3e-3
    """Peak learning rate."""
    adamw_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """With muon: learning rate of the AdamW parameters, as a fraction of learning_rate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Decoupled weight decay of adamw and muon."""
    lr_scheduler: Literal["constant", "one_cycle", "cosine"] = "one_cycle"
    """Learning-rate schedule; one_cycle rises to its peak and falls to zero, cosine has a short linear warm-up."""
    warmup_fraction: Fraction = 0.1
    """Fraction of the steps in which the learning rate rises (one_cycle, cosine)."""
    objective: Objective = "x0"
    """What the network predicts: the noise (epsilon), the velocity (v) or the clean circuit (x0)."""
    loss: Loss = "cross_entropy"
    """Mean squared error, or cross-entropy on the clean circuit (objective x0)."""
    prefix_head_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of an auxiliary head that predicts the label of every prefix (transformer only); 0 leaves it out."""
    condition_dropout: Fraction = 0.1
    """Probability of dropping a prompt (or a target: unitary or state) in training, for guidance."""
    tell_gates: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of circuits trained with their number of gates as a condition (models that condition every step on the
    remaining target), so that sampling can request an exact number of gates; 0 leaves it out."""
    joint_dropout: bool = False
    """Drop the prompt and target of a circuit together instead of independently (data sets with targets)."""
    ema_decay: Fraction | None = 0.999
    """Decay of the averaged weights, which are validated and saved; null saves the last weights."""
    augment: tuple[Symmetry, ...] = ()
    """Exact symmetries applied at random to every circuit (data sets with targets): permute_qubits renames its qubits,
    invert reverses it. permute_qubits ignores datasets.coupling, so it trains on pairs that are not connected."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Maximum gradient norm; null does not clip."""
    validation_fraction: Fraction = 0.05
    """Fraction of the circuits held out for validation."""
    batching: Literal["max_padded", "bucketed"] = "max_padded"
    """max_padded pads every batch to the data set's size; bucketed groups circuits by size and crops batches to it."""
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(str)] = "auto"
    """Precision of the network in training; auto uses bf16 if the hardware multiplies in it, else 32 bits. 16 (with
    loss scaling) is for CUDA only."""
    compile: bool = False
    """Compile the backbone with torch.compile; worthwhile on GPUs for long runs, needs a C++ compiler on CPUs."""
    cuda_graphs: bool = True
    """Run each step on a CUDA device as one CUDA graph, after checking it against an ordinary step; where that is
    impossible (several processes, precision 16, compile, rare batch shapes), steps are launched kernel by kernel."""
    freeze: tuple[Text, ...] = ()
    """Names of weights to keep fixed, with wildcards, e.g. [condition_encoder.*]."""
    low_variance_timesteps: bool = True
    """Spread the noise levels of a batch evenly (arXiv 2107.00630) instead of drawing them independently."""
    balance_max: Positive | None = None
    """Maximum number of training circuits per prompt; null uses all."""
    balance_prompts: bool = False
    """Draw every prompt equally often, however many circuits it has; epochs keep their length, rare circuits repeat."""
    max_samples: Positive | None = None
    """Maximum number of training circuits; null uses all."""
    max_steps: Positive | None = None
    """Stop after this many steps; null trains num_epochs."""
    log_every: Positive = 20
    """Steps between logged training losses."""
    sample_every: Positive | None = None
    """Epochs between measurements of sampled_accuracy, the fraction of sampled circuits that are exact; null takes
    none."""
    num_sampled: Positive = 256
    """Circuits sampled per measurement, always with the same seed."""
    best_metric: Literal["validation_loss", "sampled_accuracy"] = "validation_loss"
    """Metric that selects the best epoch; sampled_accuracy is measured every sample_every epochs."""
    save: Literal["last", "best"] = "last"
    """Weights to save: those of the last epoch or of the best one."""
    patience: Positive | None = None
    """Stop after this many consecutive measurements of best_metric without improvement; null never stops early."""
    num_workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """Threads that prepare batches in advance; 0 prepares each batch when it is needed."""
    profile_steps: Positive | None = None
    """Steps to profile, after three warm-up steps; writes run/trace.json for chrome://tracing. null profiles none."""
    num_threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads of torch, at most one per core; null uses one per core."""


SAME_MODEL = (
    "general.output_path",
    "general.model_name",
    "general.experiment_name",
    "general.run_name",
    "general.device",
    "general.verbose",
    "general.resume",
    "general.checkpoint_minutes",
    "general.checkpoint_steps",
    "general.checkpoint_epochs",
    "general.keep_checkpoints",
    "general.overwrite",
    "general.loggers",
    "general.wandb_mode",
    "general.mlflow_uri",
    "training.log_every",
    "training.num_workers",
    "training.profile_steps",
    "training.num_threads",
    "training.cuda_graphs",
)
"""Keys of `training` that do not affect the model: a run may be continued with other values, and runs that differ only
in them count as equal."""


STEP_ENCODERS = ("unitary_encoder", "state_encoder", "prefix_encoder")
"""Sections of the encoders of targets or prefixes; a model has the one of its task."""


class TrainingConfig(Section):
    """What `quantum-diffusion train` does (keys `training.*`)."""

    general: GeneralConfig
    training: LoopConfig = LoopConfig()
    model: ModelConfig = ModelConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    unitary_encoder: UnitaryEncoderConfig = UnitaryEncoderConfig()
    state_encoder: StateEncoderConfig = StateEncoderConfig()
    prefix_encoder: PrefixEncoderConfig = PrefixEncoderConfig()
    scheduler: SchedulerConfig = SchedulerConfig()

    @model_validator(mode="after")
    def _check_combination(self) -> TrainingConfig:
        match self.scheduler.params:
            case MaskedParams():
                refuse(_masked_rules(self.training, self.model))
            case GaussianParams() as params:
                refuse(_gaussian_rules(self.training, self.scheduler.type, params))
        refuse(_common_rules(self))
        return self


def _masked_rules(loop: LoopConfig, model: ModelConfig) -> tuple[Rule, ...]:
    return (
        Rule(
            model.type == "unet",
            f"model.type={model.type} predicts cells, but scheduler.type=masked works on instructions: "
            "use model.type=transformer, or scheduler.type=ddim",
        ),
        Rule(
            loop.objective != "x0" or loop.loss != "cross_entropy",
            f"scheduler.type=masked learns the clean circuit: training.objective={loop.objective} with "
            f"training.loss={loop.loss} does not fit, use x0 with cross_entropy",
        ),
        Rule(
            loop.batching == "bucketed",
            "training.batching=bucketed cuts batches to their circuits' length, which scheduler.type=masked "
            "has to learn: use max_padded",
        ),
    )


def _gaussian_rules(loop: LoopConfig, sampler: Sampler, params: GaussianParams) -> tuple[Rule, ...]:
    return (
        Rule(
            loop.loss == "cross_entropy" and loop.objective != "x0",
            f"training.loss=cross_entropy needs training.objective=x0, given {loop.objective}: "
            "change one of them (or use training.loss=mse)",
        ),
        Rule(
            loop.loss == "cross_entropy" and params.guidance_mode != "plain",
            f"scheduler.params.guidance_mode={params.guidance_mode} is for loss=mse; with cross_entropy "
            "log-probabilities are guided, so leave it plain",
        ),
        Rule(
            params.guidance_mode == "cfg++" and sampler != "ddim",
            f"scheduler.params.guidance_mode=cfg++ is for scheduler.type=ddim, not {sampler}: leave it plain",
        ),
        Rule(
            params.zero_terminal_snr and sampler in ("dpmsolver++", "unipc"),
            f"scheduler.type={sampler} cannot start at zero signal (scheduler.params.zero_terminal_snr=true): "
            "use ddim or ddpm",
        ),
        Rule(
            params.sample_steps > params.num_train_timesteps,
            f"scheduler.params.sample_steps={params.sample_steps} is more than the "
            f"{params.num_train_timesteps} noise levels (num_train_timesteps): lower it",
        ),
        Rule(
            params.zero_terminal_snr and loop.objective == "epsilon",
            "scheduler.params.zero_terminal_snr=true with training.objective=epsilon divides by zero at the last "
            "noise level: use objective v or x0, or zero_terminal_snr=false",
        ),
    )


def _common_rules(config: TrainingConfig) -> tuple[Rule, ...]:
    loop, process = config.training, config.scheduler
    showing = [name for name in STEP_ENCODERS if getattr(config, name).shows_steps]
    asks_for_best = loop.save == "best" or loop.patience is not None
    by_accuracy = loop.best_metric == "sampled_accuracy"
    return (
        Rule(
            bool(showing) and not process.is_masked,
            f"{''.join(showing[:1])} conditions each step on the remaining target, but scheduler.type="
            f"{process.type} denoises all steps at once: use masked, or "
            f"{''.join(f'{name}.{getattr(config, name).show_nothing}' for name in showing[:1])}",
        ),
        Rule(
            config.model.type == "policy" and not (showing and process.is_masked),
            "model.type=policy sees only the remaining target, which no step is conditioned on here: use "
            "scheduler.type=masked with unitary_encoder.params.remaining=true (unitaries), "
            "state_encoder.params.remaining=true (states) or prefix_encoder.type=state (Schmidt rank vectors), or "
            "model.type=transformer",
        ),
        Rule(
            loop.adamw_rate != 1 and loop.optimizer != "muon",
            f"training.adamw_rate={loop.adamw_rate} is for training.optimizer=muon, given {loop.optimizer}: leave it "
            "out, or change learning_rate",
        ),
        Rule(
            by_accuracy and asks_for_best and loop.sample_every is None,
            "training.best_metric=sampled_accuracy needs training.sample_every: give epochs, e.g. 1",
        ),
        Rule(
            by_accuracy and asks_for_best and (loop.sample_every or 0) > loop.num_epochs,
            f"training.best_metric=sampled_accuracy would never be measured: training.sample_every="
            f"{loop.sample_every} is more than training.num_epochs={loop.num_epochs}, lower it",
        ),
        Rule(
            by_accuracy and not asks_for_best,
            "training.best_metric=sampled_accuracy has no effect with training.save=last and no "
            "training.patience: add training.save=best, or leave it out",
        ),
        Rule(
            not by_accuracy and asks_for_best and not loop.validation_fraction,
            "training.best_metric=validation_loss needs circuits to validate with: raise training.validation_fraction",
        ),
        Rule(
            loop.prefix_head_weight > 0 and config.model.type != "transformer",
            f"training.prefix_head_weight={loop.prefix_head_weight} needs model.type=transformer, "
            f"given {config.model.type}: set it to 0",
        ),
    )
