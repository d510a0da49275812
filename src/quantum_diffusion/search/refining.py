"""Search for circuits with angles: structures from beams and samples are refined, continued and shortened.

`search.exact` uses it for models of gates with angles, and the command `refine` for its last steps. The model chooses
the gates; angles come from `tasks.refinement`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Angles,
    Ids,
    InstructionTable,
    gate_count,
)
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit, EditPlan
from quantum_diffusion.search.bounds import Bound
from quantum_diffusion.search.structures import structure_beam
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetSamples, TargetTask

Refine = Callable[..., tuple[Angles, NDArray[np.float64]]]
"""How a task refines angles; see `TargetTask.refine`."""

Tried = tuple[list[Circuit], int]
"""Circuits worth verifying, and the number of circuits refined to find them."""

_CONTINUED = 8
"""Circuits that fall short continued after a beam, the nearest ones."""

_WORTH_CONTINUING = 0.5
"""Circuits of a larger infidelity are dropped."""

_NEARLY, _MOST_NEARLY, _ALMOST = 0.05, 2, 1e-3
"""Infidelity below which a circuit may lack but one turn, how many of them get one after a beam, and below which one
gets it at once: then a short circuit for a small angle is found before a long one."""

_SAME_MINIMUM = 7
"""Decimals of the infidelity by which local minima are told apart."""

_SHORTENED, _SNAPPED = 8, 4
"""Good circuits of a round that are shortened, and then those whose angles are rounded: the ones with fewest gates."""

_SNAPS = np.pi / np.array([1, 2, 4, 8, 16])
"""Angles are snapped to multiples of these, the largest first."""


@dataclass(frozen=True, eq=False)
class Refined:
    """Circuits with refined angles.

    Attributes:
        ids: int16 [N, T], gates at the front.
        angles: float64 [N, T, A].
        infidelities: float64 [N].
    """

    ids: Ids
    angles: Angles
    infidelities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Refined:
        """Return some of the circuits."""
        return Refined(self.ids[rows], self.angles[rows], self.infidelities[rows])

    def joined(self, other: Refined) -> Refined:
        """Return these circuits and others."""
        return Refined(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


class RefinedRounds:
    """Rounds of a search for one target: beams over structures and samples, each followed by what continues them.

    Args:
        pipeline: A model of gates with angles.
        request: One row.
        options: Sampling options.
        edit: Constraints on the circuits.
        plan: The same as arrays.
        seed: Seed of the samples.
        accepted: Infidelity at which a circuit is good enough.
        bound: What circuits may cost.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        request: Requests,
        options: SamplingConfig,
        edit: Edit,
        plan: EditPlan,
        seed: int,
        accepted: float,
        bound: Bound,
    ) -> None:
        assert request.targets is not None
        assert isinstance(pipeline.task, TargetTask)
        self._refine: Refine = pipeline.task.refine
        self._pipeline = pipeline
        self._request = request
        self._target: Matrix = request.targets
        self._options = options
        self._edit = edit
        self._open = replace(request, allowed=request.allowed & plan.allowed)
        self._seed = seed
        self._accepted = accepted
        self._bound = bound
        self._sampled = 0
        self._num_kept = len(plan.beginning)
        self._is_kept = (np.arange(len(plan.ids)) < self._num_kept)[:, None]
        self._beginning = Refined(
            np.where(self._is_kept[:, 0], plan.ids, NO_GATE)[None],
            np.where(self._is_kept, plan.angles, 0.0)[None],
            np.ones(1),
        )
        self._short = self._beginning.take(np.zeros(0, dtype=np.int64))
        self._seen = self._done = np.zeros(0)  # infidelities of circuits kept, and of those with one more turn

    def beam(self, width: int, noise: np.random.Generator | None = None) -> Iterator[Tried]:
        """Yield circuits from a beam over structures, those of one length at a time, then from one that continues them.

        Args:
            width: Number of partial circuits.
            noise: See `structure_beam`.
        """
        yield from self._grown(self._beginning, width, noise)
        yield from self._continued(width)

    def sample(self, count: int, temperature: float) -> Tried:
        """Return circuits from samples.

        Args:
            count: Number of samples.
            temperature: Factor of the temperature of the options.
        """
        options = self._options.model_copy(update={"temperature": (self._options.temperature or 1.0) * temperature})
        samples = self._pipeline.sample(
            self._request.repeated(count), self._seed, options, edit=self._edit, first_sample=self._sampled
        )
        self._sampled += count
        assert isinstance(samples, TargetSamples)
        assert samples.angles is not None
        return self._circuits(Refined(samples.ids, samples.angles, samples.infidelities))

    def _continued(self, width: int) -> Iterator[Tried]:
        """Yield circuits that continue the nearest ones that fell short, which may lack a gate anywhere.

        Those that lack little get one more turn, by any gate at any place; and a beam starts from the beginnings of
        all of them, with their exact angles.
        """
        for _ in range(_MOST_NEARLY):
            yield self._turned(_NEARLY)
        best = np.argsort(self._short.infidelities, kind="stable")[:_CONTINUED]
        begun = self._short.take(best)
        self._short = self._short.take(np.delete(np.arange(len(self._short)), best))
        steps = begun.ids.shape[1]
        lengths = np.arange(max(1, self._num_kept), steps + 1)
        kept = np.arange(steps) < lengths[:, None]  # [L, T]
        ids = np.where(kept, begun.ids[:, None], NO_GATE)  # [M, L, T]
        angles = np.where(kept[..., None], begun.angles[:, None], 0.0)
        rows = lengths <= gate_count(begun.ids)[:, None]
        if rows.any():
            yield from self._grown(Refined(ids[rows], angles[rows], np.ones(int(rows.sum()))), width)

    def _grown(self, starts: Refined, width: int, noise: np.random.Generator | None = None) -> Iterator[Tried]:
        """Yield the refined circuits of each level of a beam."""
        levels = structure_beam(
            self._pipeline,
            self._open,
            self._options,
            (starts.ids, starts.angles),
            width=width,
            bound=self._bound,
            noise=noise,
        )
        for ids, angles in levels:
            yield self._refined(ids, angles)
            yield self._turned(_ALMOST)

    def _turned(self, below: float) -> Tried:
        """Return circuits with one more turn than the nearest one below an infidelity that has not got one yet."""
        rows = np.flatnonzero((self._short.infidelities < below) & ~np.isin(self._short.infidelities, self._done))
        if not len(rows):
            return [], 0
        row = rows[self._short.infidelities[rows].argmin()]
        self._done = np.append(self._done, self._short.infidelities[row])
        return self._refined(*self._with_a_turn(self._short.ids[row], self._short.angles[row]))

    def _with_a_turn(self, ids: Ids, angles: Angles) -> tuple[Ids, Angles]:
        """Return a circuit, ids [T], with each gate that has angles, all 0, at each place, as far as it has room."""
        table, length = self._pipeline.table, int(np.count_nonzero(ids))
        if length >= self._bound.most_gates():
            return ids[None][:0], angles[None][:0]
        turns = (table.num_angles > 0) & ~table.angles.any(axis=1) & self._open.allowed[0]
        added = np.flatnonzero(turns).astype(np.int16)
        places = np.arange(self._num_kept, length + 1)
        # Row p of the order takes the steps before place p, the added gate (step T), and the others.
        order = np.stack([np.insert(np.arange(len(ids) - 1), place, len(ids)) for place in places])
        longer = np.concatenate([np.tile(ids, (len(added), 1)), added[:, None]], axis=1)[:, order]
        exact = np.concatenate([angles, np.zeros_like(angles[:1])])[order]
        return longer.reshape(-1, len(ids)), np.tile(exact, (len(added), 1, 1, 1)).reshape(-1, *angles.shape)

    def _refined(self, ids: Ids, angles: Angles) -> Tried:
        """Refine circuits and return the good ones; see `_circuits`."""
        fixed = np.broadcast_to(self._is_kept, angles.shape)
        return self._circuits(Refined(ids, *self._refine(ids, angles, self._target, self._pipeline.table, fixed=fixed)))

    def _circuits(self, tries: Refined) -> Tried:
        """Return the good circuits, the shortest ones also shortened, or else the best one."""
        if not len(tries):
            return [], 0
        self._keep(tries)
        good = tries.infidelities < self._accepted
        table = self._pipeline.table
        width = [int(self._request.num_qubits[0])]
        if not good.any():
            chosen = tries.take(np.array([int(tries.infidelities.argmin())]))
        elif self._edit.keep or self._edit.min_gates:
            chosen = tries.take(good)
        else:
            chosen = tries.take(good)
            rows = np.argsort(gate_count(chosen.ids), kind="stable")[:_SHORTENED]
            goal = self._target, table, self._accepted
            chosen = shortened(chosen.take(rows), *goal, refine=self._refine).joined(chosen)
            rows = np.argsort(gate_count(chosen.ids), kind="stable")[:_SNAPPED]
            chosen = snapped(chosen.take(rows), *goal, refine=self._refine).joined(chosen)
        return circuits_from_ids(chosen.ids, table, width * len(chosen), chosen.angles), len(tries)

    def _keep(self, tries: Refined) -> None:
        """Remember circuits that fall short by little enough to be continued, each local minimum once."""
        near = tries.take((tries.infidelities >= self._accepted) & (tries.infidelities < _WORTH_CONTINUING))
        minima, rows = np.unique(near.infidelities.round(_SAME_MINIMUM), return_index=True)
        is_new = ~np.isin(minima, self._seen)
        self._seen = np.concatenate([self._seen, minima[is_new]])
        self._short = self._short.joined(near.take(rows[is_new]))


