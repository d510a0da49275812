"""Every option of the product: its name, type, default, range and one line of meaning, stated here and nowhere else.

Presets in `conf/` list differences from these defaults; the rest of the code receives these frozen objects.
"""

from quantum_diffusion.config.schema.datasets import DatasetConfig, Simplification
from quantum_diffusion.config.schema.evaluation import EvaluationConfig
from quantum_diffusion.config.schema.folders import ExportConfig, InspectConfig, RunsConfig
from quantum_diffusion.config.schema.models import (
    MOST_AMPLITUDE_QUBITS,
    AmplitudesParams,
    ConvolutionParams,
    MatrixParams,
    ModelConfig,
    PolicyParams,
    PrefixEncoderConfig,
    PrefixParams,
    PromptEncoderParams,
    StateEncoderConfig,
    TextEncoderConfig,
    TransformerParams,
    UNetParams,
    UnitaryEncoderConfig,
)
from quantum_diffusion.config.schema.processes import (
    GAUSSIAN_SAMPLERS,
    BetaSchedule,
    GaussianParams,
    GaussianSampler,
    GuidanceMode,
    Loss,
    MaskedParams,
    Objective,
    Order,
    Sampler,
    SchedulerConfig,
)
from quantum_diffusion.config.schema.sampling import (
    CompileConfig,
    EditConfig,
    PrepareConfig,
    SampleConfig,
    SamplingConfig,
    SearchMethod,
    SearchObjective,
    TargetSearchConfig,
    Weights,
)
from quantum_diffusion.config.schema.training import (
    SAME_MODEL,
    STEP_ENCODERS,
    GeneralConfig,
    Logger,
    LoopConfig,
    Symmetry,
    TrainingConfig,
    WandbMode,
)
from quantum_diffusion.config.validation import Section

__all__ = [
    "GAUSSIAN_SAMPLERS",
    "MOST_AMPLITUDE_QUBITS",
    "SAME_MODEL",
    "SECTIONS",
    "STEP_ENCODERS",
    "AmplitudesParams",
    "BetaSchedule",
    "CompileConfig",
    "ConvolutionParams",
    "DatasetConfig",
    "EditConfig",
    "EvaluationConfig",
    "ExportConfig",
    "GaussianParams",
    "GaussianSampler",
    "GeneralConfig",
    "GuidanceMode",
    "InspectConfig",
    "Logger",
    "LoopConfig",
    "Loss",
    "MaskedParams",
    "MatrixParams",
    "ModelConfig",
    "Objective",
    "Order",
    "PolicyParams",
    "PrefixEncoderConfig",
    "PrefixParams",
    "PrepareConfig",
    "PromptEncoderParams",
    "RunsConfig",
    "SampleConfig",
    "Sampler",
    "SamplingConfig",
    "SchedulerConfig",
    "SearchMethod",
    "SearchObjective",
    "Simplification",
    "StateEncoderConfig",
    "Symmetry",
    "TargetSearchConfig",
    "TextEncoderConfig",
    "TrainingConfig",
    "TransformerParams",
    "UNetParams",
    "UnitaryEncoderConfig",
    "WandbMode",
    "Weights",
]

SECTIONS: dict[str, type[Section]] = {
    "datasets": DatasetConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "sample": SampleConfig,
    "compile": CompileConfig,
    "prepare": PrepareConfig,
    "inspect": InspectConfig,
    "export": ExportConfig,
    "runs": RunsConfig,
}
"""The section that each command reads, by its name."""
