"""Masked (absorbing) diffusion over instructions: masks the steps of a circuit one by one and reveals them again.

Pipelines use it for training and sampling. A token is one gate on given qubits, so every sample is a valid circuit. The
noise level is the number of masked steps; the rank of each step gives the order in which they are revealed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE
from quantum_diffusion.config.schema import StepOrder
from quantum_diffusion.device import answers_at_once
from quantum_diffusion.diffusion.guidance import guide_log_probabilities
from quantum_diffusion.diffusion.noise import Noise

Denoise = Callable[..., Tensor]
"""(ids int64 [B, T], rank int64 [B, T]) -> logits [B, T, V] of each step given the steps of smaller rank. An optional
third argument, bool [B, T], marks the steps that count; the logits of the others may be anything."""

GuidedDenoise = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(ids, rank, wanted steps int64 [B, M]) -> logits [B, M, V] of these steps, and the logits without a prompt (None if
guidance is off)."""


def of_wanted_steps(denoise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]) -> GuidedDenoise:
    """Turn a function that predicts all steps [B, T, V] into one that returns only the wanted steps."""

    def at_wanted(ids: Tensor, rank: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
        conditional, unconditional = denoise(ids, rank)
        chosen = wanted[..., None].expand(-1, -1, conditional.shape[2])
        return conditional.gather(1, chosen), None if unconditional is None else unconditional.gather(1, chosen)

    return at_wanted


EndsDenoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(ids, rank) -> logits [B, 2, V] of the first and the last unrevealed step, and the logits without a prompt."""


_SURER = 1e-3
"""Margin of confidence needed to choose the end. If what is left is its own inverse, both ends are equally likely, and
rounding, which depends on the batch, must not decide."""


@dataclass(frozen=True)
class Draw:
    """How instructions are drawn from a network's predictions.

    Attributes:
        guidance_scale: g in u + g (c - u) on log-probabilities; 1 is no guidance.
        guidance_growth: Number of known steps over which guidance grows linearly from 1 to its full scale; 0 for full
            scale from the start.
        temperature: Divisor of log-probabilities, after guidance.
        top_p: Draw only from the most likely instructions with this total probability, at least one; 1 allows all.
    """

    guidance_scale: float = 1.0
    guidance_growth: float = 0.0
    temperature: float = 1.0
    top_p: float = 1.0

    def probabilities(self, logits: Tensor, unconditional: Tensor | None, known: Tensor, may_be: Tensor) -> Tensor:
        """Return the probability of drawing each instruction, [B, M, V].

        Args:
            logits: [B, M, V].
            unconditional: Logits without a prompt, [B, M, V]; None without guidance.
            known: int64 [B, 1], number of known steps.
            may_be: bool [B, M, V], instructions that may be drawn.
        """
        if unconditional is not None:
            scale: float | Tensor = self.guidance_scale
            if self.guidance_growth:
                grown = (known / self.guidance_growth).clamp(max=1)
                scale = 1 + (self.guidance_scale - 1) * grown[..., None]  # [B, 1, 1]
            logits = guide_log_probabilities(logits, unconditional, scale)
        probabilities = (logits.masked_fill(~may_be, -torch.inf) / self.temperature).softmax(-1)
        return probabilities if self.top_p == 1 else _likeliest(probabilities, self.top_p)


class MaskedDiffusion:
    """The masked process: masks circuits in training and reveals them in sampling.

    Args:
        suffix_share: Fraction of training circuits, in [0, 1], that are revealed from the first gate to the last; the
            others are revealed in random order. At 1 a circuit ends at the first "no gate".

    Reference:
        Austin et al., arXiv 2107.03006 (absorbing state); Hoogeboom et al., arXiv 2110.02037 (order-agnostic bound).
    """

    def __init__(self, suffix_share: float = 0.0) -> None:
        self.suffix_share = suffix_share

    def draw_rank(self, count: int, steps: int, noise: Noise) -> Tensor:
        """Draw the order in which each training circuit is revealed: int64 [count, steps], each row a permutation."""
        at_random = noise.uniform(count, steps).argsort(dim=1)
        from_start = torch.arange(steps, device=noise.device).expand(count, steps)
        by_suffix = noise.uniform(count, 1) < self.suffix_share
        return torch.where(by_suffix, from_start, at_random)

    def mean_prefixes(self, steps: int) -> float:
        """Return the average number of prefixes of a circuit whose last step is revealed last, over `draw_rank`."""
        at_random = sum(1 / length for length in range(1, steps + 1))
        return self.suffix_share * steps + (1 - self.suffix_share) * at_random

    def loss(self, denoise: Denoise, ids: Tensor, rank: Tensor) -> Tensor:
        """Return the negative log-likelihood per step, averaged over all noise levels of the given order.

        This is the bound of arXiv 2110.02037, eq. 3, with all T terms instead of a random one.

        Args:
            denoise: The network with its condition.
            ids: int64 [B, T], the circuits.
            rank: int64 [B, T], from `draw_rank`.

        Returns:
            [B], in nats.
        """
        if not self.ends_at_no_gate:
            return F.cross_entropy(denoise(ids, rank).transpose(1, 2), ids, reduction="none").mean(dim=1)
        counts = self._up_to_the_end(ids)
        losses = F.cross_entropy(denoise(ids, rank, counts).transpose(1, 2), ids, reduction="none")
        return losses.masked_fill(~counts, 0.0).mean(dim=1)

    @property
    def ends_at_no_gate(self) -> bool:
        """Whether circuits are always revealed from the first gate on, so that the first "no gate" is the end.

        The steps after it are then known, and are neither trained nor predicted.
        """
        return self.suffix_share == 1

    @staticmethod
    def _up_to_the_end(ids: Tensor) -> Tensor:
        """Return which steps are gates or the first "no gate", bool [B, T]."""
        ended = (ids == NO_GATE).cumsum(dim=1)
        return (ended == 0) | ((ended == 1) & (ids == NO_GATE))

    @torch.inference_mode()
    def sample(
        self,
        denoise: GuidedDenoise,
        num_steps: int,
        generators: Sequence[torch.Generator],
        allowed: Tensor,
        draw: Draw | None = None,
        *,
        sample_steps: int | None = None,
        order: StepOrder = "random",
        start: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Sample circuits, starting fully masked or from known steps of given circuits.

        Args:
            denoise: The network with its condition; see `of_wanted_steps` for one that predicts all steps.
            num_steps: T.
            generators: One CPU generator per sample, so that a sample does not depend on its batch.
            allowed: bool [B, V], instructions allowed in each sample, or bool [B, T, V], in each step.
            draw: How instructions are drawn; None draws from the predicted probabilities.
            sample_steps: Number of network calls; None reveals one step per call.
            order: Which steps are revealed first.
            start: int64 [B, T], circuits whose known steps are given; None if there are none.
            known: bool [B, T], the given steps, which never change; None means none.

        Returns:
            int64 ids [B, T].
        """
        device, count, draw = allowed.device, len(generators), draw or Draw()
        uniform = _uniform(generators, num_steps, device)
        per_step = allowed if allowed.dim() == 3 else allowed[:, None].expand(-1, num_steps, -1)  # [B, T, V]
        ids = torch.zeros(count, num_steps, dtype=torch.int64, device=device)
        rank = torch.full_like(ids, num_steps)
        if start is not None and known is not None:
            ids = torch.where(known, start, ids)
            rank = torch.where(known, known.cumsum(1) - 1, rank)  # as if they were revealed first, left to right
        revealed = (rank < num_steps).sum(dim=1, keepdim=True)  # [B, 1]
        masked = num_steps - revealed
        priority = _priority(order, uniform[:, 0])
        calls = masked.clamp(max=sample_steps or num_steps)  # [B, 1]: per sample, independent of its batch
        is_free = known is None or not bool(known.any())
        ends = self.ends_at_no_gate and order == "left_to_right" and is_free
        ended = torch.zeros(count, 1, dtype=torch.bool, device=device)
        numbers = torch.arange(num_steps + 1, device=device)
        begins = (masked * numbers // calls.clamp(min=1)).clamp(max=masked)  # [B, T + 1]: revealed before each call
        at_most = begins.diff(dim=1).amax(dim=0).tolist() if count else []  # once, because it synchronizes the device
        for call, most in enumerate(itertools.takewhile(bool, at_most)):
            first = begins[:, call, None]  # [B, 1]
            to_reveal = begins[:, call + 1, None] - first
            if priority is None:
                wanted = torch.arange(num_steps, device=device).expand(count, -1)
            else:  # the order does not depend on the predictions, so other steps need not be predicted
                wanted = _first_by(priority.masked_fill(rank < num_steps, -torch.inf), most)
            may_be = per_step.gather(1, wanted[..., None].expand(-1, -1, per_step.shape[2]))
            probabilities = draw.probabilities(*denoise(ids, rank, wanted), revealed + first, may_be)
            drawn = _inverse_cdf(probabilities, uniform[:, 1].gather(1, wanted))
            if ends:
                after = ended | ((drawn == NO_GATE).cumsum(dim=1) > 0)
                drawn, ended = drawn.masked_fill(after, NO_GATE), after[:, -1:]
                if answers_at_once(device) and bool(ended.all()):
                    break
            if priority is None:
                surest = _first_by(probabilities.max(-1).values.masked_fill(rank < num_steps, -torch.inf), most)
                wanted, drawn = surest, drawn.gather(1, surest)
            place = torch.arange(wanted.shape[1], device=device)
            reveal = place < to_reveal
            ids = ids.scatter(1, wanted, torch.where(reveal, drawn, ids.gather(1, wanted)))
            rank = rank.scatter(1, wanted, torch.where(reveal, revealed + first + place, rank.gather(1, wanted)))
        return ids

    @staticmethod
    @torch.inference_mode()
    def sample_from_ends(
        ends: EndsDenoise,
        num_steps: int,
        generators: Sequence[torch.Generator],
        allowed: Tensor,
        has_end: Tensor,
        draw: Draw,
    ) -> Tensor:
        """Sample circuits gate by gate from both ends, each time at the end where the network is more confident.

        Args:
            ends: The network with its condition.
            num_steps: T.
            generators: See `sample`.
            allowed: bool [B, T, V], instructions allowed for the t-th gate that is revealed.
            has_end: bool [B], samples that may be revealed from the end; the others only grow from the start.
            draw: How instructions are drawn.

        Returns:
            int64 ids [B, T], gates first, then "no gate".
        """
        device, count = allowed.device, len(generators)
        uniform = _uniform(generators, num_steps, device)[:, 1]
        ids = torch.zeros(count, num_steps, dtype=torch.int64, device=device)
        rank = torch.full_like(ids, num_steps)
        begun = torch.zeros(count, 1, dtype=torch.int64, device=device)
        ended = torch.zeros(count, 1, dtype=torch.bool, device=device)
        for step in range(num_steps):
            known = torch.full_like(begun, step)
            may_be = allowed[:, step, None].expand(-1, 2, -1)
            probabilities = draw.probabilities(*ends(ids, rank), known, may_be)  # [B, 2, V]
            at_end = (end_is_surer(probabilities) & has_end)[:, None]
            chosen = torch.where(at_end[..., None], probabilities[:, 1:], probabilities[:, :1])
            drawn = _inverse_cdf(chosen, uniform[:, step, None]).masked_fill(ended, NO_GATE)
            place = torch.where(at_end, num_steps - 1 - (known - begun), begun)
            ids, rank = ids.scatter(1, place, drawn), rank.scatter(1, place, known)
            begun = begun + ~at_end
            ended = ended | (drawn == NO_GATE)
            if answers_at_once(device) and bool(ended.all()):
                break
        return ids.gather(1, (ids == NO_GATE).to(torch.int8).argsort(dim=1, stable=True))


def end_is_surer(sides: Tensor) -> Tensor:
    """Tell for which samples a network is more confident of the last missing gate than of the first.

    Args:
        sides: [B, 2, V], probabilities or log-probabilities of the first and the last missing gate; [B, 1, V] if only
            the first is predicted.

    Returns:
        bool [B].
    """
    surest = sides.max(-1).values
    return surest[:, -1] > surest[:, 0] + _SURER


def _uniform(generators: Sequence[torch.Generator], num_steps: int, device: torch.device) -> Tensor:
    """Draw two numbers in [0, 1) for each step of each sample, [B, 2, T]."""
    uniform = torch.empty(len(generators), 2, num_steps)
    for row, generator in zip(uniform, generators, strict=True):
        row.uniform_(generator=generator)
    return uniform.to(device)


def _first_by(priority: Tensor, count: int) -> Tensor:
    """Return the steps with the largest priority, in stable order: [B, T] => int64 [B, count]."""
    return priority.argsort(dim=1, descending=True, stable=True)[:, :count]


def _likeliest(probabilities: Tensor, share: float) -> Tensor:
    """Keep the most likely categories up to a total probability of `share`, at least one: [..., V] => [..., V]."""
    ordered, place = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, place, ordered.masked_fill(before >= share, 0.0))


def _priority(order: StepOrder, uniform: Tensor) -> Tensor | None:
    """Return the priority of revealing each step, [B, T] (largest first); None if confidence decides."""
    if order == "left_to_right":
        return -torch.arange(uniform.shape[1], dtype=uniform.dtype, device=uniform.device).expand_as(uniform)
    return None if order == "confidence" else uniform


def _inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw one category per step from a uniform number per step; [B, T, V], [B, T] => int64 [B, T]."""
    device = torch.device("cpu") if probabilities.device.type == "mps" else probabilities.device  # MPS has no float64
    cumulative = probabilities.to(device).double().cumsum(-1)
    # In float64, a float32 below 1 times the total stays below the total, so no category of probability 0 is drawn.
    target = uniform.to(device).double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].to(probabilities.device)
