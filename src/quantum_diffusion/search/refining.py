"""Search for circuits with angles: sampled circuits are refined, continued where they fall short, and shortened.

`search.exact` uses it for models of gates with angles, and the command `refine` for its last steps. The model chooses
the gates; angles come from `tasks.refinement`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import (
    NO_GATE,
    Angles,
    Ids,
    InstructionTable,
    gate_count,
    gates_first,
    instruction_table,
)
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.editing import Edit
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetSamples, TargetTask

Refine = Callable[..., tuple[Angles, NDArray[np.float64]]]
"""How a task refines angles; see `TargetTask.refine`."""

ROUND = 64
"""Circuits sampled for a round."""

_CONTINUATIONS = 3
"""How often a circuit that falls short is continued."""

_WORTH_CONTINUING = 0.5
"""Circuits of a larger infidelity are dropped."""

_TEMPERATURES = (1.0, 1.0, 1.5, 1.0, 2.0)
"""Temperatures of the rounds, in turn: hotter ones find unusual circuits."""

_SHORTENED = 8
"""Circuits of a round that are shortened, those with the fewest gates."""

_CLOSED_FORM_QUBITS = 2

_MOST_SHORTENED = 32
"""Gates of a closed form beyond which shortening it takes longer than it is worth."""

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
    """Rounds of a search for one target.

    Args:
        pipeline: A model of gates with angles.
        request: One row.
        options: Sampling options.
        edit: Constraints on the circuits.
        seed: Seed of the samples.
        most_gates: Maximum number of gates.
        accepted: Infidelity at which a circuit is good enough.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        request: Requests,
        options: SamplingConfig,
        edit: Edit,
        seed: int,
        most_gates: int,
        accepted: float,
    ) -> None:
        assert request.targets is not None
        assert isinstance(pipeline.task, TargetTask)
        self._refine: Refine = pipeline.task.refine
        self._pipeline = pipeline
        self._request = request
        self._target: Matrix = request.targets
        self._options = options
        self._edit = edit
        self._seed = seed
        self._most_gates = most_gates
        self._accepted = accepted
        self._sampled = 0

    def __call__(self, sizes: Iterator[int]) -> Iterator[tuple[list[Circuit], int]]:
        """Yield circuits of rounds of the given sizes, and the number of circuits sampled for them."""
        keeps = bool(self._edit.keep)
        for number, size in enumerate(itertools.takewhile(bool, sizes)):
            temperature = (self._options.temperature or 1.0) * _TEMPERATURES[number % len(_TEMPERATURES)]
            tries = self._sample(self._request.repeated(size), self._edit, temperature)
            yield self._circuits(tries), size
            can_continue = self._target.shape[1] == self._target.shape[2] and not keeps
            for _ in range(_CONTINUATIONS if can_continue else 0):
                tries = self._continued(tries, temperature)
                if not len(tries):
                    break
                yield self._circuits(tries), 0

    def _sample(self, requests: Requests, edit: Edit, temperature: float) -> Refined:
        options = self._options.model_copy(update={"temperature": temperature})
        samples = self._pipeline.sample(requests, self._seed, options, edit=edit, first_sample=self._sampled)
        self._sampled += len(requests)
        assert isinstance(samples, TargetSamples)
        assert samples.angles is not None
        return Refined(samples.ids, samples.angles, samples.infidelities)

    def _continued(self, tries: Refined, temperature: float) -> Refined:
        """Return circuits that fall short with more gates, from the model for what is left to do, refined as a whole.

        Where that does not bring them nearer to the target, or they become too long, they stay as they were.
        """
        begun = self._worth_continuing(tries)
        if not len(begun):
            return begun
        table = self._pipeline.table
        made = unitaries(begun.ids, table, begun.angles)
        requests = self._request.repeated(len(begun))
        requests = replace(requests, targets=self._target @ made.conj().swapaxes(1, 2))
        added = self._sample(requests, replace(self._edit, min_gates=1), temperature)
        ids = np.concatenate([begun.ids, added.ids], axis=1)
        angles = np.concatenate([begun.angles, added.angles], axis=1)
        ids, angles = merge_rotations(*gates_first(ids, angles), table)
        fits = gate_count(ids) <= self._most_gates
        steps = begun.ids.shape[1]
        ids, angles = np.where(fits[:, None], ids[:, :steps], begun.ids), angles[:, :steps]
        angles = np.where(fits[:, None, None], angles, begun.angles)
        angles, infidelities = self._refine(ids, angles, self._target, table)
        nearer = infidelities < begun.infidelities
        return Refined(
            np.where(nearer[:, None], ids, begun.ids),
            np.where(nearer[:, None, None], angles, begun.angles),
            np.where(nearer, infidelities, begun.infidelities),
        )

    def _worth_continuing(self, tries: Refined) -> Refined:
        """Return the circuits that fall short by little enough and may have more gates, each local minimum once."""
        near = (tries.infidelities >= self._accepted) & (tries.infidelities < _WORTH_CONTINUING)
        chosen = tries.take(near & (gate_count(tries.ids) < self._most_gates))
        minima = np.column_stack([self._pipeline.table.first[chosen.ids], np.rint(1e6 * chosen.infidelities)])
        return chosen.take(np.sort(np.unique(minima, axis=0, return_index=True)[1]))

    def _circuits(self, tries: Refined) -> list[Circuit]:
        """Return the good circuits, the shortest ones also shortened, and the best of the others."""
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
            few = shortened(chosen.take(rows), *goal, refine=self._refine)
            chosen = snapped(chosen.take(rows).joined(few), *goal, refine=self._refine).joined(chosen)
        return circuits_from_ids(chosen.ids, table, width * len(chosen), chosen.angles)


