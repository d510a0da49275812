"""Beam search: the likeliest beginnings of a circuit that leave different things to do, until one is the end.

Beginnings that leave the same are merged, whatever order their gates came in. How circuits end is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantum_diffusion.circuits.instructions import NO_GATE, Ids
from quantum_diffusion.circuits.keys import Keys
from quantum_diffusion.config.schema import SamplingConfig
from quantum_diffusion.diffusion.guidance import guide_log_probabilities
from quantum_diffusion.pipeline.diffusion import DiffusionPipeline
from quantum_diffusion.pipeline.guided import Reader
from quantum_diffusion.search.completions import Completions, keys_of
from quantum_diffusion.tasks.samples import Requests

_CANDIDATES = 4
"""Times the width, how many continuations are looked at for so many that leave different things to do."""


@dataclass(frozen=True, eq=False)
class Level:
    """What a beam found with beginnings of one length.

    Attributes:
        ids: int16 [M, T], whole circuits, which simulation has still to confirm.
        looked_at: Beginnings that were kept at this length.
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
    most_gates: Callable[[], int],
    tolerance: float,
    beginning: Ids,
    noise: np.random.Generator | None = None,
) -> Iterator[Level]:
    """Write circuits for one request gate by gate, all beginnings of a length at a time.

    Args:
        pipeline: A masked model whose steps are shown what is left to do.
        request: One row.
        completions: Of its target and its instructions.
        options: How to sample; of them the guidance counts.
        width: Beginnings that are kept of each length.
        most_gates: Returns the most gates that a circuit may have; asked before each length.
        tolerance: Infidelity up to which a circuit counts; 0 wants exact ones.
        beginning: int16 [n], the instructions that every circuit begins with.
        noise: Adds Gumbel noise to the likelihoods: other beginnings each time, the likely ones most often (Kool et
            al., arXiv 1903.06059). None keeps the likeliest.

    Yields:
        One level a length, from that of `beginning` on. As long as no circuit has been found, a level that comes closer
        to the target than those before has the beginning that does.
    """
    device, steps, options = pipeline.device, pipeline.config.max_gates, pipeline.resolved(options)
    allowed = torch.from_numpy(request.allowed[0]).to(device)
    reader = pipeline.reader(request, options)
    ids = torch.zeros(1, steps, dtype=torch.int64, device=device)
    for step, gate in enumerate(torch.from_numpy(beginning).long().to(device)):
        ids[0, step] = gate
        reader = reader.continued(torch.zeros(1, dtype=torch.int64, device=device), gate[None])
    score = torch.zeros(1, device=device)
    seen = keys = keys_of(reader.missing)
    closest = 2.0
    for length in range(len(beginning), steps + 1):
        if length > most_gates():
            return
        ends = completions.find_near(reader.missing, tolerance) if tolerance else completions.find(keys)
        found = _joined(ids, length, *ends, most_gates())
        if len(found):
            closest = 0.0
        elif closest and len(ids):
            infidelity = completions.infidelities(reader.missing, 1)[:, 0]
            if infidelity.min() < closest:
                closest, found = float(infidelity.min()), ids[[int(infidelity.argmin())]].cpu().numpy().astype(np.int16)
        yield Level(found, len(ids))
        if length == steps or not len(ids):
            return
        likelihood = score[:, None] + _log_probabilities(reader, ids, length, allowed, options)
        chances = likelihood
        if noise is not None:
            uniform = torch.from_numpy(noise.uniform(1e-9, 1, tuple(likelihood.shape))).to(likelihood)
            chances = likelihood - (-uniform.log()).log()
        _, place = chances.flatten().topk(min(_CANDIDATES * width, int(chances.isfinite().sum())))
        parents, gates = place // chances.shape[1], place % chances.shape[1]
        longer = reader.continued(parents, gates)
        keys = keys_of(longer.missing)
        kept = _new_and_different(keys, seen)[:width]
        keys, seen = keys[kept], np.union1d(seen, keys[kept])
        chosen = torch.from_numpy(kept).to(device)
        ids = ids[parents[chosen]].scatter(1, torch.full((len(kept), 1), length, device=device), gates[chosen, None])
        score, reader = likelihood.flatten()[place[chosen]], longer.take(chosen)


def _log_probabilities(reader: Reader, ids: Tensor, length: int, allowed: Tensor, options: SamplingConfig) -> Tensor:
    """Return how likely each instruction is next, [W, V]; "no gate" never is, nor what is not allowed."""
    steps = torch.arange(ids.shape[1], device=ids.device)
    rank = torch.where(steps < length, steps, ids.shape[1]).expand(len(ids), -1)
    wanted = torch.full((len(ids), 1), length, device=ids.device)
    logits, free = reader(ids, rank, wanted)
    if free is not None:
        logits = guide_log_probabilities(logits, free, options.guidance_scale or 1.0)
    open_to = allowed.clone()
    open_to[NO_GATE] = False
    return logits[:, 0].masked_fill(~open_to, -torch.inf).log_softmax(-1)


def _joined(ids: Tensor, length: int, rows: NDArray[np.int64], ends: Ids, most_gates: int) -> Ids:
    """Return some beginnings, each with its end, where they have at most so many gates together: int16 [M, T]."""
    whole = np.zeros((len(rows), ids.shape[1] + ends.shape[1]), dtype=np.int16)
    whole[:, : ids.shape[1]] = ids.cpu().numpy()[rows]
    whole[:, length : length + ends.shape[1]] = ends
    short: NDArray[np.bool_] = (whole != NO_GATE).sum(axis=1) <= most_gates
    return whole[short, : ids.shape[1]]


def _new_and_different(keys: Keys, seen: Keys) -> NDArray[np.int64]:
    """Return where each key that was not seen comes first, in the order of the keys."""
    first = np.sort(np.unique(keys, return_index=True)[1])
    fresh: NDArray[np.int64] = first[~np.isin(keys[first], seen)]
    return fresh
