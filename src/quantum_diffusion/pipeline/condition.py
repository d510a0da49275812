"""Requests and conditions on the device: what circuits are asked for, before and after it is encoded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.models.condition_encoder import tokenize_prompts
from quantum_diffusion.models.gates_left import UNKNOWN
from quantum_diffusion.pipeline.build import PipelineConfig
from quantum_diffusion.tasks.samples import Requests, Unwanted


@dataclass(frozen=True, eq=False)
class Request:
    """What circuits are asked for, on the device, B of them.

    Attributes:
        prompts: int64 [P, S], tokenised prompts.
        index: int64 [B], position of each circuit's prompt among them.
        targets: float32 [B, 2, D, R]; None for tasks without.
        num_gates: int64 [B], how many gates circuits are to have, `UNKNOWN` where that is open; None for models that
            are not told.
        negative_index: int64 [B], the same as `index` of what is not wanted; None for "nothing asked".
        negative_targets: float32 [B, 2, D, R]; None for none.
    """

    prompts: Tensor
    index: Tensor
    targets: Tensor | None = None
    num_gates: Tensor | None = None
    negative_index: Tensor | None = None
    negative_targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Request:
        """Return some rows, on a device."""
        sides = [self.index] if self.negative_index is None else [self.index, self.negative_index]
        used, index = torch.unique(torch.stack([side[rows] for side in sides]), return_inverse=True)
        given = (self.targets, self.num_gates, self.negative_targets)
        targets, num_gates, negative = (None if x is None else x[rows].to(device) for x in given)
        index, other = index[0].to(device), None if self.negative_index is None else index[1].to(device)
        return Request(self.prompts[used].to(device), index, targets, num_gates, other, negative)

    def other_side(self, num_conditions: int) -> tuple[Request, Tensor]:
        """Return what guidance leads away from, and which of its parts are "nothing asked", bool [B, num_conditions].

        That is all of them, unless something is not wanted.
        """
        index, targets = self.negative_index, self.negative_targets
        dropped = torch.ones(len(self), num_conditions, dtype=torch.bool, device=self.index.device)
        dropped[:, 0] = index is None
        dropped[:, 1:] = targets is None
        return replace(
            self, index=self.index if index is None else index, targets=self.targets if targets is None else targets
        ), dropped


def with_negative(asked: Requests, other: Requests, prompts: bool, targets: bool) -> Requests:
    """Return requests with prompts, or targets, or both of others as what guidance leads away from.

    Raises:
        ConfigError: They are not equally many.
    """
    if len(other) != len(asked):
        raise ConfigError(
            f"given {counted(len(other), 'negative request')} for {counted(len(asked), 'request')}: give one for each"
        )
    return replace(asked, negative=Unwanted(other.prompts if prompts else None, other.targets if targets else None))


def check_guided(asked: Requests, options: SamplingConfig) -> None:
    """Refuse requests with something that is not wanted where that has no effect.

    Args:
        asked: The requests.
        options: How to sample, with the model's own defaults; see `DiffusionPipeline.resolved`.

    Raises:
        ConfigError: There is no guidance.
    """
    if asked.negative is not None and options.guidance_scale == 1:
        raise ConfigError(
            "what is not wanted counts by guidance alone, and model_params.guidance_scale is 1, which is none: give a "
            "larger one, e.g. 2"
        )


def request_of(asked: Requests, config: PipelineConfig, min_length: int, num_gates: int | None) -> Request:
    """Tokenise what is asked for, and turn its targets into real numbers.

    Args:
        asked: B rows.
        config: Of the model.
        min_length: Words of the longest prompt in training. Padding words weigh in the condition, so a sample must not
            depend on its neighbours' prompts.
        num_gates: How many gates models that can be told are told; None leaves that open.
    """
    negative = asked.negative or Unwanted()
    every = (*asked.prompts, *(negative.prompts or ()))
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(every))}
    words = tokenize_prompts(list(distinct), config.vocabulary, min_length=min_length)
    index, unwanted = (
        None if prompts is None else torch.tensor([distinct[prompt] for prompt in prompts])
        for prompts in (asked.prompts, negative.prompts)
    )
    assert index is not None
    targets, unwanted_targets = (
        None if matrices is None else torch.from_numpy(as_two_channels(matrices))
        for matrices in (asked.targets, negative.targets)
    )
    told = torch.full_like(index, UNKNOWN if num_gates is None else num_gates) if config.tells_gates else None
    return Request(words, index, targets, told, unwanted, unwanted_targets)


@dataclass(frozen=True, eq=False)
class Condition:
    """A request as the backbone sees it.

    Attributes:
        tokens: Float [B, S, E].
        targets: float32 [B, 2, D, R], zeros where they were dropped; None for tasks without.
        num_gates: int64 [B]; see `Request`.
    """

    tokens: Tensor
    targets: Tensor | None = None
    num_gates: Tensor | None = None

    def __add__(self, other: Condition) -> Condition:
        """Join the rows of two conditions."""
        pairs = [(self.targets, other.targets), (self.num_gates, other.num_gates)]
        joined = [None if one is None or two is None else torch.cat([one, two]) for one, two in pairs]
        return Condition(torch.cat([self.tokens, other.tokens]), *joined)
