"""Every option of the product: its name, type, default, range and one line of meaning, stated here and nowhere else.

Presets in `conf/` list differences from these defaults; the rest of the code receives these frozen objects.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from quantum_diffusion.config.validation import Kinds, Part, Section


def _expand_home(text: str) -> str:
    try:
        return re.sub(r"^(stream:)?~(?=/|$)", lambda found: (found[1] or "") + str(Path.home()), text)
    except RuntimeError:
        raise ValueError(f"{text!r} begins with ~, but you have no home folder: set HOME, or give the path") from None


def _check_name(value: Any) -> Any:
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{value!r} is no name in UTF-8: rename it, or go into its folder and give a relative path")
    return value


def _stay_inside(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of output_path: give the name of a folder inside it")
    return name


Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[Text, BeforeValidator(_check_name), AfterValidator(_expand_home)]
"""A path, or a word in its place; the shell leaves a ~ behind the = of key=~/folder as it is."""

# The largest values lie beyond any computer: they keep slips of the keyboard from numpy, torch and the system.
Positive = Annotated[int, Field(ge=1, le=10**12)]
NonNegative = Annotated[int, Field(ge=0, le=10**12)]
Seed = Annotated[int, Field(ge=0, le=2 * 10**19)]
Width = Annotated[int, Field(ge=1, le=2**15)]
Blocks = Annotated[int, Field(ge=1, le=1000)]
BlocksOrNone = Annotated[int, Field(ge=0, le=1000)]
Heads = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=2, le=4096)]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Scale = Annotated[float, Field(ge=0, le=100)]
Rate = Annotated[float, Field(gt=0, le=1)]

Objective = Literal["epsilon", "v", "x0"]
Loss = Literal["mse", "cross_entropy"]
GaussianSampler = Literal["ddim", "ddpm", "dpmsolver++", "unipc"]
Order = Literal["random", "left_to_right", "confidence"]
GuidanceMode = Literal["plain", "rescaled"]
Logger = Literal["csv", "jsonl", "tensorboard", "wandb", "mlflow"]
GAUSSIAN_SAMPLERS: tuple[str, ...] = get_args(GaussianSampler)


MOST_UNITARY_QUBITS = 8


# ---------------------------------------------------------------------------------------------- datasets


class DatasetConfig(Section):
    """What `generate_dataset.py` makes (keys `datasets.*`)."""

    gate_set: Annotated[tuple[str, ...], Field(min_length=1)] = ("h", "cx")
    """Gates of the vocabulary, in token order: any of h x y z s t sdg tdg cx cy cz swap ccx cswap."""
    generation_gate_set: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates circuits are drawn from, a subset of gate_set; null means all of them."""
    num_qubits: Annotated[int, Field(ge=1, le=20)] = 3
    """Qubits of every circuit."""
    num_samples: Positive = 100_000
    """Distinct circuits to make, before balance_quantile takes some away; fewer are delivered when fewer exist."""
    min_gates: NonNegative = 2
    """Fewest gates of a circuit, counted after simplification."""
    max_gates: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most gates of a circuit, and the time steps of the data set."""
    condition_type: Literal["SRV", "UNITARY", "BOTH"] = "SRV"
    """What circuits are labelled with: the Schmidt rank vector; the unitary, with prompts that name a random subset of
    the gates for each circuit; or one data set of each, in the sub-folders srv and unitary."""
    optimize: Literal["none", "rules", "qiskit"] = "rules"
    """Simplification before labelling: "rules" is our own and exact, "qiskit" calls transpile at level 3 (slow)."""
    sampling: Literal["natural", "stratified"] = "natural"
    """stratified keeps gates from entangling other qubits than a random set, of sizes that a pilot chooses (SRV only):
    rare labels come more often, so that a balanced data set (balance_max) throws fewer circuits away."""
    seed: Seed = 0
    """The same configuration and seed give the same bytes, whatever n_jobs is."""
    n_jobs: Annotated[int, Field(le=10**5)] = -1
    """Worker processes; -1 takes every core, and so does a number beyond them on this machine."""
    engine: Literal["local", "ray"] = "local"
    """Where workers run: "local" uses processes on this machine, "ray" the cluster of RAY_ADDRESS (extra ray)."""
    max_memory: Annotated[float, Field(gt=0, le=1e5)] = 4.0
    """GiB the main process may use for circuits and keys; what goes beyond lies on disk."""
    output_path: PathText = "./datasets/dataset"
    """Folder to write; it must not hold another data set."""
    balance_max: Positive | None = None
    """Most circuits of one prompt; null keeps the natural distribution."""
    balance_quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    """Every length of a prompt keeps at most this quantile of the prompt's counts of lengths; null keeps all."""
    exclude: PathText | None = None
    """Folder of a data set whose circuits are left out, e.g. of training when this one is for testing; with
    condition_type UNITARY every circuit with one of its unitaries is."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits; null connects all."""
    overwrite: bool = False
    """Replace a data set that is already in output_path; a folder with anything else in it is never replaced."""

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        if self.min_gates > self.max_gates:
            raise ValueError(
                f"min_gates ({self.min_gates}) is larger than max_gates ({self.max_gates}): swap or raise one"
            )
        extra = [name for name in self.generation_gate_set or () if name not in self.gate_set]
        if extra:
            raise ValueError(
                f"generation_gate_set has {extra}, which gate_set {list(self.gate_set)} lacks: add them there"
            )
        if self.sampling == "stratified" and self.condition_type != "SRV":
            raise ValueError(
                f"sampling=stratified aims at Schmidt rank vectors, but condition_type is {self.condition_type}: use "
                "sampling=natural"
            )
        if self.condition_type != "SRV" and self.num_qubits > MOST_UNITARY_QUBITS:
            raise ValueError(
                f"condition_type={self.condition_type} stores 2 x 4^n numbers a circuit: num_qubits is "
                f"{self.num_qubits}, give {MOST_UNITARY_QUBITS} or less"
            )
        if self.n_jobs == 0 or self.n_jobs < -1:
            raise ValueError(f"n_jobs is {self.n_jobs}: give -1 for every core, or 1 or more")
        return self


