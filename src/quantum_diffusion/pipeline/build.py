"""Builds the network of a pipeline from its configuration.

This is the only place that maps names in the configuration to network classes.
"""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator
from torch import nn

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.config.schema import (
    MOST_AMPLITUDE_QUBITS,
    AmplitudesParams,
    ClipParams,
    Loss,
    MaskedParams,
    MatrixParams,
    ModelConfig,
    Objective,
    PolicyParams,
    PrefixEncoderConfig,
    PrefixParams,
    SchedulerConfig,
    StateEncoderConfig,
    TextEncoderConfig,
    TrainingConfig,
    TransformerParams,
    UNetParams,
    UnitaryEncoderConfig,
)
from quantum_diffusion.config.validation import Section
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import ConfigError, first_line, lacks_memory, unknown_name
from quantum_diffusion.models.condition_encoder import FIRST_WORDS, PromptEncoder, vocabulary_of
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.models.gates_left import GatesLeft
from quantum_diffusion.models.policy import InstructionPolicy
from quantum_diffusion.models.prefix_encoder import PrefixEncoder
from quantum_diffusion.models.prompt_features import FrozenPromptEncoder
from quantum_diffusion.models.state_encoder import StateEncoder
from quantum_diffusion.models.transformer import CellTransformer, InstructionTransformer
from quantum_diffusion.models.unet import ConditionalUNet
from quantum_diffusion.models.unitary_encoder import ConvolutionalUnitaryEncoder, MatrixEncoder, PauliEncoder
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.srv import SrvTask
from quantum_diffusion.tasks.unitary import UnitaryTask

MOST_CONVOLUTION_QUBITS = 6
"""Limit of the convolutional unitary encoder, which attends between all 4^n entries of a unitary."""

MOST_PAULI_QUBITS = 5
"""Limit of the encoder of Pauli transfer matrices, whose inputs grow as n 4^n."""


class PipelineConfig(Section):
    """Everything that determines a pipeline's architecture; saved beside its weights."""

    gate_pool: tuple[str, ...]
    """Gates in token order."""
    num_qubits: int
    """Maximum number of qubits of a circuit."""
    max_gates: int
    """Time steps of a sample."""
    length_counts: dict[int, dict[int, int]]
    """Number of training circuits by number of qubits and gates."""
    prompts: tuple[str, ...]
    """The prompts the pipeline was trained on."""
    vocabulary: tuple[str, ...] = FIRST_WORDS
    """The words of prompts in the order of the condition encoder's table."""
    objective: Objective
    loss: Loss
    prefix_head: bool
    """Whether the backbone has an auxiliary head for the labels of prefixes."""
    tells_gates: bool = False
    """Whether steps may be conditioned on the number of gates left."""
    bucketed: bool
    """Whether training cropped batches to the size of their circuits."""
    model: ModelConfig
    text_encoder: TextEncoderConfig
    scheduler: SchedulerConfig
    condition_type: str = SrvTask.name
    """The task; files of earlier versions lack it, and the unitary encoder implies it."""
    unitary_encoder: UnitaryEncoderConfig | None = None
    """How unitaries are encoded; None for other tasks."""
    state_encoder: StateEncoderConfig | None = None
    """How states are encoded; None for other tasks."""
    prefix_encoder: PrefixEncoderConfig | None = None
    """What steps see of the state that the earlier gates prepare; None for tasks with targets."""

    @field_validator("condition_type")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(unknown_name("task", name, TASKS) + "; import the module that registers it first")
        return name

    @model_validator(mode="before")
    @classmethod
    def _name_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and "condition_type" not in values and values.get("unitary_encoder") is not None:
            return values | {"condition_type": UnitaryTask.name}
        return values

    @property
    def shows_remaining(self) -> bool:
        """Whether every step is conditioned on the remaining target."""
        encoder = getattr(self, TASKS[self.condition_type].step_encoder)
        return encoder is not None and bool(encoder.shows_steps)


def pipeline_config(config: TrainingConfig, dataset: CircuitDataset) -> PipelineConfig:
    """Return the architecture that a training configuration asks for on a data set."""
    task = TASKS[dataset.condition_type]
    return PipelineConfig(
        gate_pool=dataset.gate_pool.names,
        num_qubits=dataset.num_qubits,
        max_gates=dataset.max_gates,
        length_counts=dataset.length_counts,
        prompts=dataset.prompts,
        vocabulary=vocabulary_of(dataset.gate_pool.names, task.words),
        objective=config.training.objective,
        loss=config.training.loss,
        prefix_head=config.training.prefix_head_weight > 0,
        tells_gates=config.training.tell_gates > 0,
        bucketed=config.training.batching == "bucketed",
        model=config.model,
        text_encoder=config.text_encoder,
        scheduler=config.scheduler,
        condition_type=dataset.condition_type,
        **{task.step_encoder: getattr(config, task.step_encoder)},
    )


def build_network(config: PipelineConfig, num_instructions: int, vocabulary_size: int) -> nn.ModuleDict:
    """Build the weights of a pipeline from torch's default random generator.

    Args:
        config: The architecture.
        num_instructions: K, instructions of the gate pool, "no gate" not counted.
        vocabulary_size: Unsigned cell tokens.

    Returns:
        "condition_encoder", "backbone" and, where the process and the condition need them, "gate_embedding" and
        the encoder of targets.

    Raises:
        ConfigError: Sizes are incompatible.
    """
    try:
        return nn.ModuleDict(_modules(config, num_instructions, vocabulary_size))
    except (ValueError, RuntimeError) as problem:
        if lacks_memory(problem):
            raise
        raise ConfigError(f"training.model.params cannot be built: {first_line(problem)}") from problem