def shortened(
    circuits: Refined, target: Matrix, table: InstructionTable, accepted: float, *, refine: Refine = refine
) -> Refined:
    """Delete gates one at a time, each time refining the rest, while the circuits stay good enough.

    Args:
        circuits: N circuits below the accepted infidelity.
        target: complex128 [1, D, R].
        table: The instructions the ids number.
        accepted: Infidelity at which a circuit is good enough.
        refine: Refines angles; see `TargetTask.refine`.
    """
    ids, angles, infidelities = circuits.ids.copy(), circuits.angles.copy(), circuits.infidelities.copy()
    steps = np.arange(ids.shape[1])
    active = np.flatnonzero(gate_count(ids))
    while len(active):
        tried = np.repeat(ids[active], len(steps), axis=0)
        tried[np.arange(len(tried)), np.tile(steps, len(active))] = NO_GATE
        is_gate = (ids[active] != NO_GATE).ravel()
        found = np.repeat(angles[active], len(steps), axis=0)
        reached = np.ones(len(tried))
        found[is_gate], reached[is_gate] = refine(tried[is_gate], found[is_gate], target, table)
        best = reached.reshape(len(active), -1).argmin(axis=1) + np.arange(len(active)) * len(steps)
        kept = reached[best] < accepted
        active, best = active[kept], best[kept]
        ids[active], angles[active], infidelities[active] = tried[best], found[best], reached[best]
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
    for step, number in np.ndindex(angles.shape[1:]):
        for unit in _SNAPS:
            rows = np.flatnonzero((table.num_angles[ids[:, step]] > number) & ~fixed[:, step, number])
            if not len(rows):
                break
            tried, held = angles[rows], fixed[rows]
            tried[:, step, number] = np.rint(tried[:, step, number] / unit) * unit
            held[:, step, number] = True
            tried, reached = refine(ids[rows], tried, target, table, fixed=held, iterations=15)
            kept = reached < np.maximum(accepted / 10, infidelities[rows])
            rows = rows[kept]
            angles[rows], infidelities[rows], fixed[rows] = tried[kept], reached[kept], held[kept]
    if merge:
        ids, angles = merge_rotations(ids, angles, table)
    return Refined(ids, angles, infidelities)


def closed_form(task: TargetTask, target: Matrix, pool: GatePool, num_qubits: int, accepted: float) -> list[Circuit]:
    """Return Qiskit's circuit where a closed form is known to be good, and if it is not long, a shorter one.

    These are unitaries on one or two qubits (Euler angles, the KAK decomposition) and diagonal ones.

    Args:
        task: Task of the target.
        target: complex128 [d, ...].
        pool: The gates to use.
        num_qubits: Number of qubits of the target.
        accepted: Infidelity at which a circuit is good enough.
    """
    off_diagonal = np.abs(target - np.diag(np.diag(target))).max() if target.shape[0] == target.shape[-1] else 1.0
    if num_qubits > _CLOSED_FORM_QUBITS and off_diagonal > accepted:
        return []
    circuit = task.by_qiskit(target, pool.names)
    if circuit is None:
        return []
    table = instruction_table(pool, num_qubits)
    if len(circuit) > _MOST_SHORTENED:
        return [circuit]
    ids = ids_from_circuits([circuit], table, len(circuit))
    angles = angles_of_circuits([circuit], table, len(circuit))
    short = shortened(Refined(ids, angles, np.zeros(1)), target[None], table, accepted)
    short = snapped(short, target[None], table, accepted)
    return [circuit, *circuits_from_ids(short.ids, table, angles=short.angles)]
