"""The budget of a search, and the sampling loop that spends it.

Searches by label and by target share it; a beam search spends the same budget on partial circuits.
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
"""Maximum circuits per batch; for 8 qubits their unitaries take 256 MB, and the comparison with the target as much
again."""


@dataclass(frozen=True)
class Budget:
    """The limits of a search.

    Attributes:
        wanted: Number of distinct circuits to find.
        max_tries: Maximum number of circuits to sample, or width of a beam. Ignored by sampling with a deadline.
        deadline: End of the search, in seconds of `time.perf_counter`; until then it looks for cheaper circuits. None
            ends it as soon as it has found enough.
        stop_at_first: Whether the search ends as soon as it has found any circuit.
        give_up_at: When a search that has found nothing ends; None waits for the deadline.
    """

    wanted: int
    max_tries: int
    deadline: float | None = None
    stop_at_first: bool = False
    give_up_at: float | None = None

    @classmethod
    def from_now(
        cls,
        wanted: int,
        max_tries: int,
        max_seconds: float | None,
        stop_at_first: bool = False,
        give_up: float | None = None,
    ) -> Budget:
        """Return a budget whose time starts now; `give_up` is a share of `max_seconds`.

        Raises:
            ConfigError: `max_seconds` is not a positive, finite number.
        """
        if max_seconds is None:
            return cls(wanted, max_tries, stop_at_first=stop_at_first)
        check_number(max_seconds, "max_seconds")
        if not 0 < max_seconds < math.inf:
            raise ConfigError(f"max_seconds is {max_seconds}: give seconds, e.g. 10, or null for no limit")
        now = time.perf_counter()
        give_up_at = None if give_up is None else now + give_up * max_seconds
        return cls(wanted, max_tries, now + max_seconds, stop_at_first, give_up_at)

    @property
    def is_timed(self) -> bool:
        """Whether the search has a deadline."""
        return self.deadline is not None

    def is_spent(self, found: Sized) -> bool:
        """Tell whether the search should end, given the distinct circuits found."""
        if self.stop_at_first and len(found):
            return True
        if self.deadline is None:
            return len(found) >= self.wanted
        end = self.deadline if self.give_up_at is None or len(found) else self.give_up_at
        return time.perf_counter() > end

    def next_batch(self, found: Sized, sampled: int) -> int:
        """Return the size of the next batch; 0 ends the search.

        Args:
            found: Distinct circuits found so far.
            sampled: Number of circuits sampled so far.
        """
        # Double the samples each time, so that a search for rare circuits does not use small batches.
        missing = self.wanted if self.is_timed else self.wanted - len(found)
        count = min(max(2 * missing + 6, sampled), _MOST_AT_ONCE)
        return count if self.is_timed else min(count, self.max_tries - sampled)


def outcome_of_kept(pipeline: DiffusionPipeline, request: Requests, plan: EditPlan) -> str | None:
    """Describe the result of the fixed gates at the start of a request's circuits; None if there are none."""
    if not len(plan.beginning):
        return None
    target = None if request.targets is None else request.targets[0]
    angles = plan.angles[: len(plan.beginning)] if pipeline.gate_pool.num_angles else None
    return pipeline.task.outcome_of(plan.beginning, int(request.num_qubits[0]), target, pipeline.table, angles)


def sample_batches(
    pipeline: DiffusionPipeline,
    request: Requests,
    options: SamplingConfig,
    edit: Edit,
    seed: int,
    budget: Budget,
    found: Sized,
) -> Iterator[SampledCircuits]:
    """Sample for one request in growing batches until the budget's tries are used up.

    Args:
        pipeline: The model.
        request: One row.
        options: Sampling options.
        edit: Constraints on the circuits.
        seed: Seed of the samples.
        budget: Limits of the search.
        found: Distinct circuits found so far; the caller adds those of each batch.
    """
    sampled = 0
    while count := budget.next_batch(found, sampled):
        yield pipeline.sample(request.repeated(count), seed, options, edit=edit, first_sample=sampled)
        sampled += count
