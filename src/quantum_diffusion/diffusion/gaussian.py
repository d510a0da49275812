"""Gaussian diffusion over embedded cells: adds noise to the embedding of a circuit and removes it step by step.

Pipelines use it for training and sampling. The loss is implemented here; sampling uses the schedulers of `diffusers`,
selected by name, with our noise schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from quantum_diffusion.config.schema import GAUSSIAN_SAMPLERS, BetaSchedule, GuidanceMode, Loss, Objective
from quantum_diffusion.diffusion.guidance import guide_log_probabilities, guide_plain, guide_rescaled
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.diffusion.schedules import make_betas, steps_redone
from quantum_diffusion.errors import ConfigError, unknown_name

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, C, Q, T], t int64 [B] or [1]) -> prediction [B, C, Q, T]."""

GuidedDenoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""Like `Denoise`, plus the prediction without a prompt (None if guidance is off)."""


class Codebook(Protocol):
    """The fixed map between cell tokens and vectors."""

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens int64 [B, Q, T] => [B, C, Q, T]."""

    def invert(self, x: Tensor) -> Tensor:
        """[B, C, Q, T] => nearest tokens int8 [B, Q, T]."""

    def logits(self, x: Tensor) -> Tensor:
        """[B, C, Q, T] => similarity to each signed token [B, K, Q, T]."""

    def classes(self, tokens: Tensor) -> Tensor:
        """tokens int64 [B, Q, T] => index of each among the K signed tokens, int64 [B, Q, T]."""

    def expectation(self, probabilities: Tensor) -> Tensor:
        """Probabilities [B, K, Q, T] => mean vector [B, C, Q, T]."""