# ---------------------------------------------------------------------------------------------- training


def _check_store(uri: str) -> str:
    """Refuse what MLflow would take as the address of no store, or as a folder."""
    if not re.match(r"sqlite:///.|(https?|(postgresql|mysql|mssql)(\+\w+)?)://.|databricks(://|$)", uri):
        raise ValueError(
            f"no store of MLflow: {uri!r}: give sqlite:///FILE, http://SERVER or https://SERVER, postgresql://, "
            "mysql:// or mssql://, or databricks"
        )
    return uri


class GeneralConfig(Section):
    """Where a training run reads and writes, and on what it runs (keys `training.general.*`)."""

    dataset: PathText
    """Data set folder, a folder of data set folders, or stream:PRESET (a name of conf/datasets, or a YAML file): fresh
    circuits in every epoch, which has the preset's num_samples."""
    output_path: PathText = "./models/model"
    """Folder of the trained model."""
    model_name: Annotated[Text, BeforeValidator(_check_name), AfterValidator(_stay_inside)] | None = None
    """Sub-folder of output_path for this model; null writes into output_path itself."""
    experiment_name: Text = "experiment"
    """Name under which the run is logged."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    seed: Seed = 0
    """Seed of weights, split, batches, noise and dropout."""
    verbose: bool = True
    """Show the progress bar and the summary."""
    init_from_pipeline_dir: PathText | None = None
    """Saved model whose weights are the start; null starts from random weights."""
    resume: PathText = "auto"
    """auto continues an interrupted run in output_path, never starts again, a path names a checkpoint."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between two checkpoints; there is one at the end of every epoch anyway, and null leaves it at that."""
    checkpoint_steps: Positive | None = None
    """Steps between two checkpoints, besides those of checkpoint_minutes; null takes none."""
    keep_checkpoints: Positive = 2
    """How many checkpoints are kept, the newest; all go when the run is finished."""
    overwrite: bool = False
    """Replace a finished model in output_path."""
    loggers: tuple[Logger, ...] = ("csv", "jsonl", "tensorboard")
    """Where metrics and drawn circuits go: csv in any case; wandb and mlflow are extras of the package."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """Where the logger wandb writes: run/wandb, for `wandb sync`; or online, with an account."""
    mlflow_uri: Annotated[str, AfterValidator(_check_store)] | None = None
    """Store of the logger mlflow, e.g. the address of a server; null is the SQLite file mlflow.db in output_path."""

    @property
    def model_folder(self) -> Path:
        """Where the trained model goes."""
        return Path(self.output_path) / (self.model_name or "")

    @field_validator("loggers")
    @classmethod
    def _with_csv(cls, value: tuple[Logger, ...]) -> tuple[Logger, ...]:
        return value if "csv" in value else ("csv", *value)  # the loss curve and `quantum-diffusion runs` need it


SAME_MODEL = (
    "general.output_path",
    "general.model_name",
    "general.experiment_name",
    "general.device",
    "general.verbose",
    "general.resume",
    "general.checkpoint_minutes",
    "general.checkpoint_steps",
    "general.keep_checkpoints",
    "general.overwrite",
    "general.loggers",
    "general.wandb_mode",
    "general.mlflow_uri",
    "training.log_every",
    "training.num_workers",
    "training.profile_steps",
    "training.num_threads",
)
"""Keys below `training` that make no other model: a run may be continued with other values, and runs that differ only
in them are alike."""


class LoopConfig(Section):
    """How the model is trained (keys `training.training.*`)."""

    batch_size: Positive = 256
    """Circuits a batch; on several devices all of them together."""
    accumulate_batches: Positive = 1
    """Batches whose gradients make one step."""
    num_epochs: Positive = 10
    """Passes over the training circuits."""
    optimizer: Literal["adam", "adamw", "muon"] = "adamw"
    """muon treats the weight matrices of the backbone's transformer blocks with Muon and all else with AdamW."""
    learning_rate: Rate = 3e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Decoupled weight decay of adamw and muon."""
    lr_scheduler: Literal["constant", "one_cycle", "cosine"] = "one_cycle"
    """Course of the learning rate; one_cycle rises to its peak and falls to zero, cosine warms up shortly."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises (one_cycle, cosine)."""
    objective: Objective = "x0"
    """What the network predicts: the noise, the velocity, or the clean circuit."""
    loss: Loss = "cross_entropy"
    """mean squared error, or cross-entropy on the clean circuit (objective x0)."""
    prefix_head_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of an auxiliary head that predicts the label after every prefix (transformer only); 0 leaves it out."""
    condition_dropout: Fraction = 0.1
    """Share of prompts (and of unitaries) that training drops, for guidance."""
    joint_dropout: bool = False
    """Drop prompt and unitary of a circuit together, instead of each on its own (data sets with unitaries)."""
    ema_decay: Fraction | None = 0.999
    """Decay of the averaged weights that are validated and saved; null saves the last weights."""
    augment: tuple[Literal["permute_qubits", "invert"], ...] = ()
    """Exact symmetries drawn anew for every circuit (data sets with unitaries): its qubits renamed; run backwards.
    permute_qubits undoes datasets.coupling: it trains on pairs of qubits that the device does not connect."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest gradient norm; null does not clip."""
    validation_fraction: Fraction = 0.05
    """Share of the circuits kept for validation."""
    batching: Literal["max_padded", "bucketed"] = "max_padded"
    """Pad every batch to the data set's size, or group circuits by size and cut batches to it."""
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(str)] = "auto"
    """Arithmetic of the network in training; auto takes bf16 where the hardware multiplies in it, else 32 bits. 16
    (with loss scaling) is for CUDA only."""
    compile: bool = False
    """Compile the backbone with torch.compile; pays on GPUs for runs of many minutes, needs a C++ compiler on CPUs."""
    freeze: tuple[Text, ...] = ()
    """Names of weights that are not trained, with wildcards, e.g. [condition_encoder.*]."""
    low_variance_timesteps: bool = True
    """Spread the noise levels of a batch evenly (arXiv 2107.00630) instead of drawing each on its own."""
    balance_max: Positive | None = None
    """Most circuits of one prompt that are trained on; null takes all."""
    balance_prompts: bool = False
    """Draw every prompt equally often, however many circuits it has; an epoch stays as long, rare circuits repeat."""
    max_samples: Positive | None = None
    """Most circuits that are trained on; null takes all."""
    max_steps: Positive | None = None
    """Stop after this many steps; null trains num_epochs."""
    log_every: Positive = 20
    """Steps between two logged training losses."""
    sample_every: Positive | None = None
    """Epochs between two measurements of the exact share of sampled circuits (sampled_accuracy); null takes none."""
    num_sampled: Positive = 256
    """Circuits sampled in each of these measurements, always with the same seed."""
    best_metric: Literal["validation_loss", "sampled_accuracy"] = "validation_loss"
    """What decides which epoch is the best; sampled_accuracy is measured every sample_every epochs."""
    save: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last epoch, or of the best one."""
    patience: Positive | None = None
    """Stop after this many measurements of best_metric in a row that were no better; null never does."""
    num_workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """Threads that make batches ahead of time; 0 makes each when it is needed."""
    profile_steps: Positive | None = None
    """Steps to profile, after three to warm up; writes run/trace.json for chrome://tracing. null profiles none."""
    num_threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads of torch, at most one a core; null takes one a core."""


def _check_heads(width: int, num_heads: int) -> None:
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")


class UNetParams(Section):
    """The field's conditional U-Net (genQC's key names)."""

    model_features: Annotated[tuple[Width, ...], Field(max_length=10)] = (128, 128, 256)
    """Channels of each level, multiples of 32, better 64 or more: 32 leave each normalisation group one channel."""
    clr_dim: Channels = 4
    """Width of the gate embedding."""
    t_emb_size: Annotated[int, Field(ge=2, le=2**15, multiple_of=2)] = 256
    """Width of the time embedding, even."""
    num_heads: tuple[Heads, ...] = (8, 8, 2)
    """Attention heads of each level."""
    num_res_blocks: tuple[Blocks, ...] = (2, 2, 4)
    """Residual blocks of each level."""
    transformer_depths: tuple[BlocksOrNone, ...] = (1, 2, 1)
    """Transformer blocks of each level."""

    @model_validator(mode="after")
    def _check(self) -> UNetParams:
        levels = len(self.model_features)
        if levels < 2 or not levels == len(self.num_heads) == len(self.num_res_blocks) == len(self.transformer_depths):
            raise ValueError(
                "model_features, num_heads, num_res_blocks and transformer_depths need one entry a level, two or more, "
                f"given {levels}, {len(self.num_heads)}, {len(self.num_res_blocks)} and {len(self.transformer_depths)}"
            )
        if not any(self.transformer_depths):
            raise ValueError("transformer_depths has no block at any level, but only these see the prompt: give one")
        for features, heads in zip(self.model_features, self.num_heads, strict=True):
            if features % 32 or features % heads:
                raise ValueError(f"model_features {features} must be a multiple of 32 and of its {heads} heads")
        return self


class TransformerParams(Section):
    """A light transformer with one token a time step."""

    width: Width = 128
    """Channels of a token."""
    depth: Blocks = 3
    """Blocks."""
    num_heads: Heads = 4
    """Attention heads."""
    feed_forward: Annotated[int, Field(ge=1, le=64)] = 4
    """Width of the feed-forward layer as a multiple of `width`."""
    clr_dim: Channels = 4
    """Width of the gate embedding (Gaussian processes only)."""

    @model_validator(mode="after")
    def _check(self) -> TransformerParams:
        _check_heads(self.width, self.num_heads)
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even")
        return self


class PromptEncoderParams(Section):
    """The condition encoder that needs no download: words of a small fixed vocabulary, then a transformer."""

    width: Width = 128
    """Channels E of the condition."""
    depth: BlocksOrNone = 1
    """Transformer blocks; 0 leaves the word and position embeddings alone."""
    num_heads: Heads = 4
    """Attention heads."""

    @model_validator(mode="after")
    def _check(self) -> PromptEncoderParams:
        _check_heads(self.width, self.num_heads)
        return self


class ConvolutionParams(Section):
    """The field's unitary encoder: the matrix as a picture (genQC's)."""

    features: tuple[Width, Width] = (32, 64)
    """Channels before and after the picture is halved, multiples of 32."""
    num_heads: Heads = 8
    """Attention heads, a divisor of the features."""
    transformer_depths: tuple[BlocksOrNone, BlocksOrNone] = (2, 2)
    """Transformer blocks before and after."""
    dropout: Fraction = 0.2
    """Share of the blocks' updates dropped in training."""

    @model_validator(mode="after")
    def _check(self) -> ConvolutionParams:
        for features in self.features:
            if features % 32 or features % self.num_heads:
                raise ValueError(f"features {features} must be a multiple of 32 and of the {self.num_heads} heads")
        return self


