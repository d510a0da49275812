"""The section of the diffusion process, and the names that processes and their samplers are told by.

What a sampler may be asked for later is in `sampling`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from quantum_diffusion.config.schema.values import Growth, Positive, Rate, Scale, Temperature, TopP
from quantum_diffusion.config.validation import Kinds, Part, Section

Objective = Literal["epsilon", "v", "x0"]
Loss = Literal["mse", "cross_entropy"]
GaussianSampler = Literal["ddim", "ddpm", "dpmsolver++", "unipc"]
Sampler = Literal["masked", GaussianSampler]
BetaSchedule = Literal["linear", "linear_sqrt", "cos_alpha", "cos_alpha4"]
StepOrder = Literal["random", "left_to_right", "confidence"]
Order = Literal[StepOrder, "surer_end"]
GuidanceMode = Literal["plain", "rescaled", "cfg++"]
GAUSSIAN_SAMPLERS: tuple[str, ...] = get_args(GaussianSampler)


class GaussianParams(Section):
    """Gaussian diffusion over embedded cells."""

    num_train_timesteps: Annotated[int, Field(ge=10, le=5000)] = 1000
    """Noise levels."""
    beta_schedule: BetaSchedule = "cos_alpha"
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
    """plain; rescaled with phi 0.7 (arXiv 2305.08891); or cfg++, which adds the noise back as predicted without a
    prompt (arXiv 2406.08070; scheduler ddim), as genQC samples for Schmidt rank vectors."""
    sample_steps: Positive = 20
    """Sampling steps unless others are asked for."""


class MaskedParams(Section):
    """Masked (absorbing) diffusion over instructions: one token is one gate on given qubits."""

    suffix_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training circuits whose gates are masked from the end instead of at random places."""
    order: Order = "random"
    """Order in which sampling fills time steps: random; left_to_right; confidence, the step that the network is surest
    of; or surer_end, the first or the last gate that is missing (model.type=policy for unitaries)."""
    guidance_scale: Scale = 3.0
    """Guidance used in sampling unless another is asked for; 1 is none."""
    guidance_growth: Growth = 0.0
    """Gates over which guidance grows to its full strength in sampling, unless other are asked for; 0 guides all gates
    alike."""
    temperature: Temperature = 1.0
    """What log-probabilities are divided by in sampling, unless another is asked for: below 1, likely gates come more
    often."""
    top_p: TopP = 1.0
    """Sampling draws among the likeliest gates of this probability together, unless another is asked for; 1 is all."""
    sample_steps: Positive | None = None
    """Sampling steps unless others are asked for; null fills one time step a step."""


class SchedulerConfig(Part):
    """The diffusion process (keys `training.scheduler.*`)."""

    kinds: ClassVar[Kinds] = {
        "masked": MaskedParams,
        **dict.fromkeys(GAUSSIAN_SAMPLERS, GaussianParams),
    }

    type: Sampler = "masked"
    """masked, or a Gaussian process named by its default sampler."""
    params: GaussianParams | MaskedParams = MaskedParams()
    """Its parameters."""

    @property
    def is_masked(self) -> bool:
        """Whether the process masks instructions, and adds no noise to cells."""
        return self.type == "masked"