class GaussianDiffusion:
    """The Gaussian process: noising, loss and sampling.

    Args:
        codebook: Map between tokens and vectors.
        objective: Prediction of the network: "epsilon" (the noise), "v" (arXiv 2202.00512) or "x0".
        loss: "mse", or "cross_entropy" over the signed tokens (objective x0 only).
        num_train_timesteps: Number of noise levels.
        beta_schedule, beta_start, beta_end, zero_terminal_snr: See `make_betas`.
        input_perturbation: Scale of extra noise on the input that is not in the target (arXiv 2301.11706).
        sampler: Default sampler, one of `GAUSSIAN_SAMPLERS`.
        eta: Stochasticity of DDIM steps: 0 is deterministic, 1 like DDPM.
        guidance_mode: "plain", "rescaled" or "cfg++".
    """

    def __init__(
        self,
        codebook: Codebook,
        *,
        objective: Objective,
        loss: Loss,
        num_train_timesteps: int = 1000,
        beta_schedule: BetaSchedule = "cos_alpha",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        zero_terminal_snr: bool = False,
        input_perturbation: float = 0.1,
        sampler: str = "ddim",
        eta: float = 1.0,
        guidance_mode: GuidanceMode = "plain",
    ) -> None:
        self.codebook = codebook
        self.objective = objective
        self.loss_kind = loss
        self.input_perturbation = input_perturbation
        self.zero_terminal_snr = zero_terminal_snr
        self.sampler = sampler
        self.eta = eta
        self.guidance_mode = guidance_mode
        self.betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end, zero_terminal_snr)
        self.alpha_bar = (1 - self.betas).cumprod(0)  # float64 [levels]
        self._roots = torch.stack([self.alpha_bar, 1 - self.alpha_bar]).sqrt()  # float64 [2, levels]
        self._placed_roots = self._roots

    @property
    def num_levels(self) -> int:
        """Number of noise levels; t runs from 0 (least noise) to num_levels - 1."""
        return len(self.betas)

    def draw_levels(self, count: int, noise: Noise, low_variance: bool) -> Tensor:
        """Draw a noise level for each circuit, int64 [count].

        Args:
            count: B.
            noise: Source of randomness.
            low_variance: Whether to divide the levels into B equal ranges and draw one from each (arXiv 2107.00630)
                instead of drawing independently.
        """
        uniform = noise.uniform(count)
        if low_variance:
            uniform = (noise.places(count) + uniform) / noise.total(count)
        return (uniform * self.num_levels).long().clamp(max=self.num_levels - 1)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise. Reference: arXiv 2006.11239, eq. 4."""
        signal, spread = self._coefficients(t, x0)
        return signal * x0 + spread * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the network's target: noise, x0, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0."""
        if self.objective == "epsilon":
            return noise
        if self.objective == "x0":
            return x0
        signal, spread = self._coefficients(t, x0)
        return signal * noise - spread * x0

    def _coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        if (self._placed_roots.dtype, self._placed_roots.device) != (like.dtype, like.device):
            self._placed_roots = self._roots.to(like.dtype).to(like.device)  # dtype first: MPS has no float64
        signal, spread = self._placed_roots[:, t].view(2, -1, *[1] * (like.dim() - 1))
        return signal, spread

    def loss(self, denoise: Denoise, tokens: Tensor, noise: Noise, low_variance: bool = True) -> Tensor:
        """Add noise to circuits and return the loss of the network's prediction.

        Args:
            denoise: The network with its condition.
            tokens: int64 [B, Q, T].
            noise: Source of randomness, on the tokens' device.
            low_variance: See `draw_levels`.

        Returns:
            [B], averaged over cells (and channels).
        """
        x0 = self.codebook.embed(tokens)
        t = self.draw_levels(len(tokens), noise, low_variance)
        eps = noise.normal(*x0.shape)
        perturbed = eps
        if self.input_perturbation > 0:
            perturbed = eps + self.input_perturbation * noise.normal(*x0.shape)
        prediction = denoise(self.add_noise(x0, perturbed, t), t)
        if self.loss_kind == "cross_entropy":
            losses = F.cross_entropy(self.codebook.logits(prediction), self.codebook.classes(tokens), reduction="none")
        else:
            losses = (prediction - self.target(x0, eps, t)).square()
        return losses.flatten(1).mean(dim=1)

    @torch.inference_mode()
    def sample(
        self,
        denoise: GuidedDenoise,
        shape: tuple[int, int, int],
        generators: Sequence[torch.Generator],
        device: torch.device,
        *,
        guidance_scale: float = 1.0,
        guidance_mode: GuidanceMode | None = None,
        sample_steps: int = 20,
        sampler: str | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Sample circuits from pure noise, or from given circuits with added noise.

        At every step, known cells are replaced by their true values with fresh noise of that level, so that the network
        sees them as in training (arXiv 2201.09865, eq. 8a). A strength below 1 starts at a lower level (arXiv
        2108.01073).

        Args:
            denoise: The network with its condition.
            shape: (C, Q, T) of one sample.
            generators: One CPU generator per sample, so that a sample does not depend on its batch.
            device: Device to compute on.
            guidance_scale: g in u + g (c - u); 1 is no guidance.
            guidance_mode: "plain", "rescaled", or "cfg++" (DDIM only); None uses the process's default.
            sample_steps: Number of denoising steps.
            sampler: One of `GAUSSIAN_SAMPLERS`; None uses the process's default.
            start: Tokens int64 [B, Q, T] of given circuits; None if there are none.
            known: bool [B, Q, T], cells that keep their values in `start`; None means none.
            strength: Fraction of the denoising steps to run, in (0, 1]; below 1 they begin at `start` with noise.

        Returns:
            int8 tokens [B, Q, T].

        Raises:
            ConfigError: The sampler is unknown or does not support the schedule, or there are more steps than levels.
        """
        name, mode = sampler or self.sampler, guidance_mode or self.guidance_mode
        assert mode != "cfg++" or name == "ddim", "settings are checked"
        scheduler = self.make_scheduler(name, sample_steps)
        # At eta 1 the first step from zero signal takes the root of 0, which rounding can make negative.
        eta = min(self.eta, 1 - 1e-6) if self.zero_terminal_snr else self.eta
        extra: dict[str, Any] = {"eta": eta} if name == "ddim" else {}
        if name in ("ddim", "ddpm"):
            extra["generator"] = list(generators)
        x = _draw_normal(shape, generators).to(device)
        timesteps = scheduler.timesteps[-steps_redone(strength, len(scheduler.timesteps)) :]
        clean = None if start is None else self.codebook.embed(start)
        if clean is not None and strength < 1:
            x = self.add_noise(clean, x, timesteps[:1].to(device))
        for t in timesteps:
            level = t.view(1).to(device)
            if clean is not None and known is not None:
                noised = self.add_noise(clean, _draw_normal(shape, generators).to(device), level)
                x = torch.where(known[:, None], noised, x)
            conditional, unconditional = denoise(x, level)
            prediction = self._guide(conditional, unconditional, guidance_scale, mode)
            noisier = x
            x = scheduler.step(prediction, t, noisier, **extra).prev_sample
            if mode == "cfg++" and unconditional is not None:
                x = x + self._direction(scheduler, int(t), eta, noisier, unconditional, prediction)
        tokens = self.codebook.invert(x)
        return tokens if start is None or known is None else torch.where(known, start.to(tokens.dtype), tokens)

    def _guide(self, conditional: Tensor, unconditional: Tensor | None, scale: float, mode: GuidanceMode) -> Tensor:
        if self.loss_kind == "cross_entropy":
            logits = self.codebook.logits(conditional).movedim(1, -1)
            if unconditional is not None:
                logits = guide_log_probabilities(logits, self.codebook.logits(unconditional).movedim(1, -1), scale)
            return self.codebook.expectation(logits.softmax(-1).movedim(-1, 1))
        if unconditional is None:
            return conditional
        guide = guide_rescaled if mode == "rescaled" else guide_plain
        return guide(conditional, unconditional, scale)

    def _direction(
        self, scheduler: Any, t: int, eta: float, x: Tensor, unconditional: Tensor, guided: Tensor
    ) -> Tensor:
        """Return how far a DDIM step goes elsewhere when it adds the noise of the unconditional prediction back.

        Reference:
            Chung et al., CFG++, arXiv 2406.08070, algorithm 2, with the step of DDIM, arXiv 2010.02502, eq. 12.
        """
        before = t - self.num_levels // int(scheduler.num_inference_steps)
        alpha = float(scheduler.alphas_cumprod[t])
        alpha_before = float(scheduler.alphas_cumprod[before]) if before >= 0 else 1.0
        variance = (1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)
        length = math.sqrt(max(1 - alpha_before - eta**2 * variance, 0))
        # By how much the predicted noise changes with the prediction.
        by_prediction = {"epsilon": 1.0, "v": math.sqrt(alpha), "x0": -math.sqrt(alpha / (1 - alpha))}[self.objective]
        return length * by_prediction * (unconditional - guided)

    def make_scheduler(self, name: str, sample_steps: int) -> Any:
        """Return the diffusers scheduler of a sampler, set to our schedule and `sample_steps` steps.

        Raises:
            ConfigError: See `sample`.
        """
        # Imported here: diffusers takes seconds, and masked diffusion does not need it.
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        if name not in GAUSSIAN_SAMPLERS:
            raise ConfigError(unknown_name("scheduler", name, GAUSSIAN_SAMPLERS))
        if sample_steps > self.num_levels:
            raise ConfigError(
                f"sample_steps={sample_steps} is more than the {self.num_levels} noise levels of the model: "
                f"give at most {self.num_levels}"
            )
        common: dict[str, Any] = {
            "num_train_timesteps": self.num_levels,
            "trained_betas": self.betas.float().numpy(),
            "prediction_type": {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}[self.objective],
            # Zero terminal SNR must start at the last level (arXiv 2305.08891); otherwise as in genQC.
            "timestep_spacing": "trailing" if self.zero_terminal_snr else "leading",
            "steps_offset": 0,
        }
        if name == "ddim":
            scheduler: Any = DDIMScheduler(clip_sample=False, **common)
        elif name == "ddpm":
            scheduler = DDPMScheduler(clip_sample=False, **common)
        elif self.zero_terminal_snr:
            raise ConfigError(
                f"scheduler {name!r} cannot start at zero signal (zero_terminal_snr=true): use ddim or ddpm"
            )
        elif name == "dpmsolver++":
            scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **common)
        else:
            scheduler = UniPCMultistepScheduler(**common)
        scheduler.set_timesteps(sample_steps)
        return scheduler


def _draw_normal(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Draw standard normal numbers from each sample's generator, float32 [B, *shape]."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])