class MatrixParams(Section):
    """A light unitary encoder: all entries of the matrix at once, without its global phase."""

    width: Width = 256
    """Hidden channels."""
    depth: BlocksOrNone = 2
    """Residual blocks."""
    remaining: bool = False
    """Show every step what the gates before it leave to do, U V^dagger (masked models)."""


class UnitaryEncoderConfig(Part):
    """The encoder of unitaries (keys `training.unitary_encoder.*`); only used where the data set holds unitaries."""

    kinds: ClassVar[Kinds] = {"matrix": MatrixParams, "convolution": ConvolutionParams}

    type: Literal["matrix", "convolution"] = "matrix"
    """Which encoder."""
    params: MatrixParams | ConvolutionParams = MatrixParams()
    """Its parameters."""


class GaussianParams(Section):
    """Gaussian diffusion over embedded cells."""

    num_train_timesteps: Annotated[int, Field(ge=10, le=5000)] = 1000
    """Noise levels."""
    beta_schedule: Literal["linear", "linear_sqrt", "cos_alpha", "cos_alpha4"] = "cos_alpha"
    """How noise grows; cos_alpha: alpha_bar is the squared cosine of a straight ramp."""
    beta_start: Rate = 1e-4
    """First beta of the linear schedules."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Last beta of the linear schedules."""
    zero_terminal_snr: bool = False
    """Let the last level be pure noise (arXiv 2305.08891); not with objective epsilon."""
    input_perturbation: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Extra noise on the input that the target does not see (arXiv 2301.11706)."""
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Randomness of DDIM steps, from 0 (none) to 1 (as DDPM)."""
    guidance_scale: Scale = 7.5
    """Guidance used in sampling unless another is asked for; 1 is none."""
    guidance_mode: GuidanceMode = "plain"
    """plain, or rescaled with phi 0.7 (arXiv 2305.08891)."""
    sample_steps: Positive = 20
    """Sampling steps unless others are asked for."""


