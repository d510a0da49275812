"""Training steps as CUDA graphs, which launch a whole step with one call.

A step is hundreds of small kernels, and launching them one by one takes longer than running them. A graph is captured
for each batch shape and compared with an ordinary step before it is used.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quantum_diffusion.config.schema import LoopConfig
from quantum_diffusion.data.container import Batch
from quantum_diffusion.errors import first_line
from quantum_diffusion.pipeline.state import TrainingState
from quantum_diffusion.pipeline.step import LossModule, Steps, make_gradients
from quantum_diffusion.pipeline.team import Team

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Ordinary steps per shape before a graph is captured, so that everything created lazily exists by then."""
MOST_GRAPHS = 32
"""Maximum number of graphs, as each keeps the memory of its step; further batch shapes use ordinary steps."""
RESULT_TOLERANCE, WEIGHT_TOLERANCE = 1e-2, 1e-1
"""Largest relative differences of a graph's loss and gradient norm, and of its change of the weights, from the plain
step's. In 16 bits, sums in another order decide the sign of gradients near 0, which Adam makes as large as others."""


class Graph(Protocol):
    """Work on a device that is recorded once and replayed many times."""

    def capture(self, work: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
        """Record what a function does and return its result, memory that each replay overwrites."""

    def replay(self) -> None:
        """Do it."""


class CudaGraph:
    """A graph of torch; `manual_seed` of the generator before a replay decides its random numbers."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
        """Record what a function launches, without running it."""
        self._graph.register_generator_state(generator)
        # Threads that prepare batches may keep using the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            return work()

    def replay(self) -> None:
        """Launch all of it."""
        self._graph.replay()


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph of a step.

    Attributes:
        graph: The graph.
        batches: Where it reads its batches.
        values: Where it writes what `make_gradients` returns.
        kept: Other memory that it reads and that must not be freed.
    """

    graph: Graph
    batches: list[Batch]
    values: Tensor
    kept: Any


def make_steps(
    loss_of: nn.Module, state: TrainingState, settings: LoopConfig, team: Team, device: torch.device
) -> Steps:
    """Return the maker of a run's steps: graphs on CUDA if no step has to wait for the device, else ordinary steps."""
    asks = team.size > 1 or state.scaler.is_enabled() or settings.compile
    graphed = device.type == "cuda" and settings.cuda_graphs and not asks
    return (GraphedSteps if graphed else Steps)(loss_of, state, settings, team, device)


class GraphedSteps(Steps):
    """Makes steps as graphs for frequent batch shapes; as ordinary steps for rare ones or if graphs are impossible.

    Args:
        loss_of: A `LossModule`.
        state: The training state.
        settings: How to train.
        team: A team of this process only.
        device: Where to train.
        make_graph: Creates a graph.
    """

    def __init__(
        self,
        loss_of: nn.Module,
        state: TrainingState,
        settings: LoopConfig,
        team: Team,
        device: torch.device,
        make_graph: Callable[[], Graph] = CudaGraph,
    ) -> None:
        super().__init__(loss_of, state, settings, team, device)
        self._make_graph: Callable[[], Graph] | None = make_graph
        self._seen: Counter[Any] = Counter()
        self._captured: dict[Any, _Captured] = {}
        self._made_by_graph = False
        # Values that change from step to step, in memory that graphs read.
        self._rates = [torch.zeros((), device=device) for _ in self._groups()]
        self._weight = torch.zeros((), device=device)

    def make(self, batches: Sequence[Batch], seed: int, stop: bool) -> Tensor:
        """Compute the gradients of a step, and, in a graph, change the weights too; see `Steps.make`."""
        shapes = tuple(None if t is None else (t.shape, t.dtype) for batch in batches for t in batch.tensors)
        captured = self._captured.get(shapes)
        if captured is not None:
            for place, batch in zip(captured.batches, batches, strict=True):
                place.fill(batch)
            self._prepare(seed)
            captured.graph.replay()
            self._made_by_graph = True
            return captured.values.clone()
        self._seen[shapes] += 1
        if self._make_graph and self._seen[shapes] > WARM_UP and len(self._captured) < MOST_GRAPHS:
            values = self._capture(shapes, batches, seed)
            if values is not None:
                return values
        return super().make(batches, seed, stop)

    def finish(self, overflowed: bool) -> None:
        """Update the weights, unless a graph has done so; see `Steps.finish`."""
        if self._made_by_graph:
            self._made_by_graph = False
            self.state.count_step()
        else:
            super().finish(overflowed)

    # ------------------------------------------------------------------------------------------- capturing

    def _capture(self, shapes: Any, batches: Sequence[Batch], seed: int) -> Tensor | None:
        """Make a step ordinarily and again as a graph; returns None, with nothing changed, if they differ."""
        assert self._make_graph is not None
        places = [batch.to(self.device).clone() for batch in batches]
        before = [tensor.clone() for tensor in self._tensors()]
        self._prepare(seed)
        expected = self._work(places, capturing=False).clone()
        plainly = [tensor.clone() for tensor in self._tensors()]
        self._restore(before)
        try:
            graph = self._make_graph()
            values = graph.capture(lambda: self._work(places, capturing=True), self.generator)
            self._prepare(seed)
            graph.replay()
            why = _difference(values, expected, self._tensors(), plainly, before)
        except RuntimeError as problem:  # of CUDA, in many words
            why = first_line(problem)
        if why:
            self._make_graph = None
            self._restore(before)
            logger.warning("CUDA graphs are off, steps are launched kernel by kernel: %s", why)
            return None
        assert isinstance(self.loss_of, LossModule)
        self._captured[shapes] = _Captured(graph, places, values, self.loss_of.reads())
        self._made_by_graph = True
        return values.clone()

    def _work(self, batches: Sequence[Batch], *, capturing: bool) -> Tensor:
        """Do the part of a step that runs on the device."""
        state = self.state
        values = make_gradients(self.loss_of, state, batches, self.generator, self.settings, self.team, stop=False)
        with self._reading_rates(capturing):
            for optimizer in state.optimizers:
                optimizer.step()
        if state.average is not None:
            state.average.move(state.network, self._weight)
        return values

    def _prepare(self, seed: int) -> None:
        """Write the step's values to the memory that graphs read."""
        self.draw_from(seed)
        for place, group in zip(self._rates, self._groups(), strict=True):
            place.fill_(group["lr"])
        if self.state.average is not None:
            self._weight.fill_(self.state.average.weight)

    @contextmanager
    def _reading_rates(self, capturing: bool) -> Iterator[None]:
        """Make optimizers read their learning rates from device memory."""
        groups = self._groups()
        before = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = capturing and self.device.type == "cuda"
        try:
            yield
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.state.optimizers for group in optimizer.param_groups]

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes, the weights first."""
        state = self.state
        optimized = [value for one in state.optimizers for values in one.state.values() for value in values.values()]
        averaged = [] if state.average is None else list(state.average.module.state_dict().values())
        return [*state.network.state_dict().values(), *filter(torch.is_tensor, optimized), *averaged]

    @torch.no_grad()
    def _restore(self, before: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._tensors(), before, strict=True):
            tensor.copy_(value)


def _difference(
    values: Tensor, expected: Tensor, now: Sequence[Tensor], plainly: Sequence[Tensor], before: Sequence[Tensor]
) -> str | None:
    """Describe how a graph's step differs from the ordinary one; None if it does not."""
    if not torch.allclose(values, expected, rtol=RESULT_TOLERANCE, atol=1e-6, equal_nan=True):
        return f"a graph's loss and gradient norm were {values.tolist()}, not {expected.tolist()}"
    far = sum(float((one.double() - other.double()).square().sum()) for one, other in zip(now, plainly, strict=True))
    moved = sum(
        float((one.double() - other.double()).square().sum()) for one, other in zip(before, plainly, strict=True)
    )
    if far > WEIGHT_TOLERANCE**2 * moved:
        return f"a graph's weights went {far**0.5:.2g} away from where they should, a way of {moved**0.5:.2g}"
    return None
