"""Beam search: extends the most likely partial circuits gate by gate until nothing is left to do.

`search.exact` uses it. Partial circuits with the same remainder are merged, and the last few gates come from a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE, Ids, compact, gate_count
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.diffusion.guidance import guide_log_probabilities
from quantum_diffusion.diffusion.masked import end_is_surer
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.guided import Reader
from quantum_diffusion.search.bounds import Bound
from quantum_diffusion.search.completions import Completions, keys_of
from quantum_diffusion.tasks.samples import Requests

_TEMPERATURE = 1.5
"""Divisor of log-probabilities: models trained for long are sometimes overconfident of a wrong gate, which would
mislead the whole beam."""

_CANDIDATES = 4
"""Continuations considered, as a multiple of the width, to find that many with different remainders."""


@dataclass(frozen=True, eq=False)
class Level:
    """The results of a beam at one length of the partial circuits.

    Attributes:
        ids: int16 [M, T], complete circuits, still to be verified by simulation.
        looked_at: Number of partial circuits kept at this length.
    """

    ids: Ids
    looked_at: int


@torch.inference_mode()
def beam_search(
    pipeline: DiffusionPipeline,
    request: Requests,
    completions: Completions,
    options: SamplingConfig,
    *,
    width: int,
    bound: Bound,
    tolerance: float,
    beginning: Ids,
    noise: np.random.Generator | None = None,
) -> Iterator[Level]:
    """Extend partial circuits for one request gate by gate, keeping the best of each length.

    A partial circuit is a prefix. With `order=surer_end`, if the model supports it, it is a prefix and a suffix, and
    grows by the first or the last missing gate, whichever the model is more confident of.

    Args:
        pipeline: A masked model that is conditioned on what is left to do.
        request: One row.
        completions: The table for its target and instructions.
        options: Sampling options, of which guidance and order are used; the temperature is ignored.
        width: Number of partial circuits kept at each length.
        bound: What circuits may cost, looked up before each length.
        tolerance: Accepted infidelity; 0 means exact circuits only.
        beginning: int16 [n], instructions at the start of every circuit.
        noise: Source of Gumbel noise added to the log-likelihoods, which gives a random beam that prefers likely parts
            (Kool et al., arXiv 1903.06059). None keeps the most likely ones.

    Yields:
        One level per length, starting with that of `beginning`. Until a circuit is found, a level also holds the
        partial circuit that comes closer to the target than all before, if there is one.
    """
    device, steps, options = pipeline.device, pipeline.config.max_gates, pipeline.resolved(options)
    allowed = torch.from_numpy(request.allowed[0]).to(device)
    reader = pipeline.reader(request, options)
    parts = _Parts(*(torch.zeros(1, size, dtype=torch.int64, device=device) for size in (steps, 1)))
    from_ends = options.order == "surer_end" and bool(reader.can_end(allowed[None]))
    first = torch.zeros(1, dtype=torch.int64, device=device)
    for gate in torch.from_numpy(beginning).long().to(device):
        parts, reader = parts.continued(first, gate[None], first > 0), reader.continued(first, gate[None])
    score = torch.zeros(1, device=device)
    seen = keys = keys_of(reader.missing)
    closest = 2.0
    for length in range(len(beginning), steps + 1):
        if length > bound.most_gates():
            return
        ends = completions.find_near(reader.missing, tolerance) if tolerance else completions.find(keys)
        found = parts.joined(*ends, bound.most_gates())
        if len(found):
            closest = 0.0
        elif closest and len(parts):
            infidelity = completions.infidelities(reader.missing, 1)[:, 0]
            if infidelity.min() < closest:
                closest, nearest = float(infidelity.min()), np.array([int(infidelity.argmin())])
                found = parts.joined(nearest, np.zeros((1, 0), dtype=np.int16), steps)
        yield Level(found, len(parts))
        if length == steps or not len(parts):
            return
        likelihood, at_end = _log_probabilities(reader, parts, length, allowed, options, from_ends)
        affordable = torch.from_numpy(bound.affordable(parts.ids.cpu().numpy())).to(device)
        likelihood = (score[:, None] + likelihood).masked_fill(~affordable, -torch.inf)
        chances = likelihood
        if noise is not None:
            uniform = torch.from_numpy(noise.uniform(1e-9, 1, tuple(likelihood.shape))).to(likelihood)
            chances = likelihood - (-uniform.log()).log()
        _, place = chances.flatten().topk(min(_CANDIDATES * width, int(chances.isfinite().sum())))
        if not len(place):
            return
        parents, gates = place // chances.shape[1], place % chances.shape[1]
        longer = reader.continued(parents, gates, at_end[parents] if from_ends else None)
        keys = keys_of(longer.missing)
        kept = _new_and_different(keys, seen)[:width]
        keys, seen = keys[kept], np.union1d(seen, keys[kept])
        chosen = torch.from_numpy(kept).to(device)
        parents, gates = parents[chosen], gates[chosen]
        parts = parts.continued(parents, gates, at_end[parents])
        score, reader = likelihood.flatten()[place[chosen]], longer.take(chosen)


@dataclass(frozen=True, eq=False)
class _Parts:
    """W partial circuits: the first gates and the last gates of each.

    Attributes:
        ids: int64 [W, T], first gates at the start, last gates at the end, "no gate" in between.
        begun: int64 [W, 1], number of first gates.
    """

    ids: Tensor
    begun: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def continued(self, rows: Tensor, gates: Tensor, at_end: Tensor) -> _Parts:
        """Return rows int64 [M], each with one more gate, after its first gates or before its last ones."""
        ids, begun, at_end = self.ids[rows], self.begun[rows], at_end[:, None]
        num_last = (ids != NO_GATE).sum(dim=1, keepdim=True) - begun
        place = torch.where(at_end, ids.shape[1] - 1 - num_last, begun)
        return _Parts(ids.scatter(1, place, gates[:, None]), begun + ~at_end)

    def joined(self, rows: NDArray[np.int64], between: Ids, most_gates: int) -> Ids:
        """Insert the missing gates into some rows and return those with at most `most_gates`: int16 [M, T]."""
        ids, begun = self.ids.cpu().numpy()[rows].astype(np.int16), self.begun.cpu().numpy()[rows]
        steps = ids.shape[1]
        is_first = np.arange(steps) < begun
        first, last = np.where(is_first, ids, NO_GATE), np.where(is_first, NO_GATE, ids)
        whole = compact(np.concatenate([first, between, last], axis=1))
        short: NDArray[np.bool_] = gate_count(whole) <= most_gates
        return whole[short, :steps]


def _log_probabilities(
    reader: Reader, parts: _Parts, length: int, allowed: Tensor, options: SamplingConfig, from_ends: bool
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the next instruction, and whether it goes at the end.

    Args:
        reader: The model.
        parts: W partial circuits.
        length: Number of their gates.
        allowed: bool [V]; other instructions and "no gate" get -inf.
        options: Sampling options.
        from_ends: Whether the next gate may be the last missing one instead of the first.

    Returns:
        float32 [W, V]; and bool [W], whether the gate is the last missing one.
    """
    ids, steps = parts.ids, parts.ids.shape[1]
    numbers = torch.arange(steps, device=ids.device)
    known = (numbers < parts.begun) | (numbers >= steps - length + parts.begun)
    rank = torch.where(known, numbers, steps)
    if from_ends:
        logits, free = reader.at_ends(ids, rank)
    else:
        logits, free = reader(ids, rank, torch.full((len(ids), 1), length, device=ids.device))
    if free is not None:
        logits = guide_log_probabilities(logits, free, options.guidance_scale or 1.0)
    open_to = allowed.clone()
    open_to[NO_GATE] = False
    likely = (logits.masked_fill(~open_to, -torch.inf) / _TEMPERATURE).log_softmax(-1)  # [W, 1 or 2, V]
    at_end = end_is_surer(likely)
    return torch.where(at_end[:, None], likely[:, -1], likely[:, 0]), at_end


def _new_and_different(keys: Keys, seen: Keys) -> NDArray[np.int64]:
    """Return the positions of the first occurrence of each unseen key, in ascending order."""
    first = np.sort(np.unique(keys, return_index=True)[1])
    fresh: NDArray[np.int64] = first[~np.isin(keys[first], seen)]
    return fresh
