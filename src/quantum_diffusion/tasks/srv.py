"""The task of Schmidt rank vectors: circuits that entangle exactly the qubits asked for, starting from |0...0>.

The prompt says everything; the label of a circuit is the vector of the state it makes, found exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, compact, gate_count
from quantum_diffusion.circuits.labels import SchmidtRanks, schmidt_rank_vectors
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.base import LabelledCircuits, Labels, Task, on_qubits
from quantum_diffusion.tasks.candidates import (
    CANDIDATES,
    bits,
    draw_circuits,
    generation_table,
    in_pool,
    random_subsets,
)
from quantum_diffusion.tasks.samples import Requests, SampledCircuits
from quantum_diffusion.tasks.state import without_returns

_AMPLITUDES = 2**24
"""Beyond 10 qubits, shards that are labelled by state vector have fewer candidates, so that each stays short."""


_AMPLITUDE_QUBITS = 12
"""Most qubits of circuits that are simplified by the states that they pass through."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SrvSamples(SampledCircuits):
    """Circuits sampled for Schmidt rank vectors, with the true ones found by simulation.

    Attributes:
        labels: The Schmidt rank vector in each prompt.
        ranks: int8 [N, Q], the true Schmidt rank vector; 0 for invalid samples and on qubits a sample was not asked
            to have.
        wanted: int8 [N, Q], `labels` as an array; 0 on qubits a sample was not asked to have.
    """

    labels: tuple[tuple[int, ...], ...]
    ranks: SchmidtRanks
    wanted: SchmidtRanks

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Valid circuits with exactly the Schmidt rank vector asked for, bool [N]; see `exact_matches`."""
        return exact_matches(self.ids, self.ranks, self.wanted)

    def outcome(self, row: int) -> str:
        """Say in a few words what was asked for and what came."""
        asked = list(self.labels[row])
        got = self.ranks[row, : len(asked)].tolist() if self.report.valid[row] else self.report.reasons[row]
        return f"asked {asked}: got {got}"


def exact_matches(ids: Ids, ranks: SchmidtRanks, wanted: SchmidtRanks) -> NDArray[np.bool_]:
    """Tell which circuits have exactly the Schmidt rank vector asked for, bool [N].

    An empty circuit never does: it has [1, 1, ...] without a model having made anything.

    Args:
        ids: int16 [N, T].
        ranks: int8 [N, Q], found by simulation; 0 for invalid samples, so that they never match.
        wanted: int8 [N, Q], asked for.
    """
    exact: NDArray[np.bool_] = (gate_count(ids) > 0) & (ranks == wanted).all(axis=1)
    return exact


class SrvTask(Task):
    """Circuits of given Schmidt rank vectors; bit q of a label says that qubit q is entangled."""

    name = "SRV"
    asked = "Schmidt rank vectors"
    command = "sample"
    labels_prefixes = True
    step_encoder = "prefix_encoder"

    def num_candidates(self, config: DatasetConfig) -> int:
        """Return how many random circuits a shard draws."""
        if generation_table(config).pool.is_clifford:
            return CANDIDATES
        return min(CANDIDATES, max(1, _AMPLITUDES >> config.num_qubits))

    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> tuple[Ids, Labels]:
        """Draw, simplify and label one shard of candidates; see `Task.draw`."""
        table, count = generation_table(config), self.num_candidates(config)
        aim = None
        if config.sampling == "stratified":
            sizes = rng.choice(config.num_qubits + 1, count, p=_aims(config))
            aim = random_subsets(rng, config.num_qubits, sizes)
        drawn = draw_circuits(config, rng, table, count, aim)
        labels = ((schmidt_rank_vectors(drawn, table) == 2) @ bits(config.num_qubits)).astype(np.uint32)
        return in_pool(table, GatePool(config.gate_set))[drawn], labels

    def simplify(self, ids: Ids, table: InstructionTable) -> Ids:
        """Return circuits that make the same states with fewer gates, so that their vectors are the same.

        Of more than 12 qubits, whose amplitudes would take long, circuits keep their unitaries, too.
        """
        simplified = super().simplify(ids, table)
        if table.num_qubits > _AMPLITUDE_QUBITS:
            return simplified
        return super().simplify(without_returns(simplified, table), table)

    def label_prompt(self, label: int, config: DatasetConfig) -> str:
        """Return the prompt of a label, as genQC writes it.

        Example:
            >>> SrvTask().label_prompt(0b110, DatasetConfig())
            'Generate SRV: [1, 2, 2]'
        """
        return srv_prompt([1 + (label >> qubit & 1) for qubit in range(config.num_qubits)])

    def check_prompt(self, prompt: str, pool: GatePool, num_qubits: int) -> None:
        """Refuse a prompt without a Schmidt rank vector of at most so many qubits; see `Task.check_prompt`."""
        parse_srv_prompt(prompt, num_qubits)

    def requests(self, prompts: Sequence[str], targets: Sequence[Any] | None, table: InstructionTable) -> Requests:
        """Read Schmidt rank vectors from prompts such as "Generate SRV: [1, 2, 2]"; see `Task.requests`."""
        if targets is not None:
            raise ConfigError("this model answers Schmidt rank vectors, which prompts say alone: give no targets")
        labels = [parse_srv_prompt(prompt, table.num_qubits) for prompt in prompts]
        num_qubits = np.array([len(label) for label in labels], dtype=np.int64)
        # Whatever spaces the prompts had.
        return Requests(tuple(map(srv_prompt, labels)), num_qubits, on_qubits(num_qubits, table))

    def validation_requests(
        self, count: int, prompts: Sequence[str], known: Callable[[int], LabelledCircuits], table: InstructionTable
    ) -> Requests:
        """Ask for every prompt equally often; see `Task.validation_requests`."""
        return self.requests([prompts[number % len(prompts)] for number in range(count)], None, table)

    def verify(self, requests: Requests, report: DecodeReport, table: InstructionTable) -> SrvSamples:
        """Simulate samples and compare them with the Schmidt rank vectors asked for; see `Task.verify`."""
        labels = tuple(parse_srv_prompt(prompt, table.num_qubits) for prompt in requests.prompts)
        ids = compact(report.ids)
        ranks = schmidt_rank_vectors(ids, table)
        wanted = np.zeros_like(ranks)
        for row, label in enumerate(labels):
            wanted[row, : len(label)] = label
        ranks[~report.valid] = 0
        ranks[np.arange(ranks.shape[1]) >= requests.num_qubits[:, None]] = 0
        return SrvSamples(
            prompts=requests.prompts,
            report=report,
            ids=ids,
            num_qubits=requests.num_qubits,
            table=table,
            labels=labels,
            ranks=ranks,
            wanted=wanted,
        )

    def outcome_of(self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable) -> str:
        """Name the Schmidt rank vector of a circuit; see `Task.outcome_of`."""
        ranks = schmidt_rank_vectors(ids[None], table)[0, :num_qubits].tolist()
        return f"have the Schmidt rank vector {ranks}"


@lru_cache(maxsize=8)
def _aims(config: DatasetConfig) -> NDArray[np.float64]:
    """Return how often gates should be kept to a set of k qubits, [Q+1], so that all labels come as often as possible.

    Circuits kept to k qubits often entangle fewer. A pilot tells how often; the weights then minimise the
    Kullback-Leibler divergence between the labels wanted (all alike) and those that come, by expectation maximisation
    over the mixture.
    """
    num_qubits = config.num_qubits
    if num_qubits == 1:
        return np.array([1.0, 0.0])
    rng = numpy_generator(config.seed, "pilot")
    table = generation_table(config)
    sizes = rng.integers(2, num_qubits + 1, SrvTask().num_candidates(config))
    ids = draw_circuits(config, rng, table, len(sizes), random_subsets(rng, num_qubits, sizes))
    kept = gate_count(ids) >= config.min_gates
    entangled = (schmidt_rank_vectors(ids, table) == 2).sum(axis=1)
    came = np.zeros((num_qubits + 1, num_qubits + 1))
    np.add.at(came, (sizes[kept], entangled[kept]), 1)
    came /= np.maximum(np.bincount(sizes, minlength=num_qubits + 1)[:, None], 1)  # [aimed at, entangled]
    wanted = np.array([math.comb(num_qubits, k) * (k != 1) for k in range(num_qubits + 1)], dtype=float)
    wanted *= came.sum(axis=0) > 0
    wanted /= max(wanted.sum(), 1)
    weights = np.zeros(num_qubits + 1)
    weights[2:] = 1 / (num_qubits - 1)
    for _ in range(200):
        expected = weights @ came
        weights *= came @ np.divide(wanted, expected, out=np.zeros_like(wanted), where=expected > 0)
        weights /= weights.sum() or 1
    if not weights.sum():  # no circuit of the pilot was long enough
        weights[num_qubits] = 1
    return weights
