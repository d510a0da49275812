"""Beam search for circuits with angles: keeps the most likely structures, each with its likeliest coarse angles.

`search.refining` uses it and refines the partial circuits that come near the target.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE, Angles, Ids, InstructionTable, gate_count
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.circuits.matrices import from_two_channels, infidelities
from quantum_diffusion.circuits.normal_form import normal_form
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.diffusion.guidance import guide_log_probabilities
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.guided import Reader
from quantum_diffusion.search.bounds import Bound
from quantum_diffusion.search.completions import keys_of
from quantum_diffusion.tasks.samples import Requests
from quantum_diffusion.tasks.targets import TargetTask

_TEMPERATURE = 1.5
"""Divisor of log-probabilities; as in `search.beam`, sharp ones let the whole beam follow one wrong gate."""

_CANDIDATES = 8
"""Continuations considered, as a multiple of the width, to find that many different structures."""

_PROMISING = 0.4
"""Partial circuits below this infidelity are worth refining: those with all gates but coarse angles are below 0.1."""

_MOST_PROMISING = 32
"""Maximum circuits of a level to refine, the nearest ones."""


@torch.inference_mode()
def structure_beam(
    pipeline: DiffusionPipeline,
    request: Requests,
    options: SamplingConfig,
    starts: tuple[Ids, Angles],
    *,
    width: int,
    bound: Bound,
    noise: np.random.Generator | None = None,
) -> Iterator[tuple[Ids, Angles]]:
    """Extend partial circuits for one request gate by gate, keeping the likeliest structures.

    A structure's angles are where the model's distribution over them has a maximum, on its grid; circuits that differ
    only in angles or in the order of gates on different qubits count as one.

    Args:
        pipeline: A masked model of gates with angles that is conditioned on what is left to do.
        request: One row.
        options: Sampling options, of which guidance is used.
        starts: Circuits to extend, ids int16 [N, T] with gates at the front, and their angles float64 [N, T, A], which
            may be off the grid; several are taken for circuits that were looked at before.
        width: Number of partial circuits kept.
        bound: What circuits may cost, looked up before each gate.
        noise: Source of Gumbel noise, as in `search.beam.beam_search`; None keeps the likeliest.

    Yields:
        Ids [M, T] and angles [M, T, A] of the circuits that come near the target, after each gate; or while there are
        none, of those that come nearer than all before.
    """
    assert request.targets is not None
    table, device = pipeline.table, pipeline.device
    task = pipeline.task
    assert isinstance(task, TargetTask)
    done = task.completing(np.eye(2**table.num_qubits, dtype=np.complex128)[None], request.targets[0])
    allowed = torch.from_numpy(request.allowed[0]).to(device)
    allowed[NO_GATE] = False
    peaks = _Peaks(table, device)
    ids, angles = starts
    lengths = gate_count(ids)
    made = torch.from_numpy(unitaries(ids, table, angles).astype(np.complex64)).to(device)
    reader = pipeline.reader(request, options).begun(made, torch.from_numpy(lengths).to(device))
    score = torch.zeros(len(ids), device=device)
    seen = keys_of(reader.missing)
    reluctance = torch.from_numpy(bound.reluctance).to(score)
    turns_by_nothing = (table.num_angles > 0) & ~table.angles.any(axis=1)
    is_new, closest = len(ids) == 1, 2.0
    while True:
        if is_new:  # those to continue are known already
            near = infidelities(from_two_channels(reader.missing.cpu().numpy()), done)
            best = np.argsort(near, kind="stable")[:_MOST_PROMISING]
            best = best[near[best] < max(_PROMISING, closest)]
            closest = float(near[best].min(initial=closest))
            yield ids[best], angles[best]
        is_new = True
        guidance = pipeline.resolved(options).guidance_scale or 1.0
        likelihood = score[:, None] + _log_probabilities(reader, ids, lengths, allowed, peaks, guidance)
        likelihood = likelihood - reluctance
        can_grow = bound.affordable(ids) & (lengths < bound.most_gates())[:, None]
        likelihood = likelihood.masked_fill(~torch.from_numpy(can_grow).to(device), -torch.inf)
        chances = likelihood
        if noise is not None:
            chances = likelihood + torch.from_numpy(noise.gumbel(size=tuple(likelihood.shape))).to(likelihood)
        _, place = chances.flatten().topk(min(_CANDIDATES * width, int(chances.isfinite().sum())))
        if not len(place):
            return
        parents, gates = place // chances.shape[1], place % chances.shape[1]
        ids, angles, lengths = _longer(ids, angles, lengths, parents, gates, table)
        different = _different(ids, table)[: 2 * width]
        chosen = torch.from_numpy(different).to(device)
        longer = reader.continued(parents[chosen], gates[chosen])
        keys = keys_of(longer.missing)
        kept = _leaving_different(keys, seen, turns_by_nothing[gates[chosen].cpu().numpy()])[:width]
        if not len(kept):
            return
        seen = np.union1d(seen, keys[kept])
        rows = torch.from_numpy(kept).to(device)
        score, reader = likelihood.flatten()[place[chosen[rows]]], longer.take(rows)
        kept = different[kept]
        ids, angles, lengths = ids[kept], angles[kept], lengths[kept]


def _log_probabilities(
    reader: Reader, ids: Ids, lengths: NDArray[np.int64], allowed: Tensor, peaks: _Peaks, guidance: float
) -> Tensor:
    """Return the log-probabilities of the next gate with its likeliest angles, float32 [W, V]; -inf elsewhere."""
    steps = torch.arange(ids.shape[1], device=allowed.device)
    counts = torch.from_numpy(lengths).to(allowed.device)[:, None]
    rank = torch.where(steps < counts, steps, len(steps))
    place = counts.clamp(max=len(steps) - 1)
    logits, free = reader(torch.from_numpy(ids).long().to(allowed.device), rank, place)
    if free is not None:
        logits = guide_log_probabilities(logits, free, guidance)
    likely = (logits[:, 0].masked_fill(~allowed, -torch.inf) / _TEMPERATURE).softmax(-1)
    return peaks(likely).masked_fill(~allowed, 0.0).log()


def _longer(
    ids: Ids,
    angles: Angles,
    lengths: NDArray[np.int64],
    parents: Tensor,
    gates: Tensor,
    table: InstructionTable,
) -> tuple[Ids, Angles, NDArray[np.int64]]:
    """Return rows `parents` of circuits, each with one more instruction of the grid."""
    rows, added = parents.cpu().numpy(), gates.cpu().numpy().astype(np.int16)
    ids, angles, lengths = ids[rows], angles[rows], lengths[rows]
    circuits = np.arange(len(rows))
    ids[circuits, lengths], angles[circuits, lengths] = added, table.angles[added]
    return ids, angles, lengths + 1


def _different(ids: Ids, table: InstructionTable) -> NDArray[np.int64]:
    """Return the positions of the first circuit of each structure, in ascending order."""
    structures = normal_form(table.first[ids], table)
    return np.sort(np.unique(structures, axis=0, return_index=True)[1])


def _leaving_different(keys: Keys, seen: Keys, is_idle: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the positions of the first circuit for each unseen key of a remainder, in ascending order.

    Circuits whose last gate turns by nothing leave what the one before it leaves, but are kept: refinement may find a
    small angle.
    """
    turning = np.flatnonzero(~is_idle)
    first = turning[np.unique(keys[turning], return_index=True)[1]]
    kept: NDArray[np.int64] = np.sort(np.concatenate([np.flatnonzero(is_idle), first[~np.isin(keys[first], seen)]]))
    return kept


class _Peaks:
    """Turns probabilities of instructions into those of gates at the maxima over their angle.

    A gate's probability near an angle is that of three neighbours on the grid. Gates with several angles stay as they
    are.

    Args:
        table: The model's instructions.
        device: Where to compute.
    """

    def __init__(self, table: InstructionTable, device: torch.device) -> None:
        number = np.arange(len(table) + 1)
        turns = table.num_angles == 1
        first, steps = table.first.astype(np.int64), table.num_steps
        after, before = (np.where(turns, first + (number - first + by) % steps, number) for by in (1, -1))
        self._turns, self._after, self._before = (torch.from_numpy(x).to(device) for x in (turns, after, before))

    def __call__(self, likely: Tensor) -> Tensor:
        """Probabilities [W, V] => [W, V], zero where there is no maximum."""
        near = torch.where(self._turns, likely + likely[:, self._after] + likely[:, self._before], likely)
        smooth = near + likely  # the sums of three alone are flat around a sharp maximum
        is_peak = ~self._turns | ((smooth >= smooth[:, self._after]) & (smooth > smooth[:, self._before]))
        return near * is_peak
