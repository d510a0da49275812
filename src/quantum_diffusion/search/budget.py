"""What a search may spend, the samples that it draws until it is spent, and what it was given to begin with.

Searches by label and by target share it; a beam spends the same budget on beginnings of circuits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass

from quantum_diffusion.arguments import check_number
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, EditPlan
from quantum_diffusion.tasks.samples import Requests, SampledCircuits

_MOST_AT_ONCE = 256
"""Circuits sampled before the search looks again whether it has enough; of 8 qubits their unitaries take 256 MB,
and their comparison with the target a conjugated copy as large."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Attributes:
        wanted: Distinct circuits to find.
        max_tries: Most circuits to sample, or beginnings that a beam keeps of one length. A search with a deadline
            samples on.
        deadline: When the search ends, by `time.perf_counter`; until then it goes on for cheaper circuits. None ends
            it when it has found enough.
    """

    wanted: int
    max_tries: int
    deadline: float | None = None

    @classmethod
    def from_now(cls, wanted: int, max_tries: int, max_seconds: float | None) -> Budget:
        """Return a budget whose seconds begin to count.

        Raises:
            ConfigError: There are no seconds to spend.
        """
        if max_seconds is None:
            return cls(wanted, max_tries)
        check_number(max_seconds, "max_seconds")
        if not 0 < max_seconds < math.inf:
            raise ConfigError(f"max_seconds is {max_seconds}: give seconds, e.g. 10, or null for no limit")
        return cls(wanted, max_tries, time.perf_counter() + max_seconds)

    @property
    def is_timed(self) -> bool:
        """Whether the search goes on until a deadline."""
        return self.deadline is not None

    def is_spent(self, found: Sized) -> bool:
        """Tell whether to end a search that has found so many distinct circuits."""
        return len(found) >= self.wanted if self.deadline is None else time.perf_counter() > self.deadline

    def next_batch(self, found: Sized, sampled: int) -> int:
        """Return how many circuits to sample before looking again whether they are enough; 0 ends the search.

        Args:
            found: Distinct circuits found so far.
            sampled: Circuits sampled so far.
        """
        # As many again as before, so that rare circuits are not looked for in small batches.
        missing = self.wanted if self.is_timed else self.wanted - len(found)
        count = min(max(2 * missing + 6, sampled), _MOST_AT_ONCE)
        return count if self.is_timed else min(count, self.max_tries - sampled)


def outcome_of_kept(pipeline: DiffusionPipeline, request: Requests, plan: EditPlan) -> str | None:
    """Say what the kept gates at the beginning do of a request, one row; None where none are kept there."""
    if not len(plan.beginning):
        return None
    target = None if request.targets is None else request.targets[0]
    return pipeline.task.outcome_of(plan.beginning, int(request.num_qubits[0]), target, pipeline.table)


def sample_batches(
    pipeline: DiffusionPipeline,
    request: Requests,
    options: SamplingConfig,
    edit: Edit,
    seed: int,
    budget: Budget,
    found: Sized,
) -> Iterator[SampledCircuits]:
    """Sample for one request, in batches that grow, until the budget's tries are spent.

    Args:
        pipeline: The model.
        request: One row.
        options: How to sample.
        edit: What sampling may not choose freely.
        seed: Seed of the samples.
        budget: How many.
        found: Distinct circuits found; the caller adds those of each batch.
    """
    sampled = 0
    while count := budget.next_batch(found, sampled):
        yield pipeline.sample(request.repeated(count), seed, options, edit=edit, first_sample=sampled)
        sampled += count