class MaskedParams(Section):
    """Masked (absorbing) diffusion over instructions: one token is one gate on given qubits."""

    suffix_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training circuits whose gates are masked from the end instead of at random places."""
    order: Order = "random"
    """Order in which sampling fills time steps."""
    guidance_scale: Scale = 3.0
    """Guidance used in sampling unless another is asked for; 1 is none."""
    sample_steps: Positive | None = None
    """Sampling steps unless others are asked for; null fills one time step a step."""


class ModelConfig(Part):
    """The backbone (keys `training.model.*`)."""

    kinds: ClassVar[Kinds] = {"unet": UNetParams, "transformer": TransformerParams}

    type: Literal["transformer", "unet"] = "transformer"
    """Which backbone."""
    params: UNetParams | TransformerParams = TransformerParams()
    """Its parameters."""


class TextEncoderConfig(Part):
    """The condition encoder (keys `training.text_encoder.*`)."""

    kinds: ClassVar[Kinds] = {"prompt": PromptEncoderParams}

    type: Literal["prompt"] = "prompt"
    """Which encoder; "prompt" needs no download."""
    params: PromptEncoderParams = PromptEncoderParams()
    """Its parameters."""


class SchedulerConfig(Part):
    """The diffusion process (keys `training.scheduler.*`)."""

    kinds: ClassVar[Kinds] = {
        "masked": MaskedParams,
        **dict.fromkeys(GAUSSIAN_SAMPLERS, GaussianParams),
    }

    type: Literal["masked", "ddim", "ddpm", "dpmsolver++", "unipc"] = "masked"
    """masked, or a Gaussian process named by its default sampler."""
    params: GaussianParams | MaskedParams = MaskedParams()
    """Its parameters."""


class TrainingConfig(Section):
    """What `train_model.py` does (keys `training.*`)."""

    general: GeneralConfig
    training: LoopConfig = LoopConfig()
    model: ModelConfig = ModelConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    unitary_encoder: UnitaryEncoderConfig = UnitaryEncoderConfig()
    scheduler: SchedulerConfig = SchedulerConfig()

    @model_validator(mode="after")
    def _check_combination(self) -> TrainingConfig:
        loop, model, process = self.training, self.model.type, self.scheduler
        if isinstance(process.params, MaskedParams):
            if model != "transformer":
                raise ValueError(
                    f"model.type={model} predicts cells, but scheduler.type=masked works on instructions: "
                    "use model.type=transformer, or scheduler.type=ddim"
                )
            if (loop.objective, loop.loss) != ("x0", "cross_entropy"):
                raise ValueError(
                    f"scheduler.type=masked learns the clean circuit: training.objective={loop.objective} with "
                    f"training.loss={loop.loss} is impossible, use x0 with cross_entropy"
                )
            if loop.batching == "bucketed":
                raise ValueError(
                    "training.batching=bucketed cuts batches to their circuits' length, which scheduler.type=masked "
                    "has to learn: use max_padded"
                )
        elif loop.loss == "cross_entropy" and loop.objective != "x0":
            raise ValueError(
                f"training.loss=cross_entropy needs training.objective=x0, given {loop.objective}: "
                "change one of them (or use training.loss=mse)"
            )
        elif loop.loss == "cross_entropy" and process.params.guidance_mode == "rescaled":
            raise ValueError(
                "scheduler.params.guidance_mode=rescaled is for loss=mse; with cross_entropy log-probabilities "
                "are guided, so leave it plain"
            )
        elif process.params.zero_terminal_snr and process.type in ("dpmsolver++", "unipc"):
            raise ValueError(
                f"scheduler.type={process.type} cannot start at zero signal (scheduler.params.zero_terminal_snr=true): "
                "use ddim or ddpm"
            )
        elif process.params.sample_steps > process.params.num_train_timesteps:
            raise ValueError(
                f"scheduler.params.sample_steps={process.params.sample_steps} is more than the "
                f"{process.params.num_train_timesteps} noise levels (num_train_timesteps): lower it"
            )
        elif loop.objective == "epsilon" and process.params.zero_terminal_snr:
            raise ValueError(
                "scheduler.params.zero_terminal_snr=true with training.objective=epsilon divides by zero at the last "
                "noise level: use objective v or x0, or zero_terminal_snr=false"
            )
        encoder = self.unitary_encoder.params
        if isinstance(encoder, MatrixParams) and encoder.remaining and not isinstance(process.params, MaskedParams):
            raise ValueError(
                f"unitary_encoder.params.remaining=true follows the gates that are revealed, but scheduler.type="
                f"{process.type} denoises all at once: use masked, or remaining=false"
            )
        needs_accuracy = loop.best_metric == "sampled_accuracy" and (loop.save == "best" or loop.patience is not None)
        if needs_accuracy and loop.sample_every is None:
            raise ValueError("training.best_metric=sampled_accuracy needs training.sample_every: give epochs, e.g. 1")
        if needs_accuracy and loop.sample_every is not None and loop.sample_every > loop.num_epochs:
            raise ValueError(
                f"training.best_metric=sampled_accuracy would never be measured: training.sample_every="
                f"{loop.sample_every} is more than training.num_epochs={loop.num_epochs}, lower it"
            )
        if loop.best_metric == "sampled_accuracy" and not needs_accuracy:
            raise ValueError(
                "training.best_metric=sampled_accuracy decides nothing with training.save=last and no "
                "training.patience: add training.save=best, or leave it out"
            )
        needs_loss = loop.best_metric == "validation_loss" and (loop.save == "best" or loop.patience is not None)
        if needs_loss and not loop.validation_fraction:
            raise ValueError(
                "training.best_metric=validation_loss needs circuits to validate with: raise "
                "training.validation_fraction"
            )
        if loop.prefix_head_weight > 0 and model != "transformer":
            raise ValueError(
                f"training.prefix_head_weight={loop.prefix_head_weight} needs model.type=transformer, "
                f"given {model}: set it to 0"
            )
        return self


# -------------------------------------------------------------------------------------- sampling, evaluation


class SamplingConfig(Section):
    """How circuits are sampled (keys `model_params.*` of evaluation, sample and compile)."""

    guidance_scale: Scale | None = None
    """Strength of the prompt; 1 is none, null takes the model's own default."""
    guidance_mode: GuidanceMode | None = None
    """plain or rescaled (Gaussian models only); null takes the model's own default."""
    sample_steps: Positive | None = None
    """Denoising steps; null takes the model's own default."""
    scheduler: Literal["masked", "ddim", "ddpm", "dpmsolver++", "unipc"] | None = None
    """Sampler; null takes the one the model was trained with."""
    order: Order | None = None
    """Order of filling (masked models only); null takes the model's own default."""
    weights: Literal["averaged", "last"] = "averaged"
    """Weights to sample with: the average over training, or the last ones; the same for models without average. Read
    where a command loads the model; in Python it is load_pipeline that takes it, pipeline.sample does not."""
    auto_batch_size: Positive = 512
    """Circuits sampled at once; results do not depend on it."""