def _modules(config: PipelineConfig, num_instructions: int, vocabulary_size: int) -> dict[str, nn.Module]:
    encoder = _condition_encoder(config)
    params = config.model.params
    modules: dict[str, nn.Module] = {"condition_encoder": encoder}
    task = TASKS[config.condition_type]
    if task.encoder is not None or config.shows_remaining:
        chosen = getattr(config, task.step_encoder)
        modules[task.step_encoder] = _step_encoder(chosen, config, encoder.width)
    if config.tells_gates:
        if not config.shows_remaining:
            raise ConfigError(
                f"training.training.tell_gates needs steps conditioned on the remaining target, and for {task.asked} "
                f"none is: set training.{task.step_encoder} (docs/training.md), or tell_gates=0"
            )
        modules["gates_left"] = GatesLeft(max_gates=config.max_gates, condition_dim=encoder.width)
    if GatePool(config.gate_pool).num_angles and not isinstance(config.scheduler.params, MaskedParams):
        raise ConfigError(
            f"training.scheduler.type={config.scheduler.type} writes gates without angles, but the data have "
            f"{list(config.gate_pool)}: use training.scheduler.type=masked"
        )
    labels = config.num_qubits if config.prefix_head else 0
    if isinstance(params, UNetParams):
        modules["gate_embedding"] = GateEmbedding(vocabulary_size, params.clr_dim)
        modules["backbone"] = ConditionalUNet(
            channels=params.clr_dim,
            model_features=params.model_features,
            time_embedding_dim=params.t_emb_size,
            condition_dim=encoder.width,
            num_heads=params.num_heads,
            num_res_blocks=params.num_res_blocks,
            transformer_depths=params.transformer_depths,
        )
    elif isinstance(params, PolicyParams):
        if not config.shows_remaining:
            raise ConfigError(
                f"training.model.type=policy sees only the remaining target, and for {task.asked} no step is "
                f"conditioned on it: set training.{task.step_encoder} (docs/training.md), or use "
                "training.model.type=transformer"
            )
        modules["backbone"] = InstructionPolicy(
            num_instructions=num_instructions + 1,
            max_steps=config.max_gates,
            condition_dim=encoder.width,
            **params.model_dump(),
        )
    elif isinstance(config.scheduler.params, MaskedParams):
        modules["backbone"] = InstructionTransformer(
            num_instructions=num_instructions + 1,
            max_steps=config.max_gates,
            condition_dim=encoder.width,
            num_label_entries=labels,
            with_step_condition=config.shows_remaining,
            **_trunk(params),
        )
    else:
        modules["gate_embedding"] = GateEmbedding(vocabulary_size, params.clr_dim)
        modules["backbone"] = CellTransformer(
            channels=params.clr_dim,
            num_qubits=config.num_qubits,
            max_steps=config.max_gates,
            condition_dim=encoder.width,
            num_label_entries=labels,
            **_trunk(params),
        )
    return modules


def _condition_encoder(config: PipelineConfig) -> PromptEncoder | FrozenPromptEncoder:
    params = config.text_encoder.params
    if isinstance(params, ClipParams):
        return FrozenPromptEncoder(params, config.prompts)
    return PromptEncoder(vocabulary=config.vocabulary, prompts=config.prompts, **params.model_dump())


def _step_encoder(
    chosen: UnitaryEncoderConfig | StateEncoderConfig | PrefixEncoderConfig, config: PipelineConfig, condition_dim: int
) -> nn.Module:
    """Build the encoder of targets, of remaining targets, or of both."""
    params, num_qubits = chosen.params, config.num_qubits
    sizes: dict[str, Any] = {"num_qubits": num_qubits, "condition_dim": condition_dim}
    match params:
        case MatrixParams():
            kept = params.model_dump(exclude={"remaining"})
            if chosen.type == "matrix":
                return MatrixEncoder(**sizes, **kept)
            if num_qubits > MOST_PAULI_QUBITS:
                raise ConfigError(
                    f"training.unitary_encoder.type=pauli reads some n 4^n numbers of a unitary: given {num_qubits} "
                    f"qubits, it holds {MOST_PAULI_QUBITS} or less; use training.unitary_encoder.type=matrix"
                )
            return PauliEncoder(**sizes, **kept)
        case AmplitudesParams():
            return StateEncoder(**sizes, **params.model_dump(exclude={"remaining"}))
        case PrefixParams():
            if chosen.type == "tableau" and not GatePool(config.gate_pool).is_clifford:
                raise ConfigError(
                    f"training.prefix_encoder.type=tableau follows Clifford gates, but the data have "
                    f"{list(config.gate_pool)}: use training.prefix_encoder.type=state, or none"
                )
            if chosen.type != "tableau" and num_qubits > MOST_AMPLITUDE_QUBITS:
                raise ConfigError(
                    f"training.prefix_encoder.type={chosen.type} follows all 2^n amplitudes of a state: given "
                    f"{num_qubits} qubits, it holds {MOST_AMPLITUDE_QUBITS} or less; use "
                    "training.prefix_encoder.type=tableau (Clifford gates), or none"
                )
            return PrefixEncoder(kind=chosen.type, **sizes, **params.model_dump())
    if num_qubits > MOST_CONVOLUTION_QUBITS:
        raise ConfigError(
            f"training.unitary_encoder.type=convolution attends between all 4^n entries of a unitary: given "
            f"{num_qubits} qubits, it holds {MOST_CONVOLUTION_QUBITS} or less; use "
            "training.unitary_encoder.type=matrix"
        )
    return ConvolutionalUnitaryEncoder(condition_dim=condition_dim, **params.model_dump())


def _trunk(params: TransformerParams) -> dict[str, Any]:
    return {key: getattr(params, key) for key in ("width", "depth", "num_heads", "feed_forward")}
