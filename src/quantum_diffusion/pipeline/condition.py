"""Requests on the device, before and after encoding; the pipeline creates them and the backbone reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.matrices import as_two_channels
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.errors import ConfigError, counted
from quantum_diffusion.models.gates_left import UNKNOWN
from quantum_diffusion.tasks.samples import Requests, Unwanted


@dataclass(frozen=True, eq=False)
class Request:
    """B requests for circuits, on the device.

    Attributes:
        prompts: int64 [P, S], tokenised prompts.
        index: int64 [B], row of each circuit's prompt in `prompts`.
        targets: float32 [B, 2, D, R]; None for tasks without targets.
        num_gates: int64 [B], requested number of gates, `UNKNOWN` if unspecified; None for models without this
            condition.
        negative_index: int64 [B], like `index`, for the negative prompts; None for no negative prompts.
        negative_targets: float32 [B, 2, D, R], the negative targets; None for no negative targets.
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
        """Return some rows, moved to a device."""
        sides = [self.index] if self.negative_index is None else [self.index, self.negative_index]
        used, index = torch.unique(torch.stack([side[rows] for side in sides]), return_inverse=True)
        given = (self.targets, self.num_gates, self.negative_targets)
        targets, num_gates, negative = (None if x is None else x[rows].to(device) for x in given)
        index, other = index[0].to(device), None if self.negative_index is None else index[1].to(device)
        return Request(self.prompts[used].to(device), index, targets, num_gates, other, negative)

    def other_side(self, num_conditions: int) -> tuple[Request, Tensor]:
        """Return the request that guidance leads away from, and its dropped conditions, bool [B, num_conditions].

        The prompt is condition 0, the target (if any) condition 1. Conditions without a negative are dropped.
        """
        index, targets = self.negative_index, self.negative_targets
        dropped = torch.ones(len(self), num_conditions, dtype=torch.bool, device=self.index.device)
        dropped[:, 0] = index is None
        dropped[:, 1:] = targets is None
        return replace(
            self, index=self.index if index is None else index, targets=self.targets if targets is None else targets
        ), dropped


def with_negative(asked: Requests, other: Requests, prompts: bool, targets: bool) -> Requests:
    """Return requests with the prompts, the targets or both of other requests as negatives for guidance.

    Raises:
        ConfigError: The numbers of requests differ.
    """
    if len(other) != len(asked):
        raise ConfigError(
            f"given {counted(len(other), 'negative request')} for {counted(len(asked), 'request')}: give one for each"
        )
    return replace(asked, negative=Unwanted(other.prompts if prompts else None, other.targets if targets else None))


def check_guided(asked: Requests, options: SamplingConfig) -> None:
    """Raise an error for requests with negatives if there is no guidance.

    Args:
        asked: The requests.
        options: The sampling options, with the model's defaults filled in; see `DiffusionPipeline.resolved`.

    Raises:
        ConfigError: There are negatives, but the guidance scale is 1.
    """
    if asked.negative is not None and options.guidance_scale == 1:
        raise ConfigError(
            "a negative request needs guidance, but model_params.guidance_scale is 1 (no guidance): set it above 1, "
            "e.g. to 2"
        )


def request_of(
    asked: Requests, read_prompts: Callable[[Sequence[str]], Tensor], tells_gates: bool, num_gates: int | None
) -> Request:
    """Tokenise prompts and convert complex targets to real and imaginary parts.

    Args:
        asked: B rows.
        read_prompts: Turns P prompts into tokens, int64 [P, S].
        tells_gates: Whether the model takes the number of gates as a condition.
        num_gates: The number of gates to condition on; None leaves it unspecified.
    """
    negative = asked.negative or Unwanted()
    every = (*asked.prompts, *(negative.prompts or ()))
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(every))}
    index, unwanted = (
        None if prompts is None else torch.tensor([distinct[prompt] for prompt in prompts])
        for prompts in (asked.prompts, negative.prompts)
    )
    assert index is not None
    targets, unwanted_targets = (
        None if matrices is None else torch.from_numpy(as_two_channels(matrices))
        for matrices in (asked.targets, negative.targets)
    )
    told = torch.full_like(index, UNKNOWN if num_gates is None else num_gates) if tells_gates else None
    return Request(read_prompts(list(distinct)), index, targets, told, unwanted, unwanted_targets)


@dataclass(frozen=True, eq=False)
class Condition:
    """An encoded request, the input of the backbone.

    Attributes:
        tokens: Float [B, S, E].
        targets: float32 [B, 2, D, R], zeros where dropped; None for tasks without targets.
        num_gates: int64 [B]; see `Request`.
    """

    tokens: Tensor
    targets: Tensor | None = None
    num_gates: Tensor | None = None

    def __add__(self, other: Condition) -> Condition:
        """Concatenate the rows of two conditions."""
        pairs = [(self.targets, other.targets), (self.num_gates, other.num_gates)]
        joined = [None if one is None or two is None else torch.cat([one, two]) for one, two in pairs]
        return Condition(torch.cat([self.tokens, other.tokens]), *joined)