class EvaluationConfig(Section):
    """What `evaluate_model.py` does (keys `evaluation.*`)."""

    dataset: PathText
    """Data set whose prompts are asked for. SRV models: the one trained on, its circuits decide what is novel;
    compilation models: the targets, best made with datasets.exclude."""
    model_dir: PathText
    """Folder of a saved model."""
    num_samples: Positive = 1000
    """Circuits to sample, spread evenly over the prompts (SRV models)."""
    num_targets: Positive = 100
    """Most unitaries to draw from the data set (compilation models)."""
    samples_per_target: Positive = 128
    """Circuits to sample for each unitary (compilation models)."""
    save_folder: PathText | None = None
    """Where results go; null writes to `evaluation` inside model_dir."""
    seed: Seed = 0
    """Seed of the samples and of the baselines."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    max_drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """Circuits drawn in the picture."""
    verbose: bool = True
    """Show the progress bar and the table."""
    model_params: SamplingConfig = SamplingConfig()

    @property
    def results_folder(self) -> Path:
        """Where results go."""
        return Path(self.save_folder) if self.save_folder else Path(self.model_dir) / "evaluation"


class EditConfig(Section):
    """What sampling may not choose freely (keys `sample.edit.*` and `compile.edit.*`); docs/editing.md has examples."""

    start: PathText | None = None
    """OpenQASM file with the circuit to edit; null writes from scratch."""
    keep: tuple[int, ...] = ()
    """Gates of start that stay as and where they are, by position from 0."""
    strength: Rate = 1.0
    """Share of the other steps (masked models) or of the noise (Gaussian models) that is redone; 1 redoes all."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits, e.g. [[0,1],[1,2]]; null connects all."""
    fixed_qubits: tuple[int, ...] = ()
    """Qubits that no gate may touch."""
    min_gates: NonNegative = 0
    """Fewest gates."""