def shortened(
    circuits: Refined,
    target: Matrix,
    table: InstructionTable,
    accepted: float,
    *,
    refine: Refine = refine,
    deadline: float | None = None,
) -> Refined:
    """Delete gates and refine the rest, while the circuits stay good enough without any one of their gates.

    Every gate is tried alone; of those that can go, as many as possible of 1, 2, 4, ... go at once, the best ones.

    Args:
        circuits: N circuits below the accepted infidelity.
        target: complex128 [1, D, R].
        table: The instructions the ids number.
        accepted: Infidelity at which a circuit is good enough.
        refine: Refines angles; see `TargetTask.refine`.
        deadline: When to stop, in seconds of `time.perf_counter`; None deletes all that can go.
    """
    ids, angles, infidelities = circuits.ids.copy(), circuits.angles.copy(), circuits.infidelities.copy()
    active = np.flatnonzero(gate_count(ids))
    while len(active) and (deadline is None or time.perf_counter() < deadline):
        whole = ids[active]
        row, step = np.nonzero(whole)  # each gate of each circuit
        tried = whole[row]
        tried[np.arange(len(row)), step] = NO_GATE
        alone = np.ones(whole.shape)
        alone[row, step] = refine(tried, angles[active[row]], target, table)[1]
        order, can_go = alone.argsort(axis=1), (alone < accepted).sum(axis=1)
        number, rows, shorter = 1, np.arange(len(active)), np.zeros(len(active), dtype=np.bool_)
        while len(rows := rows[can_go[rows] >= number]):
            tried = whole[rows]
            np.put_along_axis(tried, order[rows, :number], NO_GATE, axis=1)
            found, reached = refine(tried, angles[active[rows]], target, table)
            good = reached < accepted
            rows = rows[good]
            kept, shorter[rows] = active[rows], True
            ids[kept], angles[kept], infidelities[kept] = tried[good], found[good], reached[good]
            number *= 2
        active = active[shorter]
    ids, angles = merge_rotations(ids, angles, table)
    return Refined(ids, angles, infidelities)


