"""Sampling in several processes, on this machine or a Ray cluster, with the engines of data generation.

A sample depends only on the seed and its index, so any number of workers draws the same circuits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch

from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.data.engines import num_workers, run_in_order
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.tasks.samples import Requests, SampledCircuits, joined


class Sampler(Protocol):
    """A sampler; `DiffusionPipeline` is one."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def to(self, device: torch.device) -> Self:
        """Move the weights."""

    def sample(
        self, requests: Requests, seed: int, options: SamplingConfig, *, edit: Edit | None, first_sample: int
    ) -> SampledCircuits:
        """Sample and verify one circuit per request."""


@dataclass(frozen=True)
class _Part:
    """Requests for one worker, and the index of the first."""

    number: int
    first_sample: int
    requests: Requests


@dataclass(frozen=True)
class _Work:
    """The callable sent to workers: it samples one part."""

    sampler: Sampler
    device_type: str
    seed: int
    options: SamplingConfig
    edit: Edit | None

    def __call__(self, part: _Part) -> SampledCircuits:
        self.sampler.to(_device_of_worker(self.device_type, part.number))
        return self.sampler.sample(
            part.requests, self.seed, self.options, first_sample=part.first_sample, edit=self.edit
        )


def sample_on_workers(
    sampler: Sampler,
    requests: Requests,
    seed: int,
    options: SamplingConfig,
    edit: Edit | None,
    first_sample: int,
    progress: Callable[[int, int], None] | None,
) -> SampledCircuits:
    """Sample and verify one circuit per request on `options.n_jobs` workers of `options.engine`.

    On CUDA, workers are spread over the devices of their computer.

    Args:
        sampler: The pipeline; each worker gets a copy.
        requests: The requests.
        seed: Seed of the run.
        options: How to sample.
        edit: Constraints on the circuits.
        first_sample: Index of the first sample.
        progress: Called with (circuits so far, circuits wanted).

    Raises:
        ConfigError: The engine is unavailable, or `sampler.sample` raised it.
    """
    workers = num_workers(options.engine, options.n_jobs)
    device = sampler.device
    sent = sampler if device.type == "cpu" else copy.deepcopy(sampler).to(torch.device("cpu"))
    work = _Work(sent, device.type, seed, options.model_copy(update={"n_jobs": 1, "engine": "local"}), edit)
    rounds = -(-len(requests) // (workers * options.auto_batch_size))
    shares = [rows for rows in np.array_split(np.arange(len(requests)), workers * rounds) if len(rows)]
    parts = (_Part(number, first_sample + int(rows[0]), requests.take(rows)) for number, rows in enumerate(shares))
    samples: list[SampledCircuits] = []
    with closing(run_in_order(options.engine, min(workers, len(shares)), work, parts)) as made:
        for part in made:
            samples.append(part)
            if progress:
                progress(sum(map(len, samples)), len(requests))
    return joined(samples)


def _device_of_worker(device_type: str, number: int) -> torch.device:
    if device_type == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", number % torch.cuda.device_count())
    return torch.device("cpu" if device_type == "cuda" else device_type)
