"""The task of Schmidt rank vectors (SRVs): circuits that entangle exactly the requested qubits, starting from |0...0>.

The prompt describes the request completely; a circuit's label is the exact SRV of its output state.
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
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, compact, gate_count, in_pool
from quantum_diffusion.circuits.labels import SchmidtRanks, schmidt_rank_vectors
from quantum_diffusion.circuits.prompts import parse_srv_prompt, srv_prompt
from quantum_diffusion.circuits.tokenizer import DecodeReport
from quantum_diffusion.config.schema import DatasetConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.base import Candidates, LabelledCircuits, Task, on_qubits
from quantum_diffusion.tasks.candidates import (
    CANDIDATES,
    bits,
    draw_circuits,
    generation_table,
    random_subsets,
)
from quantum_diffusion.tasks.samples import Requests, SampledCircuits
from quantum_diffusion.tasks.state import without_returns

_AMPLITUDES = 2**24
"""Amplitudes per shard labelled by state vectors: beyond 10 qubits shards have fewer candidates, to stay quick."""

_AMPLITUDE_QUBITS = 12
"""Maximum number of qubits for simplification by intermediate states."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SrvSamples(SampledCircuits):
    """Circuits sampled for Schmidt rank vectors, with their true vectors from simulation.

    Attributes:
        labels: The Schmidt rank vector in each prompt.
        ranks: int8 [N, Q], the true Schmidt rank vector; 0 for invalid samples and beyond the requested qubits.
        wanted: int8 [N, Q], `labels` as an array; 0 beyond the requested qubits.
    """

    labels: tuple[tuple[int, ...], ...]
    ranks: SchmidtRanks
    wanted: SchmidtRanks

    @cached_property
    def matches(self) -> NDArray[np.bool_]:
        """Which samples are valid circuits with the requested Schmidt rank vector, bool [N]; see `exact_matches`."""
        return exact_matches(self.ids, self.ranks, self.wanted)

    def outcome(self, row: int) -> str:
        """Describe a sample's request and result in a few words."""
        asked = list(self.labels[row])
        got = self.ranks[row, : len(asked)].tolist() if self.report.valid[row] else self.report.reasons[row]
        return f"asked {asked}: got {got}"


def exact_matches(ids: Ids, ranks: SchmidtRanks, wanted: SchmidtRanks) -> NDArray[np.bool_]:
    """Return which circuits have exactly the requested Schmidt rank vector, bool [N].

    An empty circuit never counts, although it has [1, 1, ...]: the model has written nothing.

    Args:
        ids: int16 [N, T].
        ranks: int8 [N, Q], from simulation; 0 for invalid samples, so that they never match.
        wanted: int8 [N, Q], requested.
    """
    exact: NDArray[np.bool_] = (gate_count(ids) > 0) & (ranks == wanted).all(axis=1)
    return exact


class SrvTask(Task):
    """Circuits for given Schmidt rank vectors; bit q of a label means that qubit q is entangled."""

    name = "SRV"
    asked = "Schmidt rank vectors"
    command = "sample"
    labels_prefixes = True
    step_encoder = "prefix_encoder"

    def num_candidates(self, config: DatasetConfig) -> int:
        """Return the number of random circuits drawn for a shard."""
        if generation_table(config).pool.is_clifford:
            return CANDIDATES
        return min(CANDIDATES, max(1, _AMPLITUDES >> config.num_qubits))

    def draw(self, config: DatasetConfig, rng: np.random.Generator) -> Candidates:
        """Draw, simplify and label one shard of candidates; see `Task.draw`."""
        table, count = generation_table(config), self.num_candidates(config)
        aim = None
        if config.sampling == "stratified":
            sizes = rng.choice(config.num_qubits + 1, count, p=_aims(config))
            aim = random_subsets(rng, config.num_qubits, sizes)
        drawn = draw_circuits(config, rng, table, count, aim)
        labels = ((schmidt_rank_vectors(drawn, table) == 2) @ bits(config.num_qubits)).astype(np.uint32)
        return Candidates.without_angles(in_pool(table, GatePool(config.gate_set))[drawn], labels)

    def simplify(self, ids: Ids, table: InstructionTable) -> Ids:
        """Return circuits with fewer gates that prepare the same states and so have the same vectors.

        With more than 12 qubits, where simulation is slow, the unitaries are preserved as well.
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
        """Refuse a prompt without a Schmidt rank vector of at most `num_qubits` entries; see `Task.check_prompt`."""
        parse_srv_prompt(prompt, num_qubits)

    def requests(self, prompts: Sequence[str], targets: Sequence[Any] | None, table: InstructionTable) -> Requests:
        """Read Schmidt rank vectors from prompts such as "Generate SRV: [1, 2, 2]"; see `Task.requests`."""
        if targets is not None:
            raise ConfigError(
                "targets were given, but this model takes Schmidt rank vectors in prompts: give no targets"
            )
        labels = [parse_srv_prompt(prompt, table.num_qubits) for prompt in prompts]
        num_qubits = np.array([len(label) for label in labels], dtype=np.int64)
        # Write the prompts again, with normalized spaces.
        return Requests(tuple(map(srv_prompt, labels)), num_qubits, on_qubits(num_qubits, table))

    def validation_requests(
        self, count: int, prompts: Sequence[str], known: Callable[[int], LabelledCircuits], table: InstructionTable
    ) -> Requests:
        """Request every prompt equally often; see `Task.validation_requests`."""
        return self.requests([prompts[number % len(prompts)] for number in range(count)], None, table)

    def verify(
        self, requests: Requests, report: DecodeReport, table: InstructionTable, angles: Angles | None = None
    ) -> SrvSamples:
        """Simulate samples and compare them with the requested Schmidt rank vectors; see `Task.verify`."""
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

    def outcome_of(
        self, ids: Ids, num_qubits: int, target: Matrix | None, table: InstructionTable, angles: Angles | None = None
    ) -> str:
        """Describe a circuit by its Schmidt rank vector; see `Task.outcome_of`."""
        ranks = schmidt_rank_vectors(ids[None], table)[0, :num_qubits].tolist()
        return f"have the Schmidt rank vector {ranks}"


@lru_cache(maxsize=8)
def _aims(config: DatasetConfig) -> NDArray[np.float64]:
    """Return the probabilities [Q+1] of restricting a circuit to k qubits that make labels as uniform as possible.

    Circuits restricted to k qubits often entangle fewer. A pilot sample measures how often; expectation maximisation
    over the mixture then minimises the Kullback-Leibler divergence of the resulting labels from the uniform
    distribution.
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
    if not weights.sum():  # no circuit of the pilot sample was long enough
        weights[num_qubits] = 1
    return weights