def snapped(
    circuits: Refined,
    target: Matrix,
    table: InstructionTable,
    accepted: float,
    merge: bool = True,
    *,
    refine: Refine = refine,
) -> Refined:
    """Round angles to multiples of pi / 2^k one at a time, each time refining the others, while it costs nothing.

    Args:
        circuits: N circuits below the accepted infidelity.
        target: complex128 [1, D, R].
        table: The instructions the ids number.
        accepted: Infidelity at which a circuit is good enough.
        merge: Whether to drop gates whose angles have become zero, and merge those that can be.
        refine: Refines angles; see `TargetTask.refine`.
    """
    ids, angles, infidelities = circuits.ids, circuits.angles.copy(), circuits.infidelities.copy()
    fixed = np.zeros(angles.shape, dtype=np.bool_)
    units = len(_SNAPS)
    for step, number in np.ndindex(angles.shape[1:]):
        rows = np.flatnonzero(table.num_angles[ids[:, step]] > number)
        if not len(rows):
            continue
        several = np.repeat(rows, units)  # each circuit with the angle rounded to each unit
        tried, held = angles[several], fixed[several]
        unit = np.tile(_SNAPS, len(rows))
        tried[:, step, number] = np.rint(tried[:, step, number] / unit) * unit
        held[:, step, number] = True
        tried, reached = refine(ids[several], tried, target, table, fixed=held, iterations=15)
        is_good = (reached < np.maximum(accepted / 10, infidelities[several])).reshape(-1, units)
        largest = is_good.argmax(axis=1) + units * np.arange(len(rows))
        can = is_good.any(axis=1)
        rows, best = rows[can], largest[can]
        angles[rows], infidelities[rows], fixed[rows] = tried[best], reached[best], held[best]
    if merge:
        ids, angles = merge_rotations(ids, angles, table)
    return Refined(ids, angles, infidelities)