class SampleConfig(Section):
    """What `quantum-diffusion sample` does (keys `sample.*`)."""

    model_dir: PathText
    """Folder of a saved model."""
    srv: Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=1)]
    """Schmidt rank vector to ask for, one entry a qubit: 1 separable, 2 entangled."""
    num_circuits: Positive = 4
    """Verified distinct circuits wanted."""
    max_tries: Positive = 1024
    """Most circuits to sample."""
    max_gates: Positive | None = None
    """Most gates; the model writes within this bound. null is the model's own limit."""
    save_folder: PathText | None = None
    """Where to write the circuits as OpenQASM 2; null only prints them."""
    seed: Seed = 0
    """Seed of the samples."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class CompileConfig(Section):
    """What `quantum-diffusion compile` does (keys `compile.*`)."""

    model_dir: PathText
    """Folder of a saved model that was trained on unitaries."""
    target: PathText
    """Unitary to compile: path of a .npy matrix or a .qasm circuit, or qft, toffoli, ghz or random; with qubits, qft:3,
    and for random gates, random:3:8."""
    gates: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates that circuits may use; null allows all of the model's that fit the target."""
    max_gates: Positive | None = None
    """Drop longer circuits, counted after simplification; null keeps all."""
    max_tries: Positive = 1024
    """Most circuits to sample."""
    num_circuits: Positive = 1
    """Exact distinct circuits wanted."""
    save_folder: PathText | None = None
    """Where to write the circuits (OpenQASM 2), a picture and a summary; null only prints them."""
    seed: Seed = 0
    """Seed of the samples and of the target random."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class InspectConfig(Section):
    """What `quantum-diffusion inspect` does (keys `inspect.*`)."""

    dataset: PathText
    """Data set to inspect: a folder, a folder of data sets, or hf://owner/name."""
    save_folder: PathText | None = None
    """Where inspection.json and inspection.png go; null only prints."""
    verbose: bool = True
    """Show the progress bar and the tables."""


class ExportConfig(Section):
    """What `quantum-diffusion export-genqc` does (keys `export.*`)."""

    dataset: PathText
    """Data set to export: a folder, a folder of data sets, or hf://owner/name."""
    output_path: PathText
    """Folder to write; it must not exist, or be empty."""


class RunsConfig(Section):
    """What `quantum-diffusion runs` does (keys `runs.*`)."""

    folder: PathText = "./models"
    """Folder that holds trained models, at any depth."""
    metric: Text = "validation_loss"
    """Metric of the picture."""
    picture: PathText | None = None
    """Where to draw the curves of the runs, of many the 10 newest (PNG); null draws none."""


SECTIONS: dict[str, type[Section]] = {
    "datasets": DatasetConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "sample": SampleConfig,
    "compile": CompileConfig,
    "inspect": InspectConfig,
    "export": ExportConfig,
    "runs": RunsConfig,
}
"""The section that each command reads, by its name."""
