"""The section of the diffusion process, and the names of processes and samplers.

Options chosen only when sampling are in `sampling`.
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
    """Number of noise levels."""
    beta_schedule: BetaSchedule = "cos_alpha"
    """Noise schedule; cos_alpha: alpha_bar is the squared cosine of a linear ramp."""
    beta_start: Rate = 1e-4
    """First beta of the linear schedules."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Last beta of the linear schedules."""
    zero_terminal_snr: bool = False
    """Make the last level pure noise (arXiv 2305.08891); not with objective epsilon."""
    input_perturbation: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Extra noise on the network's input only (arXiv 2301.11706)."""
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Randomness of DDIM steps, from 0 (deterministic) to 1 (as DDPM)."""
    guidance_scale: Scale = 7.5
    """Default guidance scale in sampling; 1 is none."""
    guidance_mode: GuidanceMode = "plain"
    """plain; rescaled with phi 0.7 (arXiv 2305.08891); or cfg++, which adds the noise back as predicted without a
    prompt (arXiv 2406.08070; scheduler ddim), as genQC samples for Schmidt rank vectors."""
    sample_steps: Positive = 20
    """Default number of sampling steps."""


class MaskedParams(Section):
    """Masked (absorbing) diffusion over instructions: one token is one gate on specific qubits."""

    suffix_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training circuits whose gates are masked from the end instead of at random positions."""
    order: Order = "random"
    """Default order in which sampling fills time steps: random; left_to_right; confidence, the step that the network is
    most certain of; or surer_end, the first or the last missing gate (model.type=policy for unitaries)."""
    guidance_scale: Scale = 3.0
    """Default guidance scale in sampling; 1 is none."""
    guidance_growth: Growth = 0.0
    """Default number of gates over which guidance grows to full strength; 0 guides all gates equally."""
    temperature: Temperature = 1.0
    """Default sampling temperature, which divides log-probabilities: below 1, likely gates become more frequent."""
    top_p: TopP = 1.0
    """Default top-p of sampling: draw among the likeliest gates with this total probability; 1 draws among all."""
    sample_steps: Positive | None = None
    """Default number of sampling steps; null fills one time step per sampling step."""


class SchedulerConfig(Part):
    """The diffusion process (keys `training.scheduler.*`)."""

    kinds: ClassVar[Kinds] = {
        "masked": MaskedParams,
        **dict.fromkeys(GAUSSIAN_SAMPLERS, GaussianParams),
    }

    type: Sampler = "masked"
    """masked, or Gaussian diffusion named by its default sampler."""
    params: GaussianParams | MaskedParams = MaskedParams()
    """Its parameters."""

    @property
    def is_masked(self) -> bool:
        """Whether the process masks instructions instead of adding noise to cells."""
        return self.type == "masked"
